"""From the frames of tokens to the segments that are aligned, within a budget of memory.

Axes: S segments, F frames of one, N frames of all, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from repbench.downstream.metrics.dtw import Segments
from repbench.downstream.metrics.frame_distances import FrameDistance
from repbench.errors import EnvironmentFault

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Pooling = Literal["dtw", "mean"]
"""How two segments are compared: aligned frame by frame, or each by the mean of its frames."""

_FRAMES_SHARE = 0.5
"""Share of the memory that the frames may take; the rest is that of the alignment."""

_COPIES = 3
"""Copies of the frames while they are prepared: those that were read, joined, and with what a distance adds."""


def segments_of(
    frames: Sequence[Tensor], distance: FrameDistance, *, pooling: Pooling, device: torch.device, memory_bytes: int
) -> Segments:
    """The segments of some frames, prepared for a distance.

    Args:
        frames: S times (F, D) float32, with at least one frame each, on the CPU.
        distance: Prepares all frames together.
        pooling: With `mean` a segment is one frame, the mean.
        device: Where they are aligned.
        memory_bytes: The budget of the whole alignment.

    Raises:
        EnvironmentFault: The frames do not fit.
    """
    import torch

    taken = [each.mean(dim=0, keepdim=True) if pooling == "mean" else each for each in frames]
    need = _COPIES * sum(each.nbytes for each in taken)
    if need > _FRAMES_SHARE * memory_bytes:
        what = f"The frames of {len(taken)} segments take {need} bytes, which do not fit {memory_bytes} of memory"
        do = "Give more with --set resources.memory_gib=N, or compare fewer segments"
        raise EnvironmentFault(what, key="resources.memory_gib", do=do)
    lengths = np.array([len(each) for each in taken], dtype=np.int64)
    # S times (F, D) -> (N, D)
    joined = distance.prepare(torch.cat(taken).to(device))
    return Segments(joined, np.cumsum(lengths) - lengths, lengths)


def alignment_bytes(segments: Segments, memory_bytes: int) -> int:
    """What is left of the budget for the tensors of an alignment."""
    return memory_bytes - segments.frames.nbytes
