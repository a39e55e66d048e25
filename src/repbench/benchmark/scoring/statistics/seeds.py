"""The part of an interval that comes of speakers, the part that comes of seeds, and what more seeds would buy.

Let L be the values of a metric without each of m clusters, a row for each of S seeds. `crossed_intervals` adds C, over
clusters, and V, over seeds. The interaction of clusters and seeds is in both of them: its variance is estimated by what
the means of rows and columns leave of L, and

    I = (m - 1) / (m S (S - 1)) Σ (L_sc - L_s. - L_.c + L_..)²

is its part of the squared error of the mean. With all seeds there could be, C - I is left: it comes of the clusters.
The rest, V + I, falls with the number of seeds: it comes of the seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from repbench.benchmark.scoring.statistics.intervals import LeftOut, StandardError, error_of_sum, half_width, squares


@dataclass(frozen=True, slots=True)
class SeedShare:
    """The parts of the squared error of a mean over seeds.

    Attributes:
        clusters: The part that other clusters account for, and no seed makes smaller.
        seeds: The part that falls in proportion to the number of seeds; the interaction is in it twice, as in the
            interval.
        interaction: Half of what the interaction adds to `seeds`.
        num_seeds: S, two or more.
        num_clusters: m, two or more.
    """

    clusters: float
    seeds: float
    interaction: float
    num_seeds: int
    num_clusters: int

    @property
    def share(self) -> float:
        """The part of the seeds in the squared error, in [0, 1]."""
        return self.seeds / (self.clusters + self.seeds)

    @property
    def seed_deviation(self) -> float:
        """The standard deviation between seeds of the value on this test set."""
        return math.sqrt(max(self.seeds - self.interaction, 0.0) * self.num_seeds)

    def half_width(self, num_seeds: int | None = None, *, level: float = 0.95) -> float:
        """Half of the interval's width with another number of seeds, if the deviations are what they seem to be.

        Args:
            num_seeds: Two or more; None: without end.
            level: Nominal coverage.
        """
        parts = [StandardError(math.sqrt(self.clusters), self.num_clusters - 1)]
        if num_seeds is not None:
            times = self.num_seeds / num_seeds
            parts = [
                StandardError(math.sqrt(self.clusters + self.interaction * times), self.num_clusters - 1),
                StandardError(math.sqrt((self.seeds - self.interaction) * times), num_seeds - 1),
            ]
        error = error_of_sum(parts)
        return 0.0 if error is None else half_width(error, level)

    def relative(self, num_seeds: int | None) -> float:
        """The width with another number of seeds, over the width with `self.num_seeds`."""
        return self.half_width(num_seeds) / self.half_width(self.num_seeds)


def seed_share(runs: Sequence[LeftOut], name: str) -> SeedShare | None:
    """The parts of the squared error of the mean of a metric over seeds.

    Args:
        runs: One for each seed, with the same clusters, as `crossed_intervals_of` takes them.
        name: The metric.

    Returns:
        The parts; None with fewer than two seeds or clusters, where a value is undefined, and where nothing varies.

    Reference:
        Searle, Casella and McCulloch, Variance Components, 1992, chapter 4 (two crossed random factors).
    """
    num_seeds, num_clusters = len(runs), min((len(run.without) for run in runs), default=0)
    if num_seeds < 2 or num_clusters < 2:
        return None
    values = [run.whole[name] for run in runs]
    without = [[each[name] for each in run.without] for run in runs]  # (S, m)
    whole = [value for value in values if value is not None]
    rows = [[value for value in row if value is not None] for row in without]
    if len(whole) < num_seeds or any(len(row) < num_clusters for row in rows):
        return None
    of_seeds = [math.fsum(row) / num_clusters for row in rows]
    of_clusters = [math.fsum(column) / num_seeds for column in zip(*rows, strict=True)]
    mean = math.fsum(of_seeds) / num_seeds
    # What the means of rows and columns leave.
    left = math.fsum(
        (value - of_seed - of_cluster + mean) ** 2
        for row, of_seed in zip(rows, of_seeds, strict=True)
        for value, of_cluster in zip(row, of_clusters, strict=True)
    )
    # The pseudo-values m v - (m - 1) L have (m - 1) times the deviations of L; their mean square, over (m - 1) (S - 1)
    # degrees of freedom, is the variance of the interaction, of which a mean over m clusters and S seeds has 1 / (m S).
    interaction = (num_clusters - 1) * left / (num_clusters * num_seeds * (num_seeds - 1))
    by_clusters = (num_clusters - 1) / num_clusters * squares(of_clusters)
    by_seeds = squares(whole) / (num_seeds * (num_seeds - 1))
    if by_clusters + by_seeds == 0.0:
        return None
    # C may by chance be below I, and the variance of the clusters is never negative.
    interaction = min(interaction, by_clusters)
    return SeedShare(by_clusters - interaction, by_seeds + interaction, interaction, num_seeds, num_clusters)
