"""Resampling from the rate of the file to the rate of the upstream, in one step.

It is done by soxr at quality HQ: of the resamplers compared it keeps the most of the pass-band, attenuates aliases the
most and is the fastest, and it is not tied to a release of torch (docs/design/0013-resampling.md, with numbers).

Axes: T samples at the rate of the file, T' at that of the upstream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repbench.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

RESAMPLER = "soxr HQ"
"""Name of the resampler, in a record and in the key of stored features of resampled sound.

It has to change whenever `to_rate` gives other samples for the same sound.
"""


def resampled_length(num_samples: int, source_hz: int, target_hz: int) -> int:
    """Number of samples after resampling from `source_hz` to `target_hz`: rounded, halves up."""
    # floor(n * target / source + 1/2) in whole numbers, exact at any length; soxr returns as many.
    return (2 * num_samples * target_hz + source_hz) // (2 * source_hz)


def to_rate(samples: np.ndarray[tuple[int], np.dtype[np.float32]], source_hz: int, target_hz: int) -> Tensor:
    """Resample (T,) samples at `source_hz` to a (T',) float32 tensor at `target_hz`.

    Sample k of the result is at the time k / `target_hz`: the filter has linear phase and its delay is compensated.

    Raises:
        DataError: A rate is not positive.
    """
    if source_hz < 1 or target_hz < 1:
        raise DataError(f"A sample rate must be at least 1 Hz, but is {min(source_hz, target_hz)}")
    import torch  # here, as a report needs the name of the resampler alone

    if source_hz == target_hz:
        # No copy: the tensor shares the memory of the array.
        return torch.from_numpy(samples)
    # Imported here, so that corpora at the rate of the upstream do not need it loaded.
    import soxr

    # (T,) -> (T',)
    return torch.from_numpy(soxr.resample(samples, source_hz, target_hz, quality="HQ"))
