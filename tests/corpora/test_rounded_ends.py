"""Ends of utterances that lie a little past their sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.audio.sound import SoundInfo, inspect
from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, PrepareOptions
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.layouts.kaldi import KALDI
from repbench.errors import DataError
from tests.corpora.sounds import write_noise, write_text

NUM_SAMPLES = 31_995
"""0.3 ms less than two seconds at 16 kHz, so that a table rounded to 10 ms ends past the sound."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, NUM_SAMPLES)
    (tmp_path / "root").mkdir()
    soundfile.write(tmp_path / "root" / "r1.wav", noise, 16_000, subtype="PCM_16")
    return tmp_path / "root"


def kaldi(root: Path, *segments: str) -> Corpus:
    write_text(root / "wav.scp", "r1 r1.wav")
    write_text(root / "segments", *segments)
    write_text(root / "utt2spk", *(f"{line.split()[0]} s1" for line in segments))
    return manifest.write(KALDI.prepare(root, PrepareOptions()), root.parent / "out")


def csv(root: Path, *rows: str) -> Corpus:
    write_text(root / "table.csv", "id,path,start,end", *rows)
    return manifest.write(CSV.prepare(root, PrepareOptions()), root.parent / "out")


@pytest.mark.parametrize(
    ("end", "over_s"), [("2.00", "0.0003"), ("2.02", "0.0203"), ("2.1", "0.1003"), ("2.4996", "0.4999")]
)
def test_a_segment_that_ends_past_its_sound_is_cut_there_and_counted(root: Path, end: str, over_s: str) -> None:
    corpus = kaldi(root, "r1-0 r1 0.00 1.00", f"r1-1 r1 1.00 {end}")
    assert [utterance.num_samples for utterance in corpus.utterances] == [16_000, NUM_SAMPLES - 16_000]
    assert corpus.notes == (
        f"1 of 2 utterances end past their sound and are cut there, by at most {over_s} s (`r1-1`)",
    )
    assert manifest.read(root.parent / "out").fingerprint == corpus.fingerprint


def test_a_row_of_a_table_is_cut_alike(root: Path) -> None:
    corpus = csv(root, "a,r1.wav,0.5,2.0", "b,r1.wav,,1.0", "c,r1.wav,1.0,2.004")
    assert [utterance.num_samples for utterance in corpus.utterances] == [23_995, 16_000, 15_995]
    assert corpus.notes == ("2 of 3 utterances end past their sound and are cut there, by at most 0.0043 s (`c`)",)


def test_an_end_in_the_sound_stays_as_it_is_written(root: Path) -> None:
    corpus = kaldi(root, "r1-0 r1 0.00 1.00", "r1-1 r1 1.00 1.9997", "r1-2 r1 1.5 -1")
    assert [utterance.end for utterance in corpus.utterances] == [1.0, 1.9997, None]
    assert corpus.notes == ()


@pytest.mark.parametrize(
    "segment", ["r1-1 r1 1.00 2.51", "r1-1 r1 2.00 2.10", "r1-1 r1 1000 2000", "r1-1 r1 16000 31995"]
)
def test_an_end_far_out_and_an_empty_utterance_stay_refused(root: Path, segment: str) -> None:
    with pytest.raises(DataError, match=r"does not lie in the file, which lasts 1\.99969 s.*utterance r1-1.*seconds\?"):
        kaldi(root, segment)


def test_the_phones_of_a_cut_utterance_are_held_against_what_is_left(root: Path) -> None:
    write_text(root.parent / "ali.ctm", "r1-1 1 0.00 0.40 AH", "r1-1 1 0.40 0.60 T")
    write_text(root / "wav.scp", "r1 r1.wav")
    write_text(root / "segments", "r1-1 r1 1.00 2.00")
    write_text(root / "utt2spk", "r1-1 s1")
    draft = KALDI.prepare(root, PrepareOptions(alignments=root.parent / "ali.ctm"))
    phones = manifest.write(draft, root.parent / "out").utterances[0].phones
    assert phones is not None
    assert phones[-1].end_s == pytest.approx((NUM_SAMPLES - 16_000) / 16_000)


def test_a_broken_sound_is_named_where_it_is_read(root: Path) -> None:
    (root / "r1.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"r1\.wav, utterance a"):
        csv(root, "a,r1.wav,0.5,2.0")


def test_each_header_is_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path, *, any_channels: bool) -> SoundInfo:
        read.append(path)
        return inspect(path, any_channels=any_channels)

    monkeypatch.setattr("repbench.corpora.layouts.rounded_ends.inspect", counted)
    write_noise(root / "r2.wav", seed=1)
    write_text(root / "table.csv", "id,path,start,end", "a,r1.wav,0,1", "b,r1.wav,1,2.0", "c,r2.wav,,")
    CSV.prepare(root, PrepareOptions())
    assert read == [root / "r1.wav"]
