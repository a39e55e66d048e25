"""From predictions to the numbers of a record: values, units, counts and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repbench.benchmark.statistics import Interval, jackknife_intervals
from repbench.downstream.contract import Downstream, MetricInfo, Prediction
from repbench.errors import plugin_faults


def metrics_part(task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Every metric with its interval over speakers (or groups)."""
    unit, clusters = clusters_of(predictions)
    with plugin_faults(task.info.name):
        measured = task.measure(predictions, classes)
        intervals = jackknife_intervals(
            clusters, lambda items: {name: each.value for name, each in task.measure(items, classes).items()}
        )
    return {
        name: {
            "value": measured[name].value,
            "unit": info.unit,
            "higher_is_better": info.higher_is_better,
            "ci95": _clipped(intervals[name], info),
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


def _clipped(interval: Interval | None, info: MetricInfo) -> tuple[float, float] | None:
    """The interval within what the metric can be."""
    if interval is None:
        return None
    low = interval.low if info.lower is None else max(interval.low, info.lower)
    high = interval.high if info.upper is None else min(interval.high, info.upper)
    return low, high
