"""The layout `ljspeech`, on a small folder of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, DraftUtterance, Phone, PrepareOptions
from repbench.corpora.layouts.ljspeech import LJSPEECH
from repbench.errors import DataError
from tests.corpora.sounds import long_textgrid, write_noise

TEXTGRID = long_textgrid([(0.0, 0.2, "sil"), (0.2, 0.5, "AA1")])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("LJ001-0002", "LJ001-0001")):
        write_noise(tmp_path / "wavs" / f"{name}.wav", seed=seed)
    return tmp_path


def utterances(root: Path, options: PrepareOptions | None = None) -> list[DraftUtterance]:
    return list(LJSPEECH.prepare(root, options or PrepareOptions()).utterances)


def test_it_is_a_layout() -> None:
    assert isinstance(LJSPEECH, CorpusLayout)


def test_clips_have_one_speaker_and_neither_group_nor_split(root: Path) -> None:
    draft = LJSPEECH.prepare(root, PrepareOptions())
    assert list(draft.utterances) == [
        DraftUtterance(id=name, audio=root / "wavs" / f"{name}.wav", speaker="LJ")
        for name in ("LJ001-0001", "LJ001-0002")
    ]
    assert (draft.licence, draft.phone_map, draft.notes) == (
        "public domain",
        None,
        ("2 of 2 utterances have no transcript",),
    )


def test_the_text_is_the_normalised_transcription(root: Path) -> None:
    (root / "metadata.csv").write_text('LJ001-0001|in 1455 "he"|in fourteen fifty-five "he"\nLJ001-0009|not|here\n')
    assert [utterance.text for utterance in utterances(root)] == ['in fourteen fifty-five "he"', None]


@pytest.mark.parametrize("line", ["LJ001-0002", "LJ001-0001|a|b", "LJ001-0002|a|b|c"])
def test_broken_metadata_is_refused_by_its_line(root: Path, line: str) -> None:
    (root / "metadata.csv").write_text(f"LJ001-0001|a|b\n{line}\n")
    with pytest.raises(DataError, match=r"metadata\.csv:2, utterance LJ001"):
        utterances(root)


def test_textgrids_beside_the_sound_are_taken(root: Path) -> None:
    (root / "TextGrid").mkdir()
    (root / "TextGrid" / "LJ001-0002.TextGrid").write_text(TEXTGRID)
    first, second = utterances(root)
    assert first.phones is None
    assert second.phones == (Phone(0.0, 0.2, "sil"), Phone(0.2, 0.5, "AA1"))


def test_named_alignments_go_before_those_beside_the_sound(root: Path, tmp_path: Path) -> None:
    (root / "TextGrid").mkdir()
    (root / "TextGrid" / "LJ001-0002.TextGrid").write_text(TEXTGRID)
    (tmp_path / "better").mkdir()
    (tmp_path / "better" / "LJ001-0001.TextGrid").write_text(TEXTGRID)
    first, second = utterances(root, PrepareOptions(alignments=tmp_path / "better"))
    assert first.phones is not None
    assert second.phones is None


def test_converted_copies_are_read(tmp_path: Path) -> None:
    sound = write_noise(tmp_path / "wavs" / "LJ001-0001.flac", seed=0)
    (tmp_path / "metadata.csv").write_text("LJ001-0001.flac|Hi|hi\n")
    assert [(each.id, each.audio, each.text) for each in utterances(tmp_path)] == [("LJ001-0001", sound, "hi")]


def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not laid out like LJSpeech; looked for wavs/\*\.wav"):
        LJSPEECH.prepare(tmp_path, PrepareOptions())


@pytest.mark.parametrize("written", ["LJ001-0001.wav", "wavs/LJ001-0001.wav", "LJ001-0001.WAV", " LJ001-0001"])
def test_an_id_may_be_written_as_a_file(root: Path, written: str) -> None:
    (root / "metadata.csv").write_text(f"{written}|Hi|hi\nLJ009-0001.wav|no|sound\n")
    draft = LJSPEECH.prepare(root, PrepareOptions())
    assert [utterance.text for utterance in draft.utterances] == ["hi", None]
    assert draft.notes == ("1 of 2 transcripts have no sound file", "1 of 2 utterances have no transcript")
    (root / "metadata.csv").write_text(f"{written}|Hi|hi\nLJ001-0001|Hi|hi\n")
    with pytest.raises(DataError, match=r"its id once.*metadata\.csv:2"):
        LJSPEECH.prepare(root, PrepareOptions())
