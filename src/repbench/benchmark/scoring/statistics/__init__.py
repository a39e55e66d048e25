"""Intervals, tests and aggregates, as pure functions.

`intervals` has intervals and paired differences over speakers and seeds, `significance` tests and their adjustment for
many comparisons, `labels` label efficiency, `aggregates` means and Borda points over many tasks.
"""

from repbench.benchmark.scoring.statistics.aggregates import Aggregate, borda, normalised_means
from repbench.benchmark.scoring.statistics.intervals import (
    Difference,
    Interval,
    LeftOut,
    combined,
    crossed_intervals,
    crossed_intervals_in_log_odds,
    crossed_intervals_of,
    jackknife_intervals,
    left_out,
    mean_and_error_of,
    paired_differences,
    paired_differences_of,
    smallest_difference,
)
from repbench.benchmark.scoring.statistics.labels import label_efficiency_area, labels_to_reach
from repbench.benchmark.scoring.statistics.significance import holm, mcnemar_exact, tie_group

__all__ = [
    "Aggregate",
    "Difference",
    "Interval",
    "LeftOut",
    "borda",
    "combined",
    "crossed_intervals",
    "crossed_intervals_in_log_odds",
    "crossed_intervals_of",
    "holm",
    "jackknife_intervals",
    "label_efficiency_area",
    "labels_to_reach",
    "left_out",
    "mcnemar_exact",
    "mean_and_error_of",
    "normalised_means",
    "paired_differences",
    "paired_differences_of",
    "smallest_difference",
    "tie_group",
]
