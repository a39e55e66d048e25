"""Intervals of a value and of a difference, over speakers and seeds.

Utterances of one speaker are not independent, so the speaker (or, without speakers, the group) is the sampling unit,
the cluster. Each cluster is left out in turn (the jackknife), and Student's t is used, because with few clusters a
normal or percentile interval is too short. Every seed has the same clusters, so seeds and clusters are crossed and each
adds its own variance (docs/design/0009-intervals.md has the simulations).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
Measure = Callable[[list[Item]], Mapping[str, float | None]]

ROUNDING = 1e-12
"""Largest difference of equal values: sums in another order can differ in their last digits."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval, of 95 % by default."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LeftOut:
    """The values of one run, over all clusters and without each.

    Attributes:
        whole: Values over all clusters.
        without: Values without each cluster in turn; empty with fewer than two clusters.
    """

    whole: Mapping[str, float | None]
    without: tuple[Mapping[str, float | None], ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between two methods.

    Attributes:
        value: A minus B; None where either is undefined.
        interval: Of the value; None as in `paired_differences`.
        p_value: Two-sided, of Student's t test; None with the interval.
        standard_error: Of the value; None with the interval.
        degrees_of_freedom: Of the t distribution; None with the interval.
    """

    value: float | None
    interval: Interval | None
    p_value: float | None
    standard_error: float | None = None
    degrees_of_freedom: float | None = None


@dataclass(frozen=True, slots=True)
class _Error:
    """A standard error with its degrees of freedom."""

    size: float
    degrees_of_freedom: float


def left_out(clusters: Sequence[Sequence[Item]], measure: Measure[Item]) -> LeftOut:
    """Measure a run over all clusters and without each; intervals and differences need nothing else of it.

    Args:
        clusters: The items of each cluster.
        measure: From items to named values; None where undefined.
    """
    whole = measure([item for cluster in clusters for item in cluster])
    if len(clusters) < 2:
        return LeftOut(whole, ())
    return LeftOut(
        whole,
        tuple(
            measure([item for other, cluster in enumerate(clusters) if other != absent for item in cluster])
            for absent in range(len(clusters))
        ),
    )


def jackknife_intervals(
    clusters: Sequence[Sequence[Item]], measure: Measure[Item], *, level: float = 0.95
) -> dict[str, Interval | None]:
    """Intervals of every value of `measure`, from leaving each cluster out once.

    With m clusters, value v and leave-one-out values v_i, the pseudo-values m v - (m - 1) v_i have mean p and standard
    error s; the interval is v ± t s with m - 1 degrees of freedom. Where all clusters agree, s is 0, which is no
    evidence about other clusters: there is no interval.

    Args:
        clusters: The items of each cluster.
        measure: From items to named values; None where undefined.
        level: Nominal coverage.

    Returns:
        An interval for each value; None with fewer than two clusters, where a value is undefined without one of them,
        and where all clusters agree.

    Reference:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11.
    """
    return crossed_intervals_of([left_out(clusters, measure)], level=level)


def crossed_intervals(
    runs: Sequence[Sequence[Sequence[Item]]], measure: Measure[Item], *, level: float = 0.95
) -> dict[str, Interval | None]:
    """Intervals of the mean over seeds of every value of `measure`, for other seeds and other clusters.

    With S seeds and m clusters, let v_s be the value of seed s, and let C be the squared jackknife error of the mean of
    the v_s, clusters left out of all seeds at once. The squared error is C + var(v_s) / S. The interaction of clusters
    and seeds is in both terms, so the interval is rather too long. Welch and Satterthwaite's degrees of freedom,
    (C + V)² / (C² / (m - 1) + V² / (S - 1)), with V = var(v_s) / S, lie between the smaller of S - 1 and m - 1 and
    their sum. One seed gives `jackknife_intervals`, which do not include the variance between seeds.

    Args:
        runs: `runs[s][c]` has the items of cluster c in the run of seed s; the same clusters in the same order.
        measure: From items to named values; None where undefined.
        level: Nominal coverage.

    Returns:
        An interval for each value; None with fewer than two clusters, where a value is undefined in one of the runs or
        without one of the clusters, and where all clusters agree.

    Raises:
        ValueError: There is no run, or the runs have unlike numbers of clusters.

    Reference:
        Satterthwaite, An approximate distribution of estimates of variance components, Biometrics 2, 1946.
    """
    return crossed_intervals_of([left_out(clusters, measure) for clusters in runs], level=level)


def crossed_intervals_of(runs: Sequence[LeftOut], *, level: float = 0.95) -> dict[str, Interval | None]:
    """As `crossed_intervals`, from measured runs."""
    _validate(runs)
    intervals: dict[str, Interval | None] = {}
    for name in runs[0].whole:
        value, error = _mean(runs, name), _error_of([runs], name)
        intervals[name] = None if value is None or error is None else _interval(value, error, level)
    return intervals


def crossed_intervals_in_log_odds(runs: Sequence[LeftOut], *, level: float = 0.95) -> dict[str, Interval | None]:
    """As `crossed_intervals_of`, for rates: of the mean log-odds over the seeds, taken back to a rate.

    The errors of a rate near 0 are skewed, and its interval reaches further up than down, and never below 0. None
    also where a value is 0 or 1, with all clusters or without one.
    """
    of_log_odds = crossed_intervals_of(
        [LeftOut(_log_odds(run.whole), tuple(_log_odds(values) for values in run.without)) for run in runs], level=level
    )
    return {
        name: None if each is None else Interval(_rate(each.low), _rate(each.high))
        for name, each in of_log_odds.items()
    }


def paired_differences(
    runs_a: Sequence[Sequence[Sequence[Item]]],
    runs_b: Sequence[Sequence[Sequence[Item]]],
    measure: Measure[Item],
    *,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Mean over the seeds of method A minus that of method B, on the same utterances.

    Clusters are paired: C is the squared jackknife error of the difference of the means, each cluster left out of every
    run of both methods at once. Seeds are not paired: seed 0 of A is unrelated to seed 0 of B, so each method adds
    its own V = var(v_s) / S. The squared error is C + V_A + V_B with Satterthwaite's degrees of freedom, as in
    `crossed_intervals`. A method with one seed adds nothing: the difference then holds for that run alone.

    Args:
        runs_a: As in `crossed_intervals`, of A.
        runs_b: Of B, with the same clusters in the same order; there may be another number of seeds.
        measure: From items to named values; None where undefined.
        level: Nominal coverage.

    Returns:
        The difference for each value; without interval and p-value where there are fewer than two clusters, where a
        value is undefined in one of the runs or without one of the clusters, and where all clusters agree.

    Raises:
        ValueError: There is no run, or the runs have unlike numbers of clusters.
    """
    a = [left_out(clusters, measure) for clusters in runs_a]
    return paired_differences_of(a, [left_out(clusters, measure) for clusters in runs_b], level=level)


def paired_differences_of(
    runs_a: Sequence[LeftOut], runs_b: Sequence[LeftOut], *, level: float = 0.95
) -> dict[str, Difference]:
    """As `paired_differences`, from measured runs."""
    _validate(runs_a)
    _validate(runs_b)
    _validate([*runs_a, *runs_b])
    return {name: _difference(runs_a, runs_b, name, level) for name in runs_a[0].whole}


def combined(methods: Sequence[Sequence[LeftOut]], weights: Sequence[float]) -> list[LeftOut]:
    """A weighted sum of methods that have the same seeds and clusters, seed by seed: Σ w_k v_k of each seed.

    With the weights 1 and -1 it is the difference of one probe on two kinds of test sound. What a seed and a cluster do
    to both cancels in it, as it does not where the seeds of two methods are unrelated (`paired_differences`).

    Args:
        methods: The runs of each method, in the same order of seeds.
        weights: One for each method.

    Returns:
        One run for each seed; a value is None where it is undefined in one of the methods.

    Raises:
        ValueError: There is no run, or the methods differ in their seeds or clusters, or in number from the weights.
    """
    _validate([run for runs in methods for run in runs])
    if len({len(runs) for runs in methods}) > 1 or len(weights) != len(methods):
        raise ValueError("all methods must have the same seeds, and one weight each")
    seeds = zip(*methods, strict=True)  # of each seed its run of every method
    return [
        LeftOut(
            _weighted([run.whole for run in runs], weights),
            tuple(_weighted(values, weights) for values in zip(*(run.without for run in runs), strict=True)),
        )
        for runs in seeds
    ]


def _weighted(values: Sequence[Mapping[str, float | None]], weights: Sequence[float]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in values[0]:
        known = [each[name] for each in values]
        terms = [weight * value for weight, value in zip(weights, known, strict=True) if value is not None]
        found[name] = math.fsum(terms) if len(terms) == len(known) else None
    return found


def mean_and_error_of(runs: Sequence[LeftOut], *, level: float = 0.95) -> dict[str, Difference]:
    """Mean over seeds of `combined` runs, with the interval of `crossed_intervals` and the test of 0.

    Args:
        runs: One for each seed.
        level: Nominal coverage.

    Raises:
        ValueError: There is no run, or the runs have unlike numbers of clusters.
    """
    _validate(runs)
    return {name: _tested(_mean(runs, name), _error_of([runs], name), level) for name in runs[0].whole}


def smallest_difference(
    standard_error: float, degrees_of_freedom: float, *, level: float = 0.95, power: float = 0.8
) -> float:
    """The smallest true difference that a test with this standard error detects with a given power.

    The d for which a two-sided t test at `level`, with this standard error and these degrees of freedom, sees a
    difference of the right sign with probability `power`: P(T > t) = power for T noncentral with parameter d / error.
    It is about a future comparison of the same size, not about the difference that was found.

    Args:
        standard_error: Of a `Difference`.
        degrees_of_freedom: Of the same.
        level: 1 minus the probability of a false difference.
        power: Probability of detecting it; above (1 - level) / 2 and below 1.

    Raises:
        ValueError: The power is outside these bounds.
    """
    # Without any true difference the test already finds one of the right sign with probability (1 - level) / 2.
    if not (1 - level) / 2 < power < 1:
        raise ValueError(f"`power` must lie between {(1 - level) / 2:g} and 1, but is {power:g}")
    from scipy.special import nctdtr

    # P(T > t) grows with the noncentrality, so `short_of` falls from a positive value at 0 and has one zero, which
    # bisection finds.
    def short_of(noncentrality: float) -> float:
        return power - 1 + float(nctdtr(degrees_of_freedom, noncentrality, threshold))

    threshold = _quantile((1 + level) / 2, degrees_of_freedom)
    # With a normal in place of the noncentral t, the zero is at t + quantile(power); the loop widens the bracket where
    # the t has heavy tails.
    low, high = 0.0, threshold + _quantile(max(power, 0.5), degrees_of_freedom) + 1.0
    while short_of(high) > 0:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if short_of(middle) > 0 else (low, middle)
    return high * standard_error


def _log_odds(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: None if value is None or not 0 < value < 1 else math.log(value / (1 - value))
        for name, value in values.items()
    }


def _rate(log_odds: float) -> float:
    # 1 / (1 + exp(-x)), whose exp would overflow where x is far below 0
    return (1 + math.tanh(log_odds / 2)) / 2


def _validate(runs: Sequence[LeftOut]) -> None:
    if not runs:
        raise ValueError("there must be at least one run")
    counts = {len(run.without) for run in runs}
    if len(counts) > 1:
        raise ValueError(f"all runs must have the same clusters, but they have {sorted(counts)} of them")


def _difference(a: Sequence[LeftOut], b: Sequence[LeftOut], name: str, level: float) -> Difference:
    mean_a, mean_b = _mean(a, name), _mean(b, name)
    if mean_a is None or mean_b is None:
        return Difference(None, None, None)
    return _tested(mean_a - mean_b, _error_of([a, b], name), level)


def _tested(value: float | None, error: _Error | None, level: float) -> Difference:
    if value is None or error is None:
        return Difference(value, None, None)
    from scipy.special import stdtr

    # Twice the lower tail of -|t|: twice 1 - cdf(|t|) would lose a small p-value to cancellation.
    p_value = 2 * float(stdtr(error.degrees_of_freedom, -abs(value) / error.size))
    return Difference(value, _interval(value, error, level), p_value, error.size, error.degrees_of_freedom)


def _error_of(methods: Sequence[Sequence[LeftOut]], name: str) -> _Error | None:
    """The error of the mean over the runs of the first method, minus that of the second if there is one."""
    parts = [_cluster_part(methods, name), *(_seed_part(runs, name) for runs in methods if len(runs) > 1)]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    # The parts are independent: their squared errors add. fsum, because its result does not depend on the order of the
    # terms.
    squared = math.fsum(part.size**2 for part in known)
    if squared == 0.0:
        return None
    # Satterthwaite with w = s_k² / Σ s²: 1 / Σ (w² / ν_k) is (Σ s²)² / Σ (s_k⁴ / ν_k). A part of size 0 adds nothing.
    spread = math.fsum((part.size**2 / squared) ** 2 / part.degrees_of_freedom for part in known)
    return _Error(math.sqrt(squared), 1 / spread)


def _cluster_part(methods: Sequence[Sequence[LeftOut]], name: str) -> _Error | None:
    """The jackknife error, each cluster left out of all runs at once."""
    values: list[float] = []
    count = len(methods[0][0].without)
    for absent in range(count):
        means = [_known_mean([run.without[absent][name] for run in runs]) for runs in methods]
        if None in means:
            return None
        # One method: its mean. Two: A minus B, both without the same cluster, so that the part they share cancels.
        first, *second = (mean for mean in means if mean is not None)
        values.append(first - math.fsum(second))
    if count < 2:
        return None
    # The pseudo-values p_i = m v - (m - 1) v_i deviate from their mean by -(m - 1) times what the v_i deviate from
    # theirs, so Σ (p_i - p)² / (m (m - 1)) is (m - 1) / m · Σ (v_i - mean)². The pseudo-values need not be formed.
    return _Error(math.sqrt((count - 1) / count * _squares(values)), count - 1)


def _seed_part(runs: Sequence[LeftOut], name: str) -> _Error | None:
    """The error of a mean over seeds."""
    values = [value for run in runs if (value := run.whole[name]) is not None]
    if len(values) < len(runs):
        return None
    # Sample variance over the seeds (divisor S - 1), divided by S for the variance of the mean.
    return _Error(math.sqrt(_squares(values) / (len(runs) - 1) / len(runs)), len(runs) - 1)


def _squares(values: Sequence[float]) -> float:
    """Sum of squared deviations from the mean; 0 where all agree but for rounding."""
    # A spread that is only rounding would give a standard error near 1e-16 and p-values near 0.
    if max(values) - min(values) <= ROUNDING:
        return 0.0
    # Two passes: Σ v² - (Σ v)² / n cancels where the values are close, as leave-one-out values are.
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def _mean(runs: Sequence[LeftOut], name: str) -> float | None:
    return _known_mean([run.whole[name] for run in runs])


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) else None


def _interval(value: float, error: _Error, level: float) -> Interval:
    reach = _quantile((1 + level) / 2, error.degrees_of_freedom) * error.size
    return Interval(value - reach, value + reach)


def _quantile(probability: float, degrees_of_freedom: float) -> float:
    """Quantile of Student's t. `scipy.special` imports a second faster than `scipy.stats`."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, probability))
