"""A slow second implementation of the front ends, from their formulas: numpy, float64, one window at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def hann(samples: int, *, periodic: bool = True) -> Array:
    steps = samples if periodic else samples - 1
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / steps))


def power(frame: Array, fft: int) -> Array:
    """|DFT|² from its definition."""
    bins = np.arange(fft // 2 + 1)[:, None]
    exponents = np.exp(-2j * np.pi * bins * np.arange(len(frame)) / fft)
    return np.asarray(np.abs(exponents @ frame) ** 2)


def centred(wave: Array, window: int, hop: int) -> Array:
    half = window // 2
    padded = np.pad(wave, half, mode="reflect")
    return np.stack([padded[k * hop : k * hop + window] for k in range(1 + len(wave) // hop)])


def triangles(positions: Array, edges: Array) -> Array:
    bank = np.zeros((len(positions), len(edges) - 2))
    for band in range(len(edges) - 2):
        left, middle, right = edges[band : band + 3]
        for row, position in enumerate(positions):
            if left < position <= middle:
                bank[row, band] = (position - left) / (middle - left)
            elif middle < position < right:
                bank[row, band] = (right - position) / (right - middle)
    return bank


def slopes(frames: Array) -> Array:
    """First-order Savitzky-Golay over nine frames, by fitting lines."""
    count = len(frames)
    result = np.zeros_like(frames)
    for frame in range(count):
        start = min(max(frame - 4, 0), max(count - 9, 0))
        window = frames[start : start + 9]
        if len(window) > 1:
            result[frame] = np.polyfit(np.arange(len(window)), window, 1)[0]
    return result


def regression(frames: Array) -> Array:
    padded = np.pad(frames, ((2, 2), (0, 0)), mode="edge")
    return np.stack([sum(k * padded[t + 2 + k] for k in range(-2, 3)) / 10 for t in range(len(frames))])


def cmvn(frames: Array, *, epsilon: float, ddof: int) -> Array:
    if len(frames) == 1:
        return np.zeros_like(frames)
    return np.asarray((frames - frames.mean(0)) / (frames.std(0, ddof=ddof) + epsilon))


def kaldi_windows(wave: Array) -> Array:
    count = 1 + (len(wave) - 400) // 160
    frames = np.stack([wave[k * 160 : k * 160 + 400] for k in range(count)])
    return np.asarray(frames - frames.mean(1, keepdims=True))


def kaldi_power(wave: Array, window: Array) -> Array:
    frames = kaldi_windows(wave)
    previous = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    return np.stack([power(frame, 512) for frame in (frames - 0.97 * previous) * window])


def kaldi_mel(wave: Array, window: Array, bands: int) -> Array:
    def mel(hz: Array) -> Array:
        return np.asarray(1127 * np.log(1 + hz / 700))

    edges = np.linspace(mel(np.array(20.0)), mel(np.array(8000.0)), bands + 2)
    bank = triangles(mel(np.arange(256) * 16000 / 512), edges)
    return np.asarray(np.log(np.maximum(kaldi_power(wave, window)[:, :256] @ bank, 1.1920928955078125e-07)))


def with_regressions(frames: Array) -> Array:
    once = regression(frames)
    return np.concatenate([frames, once, regression(once)], axis=1)


def fbank_no_cmvn(wave: Array) -> Array:
    return with_regressions(kaldi_mel(wave, hann(400, periodic=False) ** 0.85, 80))


def spectrogram(wave: Array) -> Array:
    frames = np.log(np.maximum(kaldi_power(wave, hann(400, periodic=False) ** 0.85), 1.1920928955078125e-07))
    frames[:, 0] = np.maximum(np.log(np.maximum((kaldi_windows(wave) ** 2).sum(1), 1e-300)), 0.0)
    return cmvn(frames, epsilon=1e-10, ddof=1)


def linear(wave: Array) -> Array:
    frames = np.stack([power(frame * hann(400), 400) for frame in centred(wave, 400, 160)])
    return cmvn(np.log(frames + 1e-10), epsilon=1e-10, ddof=1)


def power_mel(wave: Array, bands: int) -> Array:
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), bands + 2) / 2595
    edges: Array = np.asarray(700 * (np.power(10.0, mels) - 1), dtype=np.float64)
    frames: Array = np.stack([power(frame * hann(400), 400) for frame in centred(wave, 400, 160)])
    return np.asarray(frames @ triangles(np.linspace(0.0, 8000.0, 201), edges))


def linear1025(wave: Array, *, normalised: bool) -> Array:
    emphasised = np.concatenate([wave[:1], wave[1:] - 0.97 * wave[:-1]])
    magnitudes = np.sqrt(np.stack([power(frame * hann(800), 2048) for frame in centred(emphasised, 800, 200)]))
    decibels = 20 * np.log10(np.maximum(1e-5, magnitudes)) - 20
    scaled = np.clip((decibels + 100) / 100, 0, 1)
    return cmvn(scaled, epsilon=1e-16, ddof=0) if normalised else scaled


def mel160(wave: Array, *, normalised: bool) -> Array:
    def hz(mels: Array) -> Array:
        return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))

    edges = hz(np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), 82))
    bank = triangles(np.arange(1025) * 16000 / 2048, edges) * (2 / (edges[2:] - edges[:-2]))
    mel = np.stack([power(frame * hann(800), 2048) for frame in centred(wave, 800, 200)]) @ bank
    frames = np.log(mel + 1e-6)
    both = np.concatenate([frames, slopes(frames)], axis=1)
    return cmvn(both, epsilon=1e-16, ddof=0) if normalised else both
