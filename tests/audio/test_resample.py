"""Resampling: one step, exact lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repbench.audio.resample import resampled_length, to_rate
from repbench.errors import DataError


@pytest.mark.parametrize("source_hz", [8000, 11025, 16000, 22050, 24000, 44100, 48000])
@pytest.mark.parametrize("num_samples", [999, 8000, 22051])
def test_the_length_is_foretold_for_any_rate(source_hz: int, num_samples: int) -> None:
    samples = np.zeros(num_samples, dtype=np.float32)
    assert len(to_rate(samples, source_hz, 16000)) == resampled_length(num_samples, source_hz, 16000)


def test_a_tone_stays_where_it_is() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(22050) / 22050).astype(np.float32)
    spectrum = torch.fft.rfft(to_rate(tone, 22050, 16000)).abs()
    assert int(spectrum.argmax()) == 1000


def test_the_same_rate_changes_nothing() -> None:
    samples = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert torch.equal(to_rate(samples, 16000, 16000), torch.from_numpy(samples))


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(DataError, match="at least 1 Hz"):
        to_rate(np.zeros(10, dtype=np.float32), 0, 16000)
