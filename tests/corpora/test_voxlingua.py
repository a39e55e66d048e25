"""The layout `voxlingua`, on small folders of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.corpora.contract import CorpusLayout, PrepareOptions
from repbench.corpora.layouts.voxlingua import VOXLINGUA
from repbench.errors import DataError
from tests.corpora.scored import prepared
from tests.corpora.sounds import write_noise


def write_all(root: Path, *places: str) -> Path:
    for seed, place in enumerate(places):
        write_noise(root / place, seed=seed, seconds=0.2)
    return root


def splits(root: Path) -> dict[str, str | None]:
    return {each.id: each.split for each in VOXLINGUA.prepare(root, PrepareOptions()).utterances}


def test_it_is_a_layout() -> None:
    assert isinstance(VOXLINGUA, CorpusLayout)


def test_the_folder_is_the_language_and_the_video_the_group(tmp_path: Path) -> None:
    root = write_all(tmp_path / "v", "de/ab-C_1__U__S1---0000.0-0004.0.wav", "et/Xy__U__S9---1.0-2.0.wav")
    corpus = prepared(VOXLINGUA, root, tmp_path / "out")
    assert [(each.id, each.attributes["language"], each.group, each.speaker) for each in corpus.utterances] == [
        ("de-ab-C_1__U__S1---0000.0-0004.0", "de", "de/ab-C_1", None),
        ("et-Xy__U__S9---1.0-2.0", "et", "et/Xy", None),
    ]
    assert all(each.split is None for each in corpus.utterances)
    assert corpus.licence == "CC BY 4.0"


def test_the_only_held_out_part_is_the_test_split(tmp_path: Path) -> None:
    root = write_all(tmp_path, "de/a.wav", "et/b.wav", "dev/de/c.wav")
    draft = VOXLINGUA.prepare(root, PrepareOptions())
    assert splits(root) == {"de-a": "train", "et-b": "train", "dev-de-c": "test"}
    assert draft.notes == ("the folder dev/ is the test split; a run cuts its dev from train",)
    assert draft.licence == "unknown"
    assert {each.group for each in draft.utterances} == {None}


def test_parts_of_all_names_are_the_splits(tmp_path: Path) -> None:
    root = write_all(tmp_path, "train/de/a.wav", "dev/de/b.wav", "test/de/c.flac")
    assert splits(root) == {"train-de-a": "train", "dev-de-b": "dev", "test-de-c": "test"}
    assert VOXLINGUA.prepare(root, PrepareOptions()).notes == ()


@pytest.mark.parametrize("place", ["a.wav", "dev/a.wav", "de/deep/a.wav"])
def test_a_sound_elsewhere_is_refused(tmp_path: Path, place: str) -> None:
    root = write_all(tmp_path, "de/a.wav", place)
    with pytest.raises(DataError, match=rf"not in the folder of a language.*{place}"):
        VOXLINGUA.prepare(root, PrepareOptions())


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not laid out like VoxLingua107"):
        VOXLINGUA.prepare(tmp_path, PrepareOptions())
