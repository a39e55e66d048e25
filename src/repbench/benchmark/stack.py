"""Probes of one shape side by side: one matrix product where there would be many.

Heads of linear layers stand in a `Stack`; every other head, and every head with dropout, stands by itself in a
`Separate`, which is asked in the same way. A stack holds G lessons (a seed, a part of the labels, a layer: what a probe
is trained on) at R learning rates. All rates of a lesson begin with the same weights and see the same batches, so what
they do to their input is one product.

Axes: G lessons, R rates, L layers, N frames, D width, H units, U utterances, C classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repbench.benchmark.probe import Probe, ProbeShape, weights_of
from repbench.downstream.heads import HIDDEN_LAYERS, LayeredHead, mean_of_each

EVERY = slice(None)

_LEAST_NORM = 1e-6
"""Added to a norm before it divides, as `torch.nn.utils.clip_grad_norm_` does."""


def can_stand_together(shape: ProbeShape) -> bool:
    """Whether probes of a shape can be one matrix product."""
    return shape.head in HIDDEN_LAYERS and not shape.dropout


def side_by_side(probes: Sequence[Probe], num_rates: int) -> Stack | Separate:
    """The untrained probes of some lessons at R rates, however their shape can be trained."""
    if can_stand_together(probes[0].shape):
        return Stack(probes, num_rates)
    (probe,) = probes
    return Separate(probe, num_rates)


class Stack(nn.Module):
    """G x R probes.

    Args:
        probes: The untrained probe of each lesson, with its statistics, all of one shape.
        num_rates: R.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, probes: Sequence[Probe], num_rates: int) -> None:
        super().__init__()
        self.shape = probes[0].shape
        self.register_buffer("mean", torch.stack([probe.mean for probe in probes]))  # (G, L, 1, D)
        self.register_buffer("std", torch.stack([probe.std for probe in probes]))
        self.rates = nn.ModuleList(_Rate(probes) for _ in range(num_rates))

    def parameter_groups(self, learning_rates: Sequence[float]) -> list[dict[str, Any]]:
        """For an optimiser: the weights of each rate with the rate."""
        return _parameter_groups(self.rates, learning_rates)

    def forward(self, frames: Tensor, counts: Tensor | None = None, lessons: slice = EVERY) -> Tensor:
        """Scores of all probes.

        Args:
            frames: (G, L, N, D).
            counts: (U,) frames of each utterance in turn, where utterances are asked; then G is 1.
            lessons: Which lessons the frames are of.

        Returns:
            (G, N, R, C), or (1, U, R, C).
        """
        counts = counts if self.shape.pools else None
        standard = (frames - self.mean[lessons]) / self.std[lessons]
        hidden = self._mixed(standard, lessons)
        last = len(self._rate(0).weights) - 1
        for number in range(last + 1):
            if number == last and counts is not None:
                hidden = mean_of_each(hidden[0].flatten(1), counts).view(1, len(counts), *hidden.shape[2:])
            hidden = self._linear(number, hidden, lessons)
            if number < last:
                hidden = torch.relu(hidden)
        return hidden

    def clip(self, norm: float) -> None:
        """Scale the gradient of each probe down to `norm`, if it is greater."""
        for rate in self.rates:
            gradients = [each.grad for each in rate.parameters() if each.grad is not None]
            squares = torch.stack([each.square().flatten(1).sum(dim=1) for each in gradients]).sum(dim=0)  # (G,)
            scale = (norm / (squares.sqrt() + _LEAST_NORM)).clamp_max(1.0)
            for each in gradients:
                each.mul_(scale.view(-1, *[1] * (each.dim() - 1)))

    def state(self, lesson: int, rate: int) -> dict[str, Tensor]:
        """A copy of the weights of one probe, under the names of `Probe`."""
        return self._rate(rate).state(lesson) | {"mean": self.mean[lesson].clone(), "std": self.std[lesson].clone()}

    def _rate(self, number: int) -> _Rate:
        rate = self.rates[number]
        assert isinstance(rate, _Rate)
        return rate

    def _mixed(self, standard: Tensor, lessons: slice) -> Tensor:
        """(G, L, N, D) -> (G, N, 1, D), or (G, N, R, D) where each probe mixes the layers in its own way."""
        if standard.shape[1] == 1:
            return standard[:, 0, :, None]
        rates = range(len(self.rates)) if self.shape.mix != "mean" else range(1)
        logits = torch.stack([self._rate(number).layer_logits[lessons] for number in rates], dim=1)  # (G, R, L)
        return torch.einsum("grl,glnd->gnrd", weights_of(logits, self.shape.mix), standard)

    def _linear(self, number: int, inputs: Tensor, lessons: slice) -> Tensor:
        """(G, N, 1 or R, D) -> (G, N, R, H)."""
        weight = torch.stack([self._rate(rate).weights[number][lessons] for rate in range(len(self.rates))], dim=1)
        bias = torch.stack([self._rate(rate).biases[number][lessons] for rate in range(len(self.rates))], dim=1)
        if inputs.shape[2] == 1:  # one input for all rates: (G, N, D) x (G, D, R H)
            outputs = torch.baddbmm(bias.flatten(1)[:, None], inputs[:, :, 0], weight.flatten(1, 2).mT)
            return outputs.view(*outputs.shape[:2], *bias.shape[1:])
        return torch.einsum("gnrd,grhd->gnrh", inputs, weight) + bias[:, None]


class Separate(nn.Module):
    """One lesson's probe at R rates, each by itself; G is 1.

    Args:
        probe: Untrained, with its statistics.
        num_rates: R.
    """

    def __init__(self, probe: Probe, num_rates: int) -> None:
        super().__init__()
        self.shape = probe.shape
        self.rates = nn.ModuleList(copy.deepcopy(probe) for _ in range(num_rates))

    def parameter_groups(self, learning_rates: Sequence[float]) -> list[dict[str, Any]]:
        """As `Stack.parameter_groups`."""
        return _parameter_groups(self.rates, learning_rates)

    def forward(self, frames: Tensor, counts: Tensor | None = None, lessons: slice = EVERY) -> Tensor:
        """As `Stack.forward`; counts go to every head."""
        return torch.stack([rate(frames[0], counts) for rate in self.rates], dim=1)[None]

    def clip(self, norm: float) -> None:
        """As `Stack.clip`."""
        for rate in self.rates:
            nn.utils.clip_grad_norm_(rate.parameters(), norm)

    def state(self, lesson: int, rate: int) -> dict[str, Tensor]:
        """As `Stack.state`."""
        return {name: tensor.detach().clone() for name, tensor in self.rates[rate].state_dict().items()}


def _parameter_groups(rates: Iterable[nn.Module], learning_rates: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"params": [each for each in rate.parameters() if each.requires_grad], "lr": learning_rate}
        for rate, learning_rate in zip(rates, learning_rates, strict=True)
    ]


class _Rate(nn.Module):
    """The weights of all lessons at one learning rate; the first axis is G."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        super().__init__()
        learnt = probes[0].layer_logits.requires_grad
        logits = torch.stack([probe.layer_logits.detach() for probe in probes])
        self.layer_logits = nn.Parameter(logits, requires_grad=learnt)
        places = list(zip(*(_linears(probe) for probe in probes), strict=True))
        self.weights = nn.ParameterList(torch.stack([each.weight.detach() for each in place]) for place in places)
        self.biases = nn.ParameterList(torch.stack([each.bias.detach() for each in place]) for place in places)

    def state(self, lesson: int) -> dict[str, Tensor]:
        """A copy of the weights of one lesson."""
        names = [*(f"head.hidden.{number}" for number in range(len(self.weights) - 1)), "head.output"]
        state = {"layer_logits": self.layer_logits[lesson]}
        for name, weight, bias in zip(names, self.weights, self.biases, strict=True):
            state |= {f"{name}.weight": weight[lesson], f"{name}.bias": bias[lesson]}
        return {name: tensor.detach().clone() for name, tensor in state.items()}


def _linears(probe: Probe) -> list[nn.Linear]:
    assert isinstance(probe.head, LayeredHead)
    return probe.head.linears()
