"""`repbench run|pretrain|convert|demo`: the commands that compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repbench.cli import completion
from repbench.cli.check import take_plugins
from repbench.cli.commands import refuse_both
from repbench.cli.option_objects import takes
from repbench.cli.options import (
    UPSTREAM_NAMES,
    By,
    Checkpoint,
    Device,
    DryRun,
    Json,
    LeastSpeakers,
    Plugins,
    Quiet,
    Threads,
    least_speakers_of,
    refuse_unknown,
    take_threads,
)
from repbench.cli.output import print_groups, print_json, print_matrix, print_results, reporter_for, say

if TYPE_CHECKING:
    from repbench.benchmark.run import RunRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunArguments:
    """The options of `repbench run`."""

    upstream: Annotated[
        str, typer.Option(metavar="U", help=f"The model: {UPSTREAM_NAMES}.", autocompletion=completion.upstreams)
    ]
    downstream: Annotated[
        str,
        typer.Option(
            metavar="D", help="The task; see `repbench list downstreams`.", autocompletion=completion.downstreams
        ),
    ]
    checkpoint: Checkpoint = None
    corpus: Annotated[
        str,
        typer.Option(
            metavar="C",
            help="Name of a corpus with options, or folder of a manifest.",
            autocompletion=completion.corpora,
        ),
    ] = "synthetic"
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="last|first|mean|weighted|K|all",
            help="Layers that the probe reads; default: the preset's. May be repeated.",
            autocompletion=completion.layers,
        ),
    ] = None
    label_fraction: Annotated[
        list[float] | None, typer.Option(metavar="F", help="Share of the training labels; may be repeated.")
    ] = None
    seed: Annotated[list[int] | None, typer.Option(metavar="N", min=0, help="Seed of the probe; may be repeated.")] = (
        None
    )
    head: Annotated[
        list[str] | None,
        typer.Option(
            metavar="H",
            help="The head; may be repeated. Built-in: linear, mlp1, mlp2, concat9, conv, blstm (frames), linear, "
            "mlp1, mlp2, gru, project_mean, attentive_mean, statistics_mean, conv, blstm, xvector (utterances), ctc, "
            "project_ctc (sequences); see `repbench list heads`. Default: the preset's or the task's.",
            autocompletion=completion.heads,
        ),
    ] = None
    preset: Annotated[
        str,
        typer.Option(
            metavar="P",
            help="The protocol: default, mockingjay2020, s3prl or superb.",
            autocompletion=completion.protocols,
        ),
    ] = "default"
    config: Annotated[
        Path | None, typer.Option(metavar="F", help="YAML file of settings that differ from the preset.")
    ] = None
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=V", help="One setting; may be repeated.")] = (
        None
    )
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="K|official", help="Number of folds, each test once, or those of the corpus: split.folds."
        ),
    ] = None
    device: Device = "auto"
    threads: Threads = None
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Train upstream and head together, not a probe on frozen features.")
    ] = False
    tune: Annotated[
        bool, typer.Option("--tune", help="Also add records whose learning rate is chosen on the dev set.")
    ] = False
    controls: Annotated[
        bool, typer.Option("--controls", help="Also run the controls: shuffled labels, and the untrained upstream.")
    ] = False
    allow_excluded: Annotated[
        int, typer.Option(metavar="N", min=0, help="Largest number of test utterances that may be left out.")
    ] = 0
    probe: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Score the corpus with the probe of this run; train nothing.")
    ] = None
    by: By = None
    least_speakers: LeastSpeakers = None
    plugin: Plugins = None
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the records.")] = Path("runs")
    condition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:…:SEVERITY",
            help="A condition of the test sound, scored with the same probe: noise:babble:10, reverb:3, …; may be "
            "repeated. See docs/conditions.md.",
        ),
    ] = None
    conditions: Annotated[str | None, typer.Option(metavar="PRESET", help="A set of conditions: robust.")] = None
    matched: Annotated[bool, typer.Option("--matched", help="Train under each condition too, not on clean sound.")] = (
        False
    )
    missing_only: Annotated[
        bool, typer.Option("--missing-only", help="Skip settings that have a record in the folder.")
    ] = False
    store_layer: Annotated[
        list[str] | None, typer.Option(metavar="L", hidden=True, help="A further layer to store features of.")
    ] = None
    dry_run: DryRun = False
    quiet: Quiet = False
    as_json: Json = False

    def request(self) -> RunRequest:
        """The request, with its protocol loaded.

        Raises:
            UsageError: A setting is unknown, impossible, or given twice.
        """
        from repbench.benchmark.protocol import load_protocol

        assignments = self.set_ or []
        for key, option, given in (
            ("head", "--head", bool(self.head)),
            ("layer", "--layer", bool(self.layer)),
            ("probe.tune", "--tune", self.tune),
            ("split.folds", "--folds", self.folds is not None),
        ):
            refuse_both(assignments, key, option, given)
        if self.folds is not None:
            assignments = [*assignments, f"split.folds={self.folds}"]
        protocol = load_protocol(self.preset, self.config, assignments)
        refuse_unknown(upstream=self.upstream, downstream=self.downstream)
        from repbench.benchmark.run import RunRequest

        return RunRequest(
            upstream=self.upstream,
            downstream=self.downstream,
            checkpoint=self.checkpoint,
            corpus=self.corpus,
            layers=tuple(self.layer or ()),
            label_fractions=tuple(self.label_fraction or (1.0,)),
            seeds=tuple(self.seed or (0,)),
            heads=tuple(self.head or ()),
            protocol=protocol,
            device=self.device,
            allow_excluded=self.allow_excluded,
            finetune=self.finetune,
            tune=self.tune,
            controls=self.controls,
            probe=self.probe,
            out=self.out,
            missing_only=self.missing_only,
            store_layers=tuple(self.store_layer or ()),
            conditions=(*(self.condition or ()), *preset_of_conditions(self.conditions)),
            matched=self.matched,
            by=tuple(self.by or ()),
        )


def preset_of_conditions(name: str | None) -> tuple[str, ...]:
    """The conditions of a preset; none without one."""
    if name is None:
        return ()
    from repbench.audio.disturbances.condition import PRESETS
    from repbench.errors import UsageError

    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UsageError(f"There is no set of conditions `{name}`", key="--conditions", do=f"Choose among {known}")
    return PRESETS[name]


@takes(RunArguments)
def run(arguments: RunArguments) -> None:
    """Evaluate an upstream on a downstream task: a record for each layer, head, fraction and seed, and a table."""
    take_plugins(arguments.plugin)
    request = arguments.request()
    take_threads(arguments.threads)
    if arguments.dry_run:
        from repbench.benchmark.dry_run import plan_run
        from repbench.cli.plans import print_planned_run

        print_planned_run(plan_run(request, reporter_for(arguments.quiet)), request.out, arguments.as_json)
        return
    from repbench.benchmark.run import run as run_pair

    reporter = reporter_for(arguments.quiet)
    results = run_pair(request, reporter)
    if not results:  # another process leads
        return
    if not request.by:
        print_results(results, arguments.as_json, reporter)
        return
    from repbench.benchmark.report import groups_of_records

    report = groups_of_records(
        [written.path for written in results], request.by, least_speakers_of(arguments.least_speakers)
    )
    print_results(results, arguments.as_json, reporter, report)
    if not arguments.as_json:
        print_groups(report)


def pretrain(
    upstream: Annotated[
        str,
        typer.Argument(
            metavar="UPSTREAM",
            help="A model with an objective: mockingjay, apc, …",
            autocompletion=completion.upstreams,
        ),
    ],
    corpus: Annotated[
        str,
        typer.Option(
            metavar="C",
            help="Name of a corpus with options, or folder of a manifest.",
            autocompletion=completion.corpora,
        ),
    ] = "synthetic",
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="Sizes and training. mockingjay: base, large, tiny; apc: base, mockingjay2020, tiny; a plugin has its "
            "own. Default: base on a GPU, tiny without one.",
            autocompletion=completion.pretraining_presets,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="F", help="YAML file of settings that differ from the preset.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="One setting; may be repeated.")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", min=1, help="Optimiser steps; as training.steps.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the run; default: runs/pretrain/UPSTREAM/PRESET-seedN."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in the folder, if there is one; --steps may be larger."),
    ] = False,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="CHECKPOINT", help="Initial weights; the schedule starts anew."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of weights, order, masks and dropout.")] = 0,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Pre-train an upstream on the train split of a corpus; write checkpoints and a TensorBoard log."""
    refuse_both(set_ or [], "training.steps", "--steps", steps is not None)
    refuse_unknown(upstream=upstream)
    take_threads(threads)
    from repbench.benchmark.pipeline.pretrain import PretrainRequest, plan_pretraining, run_pretraining

    request = PretrainRequest(
        upstream=upstream,
        corpus=corpus,
        preset=preset,
        config=config,
        assignments=tuple(set_ or ()),
        steps=steps,
        out=out,
        resume=resume,
        from_checkpoint=from_,
        device=device,
        seed=seed,
    )
    if dry_run:
        from repbench.cli.plans import print_planned_pretraining

        print_planned_pretraining(plan_pretraining(request, reporter_for(quiet)), as_json)
        return
    done = run_pretraining(request, reporter_for(quiet))
    if as_json and done.leads:
        print_json(done.as_dict())
    elif done.leads:
        loss = "" if done.dev_loss is None else f", dev loss {done.dev_loss:.4f}"
        typer.echo(f"{done.checkpoint}: step {done.step}{loss}")
    if done.signal is not None:
        if done.leads:
            say("stopped by a signal after a checkpoint; go on with --resume")
        raise typer.Exit(128 + done.signal)


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint of the Mockingjay code, S3PRL or APC, or a folder of CTranslate2 with a Whisper.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder for weights and settings.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=V", help="A setting that the file does not hold.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint of another code to safetensors and JSON; no code in it is executed."""
    from repbench.configs.loader import apply_overrides
    from repbench.upstream.convert import convert as convert_file

    converted = convert_file(checkpoint, out, apply_overrides({}, set_ or []))
    if as_json:
        print_json({"checkpoint": str(converted.path), **converted.fields})
        return
    for note in converted.fields["notes"]:
        say(f"note: {note}")
    typer.echo(f"{converted.path}: {converted.fields['upstream']}")


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for models, records and report.")] = Path(
        "runs/demo"
    ),
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Pre-train, evaluate and report on the synthetic corpus, in minutes on two cores."""
    take_threads(threads)
    from repbench.benchmark.demo import demo as tell
    from repbench.console import ConsoleReporter

    story = tell(out, ConsoleReporter())
    if as_json:
        records = [str(written.path) for written in story.written]
        results = [written.record.as_dict() for written in story.written]
        print_json({"records": records, "results": results, "report": [str(path) for path in story.report]})
        return
    print_matrix([written.record for written in story.written])
    pages = [path for path in story.report if path.suffix == ".html"]
    for path in story.report:
        if path not in pages:
            typer.echo(path)
    for path in pages:
        typer.echo(f"open {path}")
