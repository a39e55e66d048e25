"""Label efficiency: summaries of a curve over label budgets, because a single budget can rank models wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise


def label_efficiency_area(seconds: Sequence[float], values: Sequence[float]) -> float | None:
    """Mean height of a label-efficiency curve: its trapezoid area over the logarithm of seconds, divided by its width.

    It has the unit of the values, and a constant curve has its own value. The base of the logarithm and the unit of
    time have no effect; areas over different ranges of budgets cannot be compared.

    Args:
        seconds: Seconds of labelled sound: positive, distinct, in any order.
        values: Metric at each budget; of one run, or means over seeds.

    Returns:
        The area; None with fewer than two budgets.

    Raises:
        ValueError: The lengths differ, or the seconds are not positive and distinct.
    """
    points = _curve(seconds, values)
    if len(points) < 2:
        return None
    # Trapezoids over log seconds; a spread in log seconds is a ratio, so the unit of time cancels in the division
    # below.
    area = math.fsum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(points))
    return area / (points[-1][0] - points[0][0])


def labels_to_reach(
    seconds: Sequence[float], values: Sequence[float], target: float, *, higher_is_better: bool = True
) -> float | None:
    """Seconds of labelled sound with which a curve first reaches a target, interpolated over the logarithm of seconds.

    Args:
        seconds: As in `label_efficiency_area`.
        values: As there.
        target: The value to reach.
        higher_is_better: Whether the curve reaches the target from below, or from above.

    Returns:
        The seconds; the smallest budget where that reaches it already (fewer may suffice); None if none reaches it.

    Raises:
        ValueError: As `label_efficiency_area`.
    """
    # With the sign, the target is reached from below in both directions, at 0.
    sign = 1.0 if higher_is_better else -1.0
    points = [(place, sign * (value - target)) for place, value in _curve(seconds, values)]
    if points and points[0][1] >= 0:
        return min(seconds)
    for (left, below), (right, above) in pairwise(points):
        if above >= 0:
            # The zero of the line through (left, below < 0) and (right, above >= 0).
            return math.exp(left + (right - left) * below / (below - above))
    return None


def _curve(seconds: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """(log seconds, value), in ascending order of seconds."""
    if len(seconds) != len(values):
        raise ValueError(f"{len(seconds)} budgets, but {len(values)} values")
    if any(not 0 < budget < math.inf for budget in seconds):
        raise ValueError("seconds of labelled sound must be positive and finite")
    if len(set(seconds)) < len(seconds):
        raise ValueError("a curve has two values for one budget; take the mean over seeds first")
    return sorted((math.log(budget), value) for budget, value in zip(seconds, values, strict=True))
