"""The features of the released Mockingjay code: mel160, fbank160, mfcc52 and linear1025.

They follow its extractor: librosa with `pad_mode="reflect"`, the Slaney mel scale, slopes as in
`librosa.feature.delta`, CMVN per utterance over static features and slopes together with a deviation floor of 1e-16.

Axes: B batch, T samples, F frames, N windows, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from repbench.audio.filterbanks import cosine_transform, cut_bank, slaney_bank
from repbench.audio.frames import (
    SAMPLE_RATE_HZ,
    FrontEnd,
    Spectrum,
    Transform,
    centred_windows,
    normalise_utterances,
    savgol_slopes,
    zero_past,
)

DELTA_FRAMES = 9
"""Window of the slopes, in frames."""

LOG_FLOOR = 1e-6
"""Added to the mel power before the logarithm."""


@dataclass(frozen=True, slots=True)
class TransformShape:
    """Sizes of a short-time transform, in samples: its periodic Hann window, hop and length."""

    window: int
    hop: int
    fft: int


LONG = TransformShape(window=800, hop=200, fft=2048)
"""50 ms every 12.5 ms."""

SHORT = TransformShape(window=400, hop=160, fft=400)
"""25 ms every 10 ms."""


def log_mel(
    waveforms: Tensor, lengths: Tensor, *, shape: TransformShape = LONG, num_bands: int = 80, cmvn: bool = True
) -> tuple[Tensor, Tensor]:
    """ln(mel power + 1e-6) of `num_bands` bands, with slopes.

    Args:
        waveforms: (B, T) float32 at 16 kHz.
        lengths: (B,), each more than half a window.
        shape: Window, hop and length of the transform.
        num_bands: Number of bands from 0 to 8,000 Hz.
        cmvn: Whether to bring each dimension to zero mean and unit deviation over the utterance.

    Returns:
        Frames (B, F, 2 * num_bands) and their counts (B,).
    """

    def transform(block: int) -> Transform:
        bank = cut_bank(slaney_bank, SAMPLE_RATE_HZ, shape.fft, num_bands).to(waveforms.device)
        spectrum = Spectrum(_hann(shape.window, waveforms.device), shape.fft, block)
        # (N, W) -> (N, bins) -> (N, num_bands), which begin as zeros
        return lambda windows, mel: bank.add(spectrum.power(windows), mel)

    # (B, T) -> (B, F, num_bands)
    mel, counts = _centred(waveforms, lengths, shape, num_bands, transform)
    return _with_slopes(mel.add_(LOG_FLOOR).log_(), counts, cmvn=cmvn), counts


def mfcc52(waveforms: Tensor, lengths: Tensor, *, cmvn: bool = True) -> tuple[Tensor, Tensor]:
    """The legacy `mfcc`: 26 cepstra of 26 bands, the first replaced by the energy, with slopes.

    Bands are in dB (10 log10 of at least 1e-10), at most 80 dB below the loudest of the utterance; the energy is the
    root mean square of the window's samples.

    Args:
        waveforms: (B, T) float32 at 16 kHz.
        lengths: (B,), each more than 200.
        cmvn: Whether to normalise over the utterance.

    Returns:
        Frames (B, F, 52) and their counts (B,).
    """
    num_bands = 26

    def transform(block: int) -> Transform:
        bank = cut_bank(slaney_bank, SAMPLE_RATE_HZ, SHORT.fft, num_bands).to(waveforms.device)
        spectrum = Spectrum(_hann(SHORT.window, waveforms.device), SHORT.fft, block)

        def apply(windows: Tensor, out: Tensor) -> None:
            bank.add(spectrum.power(windows), out[:, :num_bands])
            # (N, W) -> (N,), of the samples before the Hann window: `librosa.feature.rms`
            out[:, num_bands] = windows.to(torch.float64).square().mean(dim=-1).sqrt()

        return apply

    both, counts = _centred(waveforms, lengths, SHORT, num_bands + 1, transform)  # (B, F, 26 + 1)
    mel, energy = torch.tensor_split(zero_past(both, counts), [num_bands], dim=-1)  # (B, F, 26), (B, F, 1)
    # `librosa.power_to_db` with `ref=np.max`. Frames past a count are 0, so -100 dB: none of them is the loudest.
    decibels = 10.0 * mel.to(torch.float64).clamp_min(1e-10).log10()
    # Subtracting the loudest changes only the zeroth cepstrum, which the energy replaces; silence becomes exactly 0.
    below_loudest = (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp_min(-80.0)
    transformed = below_loudest @ cosine_transform(num_bands, num_bands).to(mel.device)  # (B, F, 26)
    cepstra = torch.cat([energy, transformed[..., 1:].to(mel.dtype)], dim=-1)  # (B, F, 1 + 25)
    return _with_slopes(cepstra, counts, cmvn=cmvn), counts


def linear1025(waveforms: Tensor, lengths: Tensor, *, cmvn: bool = True) -> tuple[Tensor, Tensor]:
    """The legacy `linear`: magnitudes of the pre-emphasised signal in dB, with [-100 dB, 0 dB] mapped to [0, 1].

    20 log10(max(1e-5, magnitude)) - 20 dB, plus 100, over 100, clipped; no slopes. The target of Mockingjay LARGE.

    Args:
        waveforms: (B, T) float32 at 16 kHz.
        lengths: (B,), each more than 400.
        cmvn: Whether to normalise over the utterance, as the released code does; the values then leave [0, 1].

    Returns:
        Frames (B, F, 1025) and their counts (B,).
    """
    num_bins = LONG.fft // 2 + 1
    # Pre-emphasis over the whole utterance, its first sample unchanged: `scipy.signal.lfilter([1, -0.97], 1, x)`. The
    # sample past an utterance's end becomes -0.97 times its last, which `reflect_ends` masks again.
    emphasised = waveforms.clone()
    emphasised[:, 1:] -= 0.97 * waveforms[:, :-1]

    def transform(block: int) -> Transform:
        spectrum = Spectrum(_hann(LONG.window, waveforms.device), LONG.fft, block)
        return lambda windows, out: out.copy_(spectrum.power(windows))

    power, counts = _centred(emphasised, lengths, LONG, num_bins, transform)
    # 20 log10(max(1e-5, m)) = 10 log10(max(1e-10, m²)): the power is enough, no root is taken.
    decibels = 10.0 * power.clamp_min(1e-10).log10() - 20.0
    frames = ((decibels + 100.0) / 100.0).clamp(0.0, 1.0)
    if cmvn:
        return normalise_utterances(frames, counts, epsilon=1e-16), counts
    # 0 is a value here (-80 dB), so frames past a count cannot be found again by their zeros: use the counts.
    return zero_past(frames, counts), counts


def _hann(samples: int, device: torch.device) -> Tensor:
    # periodic, as `scipy.signal.get_window("hann")`, which librosa uses
    return torch.hann_window(samples, dtype=torch.float64, device=device)


def _centred(
    waveforms: Tensor, lengths: Tensor, shape: TransformShape, width: int, transform: Callable[[int], Transform]
) -> tuple[Tensor, Tensor]:
    return centred_windows(waveforms, lengths, window=shape.window, hop=shape.hop, width=width, transform=transform)


def _with_slopes(frames: Tensor, counts: Tensor, *, cmvn: bool) -> Tensor:
    both = torch.cat([frames, savgol_slopes(frames, counts, DELTA_FRAMES)], dim=-1)  # (B, F, D) -> (B, F, 2 D)
    return normalise_utterances(both, counts, epsilon=1e-16) if cmvn else zero_past(both, counts)


def _front_end(name: str, shape: TransformShape, width: int, compute: Callable[..., tuple[Tensor, Tensor]]) -> FrontEnd:
    return FrontEnd(
        name=name,
        width=width,
        window_samples=shape.window,
        hop_samples=shape.hop,
        centred=True,
        normalised=True,
        compute=compute,
    )


MEL160 = _front_end("mel160", LONG, 160, log_mel)
"""80 log-mel bands and slopes, 50 ms windows every 12.5 ms: the input of Mockingjay."""

MEL160_NO_CMVN = FrontEnd(
    name="mel160 without CMVN",
    width=160,
    window_samples=LONG.window,
    hop_samples=LONG.hop,
    centred=True,
    normalised=False,
    compute=partial(log_mel, cmvn=False),
)
"""`MEL160` without CMVN: loudness and channel stay in."""

FBANK160 = _front_end("fbank160", SHORT, 160, partial(log_mel, shape=SHORT))
"""80 log-mel bands and slopes, 25 ms windows every 10 ms."""

MFCC52 = _front_end("mfcc52", SHORT, 52, mfcc52)
"""26 cepstra and slopes, 25 ms windows every 10 ms (the legacy paths call them `mfcc160`)."""

LINEAR1025 = _front_end("linear1025", LONG, 1025, linear1025)
"""Decibels of 1,025 bins, 50 ms windows every 12.5 ms: the target of Mockingjay LARGE."""
