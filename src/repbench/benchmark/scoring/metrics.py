"""The metrics of a record from its predictions: values, units, counts and intervals."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repbench.benchmark.scoring.statistics import (
    Interval,
    LeftOut,
    SeedShare,
    crossed_intervals_in_log_odds,
    crossed_intervals_of,
    in_log_odds,
    left_out,
    seed_share,
)
from repbench.downstream.contract import (
    Downstream,
    Measurement,
    MeasuresWithoutEach,
    MetricInfo,
    Prediction,
    problem_of,
    tallied,
)
from repbench.downstream.problems import Problem
from repbench.errors import plugin_faults


@dataclass(frozen=True, slots=True)
class Measured:
    """The metrics of a run's predictions, as intervals and comparisons need them.

    Attributes:
        values: Every metric, whole and without each cluster.
        unit: The unit of a cluster: speaker or group; None where there is one cluster.
        ids: The utterances of each cluster, sorted.
        whole: Every metric with its counts.
        names: Of the clusters, in the order of `values.without`; none with fewer than two.
    """

    values: LeftOut
    unit: str | None
    ids: tuple[tuple[str, ...], ...]
    whole: Mapping[str, Measurement]
    names: tuple[str, ...] = ()


def measure_clusters(task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction]) -> Measured:
    """Measure predictions whole and without each speaker (or group)."""
    problem = problem_of(task)
    unit, clusters = clusters_of(predictions, problem.resampled)
    by_tallies = tallied(task)
    if problem.crosses_units and not isinstance(by_tallies, MeasuresWithoutEach):
        with plugin_faults(task.info.name):
            whole = by_tallies.measure_tallies([by_tallies.tally(predictions, classes)], classes)
            by_unit = {} if unit is None else units_apart(problem, predictions, unit)
            # One unit alone leaves nothing when it is left out.
            names = list(by_unit) if len(by_unit) > 1 else []
            without = [_without(task, classes, predictions, unit or "", name) for name in names]
        ids = tuple(by_unit[name] for name in names) or (tuple(sorted(each.id for each in predictions)),)
        return Measured(LeftOut(_values(whole), tuple(without)), unit if names else None, ids, whole, tuple(names))
    ids = tuple(tuple(sorted(each.id for each in cluster)) for cluster in clusters)
    with plugin_faults(task.info.name):
        # One tally a cluster; leaving a cluster out then sums counts again instead of measuring every prediction m
        # times.
        tallies = [by_tallies.tally(cluster, classes) for cluster in clusters]
        whole = by_tallies.measure_tallies(tallies, classes)
        if isinstance(by_tallies, MeasuresWithoutEach):
            left = by_tallies.without_each(tallies, classes) if len(tallies) > 1 else ()
            values = LeftOut(_values(whole), tuple(_values(each) for each in left))
        else:
            values = left_out(
                # Each cluster is a list of one item, its tally, because `left_out` joins the items of clusters.
                [[tally] for tally in tallies],
                lambda several: _values(by_tallies.measure_tallies(several, classes)),
            )
    named = () if unit is None else tuple(str(getattr(cluster[0], unit)) for cluster in clusters)
    return Measured(values, unit, ids, whole, named)


def units_apart(problem: Problem, predictions: Sequence[Prediction], unit: str) -> dict[str, tuple[str, ...]]:
    """From each unit, sorted by name, to the sorted ids of its predictions.

    Units of the same predictions, such as two speakers who are only in mixtures with each other, are one, under the
    first of their names: to leave either out is to leave out both.
    """
    ids: dict[str, list[str]] = {}
    for prediction in predictions:
        for name in problem.units_of(prediction, unit):
            ids.setdefault(name, []).append(prediction.id)
    apart: dict[tuple[str, ...], str] = {}
    for name, own in sorted(ids.items()):
        apart.setdefault(tuple(sorted(own)), name)
    return {name: own for own, name in apart.items()}


def _without(
    task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction], unit: str, name: str
) -> dict[str, float | None]:
    """The metrics without a unit, where the predictions of the others depend on it too."""
    by_tallies = tallied(task)
    left = problem_of(task).without(predictions, unit, name)
    return _values(by_tallies.measure_tallies([by_tallies.tally(left, classes)], classes))


def _values(measured: Mapping[str, Measurement]) -> dict[str, float | None]:
    return {name: each.value for name, each in measured.items()}


def metrics_part(
    task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction], clusters: Measured | None = None
) -> dict[str, Any]:
    """Every metric with its interval over speakers (or groups); `clusters` spares measuring them again."""
    clusters = clusters or measure_clusters(task, classes, predictions)
    unit, intervals = clusters.unit, intervals_of([clusters.values], task.info.metrics)
    measured = clusters.whole
    return {
        name: {
            "value": measured[name].value,
            "unit": info.unit,
            "higher_is_better": info.higher_is_better,
            "ci95": _as_pair(intervals[name]),
            "ci_unit": unit if intervals[name] is not None else None,
            "counts": dict(measured[name].counts),
        }
        for name, info in task.info.metrics.items()
    }


def metrics_of_folds(
    task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction]
) -> dict[str, dict[str, Any]]:
    """From the name of each fold to `n_scored` and the `metrics` of its predictions, each a value with its counts."""
    by_tallies, found = tallied(task), {}
    for name in dict.fromkeys(each.fold for each in predictions if each.fold is not None):
        own = [each for each in predictions if each.fold == name]
        with plugin_faults(task.info.name):
            measured = by_tallies.measure_tallies([by_tallies.tally(own, classes)], classes)
        values = {each: {"value": measured[each].value, "counts": dict(measured[each].counts)} for each in measured}
        found[name] = {"n_scored": len(own), "metrics": values}
    return found


def mean_over_folds(folds: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """The mean of each metric of `metrics_of_folds`, each fold with the same weight; None if one fold has none."""
    values: dict[str, list[float | None]] = {}
    for fold in folds:
        for name, metric in fold["metrics"].items():
            values.setdefault(name, []).append(metric["value"])
    return {name: _mean(several) for name, several in values.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def clusters_of(
    predictions: Sequence[Prediction], units: Sequence[str] = ("speaker", "group")
) -> tuple[str | None, list[list[Prediction]]]:
    """The clusters that intervals resample: of the first unit with two or more known values; else one of them all."""
    for unit in units:
        members: dict[str | None, list[Prediction]] = defaultdict(list)
        for each in predictions:
            members[getattr(each, unit)].append(each)
        # One unknown name spoils the unit: its utterances could belong to any cluster. Sorted, so that runs pair
        # clusters by position.
        if None not in members and len(members) >= 2:
            return unit, [members[name] for name in sorted(name for name in members if name is not None)]
    return None, [list(predictions)]


def intervals_of(runs: Sequence[LeftOut], metrics: Mapping[str, MetricInfo]) -> dict[str, Interval | None]:
    """The interval of the mean over the seeds of each metric, on its own scale and within what it can be.

    Args:
        runs: One for each seed, with the same clusters.
        metrics: From the name of each metric to its declaration.
    """
    linear, logit = crossed_intervals_of(runs), dict[str, Interval | None]()
    if any(info.interval == "logit" for info in metrics.values()):
        logit = crossed_intervals_in_log_odds(runs)
    found = {}
    for name, info in metrics.items():
        # A rate of 0 or 1 has no log-odds: its interval stays on the scale of rates.
        given = (logit[name] or linear[name]) if info.interval == "logit" else linear[name]
        found[name] = clipped(given, info)
    return found


def seed_share_of(runs: Sequence[LeftOut], name: str, info: MetricInfo) -> SeedShare | None:
    """How much of an interval of `intervals_of` comes of seeds, on its scale; None as `seed_share`."""
    if info.interval == "logit" and (share := seed_share([in_log_odds(run) for run in runs], name)) is not None:
        return share
    return seed_share(runs, name)


def clipped(interval: Interval | None, info: MetricInfo) -> Interval | None:
    """The interval within what the metric can be."""
    if interval is None:
        return None
    # Student's t is symmetric and can reach beyond the range of the metric, below an error rate of 0, say.
    low = interval.low if info.lower is None else max(interval.low, info.lower)
    high = interval.high if info.upper is None else min(interval.high, info.upper)
    return Interval(low, high)


def _as_pair(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)
