"""Recording conditions of synthetic speech: room, channel, noise and level. Phones keep their times.

Axes: T samples. Filters have zero phase, or the direct sound comes first, so that the phones stay in place.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.synthetic.conditions import SAMPLE_RATE_HZ, RecordingCondition, generator_for

Signal = NDArray[np.float64]

_LEVEL_DBFS = -24.0
_HIGHEST_PEAK = 0.95
_LOWEST_HZ = 60.0
_EDGE_HZ = 800.0
_FFT_BLOCK_SAMPLES = 2048  # lengths without large prime factors: five times as fast


def resample(samples: NDArray[np.int16], sample_rate_hz: int) -> Signal:
    """`samples` at 16 kHz, in [-1, 1]; sample k of the input is at k * 16000 / `sample_rate_hz` of the output.

    By the Fourier transform, with a soft edge at 8 kHz so that nothing rings. The end is filled up with silence, by
    less than 30 ms.

    Args:
        samples: (T,), at a rate above 16 kHz.
        sample_rate_hz: Rate of `samples`.
    """
    common = math.gcd(SAMPLE_RATE_HZ, sample_rate_hz)
    # 320 and 441 for espeak-ng's 22,050 Hz
    up, down = SAMPLE_RATE_HZ // common, sample_rate_hz // common
    # (T,) -> a multiple of `down` samples, so that the output has a whole number of them
    whole = np.pad(samples / 32768.0, (0, -samples.size % down))
    num_samples = whole.size // down * up
    frequencies_hz = np.fft.rfftfreq(num_samples, 1.0 / SAMPLE_RATE_HZ)
    # (bins,): 1 up to 7.2 kHz, then half a cosine down to 0 at 8 kHz
    edge = np.clip((SAMPLE_RATE_HZ / 2 - frequencies_hz) / _EDGE_HZ, 0.0, 1.0)
    # (whole,) -> (whole / 2 + 1,) -> (bins,): dropping the bins above 8 kHz is the resampling
    spectrum = np.fft.rfft(whole)[: frequencies_hz.size] * (0.5 - 0.5 * np.cos(np.pi * edge))
    # spectrum -> (num_samples,); the factor makes up for the shorter inverse transform
    resampled: Signal = np.fft.irfft(spectrum, num_samples) * (up / down)
    return resampled


def record(
    speech: Signal, condition: RecordingCondition, *, session: str, utterance: str, gain_db: float = 0.0
) -> NDArray[np.int16]:
    """Record `speech` under a condition, as 16-bit samples that never clip.

    Args:
        speech: (T,), at 16 kHz, with the silence around it.
        condition: Ranges of room, channel and noise.
        session: Seeds room, channel, kind of noise and level.
        utterance: Seeds the noise itself and its strength.
        gain_db: Level of the speech above that of the session, in dB; the noise keeps its distance to the speech.

    Returns:
        (T,), speech and noise.
    """
    # The order of the draws is part of the corpus, here and in every function that takes `draws`: another order gives
    # other sound, and then `CORPUS_VERSION` must rise.
    session_draws = generator_for("session", condition.name, session)
    # (T,) -> a multiple of the block, until the last line cuts it off again
    sound = np.pad(speech, (0, -speech.size % _FFT_BLOCK_SAMPLES))
    sound = _in_room(sound, condition, session_draws)
    sound = _shaped(sound, _response_db(condition.channel_db, sound.size, session_draws))
    noise_slope = session_draws.uniform(0.0, 1.6)
    level_dbfs = _LEVEL_DBFS + condition.channel_db * float(np.clip(session_draws.normal(), -2.0, 2.0))
    if condition.snr_db is not None:
        draws = generator_for("utterance", condition.name, utterance)
        sound = sound + _noise(sound, draws.uniform(*condition.snr_db), noise_slope, draws)
    return _quantised(sound[: speech.size], level_dbfs + gain_db)


def _in_room(speech: Signal, condition: RecordingCondition, draws: np.random.Generator) -> Signal:
    if condition.reverberation_seconds is None:
        return speech
    # The usual statistical model of a room: the direct sound, then noise that decays exponentially.
    seconds = draws.uniform(*condition.reverberation_seconds)
    times = np.arange(1, int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    # exponential decay by 60 dB, a factor of 1000, in `seconds`
    tail = draws.normal(size=times.size) * np.exp(-np.log(1e3) * times / seconds)
    # the echo is 2 to 8 dB weaker than the direct sound
    direct_to_echo = 10.0 ** (draws.uniform(2.0, 8.0) / 20.0)
    # the direct sound at tap 0, so that phones keep their times; the tail has a norm of 1 / direct_to_echo
    echo = np.concatenate([[1.0], tail / (np.linalg.norm(tail) * direct_to_echo)])
    num_points = speech.size + echo.size + -echo.size % _FFT_BLOCK_SAMPLES
    # padded to the length of the linear convolution, so that the end does not wrap to the start
    echoed: Signal = np.fft.irfft(np.fft.rfft(speech, num_points) * np.fft.rfft(echo, num_points), num_points)
    # (num_points,) -> (T,): the echo after the end is dropped
    return echoed[: speech.size]


def _response_db(deviation_db: float, num_samples: int, draws: np.random.Generator) -> Signal:
    """A smooth response over the octaves: a tilt and two ripples, at the frequencies of a real FFT."""
    # (T / 2 + 1,) octaves from 1 kHz; level below 60 Hz, where the logarithm of 0 Hz would be infinite
    octaves = np.log2(np.maximum(np.fft.rfftfreq(num_samples, 1.0 / SAMPLE_RATE_HZ), _LOWEST_HZ) / 1000.0)
    response: Signal = 0.5 * draws.normal() * octaves
    for ripples_per_octave in (0.25, 0.5):
        response = response + draws.normal() * np.cos(2.0 * np.pi * (ripples_per_octave * octaves + draws.uniform()))
    response *= deviation_db
    return response


def _shaped(sound: Signal, response_db: Signal) -> Signal:
    # (T,) -> (T / 2 + 1,) -> (T,): real factors change no phase, hence no time
    shaped: Signal = np.fft.irfft(np.fft.rfft(sound) * 10.0 ** (response_db / 20.0), sound.size)
    return shaped


def _noise(sound: Signal, snr_db: float, slope: float, draws: np.random.Generator) -> Signal:
    """Noise whose power falls as f^-slope (0 white, 1 pink), `snr_db` below the mean power of `sound`."""
    white = draws.normal(size=sound.size)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(sound.size, 1.0 / SAMPLE_RATE_HZ), _LOWEST_HZ))
    # A power of f^-slope is -slope * 10 log10(f) decibels, and log10(f) = log10(2) * log2(f).
    coloured = _shaped(white, -slope * 10.0 * np.log10(2.0) * octaves)
    coloured *= _rms(sound) / _rms(coloured) * 10.0 ** (-snr_db / 20.0)
    return coloured


def _quantised(sound: Signal, level_dbfs: float) -> NDArray[np.int16]:
    gain = 10.0 ** (level_dbfs / 20.0) / _rms(sound)
    # The peak limits the level: int16 would wrap around instead of clipping.
    gain = min(gain, _HIGHEST_PEAK / float(np.abs(sound).max()))
    quantised: NDArray[np.int16] = np.rint(sound * gain * 32768.0).astype(np.int16)
    return quantised


def _rms(sound: Signal) -> float:
    return float(np.sqrt(np.mean(np.square(sound))))
