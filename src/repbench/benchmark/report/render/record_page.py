"""One record for a human to read, in plain text: what was measured, on what, how, and what can be done next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repbench.benchmark.records.formatting import UNDEFINED, interval, number
from repbench.benchmark.records.predictions_file import PREDICTIONS_FILE
from repbench.benchmark.records.record import (
    RECORD_FILE,
    Metric,
    Record,
    digest_of,
    read_fields,
    record_of,
    record_paths,
)
from repbench.benchmark.report.render.commands import command_of, shown_command
from repbench.benchmark.scoring.statistics import Interval
from repbench.errors import DataError, printable
from repbench.progress import duration_text
from repbench.upstream.checkpoints.untrained import is_untrained

_MOST_EXCLUDED = 10
"""Utterances left out that are named; the file names all."""

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class FoundRecord:
    """A record and its file.

    Attributes:
        path: Its `record.json`.
        record: The record.
        id_holds: Whether its id is that of its content.
        has_predictions: Whether its predictions are beside it.
    """

    path: Path
    record: Record
    id_holds: bool
    has_predictions: bool

    @property
    def next_steps(self) -> dict[str, str]:
        """From what can be done with it to the command."""
        folder = shlex.quote(str(self.path.parent))
        steps = {}
        if self.has_predictions:
            steps["recompute its numbers from its predictions"] = f"repbench verify {folder}"
        steps["compare it with others"] = f"repbench report {shlex.quote(str(self.path.parent.parent))} --out report"
        again = shown_command(command_of(self.record))
        if again is not None:
            steps["make it again"] = again
        return steps

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "path": str(self.path),
            "id_holds": self.id_holds,
            "has_predictions": self.has_predictions,
            "record": self.record.as_dict(),
            "next": self.next_steps,
        }


def find_record(place: Path) -> FoundRecord:
    """The record of a file, or the only one at or below a folder.

    Raises:
        DataError: There is none, or there are several.
        IntegrityError: It is not a record.
    """
    paths = record_paths(place)
    if not paths:
        raise DataError("There is no record here", file=place, do="Give a run's folder or its record.json")
    if len(paths) > 1:
        some = ", ".join(str(path.parent.relative_to(place)) for path in paths[:_MOST_NAMED])
        more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
        do = f"Name one of {some}{more}, or see all with `repbench report`"
        raise DataError(f"There are {len(paths)} records here", file=place, do=do)
    (path,) = paths
    fields = read_fields(path)
    record = record_of(fields, path)
    return FoundRecord(path, record, digest_of(fields) == record.id, (path.parent / PREDICTIONS_FILE).is_file())


def record_text(found: FoundRecord) -> str:
    """The record in lines of text."""
    record = found.record
    lines = [
        f"{_printed(record.upstream.name)} on {_printed(record.downstream.name)}, corpus {_printed(record.corpus.name)}"
    ]
    lines += _aligned([("record", f"{record.id}, made {record.created}"), ("file", _printed(found.path))])
    if not found.id_holds:
        lines.append(f"warning: {RECORD_FILE} was changed after it was written: its content calls for another id")
    lines += ["", *_table(_metric_rows(record)), ""]
    lines += _aligned(
        [
            *_of_score(record),
            *_of_model(record),
            *_of_training(record),
            *_of_data(record),
            *_of_setting(record),
            *_of_cost(record),
        ]
    )
    lines += _excluded(record)
    if record.corpus.warnings:
        lines += ["", "warnings", *(f"  {_printed(each)}" for each in record.corpus.warnings)]
    lines += ["", "next", *(f"  {_printed(command)}   # {what}" for what, command in found.next_steps.items())]
    return "\n".join(lines)


def _metric_rows(record: Record) -> Iterator[tuple[str, ...]]:
    has_folds = record.mean_over_folds is not None
    yield ("metric", "score", "95 %", *(["mean over folds"] if has_folds else []), "unit", "counts")
    others = [name for name in record.metrics if name != record.primary_metric]
    for name in (record.primary_metric, *others):
        metric = record.metrics[name]
        counts = ", ".join(f"{what} {count:,}" for what, count in metric.counts.items())
        mean = [number((record.mean_over_folds or {}).get(name))] if has_folds else []
        yield (_title(name, metric), number(metric.value), _interval(metric), *mean, metric.unit, counts)


def _of_score(record: Record) -> Iterator[tuple[str, str]]:
    unit = next((each.ci_unit for each in record.metrics.values() if each.ci_unit is not None), None)
    if unit is not None:
        yield "95 %", f"interval over {unit}s"
    chance, majority = number(record.baselines.chance), number(record.baselines.majority)
    yield "baselines", f"chance {chance}, majority {majority} (in {record.primary_metric})"
    opened = _counted(record.test_accesses, "time")
    yield "scored", f"{record.n_scored:,} of {record.n_listed:,} test utterances; test was opened {opened}"
    if record.condition is not None:
        trained = "the same condition" if record.condition.training == "matched" else "clean sound"
        yield "condition", f"{record.condition.name} on test; trained on {trained}"


def _of_model(record: Record) -> Iterator[tuple[str, str]]:
    model = record.upstream
    weights = "untrained" if is_untrained(model.checkpoint) else model.checkpoint or "its own"
    yield "model", f"{model.name}, weights: {weights}, {record.cost.parameters:,} parameters, {model.origin.shown()}"
    yield "fingerprint", model.fingerprint[:16]
    if model.declared is not None:
        yield "declared as", model.declared.words()
    if model.citation is not None:
        yield "published in", model.citation
    if model.licence is not None:
        yield "licence", model.licence


def _of_training(record: Record) -> Iterator[tuple[str, str]]:
    if record.heard is not None:
        yield "heard before", f"{record.heard.verdict}: {'; '.join(record.heard.basis)}"


def _of_data(record: Record) -> Iterator[tuple[str, str]]:
    corpus = record.corpus
    licence = "" if corpus.licence is None else f", licence {corpus.licence}"
    yield "corpus", f"{corpus.name}, fingerprint {corpus.fingerprint[:16]}{licence}"
    yield "division", f"{corpus.split_policy}: train {corpus.n_train:,}, dev {corpus.n_dev:,}, test {corpus.n_test:,}"
    seconds = record.label_seconds
    train, dev = duration_text(seconds.train), duration_text(seconds.dev)
    yield "labels", f"{100 * record.label_fraction:g} % of train: {train}, and dev {dev}"
    if record.folds is not None:
        yield "folds", f"{len(record.folds)}: {', '.join(fold.name for fold in record.folds)}"


def _of_setting(record: Record) -> Iterator[tuple[str, str]]:
    how = "fine-tuned with the head" if record.mode == "finetune" else "frozen"
    layers = len(record.upstream.layer_names)
    yield "model is", f"{how}; the head reads layer {record.layer} of {layers}"
    if record.finetuned is not None:
        part = record.finetuned
        yield "weights moved", f"{part.moved:,} ({part.rule}), of {part.total:,}"
    origin = "" if record.head_origin is None else f", {record.head_origin.shown()}"
    yield "head", f"{record.head}, seed {record.seed}{origin}"
    if record.protocol.get("labels") == "shuffled":
        yield "control", "labels are shuffled"
    chosen = ", ".join(f"{name} {value:g}" for name, value in record.selection.chosen.items())
    if chosen:
        yield "selected", f"{chosen}; {record.primary_metric} on dev {number(record.selection.dev_value)}"


def _of_cost(record: Record) -> Iterator[tuple[str, str]]:
    cost, made = record.cost, record.environment
    speed = "" if cost.real_time_factor is None else f", {cost.real_time_factor:.0f} times faster than real time"
    macs = (
        "" if cost.macs_per_second is None else f"{cost.macs_per_second / 1e9:.2f} GMAC for a second of sound{speed}; "
    )
    yield (
        "cost",
        (
            f"{macs}features {duration_text(cost.extract_seconds)}, training {duration_text(cost.train_seconds)}, "
            f"{cost.peak_rss_bytes / 2**30:.1f} GiB, on {cost.device}"
        ),
    )
    yield "made with", f"Python {made.python}, torch {made.torch}, {_counted(made.threads, 'thread')}, {made.cpu}"


def _excluded(record: Record) -> list[str]:
    if not record.excluded:
        return []
    named = sorted(record.excluded.items())[:_MOST_EXCLUDED]
    more = len(record.excluded) - len(named)
    lines = ["", f"left out of test: {len(record.excluded)}"]
    lines += [f"  {_printed(id_)}: {_printed(reason)}" for id_, reason in named]
    return [*lines, *([f"  … and {more} more, in {RECORD_FILE}"] if more else [])]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _title(name: str, metric: Metric) -> str:
    return name if metric.higher_is_better else f"{name} ↓"


def _interval(metric: Metric) -> str:
    return UNDEFINED if metric.ci95 is None else interval(Interval(*metric.ci95))


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {_printed(value)}" for name, value in rows]


def _table(rows: Iterator[tuple[str, ...]]) -> list[str]:
    cells = [tuple(map(_printed, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _printed(value: object) -> str:
    return printable(value)
