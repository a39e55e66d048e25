"""Intervals: known values, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from repbench.benchmark.statistics import jackknife_intervals


def mean(items: list[float]) -> Mapping[str, float | None]:
    return {"mean": math.fsum(items) / len(items)}


def test_for_a_mean_it_is_students_interval() -> None:
    values = [0.2, 0.5, 0.9, 0.4, 0.7]
    interval = jackknife_intervals([[value] for value in values], mean)["mean"]
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_one_cluster_knows_no_interval() -> None:
    assert jackknife_intervals([[0.1, 0.9]], mean) == {"mean": None}


def test_clusters_that_all_agree_know_no_interval() -> None:
    assert jackknife_intervals([[1.0], [1.0, 1.0], [1.0]], mean) == {"mean": None}


def test_a_value_undefined_without_one_cluster_has_no_interval() -> None:
    def spread(items: list[float]) -> Mapping[str, float | None]:
        return {"spread": max(items) - min(items) if len(set(items)) > 1 else None}

    assert jackknife_intervals([[0.0, 0.0], [1.0]], spread) == {"spread": None}


def test_it_covers_what_it_claims_with_few_clusters_of_unlike_size() -> None:
    random = np.random.default_rng(7)
    hits, trials = 0, 400
    for _ in range(trials):
        clusters = []
        for size in random.integers(10, 40, size=6):
            skill = 0.7 + 0.1 * random.standard_normal()
            clusters.append([float(value) for value in random.random(size) < skill])
        interval = jackknife_intervals(clusters, mean)["mean"]
        assert interval is not None
        hits += interval.low <= 0.7 <= interval.high
    assert 0.92 <= hits / trials <= 0.99
