"""The layout `fsdd`, on a small folder of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, DraftUtterance, Phone, PrepareOptions
from repbench.corpora.layouts.fsdd import FSDD
from repbench.errors import DataError
from tests.corpora.sounds import write_noise


def test_it_is_a_layout() -> None:
    assert isinstance(FSDD, CorpusLayout)


def test_recordings_say_digit_speaker_and_take(tmp_path: Path) -> None:
    for seed, name in enumerate(("7_theo_12", "0_george_4", "0_george_5")):
        write_noise(tmp_path / "recordings" / f"{name}.wav", seed=seed, rate_hz=8_000)
    draft = FSDD.prepare(tmp_path, PrepareOptions())
    found = list(draft.utterances)
    assert draft.licence == "CC BY-SA 4.0"
    assert [utterance.id for utterance in found] == ["0_george_4", "0_george_5", "7_theo_12"]
    assert [utterance.split for utterance in found] == ["test", "train", "train"]
    assert found[2] == DraftUtterance(
        id="7_theo_12",
        audio=tmp_path / "recordings" / "7_theo_12.wav",
        speaker="theo",
        text="seven",
        attributes={"digit": 7, "take": 12},
        split="train",
    )


def test_converted_copies_are_read(tmp_path: Path) -> None:
    sound = write_noise(tmp_path / "recordings" / "7_theo_12.flac", seed=0)
    assert [(each.id, each.audio) for each in FSDD.prepare(tmp_path, PrepareOptions()).utterances] == [
        ("7_theo_12", sound)
    ]


@pytest.mark.parametrize("name", ["10_theo_1", "1_theo", "a_theo_1", "1__1"])
def test_another_name_is_refused(tmp_path: Path, name: str) -> None:
    write_noise(tmp_path / "recordings" / f"{name}.wav", seed=0)
    with pytest.raises(DataError, match=rf"looked for DIGIT_SPEAKER_TAKE\.wav.*{name}\.wav"):
        FSDD.prepare(tmp_path, PrepareOptions())


def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not laid out like fsdd; looked for recordings/DIGIT_SPEAKER_TAKE"):
        FSDD.prepare(tmp_path, PrepareOptions())


def test_alignments_are_read(tmp_path: Path) -> None:
    write_noise(tmp_path / "recordings" / "7_jackson_0.wav", seed=0)
    (tmp_path / "7.ctm").write_text("7_jackson_0 1 0.00 0.20 S\n7_jackson_0 1 0.20 0.30 EH1\n")
    draft = FSDD.prepare(tmp_path, PrepareOptions(alignments=tmp_path / "7.ctm"))
    assert [each.phones for each in draft.utterances] == [(Phone(0.0, 0.2, "S"), Phone(0.2, 0.5, "EH1"))]
