"""What the predictions beside a record say: its numbers verified, and differences between systems.

Where predictions, classes or the task's package are missing, a number can be shown but neither checked nor compared. A
task is found among the installed packages only: nothing is imported because a record names it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from repbench.benchmark.record import PREDICTIONS_FILE, PROBE_FILE, Record, read_predictions
from repbench.benchmark.report.reading import Run
from repbench.benchmark.scoring import Measured, clipped, measure_clusters
from repbench.benchmark.statistics import Difference, Interval, crossed_intervals_of, paired_differences_of
from repbench.benchmark.verify import task_of, verify_record
from repbench.downstream.contract import Downstream, Prediction
from repbench.errors import IntegrityError, RepbenchError


class Evidence:
    """The predictions of runs, each read once, and what follows from them."""

    def __init__(self) -> None:
        self._measured: dict[Path, Measured] = {}
        self._tasks: dict[str, Downstream] = {}

    def checked(self, run: Run) -> Run:
        """The run, verified: with its fault, or with why it could not be."""
        if run.is_checked:
            if run.measured is not None:
                self._measured[run.path] = run.measured
            return run
        try:
            task = self.task(run.record)
            classes = classes_of(run)
            if isinstance(classes, str):
                return replace(run, unchecked=classes)
            if not run.path.with_name(PREDICTIONS_FILE).is_file():
                return replace(run, unchecked=f"there is no {PREDICTIONS_FILE} beside it")
            verdict = verify_record(run.path, task)
        except IntegrityError as error:
            return replace(run, fault=error.what)
        except RepbenchError as error:
            return replace(run, unchecked=error.what)
        if verdict.holds:
            self._measured[run.path] = verdict.measured
            return run
        first, *others = verdict.changes
        also = f", and {len(others)} more fields" if others else ""
        return replace(run, fault=f"{first.field} was changed: {first.stored}, but {first.found} was found{also}")

    def taken(self, path: Path) -> Measured | None:
        """What was measured for a run that was verified, to be kept elsewhere."""
        return self._measured.pop(path, None)

    def task(self, record: Record) -> Downstream:
        """The record's task, made once for all records with its options.

        Raises:
            RepbenchError: None is installed, or it does not take the record's options.
        """
        key = json.dumps([record.downstream.name, record.protocol.get("task", {})], sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = task_of(record)
        return self._tasks[key]

    def interval(self, runs: Sequence[Run], metric: str) -> tuple[Interval | None, str | None]:
        """Of the mean over the runs' seeds, within what the metric can be, and what it is over.

        One run that could not be verified keeps the interval that its record states.
        """
        several = self._several(runs)
        if several is None:
            stated = runs[0].record.metrics[metric]
            if len(runs) > 1 or stated.ci95 is None:
                return None, None
            return Interval(*stated.ci95), stated.ci_unit
        interval = crossed_intervals_of([each.values for each in several])[metric]
        within = clipped(interval, self.task(runs[0].record).info.metrics[metric])
        return within, None if within is None else several[0].unit

    def difference(self, runs_a: Sequence[Run], runs_b: Sequence[Run], metric: str) -> Difference | None:
        """A's mean minus B's on the same utterances; None where it cannot be had."""
        a, b = self._several(runs_a), self._several(runs_b)
        if a is None or b is None:
            return None
        if a[0].ids != b[0].ids:
            common = {id_ for cluster in a[0].ids for id_ in cluster} & {id_ for cluster in b[0].ids for id_ in cluster}
            if not common:
                return None
            a, b = ([self._limited(run, common) for run in runs] for runs in (runs_a, runs_b))
        if len({each.ids for each in (*a, *b)}) > 1:
            return None
        return paired_differences_of([each.values for each in a], [each.values for each in b])[metric]

    def _several(self, runs: Sequence[Run]) -> list[Measured] | None:
        """What the runs' predictions give, if all were verified and all were asked the same."""
        known = [self._measured[run.path] for run in runs if run.path in self._measured]
        return known if len(known) == len(runs) and len({each.ids for each in known}) == 1 else None

    def _limited(self, run: Run, ids: set[str]) -> Measured:
        predictions, classes = predictions_of(run), classes_of(run)
        assert not isinstance(predictions, str)
        assert not isinstance(classes, str)
        return measure_clusters(self.task(run.record), classes, [each for each in predictions if each.id in ids])


def predictions_of(run: Run) -> list[Prediction] | str:
    """The predictions beside a record, or why there are none."""
    path = run.path.with_name(PREDICTIONS_FILE)
    return read_predictions(path) if path.is_file() else f"there is no {PREDICTIONS_FILE} beside it"


def classes_of(run: Run) -> tuple[str, ...] | str:
    """The classes that the run chose from, as the record or its probe has them; or why they are not known."""
    if run.record.downstream.classes is not None:
        return run.record.downstream.classes
    from safetensors import SafetensorError, safe_open

    path = run.path.with_name(PROBE_FILE)
    if not path.is_file():
        return "neither the record nor a probe beside it names the classes"
    try:
        with safe_open(path, framework="np") as stored:
            classes = json.loads((stored.metadata() or {})["shape"])["classes"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        return f"{PROBE_FILE} does not name the classes: {error}"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return f"{PROBE_FILE} does not name the classes"
    return tuple(classes)
