"""`conv`: two convolutions over the frames, then a linear layer.

Axes: N frames of all utterances in turn, D width, U utterances, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout
from repbench.downstream.heads.frames import convolved, frames_taken, initialise, mean_of_each, with_repeated_ends

KERNEL_FRAMES = 5
"""Frames that each of the two convolutions reads: nine together, as many as `concat9`."""


class Conv(Head):
    """Two convolutions of `hidden_units` channels over five frames, each with a ReLU, the mean if it pools, and linear.

    Arguments are those of `HeadFactory`; `dropout` drops channels of a frame after each ReLU. Beyond the ends of an
    utterance its first and last frame are repeated, so each frame has scores.
    """

    info = HeadInfo(name="conv", gives=("frames", "utterances"), whole_utterances=True)

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
        self.first = nn.Conv1d(width, hidden_units, KERNEL_FRAMES)
        self.second = nn.Conv1d(hidden_units, hidden_units, KERNEL_FRAMES)
        self.output = nn.Linear(hidden_units, num_outputs)
        self.pools = pools
        for layer in (self.first, self.second):
            initialise(layer, layer.in_channels * KERNEL_FRAMES, generator)
        initialise(self.output, hidden_units, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (N, units), or (U, units) if it pools."""
        assert counts is not None
        layers = self.first, self.second
        on_each_side = torch.full_like(counts, frames_taken(layers) // 2)
        longer = with_repeated_ends(frames, counts, on_each_side, on_each_side)  # (N, D) -> (N + 8 U, D)
        units, _ = convolved(longer, counts + 2 * on_each_side, layers, self.drop)  # (N + 8 U, D) -> (N, units)
        return mean_of_each(units, counts) if self.pools else units
