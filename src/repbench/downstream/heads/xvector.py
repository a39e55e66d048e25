"""`xvector`: a time-delay network on the frames, statistics pooling, and two layers on the utterance.

Axes: N frames of all utterances in turn, D width, U utterances, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.frames import convolved, frames_taken, initialise, with_repeated_ends
from repbench.downstream.heads.statistics_mean import statistics_of_each

FRAME_LAYERS = ((512, 5, 1), (512, 3, 2), (512, 3, 3), (512, 1, 1), (1500, 1, 1))
"""Of each layer on frames the units, the frames that it reads, and the distance between these."""

SEGMENT_UNITS = 512
"""Units of each of the two layers on the utterance; the output of the first is the x-vector of the paper."""


class XVectorEmbedding(Head):
    """The layers up to the x-vector, which heads with different layers after it share."""

    def __init__(self, *, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.frame_layers = nn.ModuleList()
        channels = width
        for units, kernel_frames, dilation in FRAME_LAYERS:
            layer = nn.Conv1d(channels, units, kernel_frames, dilation=dilation)
            initialise(layer, channels * kernel_frames, generator)
            self.frame_layers.append(layer)
            channels = units
        self.segment6 = nn.Linear(2 * channels, SEGMENT_UNITS)
        initialise(self.segment6, self.segment6.in_features, generator)

    def embedding(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """The x-vectors (U, 512) of frames (N, D) with `counts` (U,), before a ReLU."""
        assert counts is not None
        layers = [layer for layer in self.frame_layers if isinstance(layer, nn.Conv1d)]
        lacking = (frames_taken(layers) + 1 - counts).clamp_min(0)  # (U,)
        before = lacking // 2
        longer = with_repeated_ends(frames, counts, before, lacking - before)
        units, left = convolved(longer, counts + lacking, layers, nn.Identity())  # (N', D) -> (N'', 1500)
        pooled: Tensor = self.segment6(statistics_of_each(units, left))  # (N'', 1500) -> (U, 3000) -> (U, 512)
        return pooled


class XVector(XVectorEmbedding):
    """The network of x-vectors; arguments as `HeadFactory`, of which it reads neither `hidden_units` nor `dropout`.

    Five layers on frames without padding read 15 frames together; mean and standard deviation over an utterance are
    (U, 3000); two layers of 512 and the output follow. ReLU after every layer but the last. An utterance of fewer than
    15 frames is lengthened to 15 by copies of its first frame before it and of its last frame after it, as many on
    either side, one more after it where their number is odd.

    The batch normalisation of the paper is left out: the scores of an utterance depend on its own frames alone.

    Reference:
        Snyder et al., X-vectors: robust DNN embeddings for speaker recognition, 2018, table 1.
    """

    info = HeadInfo(name="xvector", gives=("utterances",), reads_deviation=True)

    def __init__(self, *, width: int, num_outputs: int, generator: torch.Generator, **unread: Any) -> None:
        super().__init__(width=width, generator=generator)
        self.segment7 = nn.Linear(SEGMENT_UNITS, SEGMENT_UNITS)
        self.output = nn.Linear(SEGMENT_UNITS, num_outputs)
        for each in (self.segment7, self.output):
            initialise(each, each.in_features, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (U, 512)."""
        # (U, 512) -> (U, 512)
        return torch.relu(self.segment7(torch.relu(self.embedding(frames, counts))))
