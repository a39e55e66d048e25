"""From the rate of the file to the rate of the upstream, in one step.

soxr does it, at its quality HQ: of the resamplers tried it keeps the most of the pass-band, lets the least through
and is the fastest, and it stands beside no particular release of torch (docs/design/0013-resampling.md, with numbers).

T samples at the rate of the file, T' at that of the upstream.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from repbench.errors import DataError

RESAMPLER = "soxr HQ"
"""Names the filter that made the samples: part of a record and of the key of features that were resampled.

It changes whenever `to_rate` gives other samples for the same sound.
"""


def resampled_length(num_samples: int, source_hz: int, target_hz: int) -> int:
    """Samples after resampling `num_samples` from `source_hz` to `target_hz`: the nearest whole number, halves up."""
    return (2 * num_samples * target_hz + source_hz) // (2 * source_hz)


def to_rate(samples: np.ndarray[tuple[int], np.dtype[np.float32]], source_hz: int, target_hz: int) -> Tensor:
    """Samples (T,) at `source_hz` as a float32 tensor (T',) at `target_hz`.

    Sample k of the result lies at the time k / `target_hz`: the filter has linear phase and its delay is taken out.

    Raises:
        DataError: A rate is not positive.
    """
    if source_hz < 1 or target_hz < 1:
        raise DataError(f"A sample rate must be at least 1 Hz, but is {min(source_hz, target_hz)}")
    if source_hz == target_hz:
        return torch.from_numpy(samples)
    import soxr

    return torch.from_numpy(soxr.resample(samples, source_hz, target_hz, quality="HQ"))
