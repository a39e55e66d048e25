"""Resampling: one step, exact lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repbench.audio.resample import resampled_length, to_rate
from repbench.errors import DataError


@pytest.mark.parametrize("source_hz", [8000, 8001, 11025, 12345, 16000, 22050, 24000, 44056, 44100, 48000, 192000])
@pytest.mark.parametrize("num_samples", [1, 2, 999, 8000, 22051])
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


def sine(frequency_hz: float, rate_hz: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A second of amplitude 1."""
    return np.sin(2 * np.pi * frequency_hz * np.arange(rate_hz) / rate_hz).astype(np.float32)


def inner_peak(samples: torch.Tensor) -> float:
    """Of the middle of a second at 16 kHz, where the ends of the sound have no effect."""
    return float(samples[2000:14000].abs().max())


@pytest.mark.parametrize("source_hz", [22050, 24000, 44100, 48000])
def test_a_tone_that_the_new_rate_cannot_hold_leaves_nothing(source_hz: int) -> None:
    for frequency_hz in np.linspace(8400.0, 0.49 * source_hz, 7):
        assert inner_peak(to_rate(sine(frequency_hz, source_hz), source_hz, 16000)) < 1e-5, frequency_hz  # -100 dB


@pytest.mark.parametrize("source_hz", [8000, 11025, 22050, 44100, 48000])
def test_tones_below_85_percent_of_the_band_keep_their_size(source_hz: int) -> None:
    for frequency_hz in np.linspace(200.0, 0.85 * min(source_hz, 16000) / 2, 7):
        power = to_rate(sine(frequency_hz, source_hz), source_hz, 16000)[2000:14000].double().square().mean()
        assert abs(10 * float(torch.log10(2 * power))) < 0.02, frequency_hz  # dB


@pytest.mark.parametrize(("source_hz", "target_hz"), [(8000, 16000), (44100, 16000), (16000, 44100), (48000, 16000)])
def test_a_click_stays_where_it_is(source_hz: int, target_hz: int) -> None:
    click = np.zeros(source_hz, dtype=np.float32)
    click[source_hz // 4] = 1.0
    assert int(to_rate(click, source_hz, target_hz).abs().argmax()) == target_hz // 4
