"""The gap between groups: its interval against those of scipy, its correction, its coverage in simulated corpora."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from repbench.benchmark.scoring.statistics import LeftOut, crossed_intervals_in_log_odds
from repbench.benchmark.scoring.statistics.gaps import Gap, GroupRuns, gap_of
from repbench.testing.group_simulation import GroupWorld, offsets_of, simulate_groups
from repbench.testing.simulation import Effects

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "group_coverage.json"


def runs(*of_seeds: list[float], prefix: str = "") -> GroupRuns:
    """The mean of the values of speakers, in each of some seeds."""
    left = [
        LeftOut(
            {"mean": float(np.mean(values))},
            tuple({"mean": float(np.mean(np.delete(values, place)))} for place in range(len(values))),
        )
        for values in of_seeds
    ]
    return GroupRuns(tuple(left), tuple(f"{prefix}{place}" for place in range(len(of_seeds[0]))))


def drawn(size: int, mean: float, seed: int) -> list[float]:
    return np.random.default_rng(seed).normal(mean, 1.0, size).tolist()  # type: ignore[no-any-return]


def gap(groups: dict[str, GroupRuns], *, higher_is_better: bool = True) -> Gap:
    found = gap_of(groups, "mean", higher_is_better=higher_is_better)
    assert found is not None
    return found


def test_of_other_speakers_the_interval_is_that_of_welch() -> None:
    a, b = drawn(7, 1.0, 0), [3 * value for value in drawn(23, 0.0, 1)]
    found = gap({"a": runs(a, prefix="a"), "b": runs(b, prefix="b")})
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found.best, found.worst) == ("a", "b")
    assert found.value == pytest.approx(np.mean(a) - np.mean(b))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))


def test_of_the_same_speakers_the_interval_is_paired() -> None:
    common = drawn(9, 0.0, 0)
    a, b = (
        [base + 0.2 * own for base, own in zip(common, drawn(9, mean, seed), strict=True)]
        for mean, seed in ((1, 1), (0, 2))
    )
    found = gap({"a": runs(a), "b": runs(b)})
    expected = stats.ttest_rel(a, b).confidence_interval()
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((expected.low, expected.high))


def test_speakers_who_are_in_both_cancel_and_the_others_do_not() -> None:
    common = [10 * value for value in drawn(20, 0.0, 0)]
    a, b = [*common, *drawn(4, 0.0, 1)], [value + 0.5 for value in common]
    left = runs(a)
    both = gap({"a": left, "b": runs(b)}).interval
    apart = gap({"a": runs(a, prefix="other"), "b": runs(b)}).interval
    alone = gap({"a": runs(common), "b": runs(b)})
    assert both is not None
    assert apart is not None
    assert both.high - both.low < 0.75 * (apart.high - apart.low)
    assert alone.interval is None  # all speakers differ by the same: no evidence about others


def test_several_groups_have_the_interval_of_all_pairs_together() -> None:
    values = {name: drawn(size, mean, size) for name, size, mean in (("a", 8, 0.0), ("b", 12, 0.4), ("c", 30, 0.9))}
    found = gap({name: runs(each, prefix=name) for name, each in values.items()})
    ends = []
    for one, other in itertools.combinations(values.values(), 2):
        interval = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95 ** (1 / 3))
        ends += [(interval.low, interval.high), (-interval.high, -interval.low)]
    assert found.interval is not None
    assert found.interval.low == pytest.approx(max(low for low, _ in ends))
    assert found.interval.high == pytest.approx(max(high for _, high in ends))


def test_in_log_odds_the_ends_are_put_together_from_those_of_the_groups() -> None:
    few, many = ([0.02, 0.01, 0.05, 0.03, 0.02, 0.06, 0.02], "a"), ([0.2, 0.1, 0.3, 0.15, 0.25, 0.2, 0.4, 0.1], "b")
    groups = {name: runs(values, prefix=name) for values, name in (few, many)}
    found = gap_of(groups, "mean", higher_is_better=False, in_log_odds=True)
    assert found is not None
    assert found.interval is not None
    low, high = (crossed_intervals_in_log_odds(groups[name].runs)["mean"] for name in "ab")
    assert low is not None
    assert high is not None
    a, b = np.mean(few[0]), np.mean(many[0])
    assert found.interval.low == pytest.approx(b - a - math.hypot(b - high.low, low.high - a))
    assert found.interval.high == pytest.approx(b - a + math.hypot(high.high - b, a - low.low))
    same = {name: GroupRuns(each.runs, tuple("stuvwxyz"[: len(each.speakers)])) for name, each in groups.items()}
    paired = gap_of(same, "mean", higher_is_better=False, in_log_odds=True)
    assert paired is not None
    assert paired.interval is not None
    correlation = np.sign(paired.interval.low - found.interval.low)  # of the seven speakers of both
    assert correlation == np.sign(np.cov(few[0], many[0][:7])[0, 1])
    # A rate of 0 has no log-odds: its group keeps the interval of the scale of rates, and the gap has one too.
    zero = {**groups, "a": runs([0.0, 0.0, 0.0, 0.0, 0.1, 0.0], prefix="a")}
    with_zero = gap_of(zero, "mean", higher_is_better=False, in_log_odds=True)
    assert with_zero is not None
    assert with_zero.interval is not None


def test_lower_is_better_turns_the_groups_round_and_not_the_gap() -> None:
    groups = {"a": runs(drawn(7, 1.0, 0), prefix="a"), "b": runs(drawn(9, 0.0, 1), prefix="b")}
    up, down = gap(groups), gap(groups, higher_is_better=False)
    assert (up.best, up.worst) == (down.worst, down.best) == ("a", "b")
    assert (up.value, up.interval, up.by_chance) == (down.value, down.interval, down.by_chance)


def test_seeds_are_paired_and_add_their_part() -> None:
    base, other = drawn(12, 0.5, 0), drawn(15, 0.0, 1)
    shifts = (0.0, 1.0, -1.0)
    together = gap({"a": runs(*([v + s for v in base] for s in shifts), prefix="a"),
                    "b": runs(*([v + s for v in other] for s in shifts), prefix="b")})  # fmt: skip
    alone = gap({"a": runs(base, prefix="a"), "b": runs(other, prefix="b")})
    # A seed that moves both groups alike says nothing of their gap.
    assert together.interval is not None
    assert alone.interval is not None
    assert (together.interval.low, together.interval.high) == pytest.approx((alone.interval.low, alone.interval.high))
    apart = gap({"a": runs(*([v + s for v in base] for s in shifts), prefix="a"),
                 "b": runs(*([v - s for v in other] for s in shifts), prefix="b")})  # fmt: skip
    assert apart.interval is not None
    assert apart.interval.high - apart.interval.low > 1.5 * (alone.interval.high - alone.interval.low)


@pytest.mark.parametrize(("count", "factor"), [(2, 1.1284), (5, 2.3259)])
def test_the_gap_by_chance_is_the_mean_range_of_normals(count: int, factor: float) -> None:
    values = drawn(40, 0.0, 0)
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    found = gap({f"g{n}": runs([value + 3 * n for value in values], prefix=f"g{n}") for n in range(count)})
    # The expected range of `count` standard normals.
    assert found.by_chance == pytest.approx(factor * error, rel=0.02)


def test_what_has_no_value_is_left_out_and_one_group_has_no_gap() -> None:
    a, b = runs(drawn(5, 0.0, 0), prefix="a"), runs(drawn(5, 1.0, 1), prefix="b")
    none = GroupRuns((LeftOut({"mean": None}, ()),), ())
    assert gap({"a": a, "none": none, "b": b}) == gap({"a": a, "b": b})
    assert gap_of({"a": a, "none": none}, "mean", higher_is_better=True) is None
    assert gap_of({}, "mean", higher_is_better=True) is None
    one = GroupRuns((LeftOut({"mean": 0.5}, ()),), ())
    assert gap({"a": a, "one": one}).interval is None
    assert gap({"a": a, "one": one}).by_chance is None
    with pytest.raises(ValueError, match="the same seeds"):
        gap({"a": a, "b": runs(drawn(5, 0.0, 0), drawn(5, 0.0, 1))})


@pytest.mark.slow
def test_equal_groups_are_covered_and_without_the_correction_they_are_not() -> None:
    world = GroupWorld(sizes=(12, 12, 15, 20, 30), offsets=offsets_of(0.0, 5))
    held = uncorrected = 0
    for seed in range(200):
        groups = simulate_groups(world, seed)
        found = gap_of(groups, "accuracy", higher_is_better=True)
        assert found is not None
        assert found.interval is not None
        held += found.interval.low <= 0.0
        pair = gap_of({name: groups[name] for name in (found.best, found.worst)}, "accuracy", higher_is_better=True)
        assert pair is not None
        assert pair.interval is not None
        uncorrected += pair.interval.low <= 0.0
    assert held / 200 >= 0.92
    assert uncorrected / 200 < 0.87


def test_the_true_gap_of_a_world_is_that_of_many_speakers() -> None:
    world = GroupWorld(sizes=(4000, 4000), offsets=(0.0, 1.0), effects=Effects(seed=0.0, meeting=0.0))
    groups = simulate_groups(world, 0)
    for group, accuracy in zip(groups.values(), world.accuracies, strict=True):
        assert group.runs[0].whole["accuracy"] == pytest.approx(accuracy, abs=0.01)
    assert world.gap == pytest.approx(world.accuracies[1] - world.accuracies[0])


def test_the_measured_coverage_is_enough_in_every_world() -> None:
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert len(kept["rows"]) >= 30
    assert {len(row["world"]["sizes"]) for row in kept["rows"].values() if isinstance(row["world"], dict)} == {2, 5}
    for name, row in kept["rows"].items():
        assert row["coverage"] >= 0.92, name
        assert row["without_interval"] == 0, name
    equal = [row for name, row in kept["rows"].items() if name.startswith("5 groups") and name.endswith("equal")]
    assert max(row["coverage_uncorrected"] for row in equal) < 0.9
