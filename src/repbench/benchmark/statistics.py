"""How sure a number is.

Utterances of one speaker are not independent, so what varies is the speaker (or, without speakers, the group). The
interval leaves each cluster out in turn (the jackknife) and takes Student's t with one degree of freedom fewer than
there are clusters: with few clusters a normal or percentile interval is too short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided 95 % interval."""

    low: float
    high: float


def jackknife_intervals(
    clusters: Sequence[Sequence[Item]],
    measure: Callable[[list[Item]], Mapping[str, float | None]],
    *,
    level: float = 0.95,
) -> dict[str, Interval | None]:
    """Intervals of every value of `measure`, from leaving each cluster out once.

    With m clusters, value v and leave-one-out values v_i, the pseudo-values m v - (m - 1) v_i have mean p and standard
    error s; the interval is v ± t s with m - 1 degrees of freedom. Where every cluster agrees, s is 0 and says nothing
    of the next cluster: there is no interval.

    Args:
        clusters: The items of each cluster.
        measure: From items to named values; None where undefined.
        level: Coverage aimed at.

    Returns:
        An interval for each value; None with fewer than two clusters, where a value is undefined without one of them,
        and where all clusters agree.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11.
    """
    whole = measure([item for cluster in clusters for item in cluster])
    if len(clusters) < 2:
        return dict.fromkeys(whole)
    without = [
        measure([item for other, cluster in enumerate(clusters) if other != left_out for item in cluster])
        for left_out in range(len(clusters))
    ]
    return {name: _interval(value, [row[name] for row in without], level) for name, value in whole.items()}


def _interval(value: float | None, without: Sequence[float | None], level: float) -> Interval | None:
    known = [each for each in without if each is not None]
    if value is None or len(known) < len(without):
        return None
    from scipy.stats import t

    count = len(known)
    mean = math.fsum(known) / count
    error = math.sqrt((count - 1) / count * math.fsum((each - mean) ** 2 for each in known))
    if error == 0.0:
        return None
    reach = float(t.ppf((1 + level) / 2, count - 1)) * error
    return Interval(value - reach, value + reach)
