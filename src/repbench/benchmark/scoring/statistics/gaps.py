"""The gap between the best and the worst of several groups of speakers, with an interval.

The best and the worst group are found from the same numbers as the gap between them. The largest of several noisy
differences is larger on average than the difference of any two groups named before, and positive even where all groups
are equal. The interval is therefore made of the intervals of the differences of all pairs of groups, widened so that
they hold together (Šidák): the true distance between the truly best and the truly worst group is at least the largest
lower end and at most the largest upper end.

The squared error of the difference of two groups is the sum of the squared influences of their speakers. A speaker who
is in both groups has one influence on their difference, so that what the groups share cancels, as in a paired
comparison; where no speaker is in both, the squared errors of the groups add up, as those of independent samples.
Rates whose own intervals are of log-odds reach further to one side; the interval of their difference is put together
from these, side by side (MOVER).

docs/design/0039-groups.md has the coverage in simulations.

Axes: G groups, M speakers, S seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics.intervals import (
    ROUNDING,
    Interval,
    LeftOut,
    crossed_intervals_in_log_odds,
    crossed_intervals_of,
)

Floats = NDArray[np.float64]

CHANCE_DRAWS = 20_000
"""Draws from which the gap of equal groups is computed: its standard error is below 1 % of it."""


@dataclass(frozen=True, slots=True)
class GroupRuns:
    """The measured predictions of one group.

    Attributes:
        runs: One for each seed, with the same speakers.
        speakers: M names, in the order of `LeftOut.without`; none with fewer than two.
    """

    runs: tuple[LeftOut, ...]
    speakers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """The gap between the best and the worst group.

    Attributes:
        best: Name of the group with the best value.
        worst: Name of the group with the worst value.
        value: Their distance, from 0 on, in the unit of the metric.
        interval: Of the distance between the truly best and the truly worst group; a lower end below 0 says that
            their order is not known. None where the error of the difference of two groups is not known.
        by_chance: The gap that groups of these sizes and errors show on average if they are equal; None likewise.
    """

    best: str
    worst: str
    value: float
    interval: Interval | None
    by_chance: float | None


@dataclass(frozen=True, slots=True)
class _Measured:
    """A group with a value in every seed.

    Attributes:
        runs: Those of the group, of this metric alone.
        values: (S,) of the seeds.
        influences: From each speaker to the influence on the mean over the seeds: the sum of their squares is the
            squared jackknife error. Empty where it is not known.
    """

    runs: tuple[LeftOut, ...]
    values: tuple[float, ...]
    influences: Mapping[str, float]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


def gap_of(
    groups: Mapping[str, GroupRuns],
    metric: str,
    *,
    higher_is_better: bool,
    in_log_odds: bool = False,
    level: float = 0.95,
) -> Gap | None:
    """The gap between the best and the worst of G groups in the mean over S seeds of a metric.

    With the influences e_gi of speaker i on group g, the squared error of the difference of two groups is
    Σ_i (e_gi - e_hi)² + var_s(v_gs - v_hs) / S: each seed gave both groups their values, so seeds are paired. Degrees
    of freedom are Satterthwaite's, of the speakers of g alone, of h alone, of both, and of the seeds. With P pairs the
    level of each is `level` ** (1 / P).

    In log-odds, with the intervals [l, u] of the two values v > w and the correlation ρ of their errors, the lower end
    is v - w - √((v - l_v)² + (u_w - w)² - 2 ρ (v - l_v) (u_w - w)), and the upper one likewise with the other sides.

    Args:
        groups: By name; the same seeds in the same order. Those without a value are left out.
        metric: Name of the metric.
        higher_is_better: Its direction.
        in_log_odds: Whether the intervals of its values are of log-odds (`MetricInfo.interval`).
        level: Nominal coverage.

    Returns:
        The gap; None with fewer than two groups with a value.

    Raises:
        ValueError: The groups have unlike numbers of seeds.

    References:
        Šidák, Rectangular confidence regions for the means of multivariate normal distributions, JASA 62, 1967; Zou and
        Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27, 2008.
    """
    if len({len(group.runs) for group in groups.values()}) > 1:
        raise ValueError("all groups must have the same seeds")
    known = {name: one for name, group in groups.items() if (one := _measured(group, metric)) is not None}
    if len(known) < 2:
        return None
    sign = 1.0 if higher_is_better else -1.0
    # Of equals the first, so that the order of groups decides.
    best = max(known, key=lambda name: sign * known[name].mean)
    worst = min((name for name in known if name != best), key=lambda name: sign * known[name].mean)
    several = list(known.values())
    covariance = _covariance(several)
    if covariance is None:
        interval = by_chance = None
    else:
        each = level ** (2 / (len(several) * (len(several) - 1)))
        ends = _ends_in_log_odds(several, covariance, metric, each) if in_log_odds else _ends(several, each)
        interval = None if ends is None else Interval(max(low for low, _ in ends), max(high for _, high in ends))
        by_chance = _by_chance(covariance)
    return Gap(best, worst, abs(known[best].mean - known[worst].mean), interval, by_chance)


def _measured(group: GroupRuns, metric: str) -> _Measured | None:
    values = [run.whole[metric] for run in group.runs]
    if not values or any(value is None for value in values):
        return None
    count = len(group.speakers)
    means = [
        _mean([run.without[absent][metric] for run in group.runs]) if count == len(group.runs[0].without) else None
        for absent in range(count)
    ]
    known = [mean for mean in means if mean is not None]
    influences: dict[str, float] = {}
    if count > 1 and len(known) == count:
        middle = math.fsum(known) / count
        # Without a speaker who raises the value it falls. Σ e_i² is the squared jackknife error, as in `intervals`.
        weight = math.sqrt((count - 1) / count)
        influences = {name: weight * (middle - mean) for name, mean in zip(group.speakers, known, strict=True)}
    runs = tuple(
        LeftOut({metric: run.whole[metric]}, tuple({metric: each[metric]} for each in run.without))
        for run in group.runs
    )
    return _Measured(runs, tuple(value for value in values if value is not None), influences)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


Ends = list[tuple[float, float]]
"""The ends of the interval of the difference of each pair of groups, the larger value minus the smaller one."""


def _ends(groups: Sequence[_Measured], level: float) -> Ends | None:
    """By Student's t; None where a pair has no error."""
    from scipy.special import stdtrit

    found = []
    for one, other in itertools.combinations(groups, 2):
        error = _error(one, other)
        if error is None:
            return None
        size, degrees_of_freedom = error
        reach = float(stdtrit(degrees_of_freedom, (1 + level) / 2)) * size
        distance = abs(one.mean - other.mean)
        found.append((distance - reach, distance + reach))
    return found


def _ends_in_log_odds(groups: Sequence[_Measured], covariance: Floats, metric: str, level: float) -> Ends | None:
    """From the intervals of the groups; None where a group has none."""
    sides = []
    for number, group in enumerate(groups):
        # A rate of 0 or 1 has no log-odds: its interval stays on the scale of rates, as that of a record does.
        own = crossed_intervals_in_log_odds(group.runs, level=level)[metric]
        own = own or crossed_intervals_of(group.runs, level=level)[metric]
        if own is None:
            return None
        # With several seeds the interval is around the mean of log-odds, which is not quite the mean of rates.
        below, above = max(0.0, group.mean - own.low), max(0.0, own.high - group.mean)
        sides.append((group.mean, below, above, float(covariance[number, number])))
    found = []
    for one, other in itertools.combinations(range(len(groups)), 2):
        first, second = sorted((one, other), key=lambda number: -sides[number][0])
        (larger, below, above, variance), (smaller, beneath, beyond, error) = sides[first], sides[second]
        shared = float(covariance[first, second])
        # Without a shared speaker or seed the covariance is 0, also where a variance is.
        correlation = 0.0 if shared == 0.0 else max(-1.0, min(1.0, shared / math.sqrt(variance * error)))
        distance = larger - smaller
        found.append((distance - _joined(below, beyond, correlation), distance + _joined(above, beneath, correlation)))
    return found


def _joined(one: float, other: float, correlation: float) -> float:
    """√(a² + b² - 2 ρ a b), the reach of a difference from the reaches of its two sides."""
    return math.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other))


def _error(one: _Measured, other: _Measured) -> tuple[float, float] | None:
    """The standard error of the difference of two groups, and its degrees of freedom; None where it is 0."""
    shared = one.influences.keys() & other.influences.keys()
    parts = [
        [value for name, value in one.influences.items() if name not in shared],
        [value for name, value in other.influences.items() if name not in shared],
        [one.influences[name] - other.influences[name] for name in shared],
    ]
    # (squared error, degrees of freedom) of each independent part
    found = [(math.fsum(value**2 for value in part), max(len(part) - 1, 1)) for part in parts if part]
    if len(one.values) > 1:
        differences = [a - b for a, b in zip(one.values, other.values, strict=True)]
        middle = math.fsum(differences) / len(differences)
        freedom = len(differences) - 1
        found.append((math.fsum((each - middle) ** 2 for each in differences) / freedom / len(differences), freedom))
    squared = math.fsum(size for size, _ in found)
    # An error that is rounding alone would make any difference certain.
    if squared <= ROUNDING**2:
        return None
    spread = math.fsum((size / squared) ** 2 / freedom for size, freedom in found)
    return math.sqrt(squared), 1 / spread


def _covariance(groups: Sequence[_Measured]) -> Floats | None:
    """(G, G) covariance of the errors of the groups, over speakers and seeds; None where one is not known."""
    if not all(group.influences for group in groups):
        return None
    names = sorted({name for group in groups for name in group.influences})
    # (G, M) influences; (G, M) (M, G) -> (G, G)
    influences = np.array([[group.influences.get(name, 0.0) for name in names] for group in groups])
    covariance: Floats = influences @ influences.T
    num_seeds = len(groups[0].values)
    if num_seeds > 1:
        covariance = covariance + np.cov(np.array([group.values for group in groups])) / num_seeds  # (G, S) -> (G, G)
    return covariance


def _by_chance(covariance: Floats) -> float:
    """The mean gap of groups with equal true values and normal errors of this (G, G) covariance."""
    # A covariance of fewer speakers than groups is singular: its root by eigenvalues exists all the same.
    sizes, directions = np.linalg.eigh(covariance)
    root: Floats = directions * np.sqrt(np.clip(sizes, 0.0, None))  # (G, G)
    drawn = np.random.default_rng(0).standard_normal((CHANCE_DRAWS, len(covariance))) @ root.T
    return float((drawn.max(axis=1) - drawn.min(axis=1)).mean())
