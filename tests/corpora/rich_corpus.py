"""A small corpus in which every field of a manifest occurs, in the forms that formats of others hold worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Draft, DraftUtterance, Phone, Turn
from tests.corpora.sounds import write_noise

AWKWARD = ((0.46975 / 10, 0.18869375), (0.18869375, 1 / 3), (1 / 3, 0.4606250000000001))
"""Starts and ends; of some, start and plain difference do not add up to the end."""


def rich_draft(root: Path) -> Draft:
    """Ten utterances: whole files, parts, channels, means; labels of every type, missing and empty ones."""
    for seed, name in enumerate(("a", "b", "c", "d", "e", "f")):
        write_noise(root / "wav" / f"{name}.wav", seed=seed)
    write_noise(root / "wav" / "long.flac", seed=10, seconds=2.0)
    stereo = np.random.default_rng(11).uniform(-0.5, 0.5, (8_000, 2))
    soundfile.write(root / "wav" / "stereo.wav", stereo, 16_000, subtype="PCM_16")
    soundfile.write(root / "wav" / "24.wav", stereo[:, 0] / 3, 16_000, subtype="PCM_24")
    soundfile.write(root / "wav" / "lossy.ogg", stereo[:, 1], 16_000, format="OGG", subtype="VORBIS")
    wav = root / "wav"
    phones = tuple(Phone(start, end, label) for (start, end), label in zip(AWKWARD, ("AA", "ə", "sil"), strict=True))
    turns = tuple(sorted(Turn(start, end, f"p{k}") for k, (start, end) in enumerate(AWKWARD)))
    utterances = [
        DraftUtterance(id="a", audio=wav / "a.wav", speaker="s1", text="Grüße, “you”\nthere", phones=phones,
                       attributes={"gender": "F", "age": 30, "score": 1.5, "mixed": 1}, group="g 1", split="train"),
        DraftUtterance(id="b", audio=wav / "b.wav", speaker="s1", text="", phones=(),
                       attributes={"gender": "F", "age": 31, "score": 2.0, "mixed": 1.0}, split="train"),
        DraftUtterance(id="c/1", audio=wav / "c.wav", text=None, attributes={"mixed": "one", "huge": 2**70, "none": ""},
                       split="dev"),
        DraftUtterance(id="d", audio=wav / "d.wav", speaker="s2", turns=turns, split="test"),
        DraftUtterance(id="e", audio=wav / "e.wav", turns=()),
        DraftUtterance(id="f", audio=wav / "f.wav", speaker="ß", attributes={"id": "x", "split": "y", "Text": "z"}),
        DraftUtterance(id="part", audio=wav / "long.flac", start=0.25, end=0.75, speaker="s3", phones=phones),
        DraftUtterance(id="rest", audio=wav / "long.flac", start=1.0, speaker="s3", turns=turns, phones=phones),
        DraftUtterance(id="left", audio=wav / "stereo.wav", channel=1, speaker="s4"),
        DraftUtterance(id="mean", audio=wav / "stereo.wav", channel="mix", speaker="s5"),
        DraftUtterance(id="24", audio=wav / "24.wav", speaker="s6"),
        DraftUtterance(id="lossy", audio=wav / "lossy.ogg", start=0.1, end=0.3, speaker="s7"),
    ]  # fmt: skip
    return Draft(
        name="rich",
        licence="CC BY 4.0",
        root=root,
        utterances=utterances,
        phone_set=("AA", "B", "sil", "ə"),
        notes=("made by hand",),
        scales={"score": 0.0},
        left_out={"lost": "its sound is gone"},
    )


def rich_corpus(folder: Path) -> Corpus:
    """The corpus of `rich_draft`, from its manifest."""
    return manifest.write(rich_draft(folder / "sounds"), folder / "manifest")
