"""From a linear spectrogram to sound: the scale is inverted, and the phase is estimated by Griffin and Lim's algorithm.

Only the linear targets, `linear1025` and `linear201`, can be inverted; mel bands and cepstra do not determine the bins.

Axes: T samples, F frames, K bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from scipy.signal import lfilter
from torch import Tensor

from repbench.audio import legacy, online
from repbench.audio.frames import Compute, scale_to_level

ITERATIONS = 32
MOMENTUM = 0.99
"""Momentum of the fast Griffin-Lim algorithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearTarget:
    """A linear target and the parameters of its inversion.

    Attributes:
        plain: Function that computes the target before it is normalised over the utterance.
        correction: Subtracted from the number of frames in the variance of the normalisation.
        magnitudes: Function from un-normalised values to magnitudes.
        window: Samples of the periodic Hann window.
        hop: Samples from one frame to the next.
        emphasis: Coefficient e of the pre-emphasis y[t] = x[t] - e x[t-1]; 0: none.
    """

    plain: Compute
    correction: int
    magnitudes: Callable[[Tensor], Tensor]
    window: int
    hop: int
    emphasis: float


def _legacy_magnitudes(values: Tensor) -> Tensor:
    """[0, 1] -> magnitudes; 0 and 1 are -80 and 20 dB. (The old code also took their power of 1.5, to sharpen.)"""
    # the inverse of v = (20 log10 m - 20 + 100) / 100 in `legacy.linear1025`
    return torch.pow(10.0, (values.clamp(0.0, 1.0) * 100.0 - 80.0) / 20.0)


def _root_of_power(values: Tensor) -> Tensor:
    """ln(power + 1e-10) -> magnitudes."""
    # A predicted value may be below ln(1e-10), the logarithm of no power.
    return (values.exp() - online.LOG_FLOOR).clamp_min(0.0).sqrt()


LINEAR = {
    "linear1025": LinearTarget(
        plain=partial(legacy.linear1025, cmvn=False),
        correction=0,
        magnitudes=_legacy_magnitudes,
        window=legacy.LONG.window,
        hop=legacy.LONG.hop,
        emphasis=0.97,
    ),
    "linear201": LinearTarget(
        plain=partial(online.log_linear, cmvn=False),
        correction=1,
        magnitudes=_root_of_power,
        window=online.WINDOW,
        hop=online.HOP,
        emphasis=0.0,
    ),
}
"""Targets that can be inverted, by the name of the front end."""


def sound_of(
    frames: Tensor,
    target: str,
    samples: Tensor,
    *,
    first_frame: int = 0,
    level_db: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Sound of a spectrogram that a model predicted for an utterance.

    Normalisation over the utterance removes the mean and deviation of each bin, and without them a target cannot be
    inverted: both are computed from the utterance and restored first.

    Args:
        frames: (F, K), normalised.
        target: Name of the linear target, one of `LINEAR`.
        samples: (T,), the utterance at 16 kHz.
        first_frame: Index in the utterance of the first of `frames`; silence before it.
        level_db: Root mean square in dB to which the utterance was scaled for the target; None: not scaled.
        seed: Seed of the initial phases.

    Returns:
        (T,) float32, shorter if frames are missing at the end.
    """
    linear, lengths = LINEAR[target], torch.tensor([len(samples)])
    scaled = samples[None] if level_db is None else scale_to_level(samples[None], lengths, level_db)
    plain, counts = linear.plain(scaled, lengths)  # (1, F, K), (1,)
    restored = with_statistics_of(plain[0, : int(counts[0])], frames, correction=linear.correction)
    # (F', K) -> (first_frame + F', K): pairs of `pad` count from the last axis
    magnitudes = torch.nn.functional.pad(linear.magnitudes(restored), (0, 0, first_frame, 0))
    # the longest sound of F centred frames: 1 + floor(T / hop) = F gives T <= F * hop - 1
    num_samples = min(len(samples), len(magnitudes) * linear.hop - 1)
    sound = griffin_lim(magnitudes, window=linear.window, hop=linear.hop, num_samples=num_samples, seed=seed)
    # De-emphasis x[t] = y[t] + e x[t-1], the exact inverse of the pre-emphasis.
    return torch.from_numpy(lfilter([1.0], [1.0, -linear.emphasis], sound.numpy())).float()


def with_statistics_of(plain: Tensor, frames: Tensor, *, correction: int) -> Tensor:
    """Give normalised frames (F', K) the mean and deviation over time of plain ones (F, K): (F', K) float64."""
    exact = plain.to(torch.float64)
    mean = exact.mean(dim=0)
    squares = (exact - mean).square().sum(dim=0)
    # (F', K) * (K,) + (K,): the inverse of `normalise_utterances`, but for its epsilon
    return frames.to(torch.float64) * (squares / max(len(exact) - correction, 1)).sqrt() + mean


def griffin_lim(
    magnitudes: Tensor, *, window: int, hop: int, num_samples: int, iterations: int = ITERATIONS, seed: int = 0
) -> Tensor:
    """A sound whose short-time spectrum has about these magnitudes.

    Starts with random phases. Each iteration computes the sound and its spectrum, keeps the phases of the spectrum and
    restores the magnitudes. The phases are extrapolated in the direction of the last change, which converges faster.

    Args:
        magnitudes: (F, K) of frames centred on every `hop` samples.
        window: Samples of the periodic Hann window.
        hop: Samples from one frame to the next.
        num_samples: T, from (F - 1) * hop to F * hop - 1.
        iterations: Number of iterations.
        seed: Seed of the initial phases.

    Returns:
        (T,) float64.

    Reference:
        Griffin and Lim, Signal estimation from modified short-time Fourier transform, 1984; Perraudin et al., A fast
        Griffin-Lim algorithm, 2013.
    """
    goal = magnitudes.to(torch.float64).T  # (F, K) -> (K, F)
    # a real FFT of n samples has K = n / 2 + 1 bins
    fft = 2 * (len(goal) - 1)
    hann = torch.hann_window(window, dtype=torch.float64)

    def sound_with(phases: Tensor) -> Tensor:
        # (K, F) -> (T,)
        return torch.istft(goal * phases, fft, hop, window, hann, length=num_samples)

    generator = torch.Generator().manual_seed(seed)
    angles = 2.0 * math.pi * torch.rand(goal.shape, generator=generator, dtype=torch.float64)
    # (K, F) complex of unit magnitude
    phases = torch.polar(torch.ones_like(goal), angles)
    previous = torch.zeros_like(phases)
    for _ in range(iterations):
        sound = sound_with(phases)
        # (T,) -> (K, F) again, because 1 + floor(T / hop) = F
        spectrum = torch.stft(sound, fft, hop, window, hann, pad_mode="constant", return_complex=True)
        # With c[n] the spectrum of iteration n, the paper's c[n] + a (c[n] - c[n-1]) is proportional to
        # c[n] - a / (1 + a) c[n-1], and only its phases are kept. `librosa.griffinlim` and torchaudio do the same.
        extrapolated = spectrum - MOMENTUM / (1.0 + MOMENTUM) * previous
        # unit magnitude, without 0 / 0: a bin of exactly 0 is left out of the next iteration
        phases = extrapolated / extrapolated.abs().clamp_min(1e-16)
        previous = spectrum
    return sound_with(phases)
