"""From predictions to the numbers of a record: values, units, counts and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from repbench.benchmark.scoring.statistics import Interval, LeftOut, crossed_intervals_of, left_out
from repbench.downstream.contract import Downstream, MeasuredByTallies, Measurement, MetricInfo, Prediction
from repbench.errors import plugin_faults


@dataclass(frozen=True, slots=True)
class Measured:
    """What a task makes of a run's predictions: all that intervals and comparisons need of it.

    Attributes:
        values: Every metric, whole and without each cluster.
        unit: What a cluster is: speaker, group, or None where there is one.
        ids: The utterances of each cluster, sorted.
        whole: Every metric with its counts.
    """

    values: LeftOut
    unit: str | None
    ids: tuple[tuple[str, ...], ...]
    whole: Mapping[str, Measurement]


def measure_clusters(task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction]) -> Measured:
    """Measure predictions whole and without each speaker (or group)."""
    unit, clusters = clusters_of(predictions)
    with plugin_faults(task.info.name):
        if _tallies(task):
            tallies = [[task.tally(cluster, classes)] for cluster in clusters]
            values = left_out(tallies, lambda several: _values(task.measure_tallies(several, classes)))
            whole = task.measure_tallies([tally for (tally,) in tallies], classes)
        else:
            values = left_out(clusters, lambda items: _values(task.measure(items, classes)))
            whole = task.measure(predictions, classes)
    return Measured(values, unit, tuple(tuple(sorted(each.id for each in cluster)) for cluster in clusters), whole)


def _tallies(task: Downstream) -> TypeGuard[MeasuredByTallies]:
    """Whether its tallies say what its `measure` says: not where a subclass has another `measure` alone."""
    if not isinstance(task, MeasuredByTallies):
        return False
    owners = [
        next(each for each in type(task).__mro__ if name in vars(each)) for name in ("measure_tallies", "measure")
    ]
    return issubclass(owners[0], owners[1])


def _values(measured: Mapping[str, Measurement]) -> dict[str, float | None]:
    return {name: each.value for name, each in measured.items()}


def metrics_part(
    task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction], clusters: Measured | None = None
) -> dict[str, Any]:
    """Every metric with its interval over speakers (or groups); `clusters` spares measuring them again."""
    clusters = clusters or measure_clusters(task, classes, predictions)
    unit, intervals = clusters.unit, crossed_intervals_of([clusters.values])
    measured = clusters.whole
    return {
        name: {
            "value": measured[name].value,
            "unit": info.unit,
            "higher_is_better": info.higher_is_better,
            "ci95": _as_pair(clipped(intervals[name], info)),
            "ci_unit": unit if intervals[name] is not None else None,
            "counts": dict(measured[name].counts),
        }
        for name, info in task.info.metrics.items()
    }


def clusters_of(predictions: Sequence[Prediction]) -> tuple[str | None, list[list[Prediction]]]:
    """What varies: the speakers where two or more are known, else the groups; one cluster where neither is."""
    for unit in ("speaker", "group"):
        names = {getattr(each, unit) for each in predictions}
        if None not in names and len(names) >= 2:
            clusters = [[each for each in predictions if getattr(each, unit) == name] for name in sorted(names)]
            return unit, clusters
    return None, [list(predictions)]


def clipped(interval: Interval | None, info: MetricInfo) -> Interval | None:
    """The interval within what the metric can be."""
    if interval is None:
        return None
    low = interval.low if info.lower is None else max(interval.low, info.lower)
    high = interval.high if info.upper is None else min(interval.high, info.upper)
    return Interval(low, high)


def _as_pair(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)
