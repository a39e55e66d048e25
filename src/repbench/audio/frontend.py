"""Waveforms to spectral frames, as pure batched functions.

Conventions: waveforms are (B, T) float32 in [-1, 1] with `lengths` (B,) samples; what lies past a length never
matters. Frames come back as (B, F, D) with (B,) frame counts and are zero past each count. Each utterance is reflected
at its *own* end and normalised over its *own* frames, so it has the same features alone and in any batch.

The legacy Mockingjay features (`mel160`) follow the extractor of the released Mockingjay code: librosa with
`pad_mode="reflect"` and the Slaney mel scale, slopes as in `librosa.feature.delta`.

Axes: B batch, T samples, F frames, W window, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.errors import DataError

_LEGACY_CMVN_EPSILON = 1e-16


@dataclass(frozen=True, slots=True, kw_only=True)
class MelSpec:
    """A mel spectrogram with centred, reflected frames: frame k speaks of sample `k * hop_samples`.

    Attributes:
        sample_rate_hz: Rate of the waveform.
        window_samples: Length of the periodic Hann window.
        hop_samples: Distance of two frames.
        fft_samples: Length of the Fourier transform; the window is zero-padded to it.
        num_bands: Mel bands from 0 Hz to half the rate.
        log_floor: Added to the power before the logarithm.
        delta_frames: Odd window, in frames, of the appended slopes.
    """

    sample_rate_hz: int = 16_000
    window_samples: int = 800
    hop_samples: int = 200
    fft_samples: int = 2048
    num_bands: int = 80
    log_floor: float = 1e-6
    delta_frames: int = 9

    @property
    def width(self) -> int:
        """Bands and their slopes."""
        return 2 * self.num_bands

    @property
    def min_samples(self) -> int:
        """The shortest waveform whose ends can be reflected by half a window."""
        return self.window_samples // 2 + 1

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`."""
        return 1 + num_samples // self.hop_samples


MEL160 = MelSpec()
"""Legacy Mockingjay `mel`: 80 log-mel bands and their slopes, 50 ms windows every 12.5 ms."""


def mel160(waveforms: Tensor, lengths: Tensor, *, cmvn: bool = True, spec: MelSpec = MEL160) -> tuple[Tensor, Tensor]:
    """Log-mel bands with slopes, as the released Mockingjay reads them.

    Args:
        waveforms: (B, T) float32 at `spec.sample_rate_hz`.
        lengths: (B,) int64, each at least `spec.min_samples`.
        cmvn: Whether to bring each dimension to zero mean and unit deviation over the utterance.

    Returns:
        Frames (B, F, 2 * num_bands) float32 and their counts (B,).

    Raises:
        DataError: A waveform is shorter than `spec.min_samples`.
    """
    shortest = int(lengths.min())
    if shortest < spec.min_samples:
        raise DataError(f"mel160 needs at least {spec.min_samples} samples, but a waveform has {shortest}")
    num_frames = 1 + lengths.div(spec.hop_samples, rounding_mode="floor")  # (B,)
    log_mel = log_mel_bands(waveforms, lengths, spec)  # (B, F, num_bands)
    frames = torch.cat([log_mel, savgol_slopes(log_mel, num_frames, spec.delta_frames)], dim=-1)
    if cmvn:
        return normalise_utterances(frames, num_frames, epsilon=_LEGACY_CMVN_EPSILON), num_frames
    for row, count in zip(frames, num_frames.tolist(), strict=True):
        row[count:] = 0.0
    return frames, num_frames


def log_mel_bands(waveforms: Tensor, lengths: Tensor, spec: MelSpec) -> Tensor:
    """ln(mel power + floor): (B, T) -> (B, F, num_bands) float32; rows past an utterance's frames hold no meaning."""
    padded = reflect_ends(waveforms, lengths, spec.window_samples // 2)  # (B, T + W)
    windows = padded.unfold(-1, spec.window_samples, spec.hop_samples)  # (B, F, W)
    mel = torch.zeros(*windows.shape[:2], spec.num_bands, device=waveforms.device)
    if waveforms.device.type == "cpu":
        counts = (1 + lengths.div(spec.hop_samples, rounding_mode="floor")).tolist()
        power = MelPower(spec, _CPU_BLOCK_FRAMES, waveforms.device)
        for row, count in enumerate(counts):
            power.add(windows[row, :count], mel[row, :count])
    else:
        MelPower(spec, mel.shape[0] * mel.shape[1], waveforms.device).add(windows.flatten(0, 1), mel.flatten(0, 1))
    return mel.add_(spec.log_floor).log_()


_CPU_BLOCK_FRAMES = 128
"""Frames transformed at once on a CPU: their spectra stay in the cache between the steps below."""


class MelPower:
    """Mel-weighted power of windows, a block at a time, in buffers that are made once.

    The transform runs in float64: in float32 the strongest bin's rounding shows in the weakest bands (1e-5 after the
    logarithm, measured on a chirp). Only the power is kept, so the window is zero-padded on one side: leading zeros
    would change the phase alone. (Fresh buffers for each block cost a fifth of the time in page faults.)

    Args:
        spec: Of the mel spectrogram.
        block: Windows transformed at once.
        device: Where the windows lie.
    """

    def __init__(self, spec: MelSpec, block: int, device: torch.device) -> None:
        num_bins = spec.fft_samples // 2 + 1
        self._window_samples, self._block = spec.window_samples, block
        self._hann = torch.hann_window(spec.window_samples, dtype=torch.float64, device=device)
        self._bands = [band.to(device) for band in mel_bands(spec.sample_rate_hz, spec.fft_samples, spec.num_bands)]
        self._frames = torch.zeros(block, spec.fft_samples, dtype=torch.float64, device=device)
        self._squares = torch.empty(block, num_bins, 2, device=device)
        self._bins = torch.empty(block, num_bins, device=device)

    def add(self, windows: Tensor, mel: Tensor) -> None:
        """Add the power of (N, W) windows to (N, num_bands) `mel`."""
        for start in range(0, len(windows), self._block):
            rows = windows[start : start + self._block]
            frames, squares = self._frames[: len(rows)], self._squares[: len(rows)]
            torch.mul(rows, self._hann, out=frames[:, : self._window_samples])
            squares.copy_(torch.view_as_real(torch.fft.rfft(frames))).square_()
            bins = torch.add(squares[..., 0], squares[..., 1], out=self._bins[: len(rows)])
            for band in self._bands:
                mel[start : start + self._block, band.bands].addmm_(bins[:, band.bins], band.weights)


class MelBand(NamedTuple):
    """A stretch of bins and the few mel bands that it feeds.

    Attributes:
        bins: Which bins it reads.
        bands: Which mel bands it adds to.
        weights: (bins, bands) float32.
    """

    bins: slice
    bands: slice
    weights: Tensor

    def to(self, device: torch.device) -> MelBand:
        """The same on `device`."""
        return self._replace(weights=self.weights.to(device))


_LANES = 16
"""Bands that a matrix product computes at once: a stretch is widened with zero weights to a multiple of them."""


@lru_cache(maxsize=8)
def mel_bands(sample_rate_hz: int, fft_samples: int, num_bands: int, stretches: int = 4) -> tuple[MelBand, ...]:
    """The mel bank cut along the bins: a triangle feeds on few of them, most of the whole matrix is zero."""
    bank = slaney_mel_bank(sample_rate_hz, fft_samples, num_bands)
    edges = [round(i * len(bank) / stretches) for i in range(stretches + 1)]
    bands = []
    for first, last in pairwise(edges):
        fed = bank[first:last].any(dim=0).nonzero().flatten()
        width = min(num_bands, _LANES * math.ceil((int(fed[-1]) + 1 - int(fed[0])) / _LANES))
        low = min(int(fed[0]), num_bands - width)
        weights = bank[first:last, low : low + width].contiguous()
        bands.append(MelBand(slice(first, last), slice(low, low + width), weights))
    return tuple(bands)


def reflect_ends(waveforms: Tensor, lengths: Tensor, margin: int) -> Tensor:
    """Mirror each waveform at its own two ends: (B, T) -> (B, T + 2 * margin); what lies further out is zero."""
    batch, num_samples = waveforms.shape
    if batch == 1 and int(lengths[0]) == num_samples:
        before, after = waveforms[:, 1 : margin + 1].flip(1), waveforms[:, -margin - 1 : -1].flip(1)
        return torch.cat([before, waveforms, after], dim=1)
    padded = F.pad(waveforms * valid_mask(lengths, num_samples), (margin, margin))
    for row, length in zip(padded, lengths.tolist(), strict=True):
        row[:margin] = row[margin + 1 : 2 * margin + 1].flip(0)
        end = margin + length
        row[end : end + margin] = row[end - 1 - margin : end - 1].flip(0)
    return padded


def savgol_slopes(frames: Tensor, num_frames: Tensor, window: int) -> Tensor:
    """Slope over time of the straight line fitted to each `window` frames (Savitzky-Golay, first order).

    The first and last `window // 2` frames take the slope of the first and last whole window; an utterance shorter
    than the window takes the slope of the line through all its frames (0 for a single frame).

    Args:
        frames: (B, F, D).
        num_frames: (B,) valid frames.
        window: Odd number of frames.
    """
    half = window // 2
    slopes = torch.zeros_like(frames)
    if frames.shape[1] >= window:
        whole = frames.shape[1] - window + 1
        central = slopes[:, half : half + whole]
        for step in range(1, half + 1):
            ahead, behind = frames[:, half + step :][:, :whole], frames[:, half - step :][:, :whole]
            central.add_(ahead - behind, alpha=step / (half * (half + 1) * window / 3))
    for row, values, count in zip(slopes, frames, num_frames.tolist(), strict=True):
        if count < window:
            row[:count] = _line_slope(values[:count])
        else:
            row[:half] = row[half]
            row[count - half : count] = row[count - half - 1]
    return slopes


def _line_slope(values: Tensor) -> Tensor:
    """Slope of the least-squares line through (F, D) values: (D,)."""
    times = torch.arange(len(values), dtype=values.dtype, device=values.device)
    times -= times.mean()
    return (times @ values) / times.square().sum().clamp_min(0.5)  # 0.5 is the sum for two frames


def normalise_utterances(frames: Tensor, num_frames: Tensor, *, epsilon: float) -> Tensor:
    """Zero mean and unit (population) deviation of each dimension over each utterance's own frames.

    Statistics are taken in float64: in float32 the deviation of nearly constant bands, as in resampled 8 kHz sound,
    is off by enough to move values by 0.1. A constant dimension becomes zero.

    Args:
        frames: (B, F, D).
        num_frames: (B,) valid frames.
        epsilon: Added to the deviation.
    """
    mask = valid_mask(num_frames, frames.shape[1])[..., None]
    counts = num_frames[:, None, None].to(torch.float64)
    exact = frames.to(torch.float64) * mask
    centred = (exact - exact.sum(dim=1, keepdim=True) / counts) * mask
    deviation = (centred.square().sum(dim=1, keepdim=True) / counts).sqrt()
    # A constant band keeps rounding noise of about 1e-16 of its size; dividing by it would invent a signal.
    constant = deviation <= 1e-12 * exact.abs().amax(dim=1, keepdim=True)
    return (centred / (deviation + epsilon)).masked_fill(constant, 0.0).to(frames.dtype)


def valid_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, true before each length."""
    return torch.arange(size, device=lengths.device)[None, :] < lengths[:, None]


@lru_cache(maxsize=8)
def slaney_mel_bank(sample_rate_hz: int, fft_samples: int, num_bands: int) -> Tensor:
    """Triangular mel filters of unit area (Slaney): (bins, num_bands) float32 from 0 Hz to half the rate.

    The scale is linear below 1 kHz (200/3 Hz a mel) and logarithmic above (27 mels for each factor of 6.4); each
    triangle is scaled by 2 / (its width in Hz).
    """
    top = _slaney_mel(sample_rate_hz / 2)
    edges = torch.tensor([_slaney_hz(top * i / (num_bands + 1)) for i in range(num_bands + 2)], dtype=torch.float64)
    bins = torch.arange(fft_samples // 2 + 1, dtype=torch.float64) * (sample_rate_hz / fft_samples)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - left) / (centre - left)
    falling = (right - bins[:, None]) / (right - centre)
    triangles = torch.minimum(rising, falling).clamp_min(0.0) * (2.0 / (right - left))
    return triangles.to(torch.float32)


def _slaney_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def _slaney_hz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)
