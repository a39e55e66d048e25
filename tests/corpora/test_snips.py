"""The layout `snips`, on a small folder of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, Draft, PrepareOptions
from repbench.corpora.layouts.snips import LABELS, SNIPS, VOICES, marked_slots
from repbench.errors import DataError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise, write_text

TRAIN = "Ivy-snips-train-0 BOS PLAY NINA SIMONE NOW EOS\tO O B-artist I-artist O PlayMusic"
DEV = "Amy-snips-valid-7 BOS WEATHER IN NEW YORK TODAY EOS\tO O O B-city I-city B-timeRange GetWeather"
TEST = "Emma-snips-test-3 BOS ADD IT EOS\tO O O AddToPlaylist"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "SNIPS"
    write_text(root / LABELS, TRAIN, DEV, TEST, TEST.replace("Emma", "Ivy"), TRAIN.replace("Ivy", "Joey"))
    names = ("train/Ivy-snips-train-0", "valid/Amy-snips-valid-7", "test/Emma-snips-test-3", "test/Ivy-snips-test-3")
    for seed, name in enumerate(names):
        write_noise(root / f"{name}.wav", seed=seed, seconds=0.2)
    return root


def prepare(root: Path) -> Draft:
    return SNIPS.prepare(root, PrepareOptions())


def test_it_is_a_layout() -> None:
    assert isinstance(SNIPS, CorpusLayout)


def test_sixteen_voices_are_divided_into_eight_four_and_four() -> None:
    assert {split: len(voices) for split, voices in VOICES.items()} == {"train": 8, "dev": 4, "test": 4}
    assert len(frozenset().union(*VOICES.values())) == 16


def test_parts_and_voices_are_the_splits(root: Path) -> None:
    draft = prepare(root)
    assert {each.id: (each.speaker, each.split, each.text, dict(each.attributes)) for each in draft.utterances} == {
        "Ivy-snips-train-0": (
            "Ivy",
            "train",
            "PLAY NINA SIMONE NOW",
            {"intent": "PlayMusic", "slots": "PLAY <artist> NINA SIMONE </artist> NOW"},
        ),
        "Amy-snips-valid-7": (
            "Amy",
            "dev",
            "WEATHER IN NEW YORK TODAY",
            {
                "intent": "GetWeather",
                "slots": "WEATHER IN <city> NEW YORK </city> <timeRange> TODAY </timeRange>",
            },
        ),
        "Emma-snips-test-3": ("Emma", "test", "ADD IT", {"intent": "AddToPlaylist", "slots": "ADD IT"}),
    }
    assert draft.notes == (
        "1 sounds in the voices of another split are not read",
        "1 of 4 utterances of the official splits have no sound",
    )


def test_its_manifest_is_whole(root: Path, tmp_path: Path) -> None:
    assert len(prepared(SNIPS, root, tmp_path / "out").utterances) == 3


@pytest.mark.parametrize(
    ("tags", "marked"),
    [
        ("O O O", "a b c"),
        ("B-x I-x B-x", "<x> a b </x> <x> c </x>"),
        ("B-x B-y O", "<x> a </x> <y> b </y> c"),
        ("O B-x I-x", "a <x> b c </x>"),
    ],
)
def test_slots_are_marked_around_their_words(tags: str, marked: str) -> None:
    assert marked_slots(["a", "b", "c"], tags.split(), file="f:1", utterance="u") == marked


@pytest.mark.parametrize("tags", ["I-x O O", "B-x I-y O", "B-x O I-x", "B O O", "O-x O O", "X-x O O"])
def test_tags_that_do_not_follow_are_refused(tags: str) -> None:
    with pytest.raises(DataError, match=r"does not follow the one before it.*f:1"):
        marked_slots(["a", "b", "c"], tags.split(), file="f:1", utterance="u")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (TEST.replace("\t", " "), r"must be `ID BOS WORD … EOS`.*all\.iob\.snips\.txt:1"),
        (TEST.replace(" BOS", ""), r"must be `ID BOS WORD … EOS`.*:1"),
        (TEST.replace("O O O ", "O O "), r"must be `ID BOS WORD … EOS`.*:1"),
        (TEST.replace(" IT ", " <b> "), r"angle bracket.*:1"),
        (TEST.replace("O O O", "O O I-x"), r"tag `I-x` of the word `IT` does not follow.*:1"),
        (f"{TEST}\n{TEST}", r"occurs twice.*:2"),
    ],
)
def test_a_broken_line_is_refused(root: Path, line: str, fault: str) -> None:
    write_text(root / LABELS, line, TRAIN, DEV)
    with pytest.raises(DataError, match=fault):
        prepare(root)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("test/Zoe-snips-test-3.wav", r"`Zoe` is no voice.*Zoe-snips-test-3\.wav"),
        ("test/Emma-snips-valid-3.wav", r"looked for VOICE-snips-PART-NUMBER"),
        ("test/hello.wav", r"looked for VOICE-snips-PART-NUMBER"),
        ("test/Emma-snips-test-9.wav", r"no line in all\.iob\.snips\.txt.*Emma-snips-test-9"),
    ],
)
def test_another_sound_is_refused(root: Path, name: str, fault: str) -> None:
    write_noise(root / name, seed=9)
    with pytest.raises(DataError, match=fault):
        prepare(root)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"all\.iob\.snips\.txt is missing"):
        prepare(tmp_path)
