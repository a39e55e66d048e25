"""Frame counts and frame centres of models of other libraries, and batches put together from single utterances.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.upstream.contract import HiddenStates


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameClock:
    """Windows of one length, one per hop, wholly inside a waveform: (T - window) // hop + 1 frames.

    Attributes:
        hop_samples: Distance of two windows.
        window_samples: Samples that a frame depends on; the shortest waveform that gives a frame.
    """

    hop_samples: int
    window_samples: int

    @property
    def first_center_samples(self) -> int:
        """The middle of the first window."""
        return self.window_samples // 2

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        return max(0, (num_samples - self.window_samples) // self.hop_samples + 1)


def clock_of_convolutions(kernels: Sequence[int], strides: Sequence[int]) -> FrameClock:
    """The clock of a stack of convolutions without padding.

    A frame is a window of 1 + sum_i (k_i - 1) s_1…s_{i-1} samples, one every s_1…s_n. Rounding down at each layer
    equals rounding down once: floor(floor(x / a) / b) = floor(x / ab).
    """
    # 1, s_1, s_1 s_2, …: one more than there are kernels; the last is the hop of the whole stack
    hops = list(itertools.accumulate(strides, lambda a, b: a * b, initial=1))
    window = 1 + sum((kernel - 1) * hop for kernel, hop in zip(kernels, hops, strict=False))
    return FrameClock(hop_samples=math.prod(strides), window_samples=window)


def joined(states: Sequence[Tensor]) -> HiddenStates:
    """The hidden states (L, F, D) of single utterances as those of a batch, zero past each length."""
    lengths = torch.tensor([each.shape[1] for each in states], dtype=torch.int64, device=states[0].device)
    # B times (L, F, D) -> (F, B, L, D) -> (L, B, F, D)
    padded = torch.nn.utils.rnn.pad_sequence([each.transpose(0, 1) for each in states])
    return HiddenStates(layers=padded.permute(2, 1, 0, 3), lengths=lengths)
