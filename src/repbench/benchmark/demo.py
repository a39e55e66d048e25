"""A demonstration in minutes on two cores: pre-train on synthetic speech, evaluate with few labels, and report.

Everything here is a command that a reader can give; each is printed before it runs. Runs that are there are not
repeated, so an interrupted demo continues.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from repbench.benchmark.pipeline.pretrain import PretrainRequest, run_pretraining
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.report import ReportRequest, write_report
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.errors import quoted
from repbench.files import write_beside
from repbench.progress import Reporter

CORPUS = "synthetic"
FRACTIONS = (0.01, 0.1, 1.0)
FINETUNED_FRACTIONS = (0.01, 1.0)
"""A fine-tuning takes three to seven times as long as the probes of all fractions together."""
SHORT_FIRST = """\
# As the preset `tiny`, with as many steps on short stretches in a training that is shorter.
training:
  curriculum:
    - {until: 0.3, crop_frames: 48}
    - {until: 0.43, crop_frames: 72}
    - {until: 0.6, crop_frames: 120}
    - {until: 1.0}
"""
"""Some 200 steps on short stretches; without them Mockingjay stays on a plateau of the loss where probes get worse."""
PRETRAINING = {"apc": (150, None), "mockingjay": (700, SHORT_FIRST)}
"""Steps, and changes of the preset `tiny`, which takes 400 and 1,300 steps: a minute of APC, two of Mockingjay."""
SETTINGS = ("probe.steps=400", "finetune.steps=50", "finetune.selection_points=1")
"""Two fifths of the usual steps of a probe, and a sixth of those of a fine-tuning."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Results of a demo: the records, and the files of the report."""

    written: tuple[WrittenRecord, ...]
    report: tuple[Path, ...]


def demo(out: Path, reporter: Reporter) -> DemoResult:
    """Run the demonstration; models, records and report go below `out`."""
    checkpoints = {}
    for upstream, (steps, changes) in PRETRAINING.items():
        folder, config = out / "pretrain" / upstream, None
        if changes is not None:
            config = out / f"{upstream}.yaml"
            write_beside(config, changes.encode("utf-8"), do="Choose another --out, or remove the file")
        options = "" if config is None else f" --config {quoted(config)}"
        reporter.say(
            f"repbench pretrain {upstream} --preset tiny{options} --steps {steps} --resume --out {quoted(folder)}"
        )
        request = PretrainRequest(
            upstream=upstream,
            preset="tiny",
            config=config,
            steps=steps,
            out=folder,
            resume=True,
            corpus=CORPUS,
        )
        checkpoints[upstream] = str(run_pretraining(request, reporter).run)
    records = out / "records"
    written: list[WrittenRecord] = []
    for request_of_pair in _requests(checkpoints, records):
        reporter.say(_command(request_of_pair))
        written += run(request_of_pair, reporter)
    reporter.say(f"repbench report {quoted(records)} --out {quoted(out / 'report')}")
    files = write_report(ReportRequest(runs=(records,), out=out / "report"), reporter).files
    return DemoResult(tuple(written), files)


def _requests(checkpoints: dict[str, str], out: Path) -> Iterator[RunRequest]:
    """Phone at shares of the labels, frozen, untrained and fine-tuned; speaker frozen and untrained."""
    protocol = load_protocol(assignments=SETTINGS)
    given = [("mel", None), *checkpoints.items()]
    # Random weights with the settings of the trained checkpoint: the control differs in nothing else.
    untrained = [(upstream, f"random:{checkpoint}") for upstream, checkpoint in checkpoints.items()]

    def request(upstream: str, checkpoint: str | None, downstream: str) -> RunRequest:
        return RunRequest(
            upstream=upstream,
            checkpoint=checkpoint,
            downstream=downstream,
            corpus=CORPUS,
            protocol=protocol,
            missing_only=True,
            out=out,
        )

    for upstream, checkpoint in (*given, *untrained):
        yield replace(request(upstream, checkpoint, "phone"), label_fractions=FRACTIONS)
    for upstream, checkpoint in (*given, *untrained):
        yield request(upstream, checkpoint, "speaker")
    for upstream, checkpoint in checkpoints.items():
        yield replace(request(upstream, checkpoint, "phone"), label_fractions=FINETUNED_FRACTIONS, finetune=True)


def _command(request: RunRequest) -> str:
    """The command line of a request."""
    options = [f"--upstream {request.upstream}"]
    if request.checkpoint is not None:
        options.append(f"--checkpoint {quoted(request.checkpoint)}")
    options.append(f"--downstream {request.downstream}")
    options += ["--finetune"] * request.finetune
    options += [f"--label-fraction {fraction:g}" for fraction in request.label_fractions if fraction != 1.0]
    options += ["--label-fraction 1"] * (1.0 in request.label_fractions and len(request.label_fractions) > 1)
    options += [f"--set {setting}" for setting in SETTINGS]
    return f"repbench run {' '.join(options)} --missing-only --out {quoted(request.out)}"
