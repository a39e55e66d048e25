"""The GE2E speaker encoder (Wan et al. 2018, https://arxiv.org/abs/1710.10467), with Resemblyzer's `pretrained.pt`.

Three LSTMs of 256 read 40 mel bands (powers, not their logarithm) of windows of 1.6 s; the vector of an utterance is
the mean of those of its windows. Resemblyzer also cuts out long silences with webrtcvad before; this module does not.

Axes: B batch, T samples, N windows, F frames, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.audio.filterbanks import slaney_bank

RATE_HZ, WINDOW, HOP, BANDS = 16_000, 400, 160, 40
PARTIAL_FRAMES, PARTIAL_STEP = 160, 77  # 1.6 s, 1.3 windows a second
LEAST_COVERAGE = 0.75
LEAST_RMS = 10 ** (-30 / 20)
"""Quieter utterances are raised to this root mean square."""


class GE2E(nn.Module):
    """(B, T) with (B,) -> (B, 256), of length 1; utterances run one at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        return torch.stack([self._vector(sound[:end]) for sound, end in zip(waveforms, lengths.tolist(), strict=True)])

    def _vector(self, sound: Tensor) -> Tensor:
        """(T,) -> (D,)"""
        rms = sound.square().mean().sqrt()
        sound = sound * (LEAST_RMS / rms.clamp_min(1e-6)).clamp_min(1.0)
        starts = _starts(len(sound))
        end = (starts[-1] + PARTIAL_FRAMES) * HOP
        bands = _mel(F.pad(sound, (0, max(0, end - len(sound)))))
        partials = torch.stack([bands[start : start + PARTIAL_FRAMES] for start in starts])  # (N, F, bands)
        _, (hidden, _) = self.lstm(partials)
        vectors = F.normalize(F.relu(self.linear(hidden[-1])), dim=1)  # (N, D)
        return F.normalize(vectors.mean(dim=0), dim=0)


def _starts(num_samples: int) -> list[int]:
    """First frames of the windows; the last one is left out where it lies mostly behind the end."""
    num_frames = -(-(num_samples + 1) // HOP)
    starts = list(range(0, max(1, num_frames - PARTIAL_FRAMES + PARTIAL_STEP + 1), PARTIAL_STEP))
    covered = (num_samples - starts[-1] * HOP) / (PARTIAL_FRAMES * HOP)
    return starts[:-1] if covered < LEAST_COVERAGE and len(starts) > 1 else starts


def _mel(sound: Tensor) -> Tensor:
    """(T,) -> (F, bands): powers in bands of unit area on Slaney's scale."""
    window = torch.hann_window(WINDOW, device=sound.device)
    spectrum = torch.stft(sound, WINDOW, HOP, window=window, center=True, pad_mode="constant", return_complex=True)
    return spectrum.abs().square().T @ slaney_bank(RATE_HZ, WINDOW, BANDS).to(sound)
