"""The layouts on real speech, where REPBENCH_TEST_DATA names it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.audit.check import check
from repbench.corpora.contract import Corpus, CorpusLayout, PrepareOptions
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.layouts.fsdd import FSDD
from repbench.corpora.layouts.kaldi import KALDI
from repbench.corpora.layouts.librispeech import LIBRISPEECH
from repbench.corpora.layouts.ljspeech import LJSPEECH


def prepared(layout: CorpusLayout, root: Path, out: Path, options: PrepareOptions | None = None) -> Corpus:
    """The corpus as written, after it has been read again and audited."""
    corpus = manifest.write(layout.prepare(root, options or PrepareOptions()), out)
    assert manifest.read(out) == corpus
    assert check(corpus).problems == ()
    return corpus


def test_ljspeech_has_35_aligned_clips(speech_data: Path, tmp_path: Path) -> None:
    corpus = prepared(LJSPEECH, speech_data / "LJSpeech35", tmp_path / "out")
    assert len(corpus.utterances) == 35
    assert all(utterance.phones for utterance in corpus.utterances)
    assert {utterance.sample_rate_hz for utterance in corpus.utterances} == {22_050}
    assert len(corpus.label_sets["phones"]) == 40
    assert corpus.label_sets["speakers"] == ("LJ",)


def test_librispeech_test_other_has_10_speakers_of_10(speech_data: Path, tmp_path: Path) -> None:
    corpus = prepared(LIBRISPEECH, speech_data / "LibriSpeech" / "test-other", tmp_path / "out")
    speakers = Counter(utterance.speaker for utterance in corpus.utterances)
    assert len(speakers) == 10
    assert set(speakers.values()) == {10}
    assert {utterance.split for utterance in corpus.utterances} == {"test"}


@pytest.mark.slow
def test_librispeech_has_texts_and_genders_for_train(speech_data: Path, tmp_path: Path) -> None:
    corpus = prepared(LIBRISPEECH, speech_data / "LibriSpeech", tmp_path / "out")
    train = [utterance for utterance in corpus.utterances if utterance.split == "train"]
    assert (len(corpus.utterances), len(train)) == (158, 58)
    assert all(utterance.text for utterance in train)
    assert {(utterance.speaker, utterance.attributes["gender"]) for utterance in train} == {
        ("19", "F"),
        ("26", "M"),
        ("27", "M"),
    }
    assert len({utterance.group for utterance in train}) == 6


def test_fsdd_has_600_digits_in_two_halves(speech_data: Path, tmp_path: Path) -> None:
    corpus = prepared(FSDD, speech_data / "fsdd", tmp_path / "out")
    assert Counter(utterance.split for utterance in corpus.utterances) == {"train": 300, "test": 300}
    assert Counter(utterance.attributes["digit"] for utterance in corpus.utterances) == dict.fromkeys(range(10), 60)


def test_nemo_is_read_through_its_table(speech_data: Path, tmp_path: Path) -> None:
    options = PrepareOptions(
        table=speech_data / "nemo120" / "data.tsv",
        columns={"path": "file_id", "speaker": "speaker_id", "text": "raw_text"},
    )
    corpus = prepared(CSV, speech_data / "nemo120" / "samples", tmp_path / "out", options)
    assert len(corpus.utterances) == 120
    assert Counter(utterance.speaker for utterance in corpus.utterances) == dict.fromkeys(
        ["EB0", "KD0", "SM0", "WR0"], 30
    )
    assert len({utterance.attributes["emotion"] for utterance in corpus.utterances}) == 6
    assert {type(utterance.attributes["age"]) for utterance in corpus.utterances} == {int}


@pytest.mark.slow
def test_speechocean762_is_read_through_its_data_folder_of_kaldi(speech_data: Path, tmp_path: Path) -> None:
    root = speech_data / "speechocean762"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    corpus = prepared(KALDI, root, tmp_path / "out", PrepareOptions(table=root / "test"))
    assert (len(corpus.utterances), len(corpus.label_sets["speakers"])) == (625, 125)
    assert {utterance.sample_rate_hz for utterance in corpus.utterances} == {16_000}
    assert all(utterance.text for utterance in corpus.utterances)
    assert {utterance.attributes["gender"] for utterance in corpus.utterances} == {"F", "M"}
