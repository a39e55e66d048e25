"""EER, detection cost and calibration of scored trials, against other programs and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_curve

from repbench.downstream.metrics.verification import (
    ErrorRates,
    RankedTrials,
    cllr,
    eer,
    error_rates,
    min_cllr,
    min_dcf,
    validate,
)


def rates(scores: object, targets: object) -> ErrorRates:
    found = error_rates(RankedTrials.of(scores, targets))  # type: ignore[arg-type]
    assert found is not None
    return found


def drawn(seed: int, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = random.random(700) < 0.2
    scores = random.normal(size=700) + 1.3 * targets
    return (scores if decimals is None else scores.round(decimals)), targets


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(5))
def test_eer_is_the_root_that_brentq_finds_on_the_roc_of_scikit_learn(seed: int, decimals: int | None) -> None:
    scores, targets = drawn(seed, decimals)
    false_alarm, hit, _ = roc_curve(targets, scores)
    peer = brentq(lambda x: 1 - x - float(interp1d(false_alarm, hit)(x)), 0, 1, xtol=1e-14)
    assert eer(rates(scores, targets)) == pytest.approx(peer, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_eer_lies_between_the_two_steps_around_it(seed: int) -> None:
    scores, targets = drawn(seed)
    found = rates(scores, targets)
    nearest = int(np.argmin(np.abs(found.miss - found.false_alarm)))
    step = (found.miss[nearest] + found.false_alarm[nearest]) / 2
    # Without ties a step moves one rate by one trial: the mean of both at the nearest step is half a trial away.
    assert abs(eer(found) - step) <= 0.5 / min(targets.sum(), (~targets).sum()) + 1e-12


def test_eer_by_hand() -> None:
    # Falling: T N T N. Points (P_fa, P_miss): (0, 1) (0, .5) (.5, .5) (.5, 0) (1, 0).
    assert eer(rates([4, 3, 2, 1], [1, 0, 1, 0])) == 0.5
    # T T N T N N: (0, 1/3) (1/3, 1/3) (1/3, 0)
    assert eer(rates([6, 5, 4, 3, 2, 1], [1, 1, 0, 1, 0, 0])) == pytest.approx(1 / 3)
    # 2 targets above, then a tie of 1 target with 1 of 4 others: from (0, 1/3) to (1/4, 0), crossed at 1/7.
    assert eer(rates([9, 8, 5, 5, 3, 2, 1], [1, 1, 1, 0, 0, 0, 0])) == pytest.approx(1 / 7)


def test_separable_scores_have_0_reversed_ones_1_and_equal_ones_one_half() -> None:
    assert eer(rates([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])) == 0.0
    assert eer(rates([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1])) == 1.0
    assert eer(rates([0.5] * 5, [1, 0, 0, 1, 0])) == 0.5


def test_neither_the_order_of_trials_nor_a_rising_map_of_scores_matters() -> None:
    scores, targets = drawn(7, 1)
    order = np.random.default_rng(1).permutation(len(scores))
    expected = eer(rates(scores, targets))
    assert eer(rates(scores[order], targets[order])) == expected
    assert eer(rates(np.exp(scores), targets)) == expected
    assert eer(rates(-scores, ~targets)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("prior", [0.01, 0.05, 0.9])
def test_min_dcf_is_the_least_cost_over_every_threshold(prior: float) -> None:
    scores, targets = drawn(3, 1)
    costs = [
        prior * np.mean(scores[targets] < threshold) + (1 - prior) * np.mean(scores[~targets] >= threshold)
        for threshold in [*scores, np.inf]
    ]
    assert min_dcf(rates(scores, targets), prior) == pytest.approx(min(costs) / min(prior, 1 - prior), abs=1e-12)


def test_min_dcf_of_scores_that_tell_nothing_is_1_and_of_perfect_ones_0() -> None:
    assert min_dcf(rates([0.5] * 4, [1, 0, 0, 0]), 0.01) == 1.0
    assert min_dcf(rates([2, 1, 0], [1, 0, 0]), 0.05) == 0.0
    with pytest.raises(ValueError, match="`target_prior` must lie between 0 and 1, but is 1"):
        min_dcf(rates([2, 1, 0], [1, 0, 0]), 1.0)


def test_cllr_by_hand() -> None:
    trials = RankedTrials.of([math.log(3), 0.0, -math.log(7)], [1, 0, 0])
    # log2(1 + 1/3); log2(1 + 1) and log2(1 + 1/7)
    expected = (math.log2(4 / 3) + (1 + math.log2(8 / 7)) / 2) / 2
    assert cllr(trials) == pytest.approx(expected, abs=1e-15)
    assert cllr(RankedTrials.of([0.0, 0.0], [1, 0])) == 1.0
    assert cllr(RankedTrials.of([-2000.0, 2000.0], [1, 0])) == pytest.approx(2000 / math.log(2))


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_min_cllr_is_cllr_after_the_isotonic_regression_of_scikit_learn(decimals: int | None) -> None:
    scores, targets = drawn(11, decimals)
    share = IsotonicRegression(y_min=1e-15, y_max=1 - 1e-15).fit(scores, targets).predict(scores)
    prior = np.mean(targets)
    calibrated = np.log(share / (1 - share)) - np.log(prior / (1 - prior))
    expected = cllr(RankedTrials.of(calibrated, targets))
    found = min_cllr(RankedTrials.of(scores, targets))
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0 < found < 1  # type: ignore[operator]


def test_min_cllr_of_perfect_scores_is_0_and_of_reversed_ones_1() -> None:
    assert min_cllr(RankedTrials.of([3, 2, 1, 0], [1, 1, 0, 0])) == 0.0
    assert min_cllr(RankedTrials.of([3, 2, 1, 0], [0, 0, 1, 1])) == pytest.approx(1.0)


def test_what_is_undefined_is_none() -> None:
    for targets in ([1, 1], [0, 0]):
        trials = RankedTrials.of([0.1, 0.2], targets)
        assert error_rates(trials) is None
        assert cllr(trials) is None
        assert min_cllr(trials) is None
    empty = RankedTrials.of([], [])
    assert (error_rates(empty), cllr(empty), min_cllr(empty)) == (None, None, None)


def test_what_is_no_list_of_trials_is_refused() -> None:
    with pytest.raises(ValueError, match="of one length"):
        validate([0.1, 0.2], [1])
    with pytest.raises(ValueError, match="finite"):
        validate([0.1, math.nan], [1, 0])
    with pytest.raises(ValueError, match="true or false, but one is"):
        validate([0.1, 0.2], [1, 2])
