"""Mel filter banks and the cosine transform, as matrices.

Conventions: a bank is (bins, bands); power (N, bins) @ bank is (N, bands). Frequencies are in Hz.

Axes: N windows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class BankBlock(NamedTuple):
    """A range of bins and the few bands that are not zero there.

    Attributes:
        bins: Rows of the bank.
        bands: Columns of the bank.
        weights: (bins, bands) float32.
    """

    bins: slice
    bands: slice
    weights: Tensor


class MelBank:
    """A mel bank as a few blocks, because most of the whole matrix is zero.

    Args:
        bank: (bins, bands).
        num_blocks: Number of ranges of bins.
    """

    _LANES = 16
    """Bands that a matrix product computes at once: a block is widened with zero weights to a multiple of them."""

    def __init__(self, bank: Tensor, num_blocks: int = 4) -> None:
        num_bands = bank.shape[1]
        edges = [round(i * len(bank) / num_blocks) for i in range(num_blocks + 1)]
        self._blocks = []
        for first, last in pairwise(edges):
            # (bins of the range, bands) -> (bands fed,), ascending
            fed = bank[first:last].any(dim=0).nonzero().flatten()  # bands with a weight in this range of bins
            width = min(num_bands, self._LANES * math.ceil((int(fed[-1]) + 1 - int(fed[0])) / self._LANES))
            # A widened block that would leave the bank at the right is moved left; the columns it gains are zero here.
            low = min(int(fed[0]), num_bands - width)
            # (bins, bands) -> (last - first, width)
            weights = bank[first:last, low : low + width].contiguous()
            self._blocks.append(BankBlock(slice(first, last), slice(low, low + width), weights))

    def to(self, device: torch.device) -> MelBank:
        """The bank on `device`."""
        # A copy: `cut_bank` returns one cached object to every caller, and assigning to it would move it for all.
        moved = copy.copy(self)
        moved._blocks = [block._replace(weights=block.weights.to(device)) for block in self._blocks]
        return moved

    def add(self, power: Tensor, mel: Tensor) -> None:
        """Add the bands of (N, bins) power to (N, bands) in place."""
        for block in self._blocks:
            # (N, block's bins) @ (block's bins, block's bands), added to a view of (N, bands): blocks overlap in bands
            mel[:, block.bands].addmm_(power[:, block.bins], block.weights)


@lru_cache(maxsize=32)
def cut_bank(bank: Callable[[int, int, int], Tensor], sample_rate_hz: int, fft_samples: int, num_bands: int) -> MelBank:
    """One of the banks below, (bins, num_bands), as a cached `MelBank`."""
    return MelBank(bank(sample_rate_hz, fft_samples, num_bands))


@lru_cache(maxsize=16)
def slaney_bank(sample_rate_hz: int, fft_samples: int, num_bands: int) -> Tensor:
    """Triangles of unit area on Slaney's scale, from 0 Hz to half the rate: (bins, num_bands) float32.

    The scale is linear below 1 kHz (200/3 Hz a mel) and logarithmic above (27 mels for each factor of 6.4); each
    triangle is scaled by 2 / (its width in Hz).
    """
    # Slaney, Auditory Toolbox, 1998; `librosa.filters.mel` with `htk=False, norm="slaney"`.
    edges = slaney_edges(sample_rate_hz, num_bands)
    bins = torch.arange(fft_samples // 2 + 1, dtype=torch.float64) * (sample_rate_hz / fft_samples)
    return (_triangles(bins, edges) * (2.0 / (edges[2:] - edges[:-2]))).to(torch.float32)


@lru_cache(maxsize=16)
def htk_bank(sample_rate_hz: int, fft_samples: int, num_bands: int) -> Tensor:
    """Triangles of unit height on the scale 2595 log10(1 + f / 700), drawn over Hz: (bins, num_bands) float32."""
    # `torchaudio.functional.melscale_fbanks` with `mel_scale="htk", norm=None`. The scale is the HTK Book's, but HTK
    # and Kaldi draw the triangles over mels.
    edges = htk_edges(sample_rate_hz, num_bands)
    bins = torch.arange(fft_samples // 2 + 1, dtype=torch.float64) * (sample_rate_hz / fft_samples)
    return _triangles(bins, edges).to(torch.float32)


@lru_cache(maxsize=16)
def kaldi_bank(sample_rate_hz: int, fft_samples: int, num_bands: int, low_hz: float = 20.0) -> Tensor:
    """Triangles of unit height on the scale 1127 ln(1 + f / 700), drawn over mels: (bins, num_bands) float32.

    The bin at half the rate has no weight, as in Kaldi.
    """
    # Kaldi's feat/mel-computations.cc.
    bins = torch.arange(fft_samples // 2 + 1, dtype=torch.float64) * (sample_rate_hz / fft_samples)
    edges = _kaldi_mel_edges(sample_rate_hz, num_bands, low_hz)
    bank = _triangles(1127.0 * torch.log1p(bins / 700.0), edges)
    # Kaldi's banks cover fft_samples / 2 bins only; torchaudio.compliance.kaldi pads the last one with zero, too.
    bank[-1] = 0.0
    return bank.to(torch.float32)


def slaney_edges(sample_rate_hz: int, num_bands: int) -> Tensor:
    """Hz at which the bands of `slaney_bank` start, peak and end, band i at i, i + 1, i + 2: (num_bands + 2,)."""
    return _edges(_slaney_mel, _slaney_hz, 0.0, sample_rate_hz / 2, num_bands)


def htk_edges(sample_rate_hz: int, num_bands: int) -> Tensor:
    """As `slaney_edges`, of `htk_bank`."""
    return _edges(_htk_mel, _htk_hz, 0.0, sample_rate_hz / 2, num_bands)


def kaldi_edges(sample_rate_hz: int, num_bands: int, low_hz: float = 20.0) -> Tensor:
    """As `slaney_edges`, of `kaldi_bank`."""
    return 700.0 * torch.expm1(_kaldi_mel_edges(sample_rate_hz, num_bands, low_hz) / 1127.0)


@lru_cache(maxsize=16)
def cosine_transform(num_inputs: int, num_outputs: int) -> Tensor:
    """Orthonormal DCT-II: (num_inputs, num_outputs) float64; x @ it are the first coefficients."""
    # x[k] = sqrt(2 / N) * sum_n x[n] cos(pi / N * (n + 1/2) * k), as scipy's `dct(type=2, norm="ortho")` and Kaldi's
    # ComputeDctMatrix (matrix/matrix-functions.cc). The result is cached and shared: callers must not write into it.
    angles = math.pi / num_inputs * (torch.arange(num_inputs, dtype=torch.float64)[:, None] + 0.5)
    # (inputs, 1) * (outputs,) -> (inputs, outputs)
    transform = torch.cos(angles * torch.arange(num_outputs)) * math.sqrt(2.0 / num_inputs)
    transform[:, 0] *= math.sqrt(0.5)  # the constant has twice the power of a cosine
    return transform


def _triangles(positions: Tensor, edges: Tensor) -> Tensor:
    """(bins,) positions and (bands + 2,) edges on one scale -> (bins, bands), 1 at each middle edge."""
    # each (bands + 2,) -> (bands,)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (positions[:, None] - left) / (centre - left)  # (bins, 1) - (bands,) -> (bins, bands)
    falling = (right - positions[:, None]) / (right - centre)
    # Below its peak a triangle is the rising line, above it the falling one: the lower of both, and never negative.
    return torch.minimum(rising, falling).clamp_min(0.0)


def _edges(
    to_mel: Callable[[float], float], to_hz: Callable[[float], float], low_hz: float, high_hz: float, num_bands: int
) -> Tensor:
    low, high = to_mel(low_hz), to_mel(high_hz)
    steps = (low + (high - low) * i / (num_bands + 1) for i in range(num_bands + 2))
    return torch.tensor([to_hz(step) for step in steps], dtype=torch.float64)


def _kaldi_mel_edges(sample_rate_hz: int, num_bands: int, low_hz: float) -> Tensor:
    low, high = _kaldi_mel(low_hz), _kaldi_mel(sample_rate_hz / 2)
    return low + (high - low) * torch.arange(num_bands + 2, dtype=torch.float64) / (num_bands + 1)


def _slaney_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _slaney_hz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


def _htk_mel(hz: float) -> float:
    # The HTK Book, "Filterbank Analysis".
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def _htk_hz(mel: float) -> float:
    return 700.0 * (math.pow(10.0, mel / 2595.0) - 1.0)


def _kaldi_mel(hz: float) -> float:
    # MelScale in Kaldi's feat/mel-computations.h; 1127 is 2595 / ln 10 rounded.
    return 1127.0 * math.log1p(hz / 700.0)
