"""Operations on the frames of several utterances in turn, and the initial weights of layers.

Axes: N frames of all utterances in turn, D width, U utterances.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mean_of_each(frames: Tensor, counts: Tensor) -> Tensor:
    """Mean over each utterance's frames: (N, D) with counts (U,) -> (U, D)."""
    # Not a padded (U, longest, D) tensor: no memory for padding, and no count of zeros in the mean.
    means: Tensor = torch.segment_reduce(frames, "mean", lengths=counts, axis=0)
    return means


def windows(rows: Tensor, ends: Tensor, context: int) -> Tensor:
    """Each row with its neighbours in its own utterance, the latest first; the ends of the utterance are repeated.

    Args:
        rows: (N,) row numbers of frames.
        ends: (U,) the row after the last of each utterance.
        context: Neighbours on either side.

    Returns:
        (N, 2 context + 1) row numbers: of row t, t + context, …, t, …, t - context.
    """
    # (U,) ends, (N,) rows -> (N,): the first utterance whose end is past the row
    utterance = torch.searchsorted(ends, rows, right=True)
    # (U,): an utterance starts where the one before it ends
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    offsets = torch.arange(context, -context - 1, -1, device=rows.device)
    # (N, 1) + (2 context + 1,) -> (N, 2 context + 1), clamped to [start, end - 1] of the row's utterance, (N, 1) each
    return (rows[:, None] + offsets).clamp(starts[utterance, None], ends[utterance, None] - 1)


def initialise(layer: nn.Module, fan_in: int, generator: torch.Generator) -> None:
    """Draw all parameters uniformly in ±1/sqrt(fan in), torch's own rule for linear layers and GRUs."""
    bound = fan_in**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
