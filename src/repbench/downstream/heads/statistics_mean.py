"""`statistics_mean`: mean and standard deviation over the frames, then a hidden layer.

Axes: N frames of all utterances in turn, D width, U utterances, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout
from repbench.downstream.heads.frames import deviation_of_each, initialise, mean_of_each

VARIANCE_FLOOR = 1e-5
"""Least variance of a dimension over an utterance, in units of its variance in train where inputs are standardised."""


def statistics_of_each(frames: Tensor, counts: Tensor) -> Tensor:
    """Means and standard deviations over each utterance's frames: (N, D) with counts (U,) -> (U, 2 D), means first.

    The deviation is the biased one, with `VARIANCE_FLOOR` below it: of a single frame it is the root of that floor.
    """
    means = mean_of_each(frames, counts)
    deviations = deviation_of_each(frames, counts, means, floor=VARIANCE_FLOOR)
    return torch.cat([means, deviations], dim=1)  # (U, D), (U, D) -> (U, 2 D)


class StatisticsMean(Head):
    """Statistics pooling on the frames themselves, one hidden ReLU layer, a linear layer; arguments as `HeadFactory`.

    Reference:
        Snyder et al., Deep neural network embeddings for text-independent speaker verification, 2017, for the pooling.
    """

    info = HeadInfo(name="statistics_mean", gives=("utterances",), statistics_alone=True, reads_deviation=True)

    def __init__(
        self,
        *,
        width: int,
        num_outputs: int,
        hidden_units: int,
        pools: bool,
        generator: torch.Generator,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, hidden_units)
        self.output = nn.Linear(hidden_units, num_outputs)
        for layer in (self.hidden, self.output):
            initialise(layer, layer.in_features, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (U, units)."""
        assert counts is not None
        # (N, D) -> (U, 2 D) -> (U, units)
        units: Tensor = self.drop(torch.relu(self.hidden(statistics_of_each(frames, counts))))
        return units
