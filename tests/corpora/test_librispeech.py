"""The layout `librispeech`, on a small folder of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, DraftUtterance, Phone, PrepareOptions
from repbench.corpora.layouts.librispeech import LIBRISPEECH
from repbench.errors import DataError
from tests.corpora.sounds import long_textgrid, write_noise

IDS = {
    "train-clean-100": ["19-198-0000", "19-198-0001", "26-495-0000"],
    "dev-clean": ["84-121123-0000"],
    "test-other": ["367-130732-0000"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five utterances in three subsets; texts for one chapter, which lists one utterance too many."""
    root = tmp_path / "LibriSpeech"
    names = [(subset, name) for subset, names in IDS.items() for name in names]
    for seed, (subset, name) in enumerate(names):
        write_noise(place(root, subset, name), seed=seed)
    texts = root / "train-clean-100" / "19" / "198" / "19-198.trans.txt"
    texts.write_text("19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS LITTLE WORK\n19-198-0002 NOT HERE\n")
    (root / "SPEAKERS.TXT").write_text(
        "; comment | not read\n19   | F | train-clean-100  | 25.19 | Kara\n26|M|train-clean-100|1|Denny | S\n"
    )
    return root


def place(root: Path, subset: str, name: str) -> Path:
    speaker, chapter, _ = name.split("-")
    return root / subset / speaker / chapter / f"{name}.flac"


def utterances(root: Path, options: PrepareOptions | None = None) -> dict[str, DraftUtterance]:
    draft = LIBRISPEECH.prepare(root, options or PrepareOptions())
    return {utterance.id: utterance for utterance in draft.utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(LIBRISPEECH, CorpusLayout)


def test_a_folder_of_subsets_is_read(root: Path) -> None:
    found = utterances(root)
    assert sorted(found) == sorted(name for names in IDS.values() for name in names)
    assert found["19-198-0000"] == DraftUtterance(
        id="19-198-0000",
        audio=place(root, "train-clean-100", "19-198-0000"),
        speaker="19",
        text="NORTHANGER ABBEY",
        attributes={"subset": "train-clean-100", "gender": "F"},
        group="19-198",
        split="train",
    )
    assert (found["84-121123-0000"].split, found["367-130732-0000"].split) == ("dev", "test")
    assert found["26-495-0000"].text is None
    assert found["84-121123-0000"].attributes == {"subset": "dev-clean"}


def test_what_is_missing_is_noted(root: Path) -> None:
    draft = LIBRISPEECH.prepare(root, PrepareOptions())
    assert draft.licence == "CC BY 4.0"
    assert draft.notes == ("1 of 3 transcripts have no sound file", "3 of 5 utterances have no transcript")


def test_one_subset_is_read_with_the_speakers_beside_it(root: Path) -> None:
    found = utterances(root / "train-clean-100")
    assert sorted(found) == IDS["train-clean-100"]
    assert found["26-495-0000"].attributes["gender"] == "M"
    assert found["26-495-0000"].split == "train"


def test_it_becomes_a_manifest(root: Path, tmp_path: Path) -> None:
    corpus = manifest.write(LIBRISPEECH.prepare(root, PrepareOptions()), tmp_path / "out")
    assert [utterance.id for utterance in corpus.utterances] == sorted(name for names in IDS.values() for name in names)
    assert corpus.label_sets == {"speakers": ("19", "26", "367", "84")}


def test_alignments_are_matched_by_id_anywhere_under_their_folder(root: Path, tmp_path: Path) -> None:
    alignments = tmp_path / "alignments"
    (alignments / "deep" / "er").mkdir(parents=True)
    text = long_textgrid([(0.0, 0.2, "sil"), (0.2, 0.5, "AA1")])
    (alignments / "deep" / "er" / "26-495-0000.TextGrid").write_text(text)
    draft = LIBRISPEECH.prepare(root, PrepareOptions(alignments=alignments))
    phones = {utterance.id: utterance.phones for utterance in draft.utterances}
    assert phones["26-495-0000"] == (Phone(0.0, 0.2, "sil"), Phone(0.2, 0.5, "AA1"))
    assert phones["19-198-0000"] is None
    assert "4 of 5 utterances have no alignment" in draft.notes
    assert draft.phone_map == {"AA1": "AA", "sil": "sil"}


def test_fault_21_alignments_of_another_length_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alignments").mkdir()
    text = long_textgrid([(0.0, 0.16, "sil"), (0.16, 0.4, "AA1")])
    (tmp_path / "alignments" / "26-495-0000.TextGrid").write_text(text)
    with pytest.raises(DataError, match=r"to 0\.4 s, but the sound lasts 0\.5 s.*utterance 26-495-0000"):
        LIBRISPEECH.prepare(root, PrepareOptions(alignments=tmp_path / "alignments"))


@pytest.mark.parametrize("ending", ["wav", "FLAC", "aiff"])
def test_converted_copies_are_read(tmp_path: Path, ending: str) -> None:
    sound = write_noise(tmp_path / "dev-clean" / "84" / "121123" / f"84-121123-0000.{ending}", seed=0)
    assert {each.id: each.audio for each in LIBRISPEECH.prepare(tmp_path, PrepareOptions()).utterances} == {
        "84-121123-0000": sound
    }


def test_two_files_of_one_stem_are_refused_by_both_names(root: Path, tmp_path: Path) -> None:
    first = place(root, "dev-clean", "84-121123-0000")
    second = write_noise(first.with_suffix(".wav"), seed=3)
    with pytest.raises(DataError, match=rf"`84-121123-0000` occurs twice: for {first} and for {second}.*Keep one"):
        manifest.write(LIBRISPEECH.prepare(root, PrepareOptions()), tmp_path / "out")


def test_a_format_that_is_not_read_is_refused_with_the_command_that_converts_it(root: Path) -> None:
    place(root, "dev-clean", "84-121123-0000").with_suffix(".m4a").write_bytes(b"")
    with pytest.raises(DataError, match=r"\.m4a files are not read.*ffmpeg -i 84-121123-0000\.m4a"):
        LIBRISPEECH.prepare(root, PrepareOptions())


def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    with pytest.raises(DataError, match=r"not laid out like LibriSpeech; looked for train-\*, dev-\*"):
        LIBRISPEECH.prepare(tmp_path, PrepareOptions())
    with pytest.raises(DataError, match=r"root folder does not exist.*gone"):
        LIBRISPEECH.prepare(tmp_path / "gone", PrepareOptions())


def test_a_subset_without_sound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dev-clean").mkdir()
    with pytest.raises(DataError, match="No sound was found"):
        LIBRISPEECH.prepare(tmp_path, PrepareOptions())


@pytest.mark.parametrize("where", ["19/19-198-0009.flac", "19/198/26-198-0009.flac", "19/198/song.flac"])
def test_a_sound_out_of_place_is_refused(root: Path, where: str) -> None:
    write_noise(root / "train-clean-100" / where, seed=99)
    with pytest.raises(DataError, match=f"not where LibriSpeech puts it.*{where}"):
        LIBRISPEECH.prepare(root, PrepareOptions())


@pytest.mark.parametrize("line", ["NORTHANGER ABBEY", "19-198-0000 TWICE"])
def test_a_broken_transcript_is_refused_by_its_line(root: Path, line: str) -> None:
    path = root / "train-clean-100" / "19" / "198" / "19-198.trans.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"which occurs once.*19-198\.trans\.txt:4"):
        LIBRISPEECH.prepare(root, PrepareOptions())


def test_a_broken_table_of_speakers_is_refused_by_its_line(root: Path) -> None:
    (root / "SPEAKERS.TXT").write_text("; head\n19 F train\n")
    with pytest.raises(DataError, match=r"SPEAKER \| F or M.*SPEAKERS\.TXT:2"):
        LIBRISPEECH.prepare(root, PrepareOptions())
