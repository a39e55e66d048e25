"""`attentive_mean`: a weighted mean of the frames, whose weights follow from the frames.

Axes: N frames of all utterances in turn, D width, U utterances, O outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.frames import initialise


class AttentiveMean(Head):
    """Self-attentive pooling, then a linear layer; arguments as `HeadFactory`.

    With frames x_t and one learnt vector a, the weights are softmax_t(a · x_t) over the frames of an utterance, and the
    scores are those of the sum of weighted frames. The linear layer follows the pooling directly, so it compares with
    `linear`, which is the same head with equal weights.

    Reference:
        Safari, India and Hernando, Self-attention encoding and pooling for speaker recognition, 2020, after Lin et al.,
        A structured self-attentive sentence embedding, 2017, with one weight a frame.
    """

    info = HeadInfo(name="attentive_mean", gives=("utterances",))

    def __init__(self, *, width: int, num_outputs: int, generator: torch.Generator, **unread: Any) -> None:
        super().__init__()
        # No bias: a number that is added to all logits changes no softmax, and would have no gradient.
        self.attention = nn.Linear(width, 1, bias=False)
        self.output = nn.Linear(width, num_outputs)
        for layer in (self.attention, self.output):
            initialise(layer, width, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (U, D)."""
        assert counts is not None
        weighted = frames * self.weights(frames, counts)[:, None]  # (N, D) with (N, 1)
        pooled: Tensor = torch.segment_reduce(weighted, "sum", lengths=counts, axis=0)  # (N, D) -> (U, D)
        return pooled

    def weights(self, frames: Tensor, counts: Tensor) -> Tensor:
        """Weights (N,) of frames (N, D), which add up to 1 within each of the utterances of `counts` (U,)."""
        logits = self.attention(frames)[:, 0]  # (N, D) -> (N, 1) -> (N,)
        # The largest logit of the utterance is subtracted, so that `exp` overflows nowhere; it cancels, so it is
        # detached.
        largest = torch.segment_reduce(logits.detach(), "max", lengths=counts, axis=0)  # (N,) -> (U,)
        powers = torch.exp(logits - largest.repeat_interleave(counts))
        totals = torch.segment_reduce(powers, "sum", lengths=counts, axis=0)  # (N,) -> (U,)
        weights: Tensor = powers / totals.repeat_interleave(counts)
        return weights
