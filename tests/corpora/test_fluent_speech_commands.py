"""The layout `fluent_speech_commands`, on a small folder of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.fluent_speech_commands import FLUENT_SPEECH_COMMANDS
from repbench.errors import DataError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise, write_text

HEADER = ",path,speakerId,transcription,action,object,location"
ROWS = {
    "train": "0,wavs/speakers/2BqVo8kVB2Skwgyb/0a31.wav,2BqVo8kVB2Skwgyb,Turn the lights on,activate,lights,none",
    "valid": '7,wavs/speakers/4aGjX3AG5xcxeL7a/3003.wav,4aGjX3AG5xcxeL7a,"Go, get the shoes",bring,shoes,none',
    "test": "9,wavs/speakers/4BrX8aDqK2cLZRYl/cbdf.wav,4BrX8aDqK2cLZRYl,Heat up,increase,heat,kitchen",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "fluent_speech_commands_dataset"
    for seed, (part, row) in enumerate(ROWS.items()):
        write_text(root / "data" / f"{part}_data.csv", HEADER, row)
        write_noise(root / row.split(",")[1], seed=seed)
    return root


def prepare(root: Path) -> dict[str | None, DraftUtterance]:
    return {each.split: each for each in FLUENT_SPEECH_COMMANDS.prepare(root, PrepareOptions()).utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(FLUENT_SPEECH_COMMANDS, CorpusLayout)


def test_the_tables_give_splits_text_and_slots(root: Path) -> None:
    found = prepare(root)
    assert {split: each.id for split, each in found.items()} == {
        "train": "2BqVo8kVB2Skwgyb-0a31",
        "dev": "4aGjX3AG5xcxeL7a-3003",
        "test": "4BrX8aDqK2cLZRYl-cbdf",
    }
    assert found["dev"] == DraftUtterance(
        id="4aGjX3AG5xcxeL7a-3003",
        audio=root / "wavs" / "speakers" / "4aGjX3AG5xcxeL7a" / "3003.wav",
        speaker="4aGjX3AG5xcxeL7a",
        text="Go, get the shoes",
        attributes={"action": "bring", "object": "shoes", "location": "none"},
        split="dev",
    )


def test_the_table_of_speakers_gives_gender_and_age(root: Path) -> None:
    header = "speakerId,Self-reported fluency level ,First Language spoken,gender,ageRange"
    row = "4BrX8aDqK2cLZRYl,native,English (United States),female,22-40"
    write_text(root / "data" / "speaker_demographics.csv", header, row)
    found = prepare(root)
    assert {name: found["test"].attributes[name] for name in ("gender", "age")} == {"gender": "F", "age": "22-40"}
    assert "gender" not in found["train"].attributes


def test_its_manifest_is_whole(root: Path, tmp_path: Path) -> None:
    corpus = prepared(FLUENT_SPEECH_COMMANDS, root, tmp_path / "out")
    assert [each.split for each in corpus.utterances] == ["train", "test", "dev"]


@pytest.mark.parametrize(
    ("header", "row", "fault"),
    [
        (HEADER.replace("object", "thing"), ROWS["test"], r"no column `object` \(it has path.*test_data\.csv:1"),
        (HEADER, ROWS["test"].replace(",kitchen", ""), r"6 cells, but the header has 7.*test_data\.csv:2"),
        (HEADER, ROWS["test"].replace("cbdf", "gone"), r"sound .*gone\.wav is missing.*test_data\.csv:2"),
        (HEADER, ROWS["test"].replace("heat,", ","), r"no object.*test_data\.csv:2"),
    ],
)
def test_a_broken_table_is_refused_by_its_line(root: Path, header: str, row: str, fault: str) -> None:
    write_text(root / "data" / "test_data.csv", header, row)
    with pytest.raises(DataError, match=fault):
        prepare(root)


def test_a_missing_table_is_refused(root: Path) -> None:
    (root / "data" / "valid_data.csv").unlink()
    with pytest.raises(DataError, match=r"data/valid_data\.csv is missing"):
        prepare(root)
