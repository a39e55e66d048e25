"""Printing what `--dry-run` foresees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from repbench.cli.output import print_columns, print_json
from repbench.errors import printable
from repbench.progress import duration_text

if TYPE_CHECKING:
    from repbench.benchmark.dry_run import PlannedFeatures, PlannedRecord, PlannedRun
    from repbench.benchmark.pipeline.pretrain import PlannedPretraining

_GIB = 2**30


def print_planned_run(planned: PlannedRun, out: Path, as_json: bool) -> None:
    """Print the records of a run and what they would take, or JSON."""
    if as_json:
        print_json(planned.as_dict())
        return
    rows = [_row(each) for each in planned.records]
    print_columns(list(rows[0]), rows)
    for each in planned.features:
        for line in _lines(each):
            typer.echo(line)
    num_there = sum(each.existing is not None for each in planned.records)
    there = f", {num_there} {'exist' if num_there > 1 else 'exists'}" if num_there else ""
    missing = _counted(len(planned.records) - num_there, "record")
    typer.echo(f"{missing} would be written below {printable(out)}{there}; dry run")


def print_planned_pretraining(planned: PlannedPretraining, as_json: bool) -> None:
    """Print what a pre-training would do, or JSON."""
    if as_json:
        print_json(planned.as_dict())
        return
    preset = "" if planned.preset is None else f", preset {planned.preset}"
    typer.echo(f"{planned.upstream}{preset}: {planned.parameters:,} parameters on {planned.device}")
    begins = "" if planned.resumes_at is None else f", from step {planned.resumes_at:,} on"
    typer.echo(f"{planned.steps:,} steps of at most {planned.batch_frames:,} frames{begins}")
    parts = [f"{name} {count:,} ({duration_text(planned.seconds[name])})" for name, count in planned.utterances.items()]
    typer.echo(f"{printable(planned.corpus)}: {', '.join(parts)}")
    size, free = _gib(planned.checkpoint_bytes), _gib(planned.free_bytes)
    typer.echo(f"each checkpoint takes about {size}, at most {planned.checkpoints} are kept; {free} are free")
    typer.echo(f"the run folder would be {printable(planned.run)}; dry run")


def _row(planned: PlannedRecord) -> dict[str, str]:
    setting = planned.setting
    weights = "" if planned.checkpoint is None else planned.checkpoint
    return {
        "upstream": planned.upstream,
        "weights": weights,
        "downstream": planned.downstream,
        "corpus": planned.corpus,
        "mode": planned.mode,
        "layer": setting.layer,
        "head": planned.head,
        "labels": f"{setting.fraction:.4g}" + (" shuffled" if setting.labels == "shuffled" else ""),
        "seed": str(setting.seed),
        "rate": "tuned" if setting.tuned else "",
        "condition": setting.condition or "",
        "record": "would be written" if planned.existing is None else str(planned.existing),
    }


def _lines(planned: PlannedFeatures) -> list[str]:
    """What the features of one upstream, task and head take."""
    counts = ", ".join(f"{name} {count:,}" for name, count in planned.utterances.items())
    lines = [f"sound: {counts} utterances; {duration_text(planned.seconds)} together"]
    if planned.frames is not None and planned.memory_bytes is not None and planned.budget_memory_bytes is not None:
        missing = f"{duration_text(planned.missing_seconds)} of sound go through {printable(planned.upstream)}"
        if planned.extract_seconds is not None:
            missing += f", about {duration_text(planned.extract_seconds)}"
        if planned.store is not None:
            rest = "the rest" if planned.missing_seconds < planned.seconds else "features"
            missing += f"; {rest} {'is' if rest == 'the rest' else 'are'} stored in {printable(planned.store)}"
        lines.append(f"features: {planned.frames:,} frames of {planned.layers} x {planned.width} at a time; {missing}")
        disk = ""
        if planned.store_bytes is not None and planned.budget_disk_bytes is not None:
            disk = f", {_gib(planned.store_bytes)} of {_gib(planned.budget_disk_bytes)} of disk"
        memory = f"{_gib(planned.memory_bytes)} of {_gib(planned.budget_memory_bytes)} of memory"
        lines.append(f"takes: {memory}{disk} (resources.road {planned.road})")
    if planned.trainings:
        what = "network" if planned.frames is None and planned.steps else "probe"
        how = "fine-tuned" if what == "network" else "trained"
        steps = f", {planned.steps:,} steps each" if planned.trainings > 1 else f" for {planned.steps:,} steps"
        lines.append(f"training: {_counted(planned.trainings, what)} {_are(planned.trainings)} {how}{steps}")
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / _GIB:.{0 if num_bytes >= 10 * _GIB else 1 if num_bytes >= _GIB else 3}f} GiB"
