"""The layout `fleurs`, on small folders of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.fleurs import FLEURS
from repbench.errors import DataError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise, write_text

FILES = {"train": ("1675", "10001"), "dev": ("1", "20002"), "test": ("2", "30003")}


def row(sentence: str, file: str) -> str:
    return f"{sentence}\t{file}.wav\tA “Tree”, Sir.\ta tree sir\ta | t r e e | s i r |\t3200\tFEMALE"


def write_language(folder: Path, *, seed: int = 0) -> Path:
    for number, (part, (sentence, file)) in enumerate(FILES.items()):
        write_text(folder / f"{part}.tsv", row(sentence, file))
        write_noise(folder / "audio" / part / f"{file}.wav", seed=seed + number, seconds=0.2)
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_language(tmp_path / "fleurs" / "de_de")
    write_language(tmp_path / "fleurs" / "en_us", seed=10)
    return tmp_path / "fleurs"


def prepare(root: Path) -> dict[str, DraftUtterance]:
    return {each.id: each for each in FLEURS.prepare(root, PrepareOptions()).utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(FLEURS, CorpusLayout)


def test_the_folder_is_the_language_and_the_tables_are_the_splits(root: Path) -> None:
    found = prepare(root)
    assert found["en_us-30003"] == DraftUtterance(
        id="en_us-30003",
        audio=root / "en_us" / "audio" / "test" / "30003.wav",
        text="a tree sir",
        attributes={"language": "en_us", "gender": "F"},
        group="en_us/2",
        split="test",
    )
    assert {name: each.split for name, each in found.items()} == {
        f"{language}-{file}": part for language in ("de_de", "en_us") for part, (_, file) in FILES.items()
    }


def test_one_language_is_read_too(root: Path, tmp_path: Path) -> None:
    corpus = prepared(FLEURS, root / "de_de", tmp_path / "out")
    assert [each.id for each in corpus.utterances] == ["de_de-10001", "de_de-20002", "de_de-30003"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("1\t20002.wav\tx", r"must have 7 cells.*but has 3.*dev\.tsv:1"),
        (row("1", "gone"), r"sound de_de/audio/dev/gone\.wav is missing.*dev\.tsv:1.*Unpack audio/dev\.tar\.gz"),
    ],
)
def test_a_broken_row_is_refused_by_its_line(root: Path, line: str, fault: str) -> None:
    write_text(root / "de_de" / "dev.tsv", line)
    with pytest.raises(DataError, match=fault):
        prepare(root)


def test_a_missing_table_is_refused(root: Path) -> None:
    (root / "de_de" / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"The file is missing.*de_de/test\.tsv"):
        prepare(root)


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not laid out like FLEURS"):
        prepare(tmp_path)
