"""Average precision and the term-weighted value of QUESST."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from repbench.downstream.metrics.retrieval import (
    BETA,
    average_precision,
    most_term_weighted_value,
    term_weighted_value,
)


def test_the_costs_are_those_of_the_scorer_of_quesst() -> None:
    assert pytest.approx(12.49) == BETA


@pytest.mark.parametrize("digits", [1, 9])
def test_average_precision_is_that_of_scikit_learn_ties_included(digits: int) -> None:
    random = np.random.default_rng(0)
    positive = random.random(300) < 0.2
    scores = np.round(random.standard_normal(300) + positive, digits)
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores), abs=1e-12)
    assert average_precision(scores, np.zeros(300, dtype=bool)) is None


OCCURS = [np.array([True, True, False, False, False]), np.array([False, False, False, False, True])]


def test_misses_and_false_alarms_of_each_term_are_weighed() -> None:
    detected = [np.array([True, False, True, False, False]), np.array([False, False, False, False, True])]
    # 1 of 2 missed and 1 of 3 false; none and none.
    expected = 1 - (0.5 + BETA / 3 + 0) / 2
    assert term_weighted_value(detected, OCCURS) == pytest.approx(expected)
    assert term_weighted_value(OCCURS, OCCURS) == 1
    assert term_weighted_value([~OCCURS[0], ~OCCURS[1]], OCCURS) == pytest.approx(-BETA)


def test_a_term_that_occurs_nowhere_is_left_out() -> None:
    nowhere = np.zeros(5, dtype=bool)
    assert term_weighted_value([*OCCURS, ~nowhere], [*OCCURS, nowhere]) == 1
    assert most_term_weighted_value([np.arange(5.0)], [nowhere]) is None
    assert term_weighted_value([nowhere], [nowhere]) is None


def test_the_most_is_that_of_the_best_threshold() -> None:
    random = np.random.default_rng(1)
    occurs = [random.random(200) < 0.2 for _ in range(6)]
    scores = [np.round(random.standard_normal(200) + 3 * there, 1) for there in occurs]
    thresholds = [*np.unique(np.concatenate(scores)), math.inf]
    values = [term_weighted_value([own >= each for own in scores], occurs) or 0.0 for each in thresholds]
    found = most_term_weighted_value(scores, occurs)
    assert found is not None
    assert found[0] == pytest.approx(max(values))
    assert found[1] == thresholds[int(np.argmax(values))]
    assert 0 < found[0] < 1


def test_scores_the_wrong_way_round_are_best_not_detected() -> None:
    assert most_term_weighted_value([~OCCURS[0] * 1.0, ~OCCURS[1] * 1.0], OCCURS) == (0.0, math.inf)
