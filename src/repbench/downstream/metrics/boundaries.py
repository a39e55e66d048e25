"""Detection of boundaries in time.

Conventions: boundaries are times in any one unit, ascending; reference before estimate. Around each reference boundary
is a window of ± the tolerance. Where two windows overlap, they end in the middle between the two boundaries, so that no
estimate is in two windows; one in the middle itself belongs to the earlier. A reference boundary is found (a true
positive) if any estimate is in its window, and every further estimate is a false positive. Counts are pooled and
divided once. An undefined metric is None, never 0.

Metrics:
    precision: TP / (TP + FP). None without estimates.
    recall: TP / (TP + FN). None without reference boundaries.
    f1: 2 TP / (2 TP + FP + FN). None without any boundary.
    r_value: 1 - (|r1| + |r2|) / 2, with the over-segmentation OS = (TP + FP) / (TP + FN) - 1 and the distances
        r1 = sqrt((1 - recall)² + OS²) from the perfect point and r2 = (recall - 1 - OS) / sqrt(2) from the line of a
        perfect precision. 1 is perfect. It has no lower bound: boundaries everywhere have a high recall, and an R-value
        below 0. None without reference boundaries.

Reference:
    Räsänen, Laine and Altosaar, An improved speech segmentation quality measure: the R-value, Interspeech 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoundaryCounts:
    """Counts of boundaries.

    Attributes:
        reference: Reference boundaries, TP + FN.
        estimated: Estimated boundaries, TP + FP.
        found: Reference boundaries with an estimate in their window, TP.
    """

    reference: int
    estimated: int
    found: int


def summed(several: Sequence[BoundaryCounts]) -> BoundaryCounts:
    """The counts of several together."""
    return BoundaryCounts(
        sum(each.reference for each in several),
        sum(each.estimated for each in several),
        sum(each.found for each in several),
    )


def validate(times: ArrayLike) -> Times:
    """Times as (n,) float64.

    Raises:
        ValueError: They are no list of finite numbers, or do not ascend.
    """
    given = np.asarray(times, dtype=np.float64)
    if given.ndim != 1 or not np.isfinite(given).all():
        raise ValueError("boundaries must be a list of finite numbers")
    if (np.diff(given) <= 0).any():
        raise ValueError("boundaries must ascend, each one once")
    return given


def count_found(reference: ArrayLike, estimated: ArrayLike, tolerance: float) -> BoundaryCounts:
    """Count the reference boundaries that estimates find.

    Args:
        reference: (n,) times.
        estimated: (m,) times, in the same unit.
        tolerance: Half of a window, its ends included.
    """
    wanted, found = validate(reference), validate(estimated)
    if not len(wanted) or not len(found):
        return BoundaryCounts(len(wanted), len(found), 0)
    # (n - 1,) the middles -> (m,) the nearest reference of each estimate; "left" gives a middle to the earlier one
    nearest = np.searchsorted((wanted[:-1] + wanted[1:]) / 2, found, side="left")
    # Times come from sums and quotients: without the slack, 0.22 - 0.2 would be more than 0.02.
    slack = 1e-9 * max(1.0, tolerance)
    inside = np.abs(found - wanted[nearest]) <= tolerance + slack
    return BoundaryCounts(len(wanted), len(found), len(np.unique(nearest[inside])))


def precision(counts: BoundaryCounts) -> float | None:
    """Share of the estimates that find a boundary."""
    return counts.found / counts.estimated if counts.estimated else None


def recall(counts: BoundaryCounts) -> float | None:
    """Share of the reference boundaries that are found."""
    return counts.found / counts.reference if counts.reference else None


def f1(counts: BoundaryCounts) -> float | None:
    """The harmonic mean of precision and recall."""
    both = counts.reference + counts.estimated
    return 2 * counts.found / both if both else None


def r_value(counts: BoundaryCounts) -> float | None:
    """The R-value."""
    hits = recall(counts)
    if hits is None:
        return None
    over = counts.estimated / counts.reference - 1
    from_perfect = math.hypot(1 - hits, over)
    from_line = (hits - 1 - over) / math.sqrt(2)
    return 1 - (from_perfect + abs(from_line)) / 2
