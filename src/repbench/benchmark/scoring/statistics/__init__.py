"""Intervals, tests and aggregates, as pure functions.

`intervals` has intervals and paired differences over speakers and seeds, `significance` tests and their adjustment for
many comparisons, `labels` label efficiency, `aggregates` means and Borda points over many tasks, `power` what a test
set could show, `seeds` how much of an interval comes of seeds.
"""

from repbench.benchmark.scoring.statistics.aggregates import Aggregate, borda, normalised_means
from repbench.benchmark.scoring.statistics.intervals import (
    Difference,
    Interval,
    LeftOut,
    cluster_part,
    combined,
    crossed_intervals,
    crossed_intervals_in_log_odds,
    crossed_intervals_of,
    in_log_odds,
    jackknife_intervals,
    left_out,
    mean_and_error_of,
    paired_differences,
    paired_differences_of,
    smallest_difference,
)
from repbench.benchmark.scoring.statistics.labels import label_efficiency_area, labels_to_reach
from repbench.benchmark.scoring.statistics.power import (
    Detectable,
    Sizes,
    Spread,
    clusters_needed,
    detectable,
    spread_of,
)
from repbench.benchmark.scoring.statistics.seeds import SeedShare, seed_share
from repbench.benchmark.scoring.statistics.significance import holm, mcnemar_exact, tie_group

__all__ = [
    "Aggregate",
    "Detectable",
    "Difference",
    "Interval",
    "LeftOut",
    "SeedShare",
    "Sizes",
    "Spread",
    "borda",
    "cluster_part",
    "clusters_needed",
    "combined",
    "crossed_intervals",
    "crossed_intervals_in_log_odds",
    "crossed_intervals_of",
    "detectable",
    "holm",
    "in_log_odds",
    "jackknife_intervals",
    "label_efficiency_area",
    "labels_to_reach",
    "left_out",
    "mcnemar_exact",
    "mean_and_error_of",
    "normalised_means",
    "paired_differences",
    "paired_differences_of",
    "seed_share",
    "smallest_difference",
    "spread_of",
    "tie_group",
]
