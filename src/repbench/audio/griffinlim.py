"""From a linear spectrogram back to sound: the scale is undone, and the phase is guessed by Griffin and Lim.

Only the linear targets, `linear1025` and `linear201`, can be inverted; mel bands and cepstra have lost the bins.

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
"""Of the fast algorithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear target and its way back.

    Attributes:
        plain: The target before it is normalised over the utterance.
        correction: What is taken from the number of frames when its deviation is computed.
        magnitudes: From plain values to magnitudes.
        window: Samples of the periodic Hann window.
        hop: Samples between two frames.
        emphasis: Of the pre-emphasis y[t] = x[t] - e x[t-1]; 0: none.
    """

    plain: Compute
    correction: int
    magnitudes: Callable[[Tensor], Tensor]
    window: int
    hop: int
    emphasis: float


def _legacy_magnitudes(values: Tensor) -> Tensor:
    """[0, 1] -> magnitudes; 0 and 1 are -80 and 20 dB. (The old code also took their power of 1.5, to sharpen.)"""
    return torch.pow(10.0, (values.clamp(0.0, 1.0) * 100.0 - 80.0) / 20.0)


def _root_of_power(values: Tensor) -> Tensor:
    """ln(power + 1e-10) -> magnitudes."""
    return (values.exp() - online.LOG_FLOOR).clamp_min(0.0).sqrt()


LINEAR = {
    "linear1025": Linear(
        plain=partial(legacy.linear1025, cmvn=False),
        correction=0,
        magnitudes=_legacy_magnitudes,
        window=legacy.LONG.window,
        hop=legacy.LONG.hop,
        emphasis=0.97,
    ),
    "linear201": Linear(
        plain=partial(online.log_linear, cmvn=False),
        correction=1,
        magnitudes=_root_of_power,
        window=online.WINDOW,
        hop=online.HOP,
        emphasis=0.0,
    ),
}
"""What can be inverted, by the name of the front end."""


def sound_of(
    frames: Tensor,
    target: str,
    samples: Tensor,
    *,
    first_frame: int = 0,
    level_db: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Sound of a spectrogram that a model told of an utterance.

    A target that was normalised over the utterance has lost its level and colour, and cannot be inverted by itself: the
    mean and deviation of the un-normalised target are computed from the utterance and put back first.

    Args:
        frames: (F, K), normalised.
        target: Which linear target it is, one of `LINEAR`.
        samples: (T,), the utterance at 16 kHz.
        first_frame: Of which frame of the utterance the first of `frames` speaks; before it there is silence.
        level_db: What the utterance was scaled to for the target.
        seed: Of the first phases.

    Returns:
        (T,) float32, or less if frames are missing at the end.
    """
    linear, lengths = LINEAR[target], torch.tensor([len(samples)])
    scaled = samples[None] if level_db is None else scale_to_level(samples[None], lengths, level_db)
    plain, counts = linear.plain(scaled, lengths)
    restored = with_statistics_of(plain[0, : int(counts[0])], frames, correction=linear.correction)
    magnitudes = torch.nn.functional.pad(linear.magnitudes(restored), (0, 0, first_frame, 0))
    num_samples = min(len(samples), len(magnitudes) * linear.hop - 1)
    sound = griffin_lim(magnitudes, window=linear.window, hop=linear.hop, num_samples=num_samples, seed=seed)
    return torch.from_numpy(lfilter([1.0], [1.0, -linear.emphasis], sound.numpy())).float()


def with_statistics_of(plain: Tensor, frames: Tensor, *, correction: int) -> Tensor:
    """Give (F', K) normalised frames the mean and deviation over time of (F, K) plain ones; float64."""
    exact = plain.to(torch.float64)
    mean = exact.mean(dim=0)
    squares = (exact - mean).square().sum(dim=0)
    return frames.to(torch.float64) * (squares / max(len(exact) - correction, 1)).sqrt() + mean


def griffin_lim(
    magnitudes: Tensor, *, window: int, hop: int, num_samples: int, iterations: int = ITERATIONS, seed: int = 0
) -> Tensor:
    """A sound whose short-time spectrum has about these magnitudes.

    From random phases, over and over: make the sound, take its spectrum, keep the phases and put the magnitudes back.
    The phases are pushed on in the direction of the last change, which converges faster.

    Args:
        magnitudes: (F, K) of frames centred on every `hop` samples.
        window: Samples of the periodic Hann window.
        hop: Samples between two frames.
        num_samples: T, from (F - 1) * hop to F * hop - 1.
        iterations: How often.
        seed: Of the first phases.

    Returns:
        (T,) float64.

    Reference:
        Griffin and Lim, Signal estimation from modified short-time Fourier transform, 1984; Perraudin et al., A fast
        Griffin-Lim algorithm, 2013.
    """
    goal = magnitudes.to(torch.float64).T  # (K, F)
    fft = 2 * (len(goal) - 1)
    hann = torch.hann_window(window, dtype=torch.float64)

    def sound_with(phases: Tensor) -> Tensor:
        return torch.istft(goal * phases, fft, hop, window, hann, length=num_samples)

    generator = torch.Generator().manual_seed(seed)
    angles = 2.0 * math.pi * torch.rand(goal.shape, generator=generator, dtype=torch.float64)
    phases = torch.polar(torch.ones_like(goal), angles)
    before = torch.zeros_like(phases)
    for _ in range(iterations):
        sound = sound_with(phases)
        spectrum = torch.stft(sound, fft, hop, window, hann, pad_mode="constant", return_complex=True)
        pushed = spectrum - MOMENTUM / (1.0 + MOMENTUM) * before
        phases = pushed / pushed.abs().clamp_min(1e-16)
        before = spectrum
    return sound_with(phases)
