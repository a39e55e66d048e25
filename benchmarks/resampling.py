"""Resamplers compared: pass-band, rejection, length of the result, delay, and seconds a clip.

Usage: python benchmarks/resampling.py [--out benchmarks/results/resampling.json]

Needs the extras `bench` and `torchaudio`. Each resampler converts tones of one second to 16 kHz, the first and last
tenth of a second left out:

* pass-band: the largest deviation of a tone's gain from 1 below 85 % and below 95 % of the lower Nyquist frequency;
* rejection: the strongest residue of a tone that the new rate cannot hold (an alias), or, from a lower rate, of
  everything that is not the tone (an image), both relative to the tone;
* length: whether `num_samples * target / source`, rounded up or to the nearest, predicts the length of the result for
  random lengths and pairs of rates;
* delay: by how many samples of the new rate an impulse has moved;
* seconds a clip, one thread, the median of several turns.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr
import torch
import torchaudio
from scipy import signal

from repbench.audio.resample import to_rate
from repbench.benchmark import environment
from turns import write_result

Samples = npt.NDArray[np.float32]
Resampler = Callable[[Samples, int, int], Samples]

TARGET_HZ = 16_000
SOURCES_HZ = (8_000, 11_025, 22_050, 24_000, 44_100, 48_000)
RANDOM_PAIRS = 300
CLIP_SECONDS = (1.0, 60.0)
TIMED_SOURCES_HZ = (8_000, 44_100, 48_000)
TURNS = 7
KAISER_BEST = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}
"""The settings that torchaudio's documentation gives for librosa's `kaiser_best`."""


def torchaudio_default(samples: Samples, source_hz: int, target_hz: int) -> Samples:
    resampled: Samples = torchaudio.functional.resample(torch.from_numpy(samples), source_hz, target_hz).numpy()
    return resampled


def torchaudio_kaiser_best(samples: Samples, source_hz: int, target_hz: int) -> Samples:
    waveform = torch.from_numpy(samples)
    resampled: Samples = torchaudio.functional.resample(waveform, source_hz, target_hz, **KAISER_BEST).numpy()
    return resampled


def scipy_polyphase(samples: Samples, source_hz: int, target_hz: int) -> Samples:
    common = math.gcd(source_hz, target_hz)
    resampled: Samples = signal.resample_poly(samples, target_hz // common, source_hz // common)
    return resampled


def soxr_of(quality: str) -> Resampler:
    def resample(samples: Samples, source_hz: int, target_hz: int) -> Samples:
        resampled: Samples = soxr.resample(samples, source_hz, target_hz, quality=quality)
        return resampled

    return resample


WAYS: dict[str, Resampler] = {
    "torchaudio": torchaudio_default,
    "torchaudio kaiser_best": torchaudio_kaiser_best,
    "scipy resample_poly": scipy_polyphase,
    "soxr MQ": soxr_of("MQ"),
    "soxr HQ": soxr_of("HQ"),
    "soxr VHQ": soxr_of("VHQ"),
    "repbench": lambda samples, source_hz, target_hz: to_rate(samples, source_hz, target_hz).numpy(),
}


def decibels(ratio: float) -> float:
    return 20.0 * math.log10(max(ratio, 1e-12))


def tone(frequency_hz: float, rate_hz: int) -> Samples:
    """One second of a sine of amplitude 0.5."""
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(rate_hz) / rate_hz)).astype(np.float32)


def inner(samples: Samples) -> npt.NDArray[np.float64]:
    """The part that the edges of the sound do not reach."""
    return samples[TARGET_HZ // 10 : -TARGET_HZ // 10].astype(np.float64)


def gain_and_residue(resampled: Samples, frequency_hz: float) -> tuple[float, float]:
    """Gain of a tone of amplitude 0.5, and the RMS of what is left without it relative to the RMS that went in."""
    held = inner(resampled)
    times = np.arange(len(held)) / TARGET_HZ
    basis = np.stack([np.sin(2 * np.pi * frequency_hz * times), np.cos(2 * np.pi * frequency_hz * times)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, held, rcond=None)
    residue = held - basis @ weights
    return float(np.hypot(*weights)) / 0.5, float(np.sqrt(np.mean(residue**2))) / (0.5 / math.sqrt(2))


def quality(resample: Resampler, source_hz: int) -> dict[str, float]:
    nyquist_hz = min(source_hz, TARGET_HZ) / 2
    found: dict[str, float] = {}
    residues = []
    for share in (0.85, 0.95):
        gains = []
        for frequency_hz in np.linspace(100.0, share * nyquist_hz, 40):
            gain, residue = gain_and_residue(
                resample(tone(float(frequency_hz), source_hz), source_hz, TARGET_HZ), float(frequency_hz)
            )
            gains.append(abs(decibels(gain)))
            residues.append(residue)
        found[f"ripple_db_to_{share:.0%}"] = max(gains)
    if source_hz > TARGET_HZ:
        residues = []
        for frequency_hz in np.linspace(1.05 * nyquist_hz, 0.98 * source_hz / 2, 40):
            aliased = inner(resample(tone(float(frequency_hz), source_hz), source_hz, TARGET_HZ))
            residues.append(float(np.sqrt(np.mean(aliased**2))) / (0.5 / math.sqrt(2)))
    found["rejection_db"] = -decibels(max(residues))
    return found


def lengths(resample: Resampler) -> dict[str, int]:
    """For how many random pairs and lengths each rule foretells the length."""
    draws = random.Random(0)
    up = nearest = 0
    for _ in range(RANDOM_PAIRS):
        # 44,056 Hz and its kin are real, but coprime pairs make scipy's and torchaudio's filters very long.
        source_hz, num_samples = draws.randrange(4_000, 96_000, 25), draws.randrange(200, 4_000)
        found = len(resample(np.zeros(num_samples, dtype=np.float32), source_hz, TARGET_HZ))
        up += found == -(-num_samples * TARGET_HZ // source_hz)
        nearest += found == (2 * num_samples * TARGET_HZ + source_hz) // (2 * source_hz)
    return {"pairs": RANDOM_PAIRS, "rounded_up": up, "nearest": nearest}


def delay_samples(resample: Resampler) -> float:
    """Where an impulse at sample 4,410 of 44.1 kHz lies in the new rate, less where it should (1,600)."""
    impulse = np.zeros(8_820, dtype=np.float32)
    impulse[4_410] = 1.0
    power = resample(impulse, 44_100, TARGET_HZ).astype(np.float64) ** 2
    return float((power * np.arange(len(power))).sum() / power.sum()) - 1_600.0


def timed() -> dict[str, dict[str, float]]:
    """Seconds a clip, each way in turns."""
    taken: dict[str, dict[str, float]] = {name: {} for name in WAYS}
    draws = np.random.default_rng(0)
    for source_hz in TIMED_SOURCES_HZ:
        for seconds in CLIP_SECONDS:
            clip = (0.1 * draws.standard_normal(int(seconds * source_hz))).astype(np.float32)
            repeats = 50 if seconds <= 1.0 else 3
            turns: dict[str, list[float]] = {name: [] for name in WAYS}
            for resample in WAYS.values():
                resample(clip, source_hz, TARGET_HZ)
            for _ in range(TURNS):
                for name, resample in WAYS.items():
                    started = time.perf_counter()
                    for _ in range(repeats):
                        resample(clip, source_hz, TARGET_HZ)
                    turns[name].append((time.perf_counter() - started) / repeats)
            for name, each in turns.items():
                taken[name][f"{source_hz} Hz, {seconds:g} s"] = statistics.median(each)
    return taken


def main() -> None:
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {
        name: {
            "quality": {str(source_hz): quality(resample, source_hz) for source_hz in SOURCES_HZ},
            "lengths": lengths(resample),
            "delay_samples": delay_samples(resample),
        }
        for name, resample in WAYS.items()
    }
    print(f"{'':24s} {'ripple to 85 %, 95 %':>22s} {'rejection':>10s}  lengths up, nearest   delay   (worst rate)")
    for name, each in found.items():
        rates = each["quality"].values()
        near, far = (max(rate[f"ripple_db_to_{share}"] for rate in rates) for share in ("85%", "95%"))
        rejection = min(rate["rejection_db"] for rate in rates)
        held = each["lengths"]
        print(
            f"{name:24s} {near:9.3f} {far:8.2f} dB {rejection:7.1f} dB  {held['rounded_up']:7d} {held['nearest']:7d} "
            f"of {held['pairs']}  {each['delay_samples']:6.3f}"
        )
    seconds = timed()
    for clip in next(iter(seconds.values())):
        told = (f"{name} {each[clip] * 1e3:.2f} ms" for name, each in seconds.items())
        print(f"{clip}: {', '.join(told)}")
    write_result(
        __file__,
        {
            "found": found,
            "seconds_a_clip": seconds,
            "versions": {name: metadata.version(name) for name in ("torch", "torchaudio", "scipy", "soxr", "numpy")},
            "machine": environment.describe(torch.device("cpu"))["cpu"],
            "threads": 1,
        },
    )


if __name__ == "__main__":
    main()
