"""Numbers of utterances: agreement, the problem, and the statistics by which a probe learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import root_mean_squared_error

from repbench.downstream.contract import TaskContext
from repbench.downstream.metrics import regression
from repbench.downstream.problems import REGRESSION
from repbench.downstream.problems.contract import TargetStatistics
from repbench.downstream.regression import Regression
from repbench.errors import DataError, Unlabelled, UsageError
from repbench.testing import DownstreamSubject, tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS
from tests.downstream.test_attribute_tasks import labelled
from tests.downstream.test_tasks import utterance


def slow_ccc(reference: list[float], estimated: list[float]) -> float:
    """Lin's formula with sums over n, term by term."""
    n = len(reference)
    mean_x, mean_y = sum(reference) / n, sum(estimated) / n
    variance_x = sum((x - mean_x) ** 2 for x in reference) / n
    variance_y = sum((y - mean_y) ** 2 for y in estimated) / n
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(reference, estimated, strict=True)) / n
    return 2 * covariance / (variance_x + variance_y + (mean_x - mean_y) ** 2)


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_that_of_a_slow_form_and_of_known_libraries(seed: int) -> None:
    random = np.random.default_rng(seed)
    reference = random.integers(6, 44, 60).astype(float)  # ages, of which many are equal
    estimated = (0.5 * reference + random.normal(0, 8, 60) + 3).round(0)
    assert regression.ccc(reference, estimated) == pytest.approx(slow_ccc(list(reference), list(estimated)), abs=1e-12)
    assert regression.pearson(reference, estimated) == pytest.approx(pearsonr(reference, estimated)[0], abs=1e-12)
    assert regression.spearman(reference, estimated) == pytest.approx(spearmanr(reference, estimated)[0], abs=1e-12)
    assert regression.rmse(reference, estimated) == pytest.approx(root_mean_squared_error(reference, estimated))


def test_a_shift_or_a_scale_lowers_concordance_and_no_correlation() -> None:
    reference = [1.0, 2.0, 3.0, 4.0]
    assert regression.ccc(reference, reference) == 1.0
    for estimated in ([2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0]):
        found = regression.ccc(reference, estimated)
        assert found is not None
        assert found < 0.8
        assert regression.pearson(reference, estimated) == pytest.approx(1.0, abs=1e-12)
    assert regression.ccc(reference, [2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 * 1.25 / (1.25 + 1.25 + 1.0))


@pytest.mark.parametrize("scale", [1e-200, 1e150])
def test_a_correlation_does_not_depend_on_the_unit(scale: float) -> None:
    assert regression.pearson([scale, 2 * scale, 4 * scale], [1.0, 2.0, 4.0]) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("reference", "estimated", "expected"),
    [
        ([], [], (None, None, None, None)),
        ([1.0], [2.0], (None, None, None, 1.0)),
        ([1.0, 1.0], [1.0, 3.0], (None, None, None, math.sqrt(2))),
        ([1.0, 3.0], [2.0, 2.0], (0.0, None, None, 1.0)),
    ],
)
def test_what_is_undefined_is_none(
    reference: list[float], estimated: list[float], expected: tuple[float | None, ...]
) -> None:
    measures = (regression.ccc, regression.pearson, regression.spearman, regression.rmse)
    assert tuple(measure(reference, estimated) for measure in measures) == expected


def test_what_are_no_pairs_of_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="lists of one length"):
        regression.ccc([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        regression.rmse([1.0], [math.nan])


def test_labels_are_numbers_or_words_written_like_one() -> None:
    task = Regression(attribute="age")
    assert [task.labels(utterance(age=value)) for value in (7, 7.5, " -3 ", "1e1")] == [7.0, 7.5, -3.0, 10.0]
    with pytest.raises(DataError, match=r"`young` of the attribute `age` is no number \(utterance u1\)"):
        task.labels(utterance(age="young"))
    with pytest.raises(DataError, match="is no number"):
        task.labels(utterance(age=math.inf))
    with pytest.raises(Unlabelled, match="no attribute age"):
        task.labels(utterance())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "reads an attribute that is named"),
        ({"attribute": 3}, "`task.attribute` must be a name"),
        ({"attribute": "a", "primary_metric": "pearsn"}, r"must be one of ccc, .* Did you mean `pearson`"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Regression(**options)


def examples(*numbers: float) -> Any:
    return tuple(
        replace(each, labels=number) for each, number in zip(labelled(*map(str, numbers)), numbers, strict=True)
    )


def test_every_promise_holds(tmp_path_factory: pytest.TempPathFactory) -> None:
    corpus = tone_corpus(tmp_path_factory.mktemp("ages") / "tones", num_speakers=3, per_session=2)
    aged = [replace(each, attributes={"age": 10 + 3 * place}) for place, each in enumerate(corpus.utterances)]
    task = Regression(attribute="age")
    results = DOWNSTREAM_CHECKS.results(DownstreamSubject(task, replace(corpus, utterances=tuple(aged))))
    assert {each.id: each.detail for each in results if each.status not in ("passed", "not applicable")} == {}


def test_targets_are_standardised_by_the_labels_of_training() -> None:
    train = examples(10.0, 20.0, 60.0)
    statistics = REGRESSION.target_statistics(each.labels for each in train)
    assert statistics == pytest.approx((30.0, math.sqrt((400 + 100 + 900) / 3)))
    context = TaskContext(Regression(attribute="a"), (), None, statistics)
    targets = np.concatenate([REGRESSION.targets(context, each, 5) for each in train])
    assert (targets.mean(), targets.std()) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert REGRESSION.target_statistics([4.0, 4.0]) == TargetStatistics(4.0, 1.0)


def test_the_loss_is_the_mean_squared_error_of_each_probe() -> None:
    scores = torch.tensor([[[1.0], [2.0]], [[0.0], [5.0]]])  # (R, U, 1)
    losses = REGRESSION.losses(scores, torch.tensor([1.0, 4.0]))
    assert losses.tolist() == [2.0, 1.0]


def test_the_baseline_is_the_mean_of_training() -> None:
    train, test = examples(1.0, 5.0), examples(1.0, 2.0, 6.0)
    for metric, expected in (("ccc", 0.0), ("pearson", None), ("rmse", math.sqrt((4 + 1 + 9) / 3))):
        task = Regression(attribute="a", primary_metric=metric)  # type: ignore[arg-type]
        found = REGRESSION.baselines(TaskContext(task, ()), train, test)
        assert found == {"chance": None, "majority": pytest.approx(expected) if expected else expected}
    assert REGRESSION.baselines(TaskContext(task, ()), (), test)["majority"] is None


@pytest.mark.parametrize("value", [math.nan, "3", True, None, 2.0**53])
def test_faults_of_predictions_that_no_run_writes(value: Any) -> None:
    task = Regression(attribute="a")
    right = REGRESSION.made_up(TaskContext(task, ()), 1, "right", id="u", speaker="s", group="g")
    assert list(REGRESSION.faults([right], 0)) == [None]
    for name in ("reference", "estimated"):
        (fault,) = REGRESSION.faults([replace(right, **{name: value})], 0)
        assert fault is not None
        assert "is no finite number" in fault


def test_shuffled_numbers_are_the_same_numbers() -> None:
    (one, two) = examples(1.0, 2.0)
    dealt = iter([*REGRESSION.values(two.labels), *REGRESSION.values(one.labels)])
    assert [REGRESSION.with_values(each.labels, dealt) for each in (one, two)] == [2.0, 1.0]
