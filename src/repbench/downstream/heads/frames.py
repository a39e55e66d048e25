"""Operations on the frames of several utterances in turn, and the initial weights of layers.

Axes: N frames of all utterances in turn, D width, U utterances, H outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def mean_of_each(frames: Tensor, counts: Tensor) -> Tensor:
    """Mean over each utterance's frames: (N, D) with counts (U,) -> (U, D)."""
    # Not a padded (U, longest, D) tensor: no memory for padding, and no count of zeros in the mean.
    means: Tensor = torch.segment_reduce(frames, "mean", lengths=counts, axis=0)
    return means


def deviation_of_each(frames: Tensor, counts: Tensor, means: Tensor, *, floor: float) -> Tensor:
    """Standard deviation over each utterance's frames: (N, D) with counts (U,) and means (U, D) -> (U, D).

    The sum of squares is divided by the number of frames F, not by F - 1: an utterance of one frame has a deviation.

    Args:
        frames: (N, D).
        counts: (U,) frames of each utterance.
        means: (U, D), as `mean_of_each` gives them.
        floor: Least variance. Below it the deviation is constant: the slope of the square root at 0 is infinite.
    """
    # The means are subtracted before squaring: the difference of a mean square and a squared mean loses digits.
    centred = frames - means.repeat_interleave(counts, dim=0)  # (U, D) -> (N, D)
    return mean_of_each(centred.square(), counts).clamp_min(floor).sqrt()


def with_repeated_ends(frames: Tensor, counts: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """The frames with the first and last frame of each utterance repeated beyond its ends.

    Args:
        frames: (N, D).
        counts: (U,) frames of each utterance, at least 1.
        before: (U,) copies of the first frame that are put before it.
        after: (U,) copies of the last frame that are put after it.

    Returns:
        (N + sum of `before` and `after`, D); an utterance has before + count + after frames.
    """
    longer = counts + before + after
    utterance = torch.arange(len(counts), device=counts.device).repeat_interleave(longer)  # (N',)
    # (N',): the frame of the utterance that each row would be, negative before the first one
    places = torch.arange(len(utterance), device=counts.device) - (longer.cumsum(0) - longer + before)[utterance]
    starts = counts.cumsum(0) - counts
    rows = starts[utterance] + torch.minimum(places.clamp_min(0), counts[utterance] - 1)
    return frames[rows]


def convolved(
    frames: Tensor, counts: Tensor, layers: Sequence[nn.Conv1d], between: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Convolutions without padding over the frames of each utterance, one after the other, each with a ReLU.

    All utterances are one sequence, and the rows that would mix two of them are left out after the last layer: there is
    no memory for padding, and no zero among the frames.

    Args:
        frames: (N, D).
        counts: (U,) frames of each utterance, more than the layers take away.
        layers: Convolutions over frames.
        between: Applied after each ReLU, such as dropout.

    Returns:
        (N', H) rows, and (U,) the number of each utterance: `frames_taken(layers)` fewer than frames.
    """
    units = frames.t()[None]  # (N, D) -> (1, D, N): a batch of one sequence
    for layer in layers:
        units = between(torch.relu(layer(units)))
    left = counts - frames_taken(layers)
    utterance = torch.arange(len(counts), device=counts.device).repeat_interleave(left)  # (N',)
    # (N',): the row of the sequence where each kept window begins, within its utterance
    firsts = counts.cumsum(0) - counts - (left.cumsum(0) - left)
    rows = torch.arange(len(utterance), device=counts.device) + firsts[utterance]
    return units[0].t()[rows], left  # (1, H, N - taken) -> (N - taken, H) -> (N', H)


def frames_taken(layers: Sequence[nn.Conv1d]) -> int:
    """Frames that an utterance has fewer after convolutions without padding."""
    return sum((layer.kernel_size[0] - 1) * layer.dilation[0] for layer in layers)


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
    """Draw all parameters uniformly in ±1/sqrt(fan in), torch's own rule for linear layers and convolutions.

    For recurrent layers, `fan_in` is the number of units.
    """
    bound = fan_in**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
