"""The story in minutes on two cores: make speech, pre-train, ask with few labels, frozen and fine-tuned, and report.

Everything here is a command that a reader can give; each is said before it is done. What is there is not done again, so
a demo that was interrupted goes on.
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
SHORT_FIRST = """\
# As the preset `tiny`, with as many steps on short stretches in a training that is shorter.
training:
  curriculum:
    - {until: 0.3, crop_frames: 48}
    - {until: 0.43, crop_frames: 72}
    - {until: 0.6, crop_frames: 120}
    - {until: 1.0}
"""
"""Some 200 steps on short stretches, without which Mockingjay stays on the plateau that its probes get worse on."""
PRETRAINING = {"apc": (150, None), "mockingjay": (700, SHORT_FIRST)}
"""Steps, and what differs from the preset `tiny`, which takes 400 and 1,300: a minute of APC, two of Mockingjay."""
SETTINGS = ("probe.steps=500", "finetune.steps=60", "finetune.selection_points=2")
"""Half of the usual steps of a probe, and a fifth of those of a fine-tuning."""


@dataclass(frozen=True, slots=True)
class Story:
    """What a demo made: the records, and the files of the report."""

    written: tuple[WrittenRecord, ...]
    report: tuple[Path, ...]


def demo(out: Path, reporter: Reporter) -> Story:
    """Tell the story; models, records and report lie below `out`."""
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
    for question in _questions(checkpoints):
        request_of_pair = replace(question, out=records)
        reporter.say(_command(request_of_pair))
        written += run(request_of_pair, reporter)
    reporter.say(f"repbench report {quoted(records)} --out {quoted(out / 'report')}")
    files = write_report(ReportRequest(runs=(records,), out=out / "report"), reporter).files
    return Story(tuple(written), files)


def _questions(checkpoints: dict[str, str]) -> Iterator[RunRequest]:
    """Phone at three shares of the labels, frozen, untrained and fine-tuned; speaker frozen and untrained."""
    protocol = load_protocol(assignments=SETTINGS)
    asked = [("mel", None), *checkpoints.items()]
    untrained = [(upstream, f"random:{checkpoint}") for upstream, checkpoint in checkpoints.items()]

    def question(upstream: str, checkpoint: str | None, downstream: str) -> RunRequest:
        return RunRequest(
            upstream=upstream,
            checkpoint=checkpoint,
            downstream=downstream,
            corpus=CORPUS,
            protocol=protocol,
            missing_only=True,
        )

    for upstream, checkpoint in (*asked, *untrained):
        yield replace(question(upstream, checkpoint, "phone"), label_fractions=FRACTIONS)
    for upstream, checkpoint in (*asked, *untrained):
        yield question(upstream, checkpoint, "speaker")
    for upstream, checkpoint in checkpoints.items():
        yield replace(question(upstream, checkpoint, "phone"), label_fractions=FRACTIONS, finetune=True)


def _command(request: RunRequest) -> str:
    """The command line that asks the same."""
    options = [f"--upstream {request.upstream}"]
    if request.checkpoint is not None:
        options.append(f"--checkpoint {quoted(request.checkpoint)}")
    options.append(f"--downstream {request.downstream}")
    options += ["--finetune"] * request.finetune
    options += [f"--label-fraction {fraction:g}" for fraction in request.label_fractions if fraction != 1.0]
    options += ["--label-fraction 1"] * (1.0 in request.label_fractions and len(request.label_fractions) > 1)
    options += [f"--set {setting}" for setting in SETTINGS]
    return f"repbench run {' '.join(options)} --missing-only --out {quoted(request.out)}"
