"""Heads that are fitted: neighbours against a slow form, the regression against its optimum, and their files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.benchmark.probing.probe import Probe, ProbeShape, encoded_probe, load_probe
from repbench.downstream.heads import (
    FitSettings,
    FittedHead,
    HeadInfo,
    build_head,
    head_info,
    heads_for,
    refuse_head,
)
from repbench.downstream.heads.fitted import LEAST_SCORE, Knn, Logistic, Nearest
from repbench.downstream.problems import ATTRIBUTES, FRAMES, REGRESSION, UTTERANCES
from repbench.errors import IntegrityError, PluginError, UsageError

FITTED = ("knn", "nearest", "logistic")
SETTINGS = FitSettings(neighbours=10, temperature=0.07, inverse_penalty=1.0)


def settings(**changes: Any) -> FitSettings:
    fields = {"neighbours": 10, "temperature": 0.07, "inverse_penalty": 1.0}
    return FitSettings(**{**fields, **changes})


def data(count: int = 40, num_classes: int = 3, width: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(count) % num_classes
    centres = torch.randn(num_classes, width, generator=generator)
    return centres[classes] + torch.randn(count, width, generator=generator), classes


def fitted(kind: type[FittedHead], means: Tensor, classes: Tensor, given: FitSettings = SETTINGS) -> FittedHead:
    head = kind(width=means.shape[1], num_outputs=3)
    assert head.fit(means, classes, given) == ()
    return head.eval()


def cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))


def test_knn_is_the_slow_form() -> None:
    means, classes = data()
    head = fitted(Knn, means, classes)
    queries = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    for query, scores in zip(queries, head.scores_of_means(queries), strict=True):
        known = [
            (cosine(query.tolist(), mean), label) for mean, label in zip(means.tolist(), classes.tolist(), strict=True)
        ]
        nearest = sorted(known, reverse=True)[:10]
        votes = [sum(math.exp(each / 0.07) for each, label in nearest if label == number) for number in range(3)]
        expected = [math.log(vote / sum(votes)) if vote else LEAST_SCORE for vote in votes]
        assert scores.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_settings_of_knn_change_its_scores() -> None:
    means, classes = data()
    query = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    scores = [
        fitted(Knn, means, classes, settings(**changed)).scores_of_means(query)[0].tolist()
        for changed in ({}, {"neighbours": 3}, {"temperature": 0.5})
    ]
    assert scores[0] != scores[1]
    assert scores[0] != scores[2]


def test_a_low_temperature_neither_overflows_nor_loses_the_nearest() -> None:
    means, classes = data()
    head = fitted(Knn, means, classes, settings(temperature=1e-4))
    scores = head.scores_of_means(means)
    assert bool(scores.isfinite().all())
    assert bool((scores >= LEAST_SCORE).all())
    assert scores.argmax(dim=1).tolist() == classes.tolist(), "the nearest one is the utterance itself"


def test_of_equally_near_utterances_the_first_are_taken() -> None:
    means = torch.tensor([[1.0, 0.0]]).repeat(6, 1)
    head = Knn(width=2, num_outputs=3)
    head.fit(means, torch.tensor([2, 0, 0, 1, 1, 1]), settings(neighbours=3))
    scores = head.scores_of_means(torch.tensor([[2.0, 1.0]]))[0]
    assert scores.tolist() == pytest.approx([math.log(2 / 3), LEAST_SCORE, math.log(1 / 3)], rel=1e-6)


def test_knn_on_fewer_utterances_than_neighbours_has_a_warning() -> None:
    means, classes = data(count=6)
    head = Knn(width=5, num_outputs=3)
    assert head.fit(means, classes, SETTINGS) == ("there are 6 training utterances, and all are neighbours",)
    assert head.scores_of_means(means).exp().sum(dim=1).tolist() == pytest.approx([1.0] * 6, rel=1e-5)


def test_nearest_is_the_class_of_the_largest_cosine() -> None:
    means, classes = data()
    scores = fitted(Nearest, means, classes).scores_of_means(means)
    assert scores.argmax(dim=1).tolist() == classes.tolist()
    assert scores.amax(dim=1).tolist() == pytest.approx([1.0] * len(means), rel=1e-5)
    two = fitted(Nearest, means[classes < 2], classes[classes < 2]).scores_of_means(means)
    assert float(two[:, 2].max()) < -1, "no utterance of the third class"


def test_neighbours_do_not_depend_on_the_length_of_a_mean() -> None:
    means, classes = data()
    for kind in (Knn, Nearest):
        head, longer = fitted(kind, means, classes), fitted(kind, 7 * means, classes)
        assert torch.allclose(head.scores_of_means(means), longer.scores_of_means(0.1 * means), rtol=1e-4, atol=1e-4)


def test_a_mean_of_zeros_is_as_far_from_all() -> None:
    means, classes = data()
    scores = fitted(Knn, means, classes).scores_of_means(torch.zeros(1, 5))
    assert bool(scores.isfinite().all())


@pytest.mark.parametrize("num_classes", [2, 3])
def test_logistic_is_at_the_optimum_of_its_objective(num_classes: int) -> None:
    means, classes = data(num_classes=num_classes)
    head = Logistic(width=5, num_outputs=num_classes)
    head.fit(means, classes, settings(inverse_penalty=0.5))
    weight, bias = (each.double().clone().requires_grad_() for each in (head.output.weight, head.output.bias))
    scores = means.double() @ weight.t() + bias
    # Of two classes, the penalty is of the row of differences.
    penalty = (weight[1] - weight[0]).square().sum() if num_classes == 2 else weight.square().sum()
    loss = 0.5 * torch.nn.functional.cross_entropy(scores, classes, reduction="sum") + penalty / 2
    gradients = torch.autograd.grad(loss, (weight, bias))
    for gradient in gradients:
        # Of two classes the gradient of a row is half of that of the difference, and both have opposite signs.
        assert float(gradient.abs().max()) < 2e-2
    assert loss.item() < len(means) * 0.5 * math.log(num_classes), "better than equal odds"


def test_a_class_without_an_utterance_is_never_the_estimate() -> None:
    means, classes = data()
    head = Logistic(width=5, num_outputs=4)
    head.fit(means, 3 - classes, SETTINGS)  # classes 1, 2 and 3
    assert head.output.bias[0] == -1e4
    assert set(head.scores_of_means(100 * means).argmax(dim=1).tolist()) <= {1, 2, 3}


def test_a_regression_that_does_not_converge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repbench.downstream.heads.fitted._LONGEST_FIT", 3)
    head = Logistic(width=5, num_outputs=3)
    assert head.fit(*data(), SETTINGS) == ("the logistic regression stopped after 3 iterations",)


def test_which_problems_take_them() -> None:
    assert heads_for(UTTERANCES)[-3:] == FITTED
    for problem in (FRAMES, REGRESSION, ATTRIBUTES):
        assert not set(heads_for(problem)) & set(FITTED)
        with pytest.raises(UsageError, match="There is no head `knn`"):
            refuse_head("knn", problem)
    for name in FITTED:
        info = head_info(name)
        assert (info.fitted, info.linear_on_mean, info.gives) == (True, True, ("utterances",))
        refuse_head(name, UTTERANCES)


def test_a_declaration_that_cannot_be_fitted_is_refused() -> None:
    for fields in ({"gives": ("frames",), "linear_on_mean": True}, {"gives": ("utterances",)}):
        with pytest.raises(PluginError, match="fitted gives utterances alone, and reads their means"):
            HeadInfo(name="mine", fitted=True, **fields)


def probe_of(name: str, means: Tensor, classes: Tensor) -> Probe:
    shape = ProbeShape(
        head=name, pools=True, num_layers=1, width=5, hidden_units=4, classes=("a", "b", "c"), mix="mean"
    )  # fmt: skip
    probe = Probe(shape, torch.Generator().manual_seed(0))
    assert isinstance(probe.head, FittedHead)
    probe.head.fit(means, classes, SETTINGS)
    return probe.eval()


@pytest.mark.parametrize("name", FITTED)
def test_a_saved_probe_has_the_scores_of_the_fitted_one(name: str, tmp_path: Path) -> None:
    means, classes = data()
    probe = probe_of(name, means, classes)
    file = tmp_path / "probe.safetensors"
    file.write_bytes(encoded_probe(probe, {"layer": "0"}))
    again, facts = load_probe(file)
    assert facts == {"layer": "0"}
    frames, counts = torch.randn(1, 12, 5), torch.tensor([5, 7])
    assert torch.equal(probe(frames, counts), again(frames, counts))


def test_a_file_whose_means_have_no_class_each_is_refused(tmp_path: Path) -> None:
    means, classes = data()
    file = tmp_path / "probe.safetensors"
    for labels in (classes[:-1], classes + 1, classes - 1):
        probe = probe_of("knn", means, classes)
        assert isinstance(probe.head, Knn)
        probe.head.labels = labels.clone()
        file.write_bytes(encoded_probe(probe, {}))
        with pytest.raises(IntegrityError, match="do not have a class each, of 3"):
            load_probe(file)


def test_a_file_with_means_of_another_width_is_refused(tmp_path: Path) -> None:
    means, classes = data()
    probe = probe_of("nearest", means, classes)
    assert isinstance(probe.head, Nearest)
    probe.head.bank = probe.head.bank[:, :4].clone()
    file = tmp_path / "probe.safetensors"
    file.write_bytes(encoded_probe(probe, {}))
    with pytest.raises(IntegrityError, match="bank"):
        load_probe(file)


def test_a_factory_that_declares_a_fit_and_has_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from repbench.downstream.heads.builtin import Linear

    monkeypatch.setattr(
        Linear, "info", HeadInfo(name="linear", gives=("utterances",), linear_on_mean=True, fitted=True)
    )
    with pytest.raises(PluginError, match="must be a FittedHead, but is a Linear"):
        build_head(
            "linear", width=3, num_classes=2, hidden_units=1, pools=True, generator=torch.Generator().manual_seed(0)
        )
