"""Sounds that the tests of disturbances share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from repbench.audio.disturbances.base import Samples
from repbench.audio.disturbances.condition import parse_condition
from repbench.audio.sound import read_sound

RATE_HZ = 16_000


def tone(frequency_hz: float, seconds: float = 1.0, rate_hz: int = RATE_HZ, level: float = 0.1) -> Samples:
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def hiss(num_samples: int, seed: int = 0) -> Samples:
    return (0.1 * np.random.default_rng(seed).standard_normal(num_samples)).astype(np.float32)


def no_voices() -> Iterable[Samples]:
    raise AssertionError("voices are asked for babble alone")


def disturbed(text: str, samples: Samples, rate_hz: int = RATE_HZ, seed: int = 0) -> Samples:
    return parse_condition(text).apply(samples, rate_hz, np.random.default_rng(seed), some_voices)


def some_voices() -> Iterable[Samples]:
    return (hiss(9_000 + 500 * seed, seed) for seed in range(10, 20))


def real_speech(folder: Path) -> tuple[Samples, int]:
    """A clip of LibriSpeech of 4 s or more."""
    paths = sorted((folder / "LibriSpeech").rglob("*.flac"))
    if not paths:
        pytest.skip("the folder of real speech holds no LibriSpeech")
    return next(found for found in map(read_sound, paths) if len(found[0]) >= 4 * found[1])


def peak_hz(samples: Samples, rate_hz: int = RATE_HZ) -> float:
    """Frequency of the largest bin of a Hann window over the sound."""
    return float(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax()) * rate_hz / len(samples)


def power_between(samples: Samples, low_hz: float, high_hz: float, rate_hz: int = RATE_HZ) -> float:
    """Power of a band, over a Hann window."""
    power = np.square(np.abs(np.fft.rfft(samples.astype(np.float64) * np.hanning(len(samples)))))
    frequencies_hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    return float(power[(frequencies_hz >= low_hz) & (frequencies_hz < high_hz)].sum())


def lag(reference: Samples, other: Samples) -> int:
    """Samples by which `other` is later than `reference`, where both correlate most."""
    from scipy.signal import fftconvolve

    # (T,) * (T',) -> (T + T' - 1,): lag 0 at T - 1
    return int(np.argmax(fftconvolve(other, reference[::-1]))) - (len(reference) - 1)
