"""Probes of one shape side by side: one matrix product where there would be many.

A stack holds G lessons (a seed, a part of the labels, a layer: what a probe is trained on) at R learning rates. All
rates of a lesson begin with the same weights and see the same batches, so what they do to their input is one product.

Axes: G lessons, R rates, L layers, N frames, D width, H units, U utterances, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repbench.benchmark.probe import Probe
from repbench.downstream.heads import mean_of_each

EVERY = slice(None)


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
        return [
            {"params": [each for each in rate.parameters() if each.requires_grad], "lr": learning_rate}
            for rate, learning_rate in zip(self.rates, learning_rates, strict=True)
        ]

    def forward(self, frames: Tensor, counts: Tensor | None = None, lessons: slice = EVERY) -> Tensor:
        """Scores of all probes.

        Args:
            frames: (G, L, N, D).
            counts: (U,) frames of each utterance in turn, where utterances are asked; then G is 1.
            lessons: Which lessons the frames are of.

        Returns:
            (G, N, R, C), or (1, U, R, C).
        """
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
        rates = range(len(self.rates)) if self.shape.mix == "weighted" else range(1)
        logits = torch.stack([self._rate(number).layer_logits[lessons] for number in rates], dim=1)  # (G, R, L)
        return torch.einsum("grl,glnd->gnrd", torch.softmax(logits, dim=-1), standard)

    def _linear(self, number: int, inputs: Tensor, lessons: slice) -> Tensor:
        """(G, N, 1 or R, D) -> (G, N, R, H)."""
        weight = torch.stack([self._rate(rate).weights[number][lessons] for rate in range(len(self.rates))], dim=1)
        bias = torch.stack([self._rate(rate).biases[number][lessons] for rate in range(len(self.rates))], dim=1)
        if inputs.shape[2] == 1:  # one input for all rates: (G, N, D) x (G, D, R H)
            outputs = torch.baddbmm(bias.flatten(1)[:, None], inputs[:, :, 0], weight.flatten(1, 2).mT)
            return outputs.view(*outputs.shape[:2], *bias.shape[1:])
        return torch.einsum("gnrd,grhd->gnrh", inputs, weight) + bias[:, None]


class _Rate(nn.Module):
    """The weights of all lessons at one learning rate; the first axis is G."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        super().__init__()
        learnt = probes[0].layer_logits.requires_grad
        logits = torch.stack([probe.layer_logits.detach() for probe in probes])
        self.layer_logits = nn.Parameter(logits, requires_grad=learnt)
        places = list(zip(*(probe.head.linears() for probe in probes), strict=True))
        self.weights = nn.ParameterList(torch.stack([each.weight.detach() for each in place]) for place in places)
        self.biases = nn.ParameterList(torch.stack([each.bias.detach() for each in place]) for place in places)

    def state(self, lesson: int) -> dict[str, Tensor]:
        """A copy of the weights of one lesson."""
        names = [*(f"head.hidden.{number}" for number in range(len(self.weights) - 1)), "head.output"]
        state = {"layer_logits": self.layer_logits[lesson]}
        for name, weight, bias in zip(names, self.weights, self.biases, strict=True):
            state |= {f"{name}.weight": weight[lesson], f"{name}.bias": bias[lesson]}
        return {name: tensor.detach().clone() for name, tensor in state.items()}
