"""Kaldi's features as S3PRL's baselines compute them: fbank, mfcc, spectrogram, and APC's fbank80.

25 ms windows that start every 10 ms and lie wholly inside the utterance. Each window loses its mean, is pre-emphasised
(0.97, its first sample against itself), and is weighted by a Povey window (Hamming for APC). No dither, samples in
[-1, 1] are not scaled up. Slopes are regressions over five frames; CMVN is per utterance with the unbiased deviation
plus 1e-10.

Axes: B batch, T samples, F frames, N windows, W window, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from repbench.audio.filterbanks import cosine_transform, cut_bank, kaldi_bank
from repbench.audio.frames import (
    SAMPLE_RATE_HZ,
    FrontEnd,
    Spectrum,
    Transform,
    normalise_utterances,
    regression_slopes,
    whole_windows,
    zero_past,
)

WINDOW, HOP, FFT = 400, 160, 512
# std::numeric_limits<float>::epsilon(), to which Kaldi's feat/feature-fbank.cc floors the energies
LOG_FLOOR = 1.1920928955078125e-07
"""Least power before the logarithm: the spacing of float32 at 1."""

WindowName = Literal["povey", "hamming"]


def log_mel(
    waveforms: Tensor, lengths: Tensor, *, num_bands: int = 80, window: WindowName = "povey"
) -> tuple[Tensor, Tensor]:
    """ln(max(mel power, 1.19e-7)) of bands from 20 to 8,000 Hz.

    Args:
        waveforms: (B, T) float32 at 16 kHz.
        lengths: (B,), each at least 400.
        num_bands: Number of bands.
        window: Window function.

    Returns:
        (B, F, num_bands), without meaning past the (B,) counts.
    """

    def transform(block: int) -> Transform:
        bank = cut_bank(kaldi_bank, SAMPLE_RATE_HZ, FFT, num_bands).to(waveforms.device)
        spectrum = Spectrum(window_function(window, waveforms.device), FFT, block)
        return lambda windows, mel: bank.add(spectrum.power(pre_emphasised(without_mean(windows))), mel)

    # (B, T) -> (B, F, num_bands)
    mel, counts = _windows(waveforms, lengths, num_bands, transform)
    return mel.clamp_min_(LOG_FLOOR).log_(), counts


def cepstra(waveforms: Tensor, lengths: Tensor, *, num_bands: int = 23, num_cepstra: int = 13) -> tuple[Tensor, Tensor]:
    """Cosine transform of the log-mel bands, liftered by 1 + 11 sin(π k / 22): (B, T) -> (B, F, num_cepstra).

    The zeroth cepstrum is kept.
    """
    bands, counts = log_mel(waveforms, lengths, num_bands=num_bands)
    # (num_cepstra,): the HTK Book's lifter of L = 22, 1 + L / 2 * sin(pi k / L); Kaldi's ComputeLifterCoeffs
    lifter = 1.0 + 11.0 * torch.sin(math.pi / 22.0 * torch.arange(num_cepstra, dtype=torch.float64))
    # (num_bands, num_cepstra) * (num_cepstra,): one matrix does both; a new tensor, since the transform is cached
    transform = cosine_transform(num_bands, num_cepstra) * lifter
    return bands @ transform.to(bands), counts  # (B, F, num_bands) -> (B, F, num_cepstra)


def log_spectrum(waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """ln(max(power, 1.19e-7)) of 257 bins: (B, T) -> (B, F, 257).

    The first bin is replaced by the window's log-energy, at least ln 1 = 0.

    The energy is taken after the mean is removed and before pre-emphasis and window.
    """

    def transform(block: int) -> Transform:
        spectrum = Spectrum(window_function("povey", waveforms.device), FFT, block)

        def apply(windows: Tensor, out: Tensor) -> None:
            centred = without_mean(windows)
            # (N, W) -> (N, 257), copied because the spectrum's buffer is used again for the next windows
            out.copy_(spectrum.power(pre_emphasised(centred))).clamp_min_(LOG_FLOOR).log_()
            # (N, W) -> (N,): `energy_floor=1.0` and `raw_energy=True` of torchaudio.compliance.kaldi. Samples in
            # [-1, 1] give exactly 0 where the root mean square of the window is below 0.05.
            out[:, 0] = centred.square().sum(dim=-1).clamp_min(1.0).log()

        return apply

    return _windows(waveforms, lengths, FFT // 2 + 1, transform)


def without_mean(windows: Tensor) -> Tensor:
    """(N, W) -> (N, W) float64 of zero mean."""
    # float64 from here on, through pre-emphasis and window, to the power spectrum
    exact = windows.to(torch.float64)
    return exact - exact.mean(dim=-1, keepdim=True)


def pre_emphasised(windows: Tensor) -> Tensor:
    """x[t] - 0.97 x[t-1] within each (N, W) window, x[0] against itself."""
    # A clone, because each sample needs its neighbour as it was before emphasis. (Kaldi's Preemphasize, in
    # feat/feature-window.cc, works in place from the last sample to the first for the same reason.)
    emphasised = windows.clone()
    emphasised[:, 1:] -= 0.97 * windows[:, :-1]
    emphasised[:, 0] -= 0.97 * windows[:, 0]
    return emphasised


def window_function(name: WindowName, device: torch.device) -> Tensor:
    """The symmetric window of 400 samples, float64: Hamming, or Povey's (0.5 - 0.5 cos)^0.85."""
    if name == "hamming":
        return torch.hamming_window(WINDOW, periodic=False, alpha=0.54, beta=0.46, dtype=torch.float64, device=device)
    # A Hann window is 0.5 - 0.5 cos; the power is Kaldi's (feat/feature-window.cc).
    return torch.hann_window(WINDOW, periodic=False, dtype=torch.float64, device=device).pow(0.85)


def finished(
    features: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    waveforms: Tensor,
    lengths: Tensor,
    *,
    num_slopes: int,
    cmvn: bool,
) -> tuple[Tensor, Tensor]:
    """Append slopes to features, and normalise them.

    Args:
        features: Function of waveforms and lengths to (B, F, D) frames and (B,) counts.
        waveforms: (B, T) float32 at 16 kHz.
        lengths: (B,), each at least 400.
        num_slopes: How often slopes are appended: 2 for slopes and their slopes.
        cmvn: Whether each dimension gets zero mean and unit deviation over the utterance.

    Returns:
        Frames (B, F, D * (1 + num_slopes)), zero past the (B,) counts.
    """
    frames, counts = features(waveforms, lengths)
    parts = [frames]
    for _ in range(num_slopes):
        # (B, F, D) -> (B, F, D), of the last part: S3PRL applies `torchaudio.transforms.ComputeDeltas` twice. Kaldi's
        # add-deltas convolves the filter with itself instead, which differs in the first and last two frames.
        parts.append(regression_slopes(parts[-1], counts))
    joined = torch.cat(parts, dim=-1)  # (B, F, D * (1 + num_slopes))
    if cmvn:
        # `std` of torch is unbiased (upstream/baseline/extracter.py of S3PRL), hence the correction.
        return normalise_utterances(joined, counts, epsilon=1e-10, correction=1), counts
    return zero_past(joined, counts), counts


def _windows(
    waveforms: Tensor, lengths: Tensor, width: int, transform: Callable[[int], Transform]
) -> tuple[Tensor, Tensor]:
    return whole_windows(waveforms, lengths, window=WINDOW, hop=HOP, width=width, transform=transform)


def _front_end(
    name: str,
    width: int,
    features: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    *,
    num_slopes: int = 0,
    cmvn: bool = True,
) -> FrontEnd:
    return FrontEnd(
        name=name,
        width=width,
        window_samples=WINDOW,
        hop_samples=HOP,
        centred=False,
        normalised=cmvn,
        compute=partial(finished, features, num_slopes=num_slopes, cmvn=cmvn),
    )


FBANK = _front_end("fbank", 240, log_mel, num_slopes=2)
"""80 log-mel bands with slopes and their slopes, CMVN."""

FBANK_NO_CMVN = _front_end("fbank without CMVN", 240, log_mel, num_slopes=2, cmvn=False)
"""`FBANK` without CMVN."""

MFCC = _front_end("mfcc", 39, cepstra, num_slopes=2)
"""13 cepstra with slopes and their slopes, CMVN."""

SPECTROGRAM = _front_end("spectrogram", 257, log_spectrum)
"""Log power of 257 bins, CMVN."""

FBANK80 = _front_end("fbank80", 80, partial(log_mel, window="hamming"))
"""80 log-mel bands under a Hamming window, CMVN: the input of APC."""
