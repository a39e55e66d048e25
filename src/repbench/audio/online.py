"""The features that S3PRL computes on the fly, mel80 and linear, and the functions that they are made of.

25 ms periodic Hann windows centred on every 10 ms, power spectra of 201 bins, HTK mel bands of unit height, ln(x +
1e-10), CMVN per utterance with the unbiased deviation plus 1e-10. Unlike the original, an utterance is reflected at its
own end in a batch too, so its features are the same alone and in any batch.

Axes: B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from repbench.audio.filterbanks import cut_bank, htk_bank
from repbench.audio.frames import (
    SAMPLE_RATE_HZ,
    FrontEnd,
    Spectrum,
    Transform,
    centred_windows,
    normalise_utterances,
    regression_slopes,
    scale_to_level,
    zero_past,
)

WINDOW, HOP, FFT = 400, 160, 400
NUM_BANDS = 80
LOG_FLOOR = 1e-10


def power_linear(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Power of 201 bins: (B, T) -> (B, F, 201), without meaning past the (B,) counts."""

    def transform(block: int) -> Transform:
        spectrum = Spectrum(_hann(waveforms.device), FFT, block)
        # (N, W) -> (N, 201), copied because the spectrum's buffer is used again for the next windows
        return lambda windows, out: out.copy_(spectrum.power(windows))

    return centred_windows(waveforms, lengths, window=WINDOW, hop=HOP, width=FFT // 2 + 1, transform=transform)


def power_mel(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Power of 80 HTK mel bands from 0 to 8,000 Hz: (B, T) -> (B, F, 80)."""

    def transform(block: int) -> Transform:
        bank = cut_bank(htk_bank, SAMPLE_RATE_HZ, FFT, NUM_BANDS).to(waveforms.device)
        spectrum = Spectrum(_hann(waveforms.device), FFT, block)
        # (N, W) -> (N, 201) -> (N, 80), which begin as zeros
        return lambda windows, mel: bank.add(spectrum.power(windows), mel)

    return centred_windows(waveforms, lengths, window=WINDOW, hop=HOP, width=NUM_BANDS, transform=transform)


def log_mel(
    waveforms: Tensor, lengths: Tensor, *, num_slopes: int = 0, cmvn: bool = True, level_db: float | None = None
) -> tuple[Tensor, Tensor]:
    """ln(mel power + 1e-10) of 80 bands, with `num_slopes` orders of slopes.

    Args:
        waveforms: (B, T) float32 at 16 kHz.
        lengths: (B,), each more than 200.
        num_slopes: How often slopes are appended.
        cmvn: Whether to normalise over the utterance.
        level_db: Level that each waveform is scaled to first, in dB relative to full scale; None: as it is.

    Returns:
        Frames (B, F, 80 * (1 + num_slopes)) and their counts (B,).
    """
    mel, counts = power_mel(_levelled(waveforms, lengths, level_db), lengths)
    # In place: the (B, F, 80) are new. Past a count they are ln(1e-10), until the last line masks them.
    parts = [mel.add_(LOG_FLOOR).log_()]
    for _ in range(num_slopes):
        parts.append(regression_slopes(parts[-1], counts))
    # each (B, F, 80) -> (B, F, 80 * (1 + num_slopes))
    return _normalised(torch.cat(parts, dim=-1), counts, cmvn=cmvn), counts


def log_linear(
    waveforms: Tensor, lengths: Tensor, *, cmvn: bool = True, level_db: float | None = None
) -> tuple[Tensor, Tensor]:
    """ln(power + 1e-10) of 201 bins: (B, T) -> (B, F, 201); arguments as for `log_mel`."""
    power, counts = power_linear(_levelled(waveforms, lengths, level_db), lengths)
    return _normalised(power.add_(LOG_FLOOR).log_(), counts, cmvn=cmvn), counts


def _levelled(waveforms: Tensor, lengths: Tensor, level_db: float | None) -> Tensor:
    return waveforms if level_db is None else scale_to_level(waveforms, lengths, level_db)


def _normalised(frames: Tensor, counts: Tensor, *, cmvn: bool) -> Tensor:
    return normalise_utterances(frames, counts, epsilon=1e-10, correction=1) if cmvn else zero_past(frames, counts)


def _hann(device: torch.device) -> Tensor:
    return torch.hann_window(WINDOW, dtype=torch.float64, device=device)


_front_end = partial(FrontEnd, window_samples=WINDOW, hop_samples=HOP, centred=True, normalised=True)

MEL80 = _front_end(name="mel80", width=NUM_BANDS, compute=log_mel)
"""80 log-mel bands, CMVN: S3PRL's `mel`."""

LINEAR = _front_end(name="linear", width=201, compute=log_linear)
"""Log power of 201 bins, CMVN."""
