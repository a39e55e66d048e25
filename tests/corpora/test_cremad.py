"""The layout `cremad`, on a small folder of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.cremad import CREMAD
from repbench.errors import DataError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise, write_text

NAMES = ("1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1040_ITH_SAD_X", "1091_WSI_NEU_XX")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write_noise(tmp_path / "CREMA-D" / "AudioWAV" / f"{name}.wav", seed=seed, seconds=0.2)
    return tmp_path / "CREMA-D"


def prepare(root: Path) -> dict[str, DraftUtterance]:
    return {each.id: each for each in CREMAD.prepare(root, PrepareOptions()).utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(CREMAD, CorpusLayout)


def test_names_give_actor_sentence_emotion_and_level(root: Path) -> None:
    found = prepare(root)
    assert found["1001_IEO_HAP_LO"] == DraftUtterance(
        id="1001_IEO_HAP_LO",
        audio=root / "AudioWAV" / "1001_IEO_HAP_LO.wav",
        speaker="1001",
        text="It's eleven o'clock.",
        attributes={"sentence": "IEO", "emotion": "happiness", "level": "low"},
    )
    assert {name: each.attributes["emotion"] for name, each in found.items()} == {
        "1001_DFA_ANG_XX": "anger",
        "1001_IEO_HAP_LO": "happiness",
        "1040_ITH_SAD_X": "sadness",
        "1091_WSI_NEU_XX": "neutral",
    }
    assert found["1040_ITH_SAD_X"].attributes["level"] == "unspecified"


def write_actors(root: Path, *rows: str) -> Path:
    return write_text(root / "VideoDemographics.csv", "ActorID,Age,Sex,Race,Ethnicity", *rows)


def test_the_table_of_actors_gives_gender_and_age(root: Path, tmp_path: Path) -> None:
    rows = [f"{actor},{age},{sex},x,y" for actor, age, sex in ((1001, 51, "Male"), (1040, 42, "Female"))]
    write_actors(root, *rows, "1091,29,Female,x,y")
    corpus = prepared(CREMAD, root, tmp_path / "out")
    found = {each.speaker: (each.attributes["gender"], each.attributes["age"]) for each in corpus.utterances}
    assert found == {"1001": ("M", 51), "1040": ("F", 42), "1091": ("F", 29)}
    # no folds are official: those of HEAR and X-ARES share actors
    assert all("fold" not in each.attributes and each.split is None for each in corpus.utterances)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (["1001,51,Male,x,y"], r"actor 1040 has no row.*VideoDemographics\.csv"),
        (["1001,old,Male,x,y"], r"`Age` must be a number of years, but is `old`.*VideoDemographics\.csv:2"),
        (["1001,51,Male,x"], r"4 cells, but the header has 5.*VideoDemographics\.csv:2"),
    ],
)
def test_a_broken_table_is_refused_by_its_line(root: Path, rows: list[str], fault: str) -> None:
    write_actors(root, *rows)
    with pytest.raises(DataError, match=fault):
        prepare(root)


def test_an_unknown_code_is_refused(root: Path) -> None:
    write_noise(root / "AudioWAV" / "1001_DFA_JOY_XX.wav", seed=9)
    with pytest.raises(DataError, match=r"`emotion` is `JOY`, which is no code of cremad \(there are ANG"):
        prepare(root)
