"""The layout `commonvoice`, on small MP3 files of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.corpora.contract import CorpusLayout, Draft, PrepareOptions
from repbench.corpora.layouts.commonvoice import COMMON_VOICE
from repbench.errors import DataError, UsageError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_text

COLUMNS = (
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender",
    "accents", "variant", "locale", "segment",
)  # fmt: skip
OLD_COLUMNS = tuple(
    {"accents": "accent"}.get(name, name) for name in COLUMNS if name not in ("sentence_id", "sentence_domain")
)
NUMBERS = {"train": 1, "dev": 2, "test": 3}


def row(number: int, columns: tuple[str, ...] = COLUMNS, **cells: str) -> str:
    known = {
        "client_id": f"{number:0128x}",
        "path": f"common_voice_eu_{number}.mp3",
        "sentence": f'Kaixo, "mundu" {number}',
        "locale": "eu",
        **cells,
    }
    return "\t".join(known.get(name, "") for name in columns)


def write_mp3(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, 8_000)
    soundfile.write(path, noise, 16_000, format="MP3", subtype="MPEG_LAYER_III")


def write_language(folder: Path, columns: tuple[str, ...] = COLUMNS) -> Path:
    """Train, dev and test of one clip each, and a validated clip of no split."""
    for number in (1, 2, 3, 4):
        write_mp3(folder / "clips" / f"common_voice_eu_{number}.mp3", number)
    header = "\t".join(columns)
    accent = "accents" if "accents" in columns else "accent"
    details = {"age": "twenties", "gender": "male_masculine", accent: "Gipuzkoa"}
    for part, number in NUMBERS.items():
        cells = details if part == "train" else {"gender": "other"} if part == "dev" else {}
        write_text(folder / f"{part}.tsv", header, row(number, columns, **cells))
    write_text(folder / "validated.tsv", header, *(row(number, columns) for number in (1, 2, 3, 4)))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_language(tmp_path / "cv-corpus-17.0-2024-03-15" / "eu")


def prepare(root: Path, variant: str | None = None) -> Draft:
    return COMMON_VOICE.prepare(root, PrepareOptions(variant=variant))


def test_it_is_a_layout() -> None:
    assert isinstance(COMMON_VOICE, CorpusLayout)


@pytest.mark.parametrize("columns", [COLUMNS, OLD_COLUMNS], ids=["of today", "of old releases"])
def test_the_tables_give_splits_and_attributes(tmp_path: Path, columns: tuple[str, ...]) -> None:
    found = {each.split: each for each in prepare(write_language(tmp_path / "eu", columns)).utterances}
    assert {split: each.id for split, each in found.items()} == {
        split: f"common_voice_eu_{number}" for split, number in NUMBERS.items()
    }
    assert found["train"].attributes == {"language": "eu", "accent": "Gipuzkoa", "gender": "M", "age": "twenties"}
    assert found["dev"].attributes == {"language": "eu", "gender": "other"}
    assert found["test"].attributes == {"language": "eu"}
    # a `.tsv` has no quoting: the marks are of the sentence
    assert found["test"].text == 'Kaixo, "mundu" 3'
    assert found["test"].speaker == f"{3:0128x}"


def test_validated_clips_of_no_split_come_with_the_variant(root: Path) -> None:
    draft = prepare(root, "validated")
    assert {each.id[-1]: each.split for each in draft.utterances} == {"1": "train", "2": "dev", "3": "test", "4": None}
    assert draft.notes == ("1 of 4 validated clips belong to no split",)


def test_a_folder_of_languages_is_read_whole(root: Path) -> None:
    other = root.with_name("gl")
    write_mp3(other / "clips" / "common_voice_gl_9.mp3", 9)
    for part in NUMBERS:
        rows = [row(9, path="common_voice_gl_9.mp3", locale="gl")] if part == "train" else []
        write_text(other / f"{part}.tsv", "\t".join(COLUMNS), *rows)
    draft = prepare(root.parent)
    assert sorted(each.attributes["language"] for each in draft.utterances) == ["eu", "eu", "eu", "gl"]


def test_mp3_is_decoded_for_its_manifest(root: Path, tmp_path: Path) -> None:
    corpus = prepared(COMMON_VOICE, root, tmp_path / "out")
    assert len(corpus.utterances) == 3
    assert all(each.num_samples > 0 for each in corpus.utterances)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (row(5), r"clip clips/common_voice_eu_5\.mp3 is missing.*test\.tsv:2"),
        (row(1), r"listed twice, before this in train.*test\.tsv:2"),
        (row(3, client_id=""), r"no `path` or no `client_id`.*test\.tsv:2"),
        (row(3, path="../eu/clips/common_voice_eu_3.mp3"), r"has a part `\.\.`.*test\.tsv:2"),
        ("x\ty", r"2 cells, but the header has 13.*test\.tsv:2"),
    ],
)
def test_a_broken_row_is_refused_by_its_line(root: Path, line: str, fault: str) -> None:
    write_text(root / "test.tsv", "\t".join(COLUMNS), line)
    with pytest.raises(DataError, match=fault):
        prepare(root)


def test_an_unknown_variant_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match=r"no variant `other`.*Choose from splits, validated"):
        prepare(root, "other")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not laid out like Common Voice"):
        prepare(tmp_path)
