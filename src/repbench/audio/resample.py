"""From the rate of the file to the rate of the upstream, in one step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from repbench.errors import DataError


def resampled_length(num_samples: int, source_hz: int, target_hz: int) -> int:
    """Samples after resampling `num_samples` from `source_hz` to `target_hz` (rounded up)."""
    return math.ceil(num_samples * target_hz / source_hz)


def to_rate(samples: np.ndarray[tuple[int], np.dtype[np.float32]], source_hz: int, target_hz: int) -> Tensor:
    """Samples (T,) at `source_hz` as a float32 tensor (T',) at `target_hz`, by a windowed sinc (torchaudio's default).

    Raises:
        DataError: A rate is not positive.
    """
    if source_hz < 1 or target_hz < 1:
        raise DataError(f"A sample rate must be at least 1 Hz, but is {min(source_hz, target_hz)}")
    waveform = torch.from_numpy(samples)
    if source_hz == target_hz:
        return waveform
    from torchaudio.functional import resample

    resampled: Tensor = resample(waveform, source_hz, target_hz)
    return resampled
