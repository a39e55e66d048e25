"""Quality of a recording, measured on its samples: clipping, silence, offset, bandwidth.

Axes: T samples, K blocks, N samples of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repbench.audio.sound import Samples

FULL_SCALE = 1.0 - 2.0**-15
"""Smallest absolute value at full scale: the largest value of 16 bits."""

NARROW_ABOVE_HZ = 5_000
"""Frequency above which an 8 kHz recording has no power: 4 kHz, and a margin for the images of a resampler."""

NARROW_SHARE = 1e-5
"""Share of the power above `NARROW_ABOVE_HZ` below which a recording is narrow. Of 305 clips recorded at 16 kHz and
above, the lowest share is 60 times as large; of 150 clips resampled from 8 kHz, the highest is a quarter of it."""

_BLOCK = 1_024
_LOWEST_HZ = 50
_SILENT = -math.inf


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of a recording.

    Attributes:
        clipped_share: Share of the samples at full scale.
        longest_clip_samples: Length of the longest run of samples at full scale.
        zero_share: Share of the samples that are exactly 0.
        offset: Mean of the samples.
        level_db: Root mean square in decibels relative to full scale; minus infinity for digital silence.
        high_share: Share of the power above `NARROW_ABOVE_HZ`; None if the rate is too low or the sound too short.
    """

    clipped_share: float
    longest_clip_samples: int
    zero_share: float
    offset: float
    level_db: float
    high_share: float | None

    @property
    def is_silent(self) -> bool:
        """Whether every sample is 0."""
        return self.level_db == _SILENT

    @property
    def is_narrow(self) -> bool:
        """Whether it looks like a recording of 8 kHz under a higher rate."""
        return self.high_share is not None and self.high_share < NARROW_SHARE


def quality(samples: Samples, sample_rate_hz: int) -> Quality:
    """Measure the quality of a sound.

    Args:
        samples: (T,) float32 in [-1, 1].
        sample_rate_hz: Samples per second.
    """
    at_full_scale = np.abs(samples) >= FULL_SCALE
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return Quality(
        clipped_share=float(at_full_scale.mean()),
        longest_clip_samples=_longest_run(at_full_scale),
        zero_share=float((samples == 0).mean()),
        offset=float(samples.mean(dtype=np.float64)),
        level_db=10 * math.log10(power) if power else _SILENT,
        high_share=_high_share(samples, sample_rate_hz) if power else None,
    )


def _longest_run(flags: npt.NDArray[np.bool_]) -> int:
    """Length of the longest run of True."""
    if not flags.any():
        return 0
    # With a False at each end every run has a start and an end: (T,) -> (T + 2,) -> (2 * runs,), in turn.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max())


def _high_share(samples: Samples, sample_rate_hz: int) -> float | None:
    """Power above `NARROW_ABOVE_HZ` over all power above 50 Hz, from adjacent Hann windows."""
    num_blocks = len(samples) // _BLOCK
    # half the rate must be well above the limit: from 15 kHz on, a band of at least 2.5 kHz is left above it
    if sample_rate_hz < 3 * NARROW_ABOVE_HZ or not num_blocks:
        return None
    blocks = samples[: num_blocks * _BLOCK].reshape(num_blocks, _BLOCK).astype(np.float64)  # (T,) -> (K, N)
    # (K, N) - (K, 1): an offset would leak through the Hann window into the low bins
    blocks -= blocks.mean(axis=1, keepdims=True)
    spectrum = np.square(np.abs(np.fft.rfft(blocks * np.hanning(_BLOCK)))).sum(axis=0)  # (K, N) -> (N / 2 + 1,)
    frequencies = np.fft.rfftfreq(_BLOCK, 1 / sample_rate_hz)
    total = float(spectrum[frequencies > _LOWEST_HZ].sum())
    return float(spectrum[frequencies > NARROW_ABOVE_HZ].sum()) / total if total else None
