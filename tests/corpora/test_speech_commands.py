"""The layout `speech_commands`, on small archives of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, Draft, PrepareOptions
from repbench.corpora.layouts.speech_commands import SPEECH_COMMANDS, silence_splits
from repbench.errors import DataError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise, write_text

WORDS = ("yes/0a7c2a8d_nohash_0", "yes/0b40aa8e_nohash_1", "bed/0a7c2a8d_nohash_0", "bed/0c40e715_nohash_0")


def write_words(root: Path, *, seconds_of_noise: float = 20.5) -> Path:
    """The archive of the words: four recordings, one in each list, and one recording of noise."""
    for seed, place in enumerate(WORDS):
        write_noise(root / f"{place}.wav", seed=seed, seconds=0.2)
    write_noise(root / "_background_noise_" / "white_noise.wav", seed=99, seconds=seconds_of_noise)
    write_text(root / "_background_noise_" / "README.md", "noise")
    write_text(root / "validation_list.txt", f"{WORDS[1]}.wav")
    write_text(root / "testing_list.txt", f"{WORDS[3]}.wav")
    return root


def write_test_archive(root: Path) -> Path:
    """The official test archive: a command, a copy of a listed word that is no command, and silence."""
    names = {"yes/0c40e715_nohash_0": 200, "_unknown_/bed_0c40e715_nohash_0": 3, "_silence_/0": 202}
    for name, seed in names.items():
        write_noise(root / f"{name}.wav", seed=seed, seconds=0.2)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_words(tmp_path / "speech_commands_v0.01")


def prepare(root: Path, **options: object) -> Draft:
    return SPEECH_COMMANDS.prepare(root, PrepareOptions(**options))  # type: ignore[arg-type]


def splits_of(draft: Draft) -> dict[str, str | None]:
    return {each.id: each.split for each in draft.utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(SPEECH_COMMANDS, CorpusLayout)


def test_the_folder_is_the_word_and_the_lists_are_the_splits(root: Path) -> None:
    words = [each for each in prepare(root).utterances if each.start is None]
    assert {each.id: (each.speaker, each.text, each.attributes["word"], each.split) for each in words} == {
        "yes-0a7c2a8d_nohash_0": ("0a7c2a8d", "yes", "yes", "train"),
        "yes-0b40aa8e_nohash_1": ("0b40aa8e", "yes", "yes", "dev"),
        "bed-0a7c2a8d_nohash_0": ("0a7c2a8d", "bed", "bed", "train"),
        "bed-0c40e715_nohash_0": ("0c40e715", "bed", "bed", "test"),
    }


def test_noise_is_cut_into_seconds_that_share_no_sample(root: Path) -> None:
    cuts = [each for each in prepare(root).utterances if each.start is not None]
    # 20.5 s: the last half second is too short for a cut
    assert [(each.start, each.end) for each in cuts] == [(float(k), k + 1.0) for k in range(20)]
    assert {(each.speaker, each.text, each.group) for each in cuts} == {(None, None, "_background_noise_/white_noise")}
    assert {each.attributes["word"] for each in cuts} == {"_silence_"}
    counts = {name: sum(each.split == name for each in cuts) for name in ("train", "dev", "test")}
    assert counts == {"train": 16, "dev": 2, "test": 2}


def test_the_split_of_a_cut_is_a_function_of_its_name_alone() -> None:
    splits = silence_splits("white_noise", 60, with_test=True)
    # the value of the rule, so that another rule cannot pass for it
    assert [number for number, split in enumerate(splits) if split == "dev"] == [1, 6, 10, 11, 43, 53]
    assert splits == silence_splits("white_noise", 60, with_test=True)
    assert splits != silence_splits("pink_noise", 60, with_test=True)
    without = silence_splits("white_noise", 60, with_test=False)
    assert without == [split if split == "dev" else "train" for split in splits]


@pytest.mark.parametrize("names", [("speech_commands_v0.01", "speech_commands_test_set_v0.01"), ("train", "test")])
def test_the_test_archive_is_the_test_split(tmp_path: Path, names: tuple[str, str]) -> None:
    write_words(tmp_path / names[0])
    write_test_archive(tmp_path / names[1])
    draft = prepare(tmp_path)
    test = [each for each in draft.utterances if each.split == "test"]
    assert {each.id: (each.speaker, each.text, each.attributes["word"]) for each in test} == {
        "test-yes-0c40e715_nohash_0": ("0c40e715", "yes", "yes"),
        "test-_unknown_-bed_0c40e715_nohash_0": ("0c40e715", None, "_unknown_"),
        "test-_silence_-0": (None, None, "_silence_"),
    }
    assert splits_of(draft)["bed-0c40e715_nohash_0"] is None
    assert draft.notes == (
        "20 cuts of 1 s of the background noise are the word _silence_ (18 train, 2 dev, 0 test)",
        "1 recordings of testing_list.txt belong to no split, because the test archive is there",
    )


def test_its_manifest_has_one_second_cuts(root: Path, tmp_path: Path) -> None:
    corpus = prepared(SPEECH_COMMANDS, root, tmp_path / "out")
    cuts = [each for each in corpus.utterances if each.attributes["word"] == "_silence_"]
    assert {each.num_samples for each in cuts} == {16_000}
    assert len({each.samples_sha256 for each in cuts}) == 20


def test_copies_in_the_test_archive_are_no_leak(tmp_path: Path) -> None:
    write_words(tmp_path / "data" / "train")
    write_test_archive(tmp_path / "data" / "test")
    corpus = prepared(SPEECH_COMMANDS, tmp_path / "data", tmp_path / "out")
    assert sum(each.split == "test" for each in corpus.utterances) == 3


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("yes/gone_nohash_0.wav", r"recording yes/gone_nohash_0 of the list is missing.*testing_list\.txt:2"),
        (f"{WORDS[1]}.wav", r"once in both lists.*testing_list\.txt:2"),
        ("yes", r"must be `WORD/SPEAKER_nohash_TAKE\.wav`.*testing_list\.txt:2"),
    ],
)
def test_a_broken_list_is_refused_by_its_line(root: Path, line: str, fault: str) -> None:
    write_text(root / "testing_list.txt", f"{WORDS[3]}.wav", line)
    with pytest.raises(DataError, match=fault):
        prepare(root)


@pytest.mark.parametrize("name", ["yes/hello.wav", "yes/deep/0a7c2a8d_nohash_0.wav", "0a7c2a8d_nohash_0.wav"])
def test_another_sound_is_refused_by_name(root: Path, name: str) -> None:
    write_noise(root / name, seed=7)
    with pytest.raises(DataError, match=rf"looked for SPEAKER_nohash_TAKE\.wav.*{name}"):
        prepare(root)
    assert [fault.file for fault in prepare(root, gather_faults=True).faults] == [str(root / name)]


def test_a_folder_without_the_lists_is_refused(root: Path) -> None:
    (root / "testing_list.txt").unlink()
    with pytest.raises(DataError, match=r"validation_list\.txt and testing_list\.txt, but holds: none.*two lists"):
        prepare(root)


def test_two_versions_are_refused(tmp_path: Path) -> None:
    for name in ("speech_commands_v0.01", "speech_commands_v0.02"):
        write_words(tmp_path / name)
    with pytest.raises(DataError, match=r"holds: speech_commands_v0\.01, speech_commands_v0\.02"):
        prepare(tmp_path)
