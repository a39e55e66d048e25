"""Intervals, tests and summaries: known values, published ones, and what is not known."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from repbench.benchmark.scoring.statistics import (
    Interval,
    LeftOut,
    crossed_intervals,
    crossed_intervals_in_log_odds,
    crossed_intervals_of,
    holm,
    jackknife_intervals,
    label_efficiency_area,
    labels_to_reach,
    left_out,
    mcnemar_exact,
    paired_differences,
    paired_differences_of,
    smallest_difference,
    tie_group,
)
from repbench.testing.simulation import Effects, pooled_accuracy, simulate


def mean(items: list[float]) -> Mapping[str, float | None]:
    return {"mean": math.fsum(items) / len(items)}


def spread(items: list[float]) -> Mapping[str, float | None]:
    return {"spread": max(items) - min(items) if len(set(items)) > 1 else None}


def singles(values: list[float]) -> list[list[float]]:
    return [[value] for value in values]


def test_for_a_mean_it_is_students_interval() -> None:
    values = [0.2, 0.5, 0.9, 0.4, 0.7]
    interval = jackknife_intervals(singles(values), mean)["mean"]
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_a_small_rate_is_students_of_its_log_odds_taken_back() -> None:
    whole, without = 0.05, (0.02, 0.06, 0.055)
    run = LeftOut({"rate": whole}, tuple({"rate": value} for value in without))
    odds = np.log(np.array(without) / (1 - np.array(without)))
    error = math.sqrt(2 / 3 * ((odds - odds.mean()) ** 2).sum())
    reach = stats.t.ppf(0.975, 2) * error
    interval = crossed_intervals_in_log_odds([run])["rate"]
    assert interval is not None
    expected = [1 / (1 + math.exp(-(math.log(0.05 / 0.95) + side * reach))) for side in (-1, 1)]
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-12)
    assert whole - interval.low < interval.high - whole
    assert crossed_intervals_of([run])["rate"].low < 0 < interval.low  # type: ignore[union-attr]


@pytest.mark.parametrize("rates", [(0.0, 0.1, 0.2), (0.1, 0.0, 0.2), (0.1, 0.2, 1.0), (None, 0.1, 0.2)])
def test_a_rate_without_log_odds_has_no_interval_of_them(rates: tuple[float | None, ...]) -> None:
    run = LeftOut({"rate": rates[0]}, tuple({"rate": value} for value in rates[1:]))
    assert crossed_intervals_in_log_odds([run]) == {"rate": None}


def test_an_interval_of_log_odds_that_knows_nothing_reaches_from_0_to_1() -> None:
    run = LeftOut({"rate": 0.5}, ({"rate": 1e-300}, {"rate": 1 - 1e-15}))
    interval = crossed_intervals_in_log_odds([run])["rate"]
    assert interval == Interval(0.0, 1.0)


def test_one_cluster_knows_no_interval() -> None:
    assert jackknife_intervals([[0.1, 0.9]], mean) == {"mean": None}


def test_clusters_that_all_agree_know_no_interval() -> None:
    assert jackknife_intervals([[1.0], [1.0, 1.0], [1.0]], mean) == {"mean": None}
    assert jackknife_intervals([[0.1], [0.1] * 3, [0.1] * 7], mean) == {"mean": None}


def test_a_value_undefined_without_one_cluster_has_no_interval() -> None:
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


CELLS = np.array([[0.2, 0.5, 0.9, 0.4], [0.3, 0.6, 0.7, 0.5], [0.1, 0.5, 0.8, 0.2]])
"""One value for each seed (row) and cluster (column)."""


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_seeds_and_clusters_each_add_their_variance(num_seeds: int) -> None:
    cells = CELLS[:num_seeds]
    interval = crossed_intervals([singles(row) for row in cells.tolist()], mean)["mean"]
    clusters, seeds = cells.mean(0).var(ddof=1) / 4, cells.mean(1).var(ddof=1) / num_seeds
    freedom = (clusters + seeds) ** 2 / (clusters**2 / 3 + seeds**2 / (num_seeds - 1))
    expected = stats.t.interval(0.95, freedom, cells.mean(), np.sqrt(clusters + seeds))
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_one_seed_is_the_jackknife() -> None:
    run = singles([0.2, 0.5, 0.9])
    assert crossed_intervals([run], mean) == jackknife_intervals(run, mean)


def test_the_order_of_seeds_and_clusters_does_not_matter() -> None:
    runs = [singles(row) for row in CELLS.tolist()]
    turned = [run[::-1] for run in runs[::-1]]
    (first,), (second,) = crossed_intervals(runs, mean).values(), crossed_intervals(turned, mean).values()
    assert first is not None
    assert second is not None
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)


def test_a_higher_level_is_wider() -> None:
    runs = [singles(row) for row in CELLS.tolist()]
    usual, wide = (crossed_intervals(runs, mean, level=level)["mean"] for level in (0.95, 0.99))
    assert usual is not None
    assert wide is not None
    assert wide.low < usual.low < usual.high < wide.high


def test_every_entrance_takes_the_level_and_95_percent_if_none_is_given() -> None:
    clusters = singles([0.2, 0.5, 0.9])
    run, other = left_out(clusters, mean), left_out(singles([0.1, 0.6, 0.3]), mean)
    for level in (None, 0.95, 0.8):
        said = {} if level is None else {"level": level}
        factor = stats.t.ppf((1 + (level or 0.95)) / 2, 2)
        for interval in (
            jackknife_intervals(clusters, mean, **said)["mean"],
            crossed_intervals([clusters], mean, **said)["mean"],
            crossed_intervals_of([run], **said)["mean"],
        ):
            assert interval is not None
            assert interval.high - interval.low == pytest.approx(2 * factor * stats.sem([0.2, 0.5, 0.9]))
        for difference in (
            paired_differences([clusters], [singles([0.1, 0.6, 0.3])], mean, **said)["mean"],
            paired_differences_of([run], [other], **said)["mean"],
        ):
            assert difference.interval is not None
            assert difference.standard_error is not None
            reach = difference.interval.high - difference.interval.low
            assert reach == pytest.approx(2 * factor * difference.standard_error)


def test_two_clusters_are_enough_and_one_is_not() -> None:
    interval = jackknife_intervals(singles([0.4, 0.6]), mean)["mean"]
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(0.2 * stats.t.ppf(0.975, 1))
    assert paired_differences([[[0.4]]], [[[0.6]]], mean)["mean"].interval is None


def test_what_differs_by_no_more_than_rounding_is_the_same() -> None:
    assert jackknife_intervals(singles([0.0, 2.0e-12]), mean)["mean"] is not None
    exact = [LeftOut({"v": 0.5}, ({"v": 0.0}, {"v": apart})) for apart in (1.0e-12, 1.1e-12)]
    assert [crossed_intervals_of([run])["v"] is None for run in exact] == [True, False]


def test_a_value_that_only_its_parts_have_has_no_interval() -> None:
    assert crossed_intervals_of([LeftOut({"v": None}, ({"v": 0.1}, {"v": 0.3}))]) == {"v": None}


def test_a_value_undefined_for_one_seed_has_no_interval() -> None:
    assert crossed_intervals([[[0.0, 1.0], [2.0, 3.0]], [[1.0], [1.0]]], spread) == {"spread": None}


def test_runs_with_other_clusters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same clusters, but they have \[2, 3\]"):
        crossed_intervals([singles([0.1, 0.2]), singles([0.1, 0.2, 0.3])], mean)
    with pytest.raises(ValueError, match="at least one run"):
        crossed_intervals([], mean)


def coverage(effects: Effects, num_speakers: int, trials: int) -> float:
    """How often the interval of three seeds covers the true accuracy."""
    drawn = simulate(effects, num_trials=trials, num_seeds=3, num_speakers=num_speakers, seed=11)
    hits = 0
    for trial in range(trials):
        interval = crossed_intervals(drawn.runs(trial), pooled_accuracy)["accuracy"]
        assert interval is not None
        hits += interval.low <= effects.accuracy <= interval.high
    return hits / trials


def naive_coverage(effects: Effects, num_speakers: int, trials: int) -> float:
    """The same of percentiles of resampled utterances, which for right and wrong are those of a binomial."""
    drawn = simulate(effects, num_trials=trials, num_seeds=3, num_speakers=num_speakers, seed=11)
    correct, asked = drawn.correct.sum(axis=(1, 2)), 3 * drawn.counts.sum(axis=1)
    low, high = stats.binom.ppf([[0.025], [0.975]], asked, correct / asked) / asked
    return float(((low <= effects.accuracy) & (effects.accuracy <= high)).mean())


def test_three_seeds_and_ten_speakers_are_covered_where_resampled_utterances_fail() -> None:
    effects = Effects()
    assert coverage(effects, 10, 400) >= 0.93
    assert naive_coverage(effects, 10, 400) < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("num_speakers", [10, 20, 40])
@pytest.mark.parametrize(
    "effects",
    [Effects(seed=0.0, meeting=0.0), Effects(), Effects(seed=0.4, meeting=0.3), Effects(speaker=0.3, meeting=0.6)],
    ids=["seeds alike", "seeds like speakers", "seeds above speakers", "mostly interaction"],
)
def test_three_seeds_and_ten_or_more_speakers_are_covered(effects: Effects, num_speakers: int) -> None:
    assert 0.92 <= coverage(effects, num_speakers, 3000) <= 0.985


def test_a_difference_pairs_the_clusters() -> None:
    a, b = [0.2, 0.5, 0.9, 0.4, 0.7], [0.1, 0.45, 0.8, 0.35, 0.55]
    difference = paired_differences([singles(a)], [singles(b)], mean)["mean"]
    expected = stats.ttest_rel(a, b)
    assert difference.value == pytest.approx(np.mean(a) - np.mean(b), abs=1e-12)
    assert difference.p_value == pytest.approx(expected.pvalue, abs=1e-12)
    assert difference.interval is not None
    assert difference.interval.low == pytest.approx(expected.confidence_interval().low, abs=1e-12)


def test_a_difference_does_not_pair_the_seeds() -> None:
    runs_a, runs_b = ([singles(row) for row in (CELLS + shift).tolist()] for shift in (0.3, 0.0))
    difference = paired_differences(runs_a, runs_b, mean)["mean"]
    seeds = CELLS.mean(1).var(ddof=1) / 3
    assert difference.value == pytest.approx(0.3)
    assert difference.standard_error == pytest.approx(np.sqrt(2 * seeds), abs=1e-12)
    assert difference.degrees_of_freedom == pytest.approx(4.0)
    assert difference == paired_differences(runs_a, runs_b[::-1], mean)["mean"]


def test_the_interval_leaves_zero_out_just_when_p_is_small() -> None:
    drawn = simulate(Effects(), num_trials=60, num_seeds=4, num_speakers=8, seed=3)
    verdicts = set()
    for trial in range(60):
        runs = drawn.runs(trial)
        difference = paired_differences(runs[:2], runs[2:], pooled_accuracy, level=0.5)["accuracy"]
        assert difference.interval is not None
        assert difference.p_value is not None
        apart = not difference.interval.low <= 0 <= difference.interval.high
        assert apart == (difference.p_value < 0.5)
        verdicts.add(apart)
    assert verdicts == {True, False}


def test_systems_that_agree_everywhere_differ_by_nothing_known() -> None:
    runs = [singles([0.2, 0.5, 0.9])]
    difference = paired_differences(runs, runs, mean)["mean"]
    assert (difference.value, difference.interval, difference.p_value) == (0.0, None, None)


@pytest.mark.parametrize(("num_a", "num_b"), [(2, 3), (3, 2)])
def test_a_difference_of_other_clusters_is_refused(num_a: int, num_b: int) -> None:
    a, b = ([singles([0.1, 0.2, 0.4][:count])] for count in (num_a, num_b))
    with pytest.raises(ValueError, match=r"same clusters, but they have \[2, 3\]"):
        paired_differences(a, b, mean)
    for first, second in ((a[:0], a), (a, a[:0])):
        with pytest.raises(ValueError, match="at least one run"):
            paired_differences(first, second, mean)


def test_a_difference_of_something_undefined_is_undefined() -> None:
    backwards = paired_differences([[[0.0], [1.0]]], [[[1.0], [1.0]]], spread)["spread"]
    assert (backwards.value, backwards.interval) == (None, None)
    for order in (1, -1):
        parted = [[[0.0, 1.0], [2.0, 3.0]], [[0.0, 0.0], [2.0]]][::order]
        assert paired_differences([parted[0]], [parted[1]], spread)["spread"].interval is None, "without one cluster"
    difference = paired_differences([[[1.0], [1.0]]], [[[0.0], [1.0]]], spread)["spread"]
    assert (difference.value, difference.p_value) == (None, None)


def test_equal_methods_are_told_apart_no_more_often_than_promised() -> None:
    drawn = simulate(Effects(), num_trials=400, num_seeds=6, num_speakers=10, seed=5)
    false_calls = 0
    for trial in range(400):
        runs = drawn.runs(trial)
        p_value = paired_differences(runs[:3], runs[3:], pooled_accuracy)["accuracy"].p_value
        assert p_value is not None
        false_calls += p_value < 0.05
    assert false_calls / 400 <= 0.08


def test_the_smallest_difference_is_found_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    sizes = random.normal(0.0, 1.0, size=(40_000, 10))
    shift = smallest_difference(1 / math.sqrt(10), 9)
    assert shift == pytest.approx(3.15 / math.sqrt(10), abs=0.001)
    t_values = stats.ttest_1samp(sizes + shift, 0.0, axis=1).statistic
    found = t_values > stats.t.ppf(0.975, 9)
    assert found.mean() == pytest.approx(0.8, abs=0.008)


@pytest.mark.parametrize("freedom", [1.0, 1.3, 2.7, 30.5, 400.0])
def test_the_smallest_difference_is_known_for_any_degrees_of_freedom(freedom: float) -> None:
    half, most = (smallest_difference(0.01, freedom, power=power) for power in (0.5, 0.95))
    assert 0.0 < half < smallest_difference(0.01, freedom) < most
    with pytest.raises(ValueError, match=r"`power` must lie between 0\.025 and 1, but is 1"):
        smallest_difference(0.01, freedom, power=1.0)


def test_the_smallest_difference_is_where_the_test_has_the_power() -> None:
    for freedom, level, power in (
        (4.0, 0.95, 0.8),
        (2.0, 0.8, 0.15),
        (30.0, 0.5, 0.3),
        (4.0, 0.95, 0.04),
        (1.0, 0.95, 0.95),
    ):
        shift = smallest_difference(1.0, freedom, level=level, power=power)
        threshold = stats.t.ppf((1 + level) / 2, freedom)
        assert stats.nct.sf(threshold, freedom, shift) == pytest.approx(power, abs=1e-9)
    assert smallest_difference(1e-9, 4.0) == pytest.approx(1e-9 * smallest_difference(1.0, 4.0), rel=1e-12)
    with pytest.raises(ValueError, match=r"`power` must lie between 0\.1 and 1, but is 0\.1"):
        smallest_difference(1.0, 4.0, level=0.75 + 0.05, power=(1 - (0.75 + 0.05)) / 2)


def test_mcnemar_gives_the_values_of_the_literature() -> None:
    assert round(mcnemar_exact(30, 45), 3) == 0.105
    assert round(mcnemar_exact(60, 90), 3) == 0.018
    assert mcnemar_exact(45, 30) == mcnemar_exact(30, 45)
    assert mcnemar_exact(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(5, 5) == pytest.approx(1.0)
    assert mcnemar_exact(30, 30) == pytest.approx(1.0)
    for counts in ((-1, 2), (2, -1)):
        with pytest.raises(ValueError, match="must be counts"):
            mcnemar_exact(*counts)


def test_holm_gives_the_published_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.9, 0.6, 0.7]) == [1.0, 1.0, 1.0]


def test_the_tie_group_grows_with_the_family() -> None:
    p_values = {"close": 0.4, "near": 0.02, "far": 0.001, "same": None}
    assert tie_group("best", p_values) == {"best", "close", "same"}
    assert tie_group("best", p_values, beside=[0.5, 0.6, 0.7]) == {"best", "close", "near", "same"}
    assert tie_group("best", {}) == {"best"}
    assert tie_group("best", {"best": 0.9, "near": 0.03}) == {"best"}, "the best is not compared with itself"
    assert tie_group("best", {"edge": 0.5}, level=0.5) == {"best"}, "at most one minus the level is told apart"


def test_a_flat_curve_has_its_own_height_and_the_unit_of_time_does_not_matter() -> None:
    assert label_efficiency_area([10, 100, 5000], [0.3, 0.3, 0.3]) == pytest.approx(0.3)
    areas = [label_efficiency_area([unit, 4 * unit, 9 * unit], [0.1, 0.5, 0.6]) for unit in (1, 3600)]
    assert areas[0] == pytest.approx(areas[1])
    assert label_efficiency_area([9, 1, 4], [0.6, 0.1, 0.5]) == pytest.approx(areas[0])


def test_one_budget_is_no_curve() -> None:
    assert label_efficiency_area([60], [0.3]) is None
    for seconds, match in (([60, 60], "two values"), ([0, 60], "positive"), ([60], "1 budgets, but 2 values")):
        with pytest.raises(ValueError, match=match):
            label_efficiency_area(seconds, [0.3, 0.4])


def test_two_budgets_are_a_curve() -> None:
    assert label_efficiency_area([10, 1000], [0.2, 0.6]) == pytest.approx(0.4)


def test_endless_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        label_efficiency_area([60, math.inf], [0.3, 0.4])


def test_labels_to_reach_lie_between_budgets_on_the_logarithm() -> None:
    seconds, values = [10, 1000, 100_000], [0.2, 0.4, 0.5]
    assert labels_to_reach(seconds, values, 0.3) == pytest.approx(100)
    assert labels_to_reach(seconds, values, 0.45) == pytest.approx(10_000)
    assert labels_to_reach(seconds, values, 0.1) == 10
    assert labels_to_reach([60.0, 10.0], [0.4, 0.2], 0.2) == 10.0, "exactly the smallest budget"
    assert labels_to_reach(seconds, values, 0.5) == pytest.approx(100_000)
    assert labels_to_reach(seconds, values, 0.51) is None
    assert labels_to_reach(seconds, [0.5, 0.3, 0.2], 0.4, higher_is_better=False) == pytest.approx(100)
    assert labels_to_reach([], [], 0.4) is None


def test_an_interval_compares_by_value() -> None:
    assert Interval(0.1, 0.2) == Interval(0.1, 0.2)
