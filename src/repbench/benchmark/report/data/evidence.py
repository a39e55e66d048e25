"""Verification of records from their predictions, and differences between systems.

Without predictions, classes or the package of the task, a number is shown but neither verified nor compared. A task is
found among the installed packages only: nothing is imported because a record names it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repbench.benchmark.records.predictions_file import PREDICTIONS_FILE
from repbench.benchmark.records.record import PROBE_FILE, Record, read_predictions
from repbench.benchmark.records.verify import task_of, verify_record
from repbench.benchmark.report.data.reading import RecomputedMetrics, Run
from repbench.benchmark.scoring.metrics import Measured, intervals_of, measure_clusters, seed_share_of
from repbench.benchmark.scoring.statistics import (
    Difference,
    Interval,
    SeedShare,
    combined,
    mcnemar_exact,
    mean_and_error_of,
    paired_differences_of,
)
from repbench.benchmark.scoring.statistics.intervals import ROUNDING
from repbench.downstream.contract import Downstream, Prediction, problem_of
from repbench.errors import IntegrityError, RepbenchError

MCNEMAR = "exact McNemar over utterances"
"""The test where only utterances vary."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same utterances.

    Attributes:
        difference: Difference of their means.
        p_value: p-value of no difference; None without a test.
        test: Name of the test; None without one.
        is_equal: Whether each of two or more speakers or groups has the same number in both.
    """

    difference: Difference
    p_value: float | None
    test: str | None
    is_equal: bool = False


class Evidence:
    """The recomputed metrics of records, each computed once, and comparisons of them."""

    def __init__(self) -> None:
        self._found: dict[Path, RecomputedMetrics] = {}
        self._tasks: dict[str, Downstream] = {}

    def checked(self, run: Run) -> Run:
        """The run after verification, with its fault or the reason that it could not be verified."""
        if run.is_checked:
            if run.found is not None:
                self._found[run.path] = run.found
            return run
        try:
            task = self.task(run.record)
            classes = classes_of(run)
            if isinstance(classes, str):
                return replace(run, unchecked=classes)
            if not run.path.with_name(PREDICTIONS_FILE).is_file():
                return replace(run, unchecked=f"its folder has no {PREDICTIONS_FILE}")
            verdict = verify_record(run.path, task)
        # A damaged record is a fault of the record; any other error is a lack of this environment, such as a plugin
        # that is not installed.
        except IntegrityError as error:
            return replace(run, fault=error.what)
        except RepbenchError as error:
            return replace(run, unchecked=error.what)
        if verdict.holds:
            measured = verdict.measured
            # Only McNemar's test reads them, and it is used only with one cluster; the predictions themselves are not
            # kept.
            right = _right_answers(verdict.predictions, measured) if measured.unit is None else {}
            self._found[run.path] = RecomputedMetrics(measured, right)
            return run
        first, *others = verdict.changes
        also = f", and {len(others)} more fields" if others else ""
        return replace(run, fault=f"{first.field} was changed: {first.stored}, but {first.found} was found{also}")

    def taken(self, path: Path) -> RecomputedMetrics | None:
        """Remove and return the recomputed metrics of a verified run."""
        return self._found.pop(path, None)

    def task(self, record: Record) -> Downstream:
        """The task of a record, built once for all records with the same options.

        Raises:
            RepbenchError: It is not installed, or refuses the options of the record.
        """
        # As text, because options can be lists, which no key of a dictionary can be.
        key = json.dumps([record.downstream.name, record.protocol.get("task", {})], sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = task_of(record)
        return self._tasks[key]

    def interval(self, runs: Sequence[Run], metric: str) -> tuple[Interval | None, str | None]:
        """The interval of the mean over the seeds, clipped to the range of the metric, and its unit.

        A single run that could not be verified keeps the interval of its record.
        """
        several = self._several(runs)
        if several is None:
            stated = runs[0].record.metrics[metric]
            if len(runs) > 1 or stated.ci95 is None:
                return None, None
            return Interval(*stated.ci95), stated.ci_unit
        metrics = self.task(runs[0].record).info.metrics
        within = intervals_of([each.values for each in several], metrics)[metric]
        return within, None if within is None else several[0].unit

    def seed_share(self, runs: Sequence[Run], metric: str) -> SeedShare | None:
        """How much of the interval of the mean comes of seeds; None with one seed, and where there is no interval."""
        several = self._several(runs)
        if several is None or len(several) < 2:
            return None
        info = self.task(runs[0].record).info.metrics[metric]
        return seed_share_of([each.values for each in several], metric, info)

    def comparison(self, runs_a: Sequence[Run], runs_b: Sequence[Run], metric: str) -> Comparison | None:
        """Mean of A minus mean of B on the same utterances, with a test; None where it is undefined.

        The test varies speakers (or groups) and seeds. With one speaker or group, it varies utterances if the metric is
        the accuracy of one prediction each; instants of an utterance are dependent and are never tested.
        """
        difference = self.difference(runs_a, runs_b, metric)
        if difference is None:
            return None
        if difference.p_value is not None:
            seeds = " and seeds" if max(len(runs_a), len(runs_b)) > 1 else ""
            unit = self._found[runs_a[0].path].measured.unit
            return Comparison(difference, difference.p_value, f"paired t over {unit}s{seeds}")
        p_value = self._mcnemar(runs_a, runs_b) if metric == "accuracy" else None
        clusters = self._found[runs_a[0].path].measured.values.without  # empty with one cluster
        is_equal = p_value is None and difference.value == 0 and len(clusters) > 1
        return Comparison(difference, p_value, None if p_value is None else MCNEMAR, is_equal)

    def _mcnemar(self, runs_a: Sequence[Run], runs_b: Sequence[Run]) -> float | None:
        """The largest p-value over the pairs of a run of A and one of B, so that no single seed decides."""
        a, b = ([self._found[run.path].right for run in runs] for runs in (runs_a, runs_b))
        pairs = [(one, other) for one in a for other in b]
        if not all(one and other and one.keys() & other.keys() for one, other in pairs):
            return None
        # Pooling the pairs would count each utterance once for every pair and make p too small.
        return max(_mcnemar_of(one, other) for one, other in pairs if one and other)

    def difference(self, runs_a: Sequence[Run], runs_b: Sequence[Run], metric: str) -> Difference | None:
        """Mean of A minus mean of B on the same utterances; None where it is undefined."""
        a, b = self._several(runs_a), self._several(runs_b)
        if a is None or b is None:
            return None
        # Pairing needs the same utterances in the same clusters; models can exclude different ones (too short, say).
        if a[0].ids != b[0].ids:
            common = {id_ for cluster in a[0].ids for id_ in cluster} & {id_ for cluster in b[0].ids for id_ in cluster}
            if not common:
                return None
            a, b = ([self._limited(run, common) for run in runs] for runs in (runs_a, runs_b))
        # The common utterances may still be clustered in two ways: by speaker in one record, by group in the other.
        if len({each.ids for each in (*a, *b)}) > 1:
            return None
        return paired_differences_of([each.values for each in a], [each.values for each in b])[metric]

    def combination(self, several: Sequence[Sequence[Run]], weights: Sequence[float], metric: str) -> Difference | None:
        """A weighted sum of one probe's scores on the same utterances under several conditions, mean over its seeds.

        Args:
            several: The runs of each condition, one for each seed, in the same order of seeds.
            weights: One for each condition.
            metric: Name of the metric.

        Returns:
            The sum, whose interval varies speakers (or groups) and seeds; None where it is undefined: the conditions
            differ in seeds, were not verified, or share no utterance.
        """
        seeds = {tuple(run.record.seed for run in runs) for runs in several}
        measured = [known for runs in several if (known := self._several(runs)) is not None]
        if len(seeds) > 1 or len(measured) < len(several):
            return None
        ids = [{id_ for cluster in each[0].ids for id_ in cluster} for each in measured]
        common = set.intersection(*ids)
        if not common:
            return None
        # Sound that a condition shortens may leave out utterances; only what every condition has is paired.
        measured = [
            each if len(own) == len(common) else [self._limited(run, common) for run in runs]
            for each, own, runs in zip(measured, ids, several, strict=True)
        ]
        if len({each.ids for one in measured for each in one}) > 1:
            return None
        return mean_and_error_of(combined([[each.values for each in one] for one in measured], weights))[metric]

    def _several(self, runs: Sequence[Run]) -> list[Measured] | None:
        """The metrics of the runs, if all were verified and have the same utterances."""
        known = [self._found[run.path].measured for run in runs if run.path in self._found]
        return known if len(known) == len(runs) and len({each.ids for each in known}) == 1 else None

    def _limited(self, run: Run, ids: set[str]) -> Measured:
        predictions, classes = predictions_of(run), classes_of(run)
        assert not isinstance(predictions, str)
        assert not isinstance(classes, str)
        return measure_clusters(self.task(run.record), classes, [each for each in predictions if each.id in ids])


def _right_answers(predictions: Sequence[Prediction], measured: Measured) -> dict[str, bool]:
    """Whether the class of each utterance is right; empty unless the share of these is the task's accuracy."""
    right = {each.id: is_right for each in predictions if (is_right := each.is_right) is not None}
    accuracy = measured.values.whole.get("accuracy")
    if len(right) < max(1, len(predictions)) or accuracy is None:
        return {}
    return right if math.isclose(sum(right.values()) / len(right), accuracy, abs_tol=ROUNDING) else {}


def _mcnemar_of(a: Mapping[str, bool], b: Mapping[str, bool]) -> float:
    common = a.keys() & b.keys()
    return mcnemar_exact(sum(a[id_] and not b[id_] for id_ in common), sum(b[id_] and not a[id_] for id_ in common))


def predictions_of(run: Run) -> list[Prediction] | str:
    """The predictions of a record, or the reason that there are none."""
    path = run.path.with_name(PREDICTIONS_FILE)
    if not path.is_file():
        return f"its folder has no {PREDICTIONS_FILE}"
    return read_predictions(path, run.record.most_predictions_bytes, problem=problem_of(task_of(run.record)))


def classes_of(run: Run) -> tuple[str, ...] | str:
    """The classes of a run, from its record or its probe; or the reason that they are not known."""
    if run.record.downstream.classes is not None:
        return run.record.downstream.classes
    from safetensors import SafetensorError, safe_open

    path = run.path.with_name(PROBE_FILE)
    if not path.is_file():
        return "neither the record nor a probe in its folder names the classes"
    try:
        # Reads the header alone, without torch.
        with safe_open(path, framework="np") as stored:
            classes = json.loads((stored.metadata() or {})["shape"])["classes"]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        return f"{PROBE_FILE} does not name the classes: {error}"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return f"{PROBE_FILE} does not name the classes"
    return tuple(classes)
