"""`repbench check head`: built-in heads pass, and each fault is found by the check of its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repbench.downstream.heads import FitSettings, HeadInfo
from repbench.downstream.heads.builtin import LayeredHead, Linear, Mlp1
from repbench.downstream.heads.contract import Head
from repbench.downstream.heads.fitted import Logistic, Nearest
from repbench.registry import registry
from repbench.testing.heads import HEAD_CHECKS, check_head, means_of_training

BUILTIN = [entry for entry in registry().entries("head") if entry.builtin]


@pytest.mark.parametrize("entry", BUILTIN, ids=lambda entry: entry.name)
def test_a_built_in_head_passes(entry: Any) -> None:
    assert {each.id: each.detail for each in check_head(entry.load()) if each.status == "failed"} == {}


class OtherInfo(Linear):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.info = HeadInfo(name="other", gives=("frames",))


class OneScoreTooMany(Linear):
    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        return nn.functional.pad(super().forward(frames, counts), (0, 1))


class Noisy(Linear):
    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        return super().before_output(frames + torch.rand(()), counts)


class GlobalDraws(Linear):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        nn.init.normal_(self.output.weight)


class Neighbours(Mlp1):
    """The mean of the whole batch reaches every utterance."""

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        return super().before_output(frames - frames.mean(dim=0), counts)


class Undeclared(LayeredHead):
    """The mean of three frames, without `context_frames`."""

    info = HeadInfo(name="undeclared", gives=("frames",))

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        assert counts is not None
        parts = [torch.cat([each[:1], each, each[-1:]]) for each in torch.split(frames, counts.tolist())]
        return torch.cat([(each[:-2] + each[1:-1] + each[2:]) / 3 for each in parts])


class NotLinear(Linear):
    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        return super().before_output(torch.tanh(frames), counts)


class Sums(Mlp1):
    """Reads how many frames there are."""

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        means = super().before_output(frames, counts)
        return means if counts is None or not self.pools else means * counts[:, None]


class NotOfStatistics(Mlp1):
    info = HeadInfo(name="mlp1", gives=("utterances",), statistics_alone=True)


class TwoMatrices(Mlp1):
    info = HeadInfo(name="two", gives=("frames", "utterances"), one_matrix=True)


class Idle(Mlp1):
    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.idle = nn.Parameter(torch.ones(3))


class GlobalDropout(Mlp1):
    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        return super().before_output(nn.functional.dropout(frames, 0.5, self.training), counts)


class Unsaved(Linear):
    """A random projection that the state does not hold."""

    def __init__(self, *, generator: torch.Generator, **sizes: Any) -> None:
        super().__init__(generator=generator, **sizes)
        self.gains = torch.rand(sizes["width"], generator=generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        return super().before_output(frames * self.gains, counts)


class Environment(Linear):
    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        os.environ["COLOUR"] = "red"
        return super().before_output(frames, counts)


class Inseparable(Nearest):
    """The order of the training utterances plays a part."""

    def fit(self, means: Tensor, classes: Tensor, settings: FitSettings) -> tuple[str, ...]:
        return super().fit(means.cumsum(dim=0), classes, settings)


class Forgetful(Nearest):
    """Every fit is one to the same utterances."""

    def fit(self, means: Tensor, classes: Tensor, settings: FitSettings) -> tuple[str, ...]:
        return super().fit(*means_of_training(9), settings)


class Generous(Logistic):
    """A class without an utterance has the highest score."""

    def scores_of_means(self, means: Tensor) -> Tensor:
        return -super().scores_of_means(means)


FAULTS: dict[str, Callable[..., Head]] = {
    "declaration": OtherInfo,
    "scores-as-declared": OneScoreTooMany,
    "deterministic": Noisy,
    "drawn-from-its-generator": GlobalDraws,
    "fitted-to-its-data": Inseparable,
    "alone-and-in-a-batch": Neighbours,
    "context-as-declared": Undeclared,
    "linear-on-mean": NotLinear,
    "mean-over-frames": Sums,
    "statistics-alone": NotOfStatistics,
    "one-matrix": TwoMatrices,
    "gradient-reaches-every-weight": Idle,
    "dropout-from-its-seed": GlobalDropout,
    "saved-and-loaded": Unsaved,
    "global-state": Environment,
}
"""A head with one fault for each check."""


@pytest.mark.parametrize("id_", FAULTS)
def test_a_fault_is_found_by_the_check_of_its_name(id_: str) -> None:
    results = {each.id: each for each in check_head(FAULTS[id_])}  # type: ignore[arg-type]
    assert results[id_].status == "failed", results[id_]


@pytest.mark.parametrize(
    ("head", "detail"),
    [
        (Forgetful, "the same after a fit to other utterances"),
        (Generous, "without a training utterance has the highest"),
    ],
)
def test_each_fault_of_a_fit_is_told(head: Any, detail: str) -> None:
    results = {each.id: each for each in check_head(head)}
    assert detail in results["fitted-to-its-data"].detail


def test_several_scored_in_one_pass_are_compared_with_each_alone() -> None:
    class Own(Linear):
        """`forward` adds what the product of `output` alone does not."""

        def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
            return super().forward(frames, counts) + 1.0

    results = {each.id: each for each in check_head(Own)}
    assert results["side-by-side"].status == "failed"
    assert "forward" in results["one-matrix"].detail


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {*FAULTS, "side-by-side"} == {check.id for check in HEAD_CHECKS}
