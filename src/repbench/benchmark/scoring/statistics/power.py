"""The difference between two systems that a test set could show, from its size alone.

The value of a system is a mean over n utterances of m clusters (speakers, or groups), of which cluster i has n_i. With
b the standard deviation between clusters, w that between utterances of a cluster, and s that between seeds, the
variance of its mean over K seeds is

    b² Σ (n_i / n)² + w² / n + s² / K.

A part g of the first two terms differs between seeds: their interaction with speakers and utterances. In the mean over
K seeds g / K of it is left.

Two systems on the same utterances have values that go together: with the correlation r of two runs, the first two terms
of the variance of their difference are 2 (1 - r) times those of one run. Two systems on different test sets of this
size have 2 times those. In both, 2 g (1 - 1 / K) are averaged out. Seeds of two systems are unrelated, and add
2 s² / K. One seed adds nothing, as in `paired_differences`: the difference then holds for the two trained probes alone.

The test is the one that reports make: Student's t, with m - 1 degrees of freedom for the clusters (2 (m - 1) on two
test sets) and K - 1 for the seeds of each system, error_of_sum by Satterthwaite's formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from repbench.benchmark.scoring.statistics.intervals import StandardError, error_of_sum, smallest_difference

MOST_CLUSTERS = 100_000
"""Where `clusters_needed` gives up."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The variation of the values of a task, in the unit of its metric.

    Attributes:
        cluster: Standard deviation between speakers (or groups) of what each would have with very many utterances.
        utterance: Standard deviation between utterances of one speaker.
        correlation: r, of two runs of different systems on the same utterances, below 1.
        seed: Standard deviation between seeds of one system; None where it is not known.
        interaction: g, the part of the squared error of one run over other speakers and utterances that differs between
            seeds.
    """

    cluster: float
    utterance: float
    correlation: float
    seed: float | None = None
    interaction: float = 0.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """The size of a test set: the number of utterances of each cluster, at least one each."""

    counts: tuple[int, ...]

    @property
    def num_utterances(self) -> int:
        """Of all clusters."""
        return sum(self.counts)

    @property
    def num_clusters(self) -> int:
        """Speakers, or groups."""
        return len(self.counts)

    @property
    def concentration(self) -> float:
        """Σ (n_i / n)²: 1 / m where all clusters have as many utterances, more where some have most."""
        return sum(count**2 for count in self.counts) / self.num_utterances**2


@dataclass(frozen=True, slots=True)
class Detectable:
    """The smallest true differences that a test set shows with a given power.

    Attributes:
        paired: Between two systems on these utterances.
        unpaired: Between two systems that were each tested on another set of this size.
    """

    paired: float
    unpaired: float


def detectable(
    spread: Spread, sizes: Sizes, *, num_seeds: int = 1, level: float = 0.95, power: float = 0.8
) -> Detectable | None:
    """The smallest true difference of two systems that the test of a report finds on a test set of this size.

    Args:
        spread: Of the task.
        sizes: Of the test set.
        num_seeds: Of each system.
        level: 1 minus the probability of a false difference, two-sided.
        power: Probability of finding it.

    Returns:
        The differences, in the unit of the metric; None with fewer than two clusters, of which nothing can be said.

    Raises:
        ValueError: The spread has no deviation at all, there is no seed, or as `smallest_difference`.

    Reference:
        Satterthwaite, An approximate distribution of estimates of variance components, Biometrics 2, 1946.
    """
    if num_seeds < 1:
        raise ValueError(f"`num_seeds` must be at least 1, but is {num_seeds}")
    if sizes.num_clusters < 2:
        return None
    one = spread.cluster**2 * sizes.concentration + spread.utterance**2 / sizes.num_utterances
    seeds: list[StandardError] = []
    if num_seeds > 1 and spread.seed is not None:
        seeds = 2 * [StandardError(spread.seed / math.sqrt(num_seeds), num_seeds - 1)]
    apart = 1 - spread.correlation
    averaged = spread.interaction * (1 - 1 / num_seeds)
    found = []
    for variance, freedom in (
        # At most all that differs between two systems is interaction, of which 1 / K is left.
        (2 * max(apart - averaged, apart / num_seeds) * one, sizes.num_clusters - 1),
        (2 * (1 - averaged) * one, 2 * (sizes.num_clusters - 1)),
    ):
        error = error_of_sum([StandardError(math.sqrt(variance), freedom), *seeds])
        if error is None:
            raise ValueError("a spread without any deviation has no smallest difference")
        found.append(smallest_difference(error.size, error.degrees_of_freedom, level=level, power=power))
    return Detectable(*found)


def clusters_needed(spread: Spread, difference: float, *, utterances: int, num_seeds: int = 1) -> int | None:
    """The fewest clusters, of `utterances` each, with which a paired difference of this size can be shown.

    Returns:
        Their number; None where `MOST_CLUSTERS` do not suffice, as where seeds alone vary more.
    """

    def suffices(count: int) -> bool:
        found = detectable(spread, Sizes((utterances,) * count), num_seeds=num_seeds)
        return found is not None and found.paired <= difference

    if not suffices(MOST_CLUSTERS):
        return None
    # More clusters of one size only make the difference smaller, so halving finds the fewest.
    low, high = 1, MOST_CLUSTERS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def spread_of(cluster_error: float, utterance_error: float, sizes: Sequence[Sizes]) -> tuple[float, float]:
    """The deviations b between clusters and w between utterances that two squared errors of a value call for.

    Args:
        cluster_error: The squared error over other clusters: b² Σ (n_i / n)² + w² / n.
        utterance_error: The squared error over other utterances of the same clusters: w² / n.
        sizes: Of the test set of each squared error that the two are the mean of.

    Returns:
        b and w; b is 0 where the utterances account for all of the error.
    """
    concentration = math.fsum(each.concentration for each in sizes) / len(sizes)
    per_utterance = math.fsum(1 / each.num_utterances for each in sizes) / len(sizes)
    between = max(cluster_error - utterance_error, 0.0) / concentration
    return math.sqrt(between), math.sqrt(utterance_error / per_utterance)
