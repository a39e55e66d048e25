"""A corpus of tones and an upstream that computes loudness: small and exact, for tests that need a known result."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.corpora import manifest
from repbench.corpora.contract import SILENCE, Corpus, Draft, DraftUtterance, Phone
from repbench.upstream.contract import HiddenStates, UpstreamInfo, check_lengths, fingerprint_of

TONES_HZ = {"AA": 400.0, "IY": 900.0, "UW": 1700.0}
"""The phones of `tone_corpus`, without silence."""


def tone_corpus(
    folder: Path,
    *,
    num_speakers: int = 6,
    sessions: int = 2,
    per_session: int = 4,
    sample_rate_hz: int = 16_000,
    salt: str = "",
) -> Corpus:
    """Write a corpus whose labels can all be recognised, and open it.

    Each utterance is silence and tones of 0.1 to 0.2 s, one frequency a phone; a hum marks the speaker, a high
    tone the positive sentiment.

    Args:
        folder: Folder of the manifest; the audio files are in `folder/sounds`.
        num_speakers: Speakers `s0`, `s1`, …
        sessions: Sessions of each, as `group`.
        per_session: Utterances of each session.
        sample_rate_hz: Rate of the sounds.
        salt: Another salt gives other sounds.
    """
    sounds = folder / "sounds"
    sounds.mkdir(parents=True)
    drafts = []
    for speaker in range(num_speakers):
        for number in range(sessions * per_session):
            id_ = f"s{speaker}-{number:02d}"
            samples, phones = _utterance(f"{salt}{id_}", speaker, number % 2 == 0, sample_rate_hz)
            soundfile.write(sounds / f"{id_}.wav", samples, sample_rate_hz, subtype="PCM_16")
            drafts.append(
                DraftUtterance(
                    id=id_,
                    audio=sounds / f"{id_}.wav",
                    speaker=f"s{speaker}",
                    phones=phones,
                    group=f"s{speaker}-{number // per_session}",
                    attributes={"sentiment": "positive" if number % 2 == 0 else "negative"},
                )
            )
    labels = (*TONES_HZ, SILENCE)
    draft = Draft(
        name="tones",
        licence="CC0-1.0",
        root=folder,
        utterances=drafts,
        phone_map={label: label for label in labels},
        phone_set=tuple(sorted(labels)),
    )
    return manifest.write(draft, folder)


def _utterance(id_: str, speaker: int, positive: bool, rate_hz: int) -> tuple[NDArray[np.float64], tuple[Phone, ...]]:
    # Seeded by the id: the utterance does not depend on how many others the corpus has. `hash` differs between
    # processes.
    random = np.random.default_rng(int(hashlib.sha256(id_.encode()).hexdigest()[:8], 16))
    labels = [SILENCE, *random.choice(list(TONES_HZ), size=6), SILENCE]
    # (8,) durations -> (9,) edges, in samples
    edges = np.concatenate([[0], np.cumsum(random.integers(rate_hz // 10, rate_hz // 5, size=len(labels)))])
    times = np.arange(edges[-1]) / rate_hz
    samples = 0.05 * np.sin(2 * np.pi * (120 + 45 * speaker) * times)
    samples += 0.02 * positive * np.sin(2 * np.pi * 3200 * times)
    samples += 0.001 * random.standard_normal(len(times))
    for label, start, end in zip(labels, edges[:-1], edges[1:], strict=True):
        if label in TONES_HZ:
            samples[start:end] += 0.2 * np.sin(2 * np.pi * TONES_HZ[label] * times[start:end])
    phones = tuple(
        Phone(start / rate_hz, end / rate_hz, str(label))
        for label, start, end in zip(labels, edges[:-1], edges[1:], strict=True)
    )
    return samples, phones


class Envelope(nn.Module):
    """An upstream of block energies: layer 0 the energy, layer 1 a fixed random projection of it.

    Args:
        hop_samples: Samples of a block; the centre of frame k is the middle of block k.
    """

    def __init__(self, *, hop_samples: int = 320) -> None:
        super().__init__()
        width = 4
        generator = torch.Generator().manual_seed(0)
        self.projection = nn.Parameter(torch.randn(width, width, generator=generator))
        self.info = UpstreamInfo(
            name="envelope",
            sample_rate_hz=16_000,
            hop_samples=hop_samples,
            first_center_samples=hop_samples // 2,
            min_samples=hop_samples,
            layer_names=("energy", "projected"),
            width=width,
            utterance_normalised=False,
            trainable=True,
            citation="none",
            licence="MIT",
        )

    def num_frames(self, num_samples: int) -> int:
        """Whole blocks."""
        return num_samples // self.info.hop_samples

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (2, B, F, 4)."""
        check_lengths(self.info, lengths)
        hop = self.info.hop_samples
        counts = lengths.div(hop, rounding_mode="floor")
        # (B, T) -> (B, F hop): the samples of whole blocks
        usable = waveforms[:, : int(counts.max()) * hop]
        quarters = usable.reshape(len(usable), -1, self.info.width, hop // self.info.width)  # (B, F, D, hop / D)
        quarters = quarters.square().mean(dim=-1)  # (B, F, D)
        # (F,) < (B, 1) -> (B, F): padding is 0 in both layers
        valid = torch.arange(quarters.shape[1], device=quarters.device) < counts[:, None]
        energy = torch.log(quarters + 1e-6) * valid[..., None]
        projected = F.linear(energy, self.projection) * valid[..., None]
        # two (B, F, D) -> (2, B, F, D)
        return HiddenStates(torch.stack([energy, projected]), counts)

    def fingerprint(self) -> str:
        """SHA-256 of the projection and the hop."""
        return fingerprint_of(self, {"hop_samples": self.info.hop_samples}, 1)


def envelope(*, checkpoint: str | None = None, seed: int = 0) -> Envelope:
    """An `Envelope`, as a factory: reachable as `py:repbench.testing.fakes:envelope`."""
    return Envelope().eval()
