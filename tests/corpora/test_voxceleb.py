"""The layout `voxceleb`, on small folders of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, Draft, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.voxceleb import VOXCELEB
from repbench.errors import DataError, UsageError
from tests.corpora.scored import prepared, scored
from tests.corpora.sounds import long_textgrid, write_noise, write_text

SPEAKERS = ("id10001", "id10002")
VIDEOS = ("1zcIwhmdeo4", "7gWzIy6yIIk")
META_HEADER = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two speakers with two videos of two sounds each, in `wav/`."""
    root = tmp_path / "vox"
    names = [f"{speaker}/{video}/{take:05d}" for speaker in SPEAKERS for video in VIDEOS for take in (1, 2)]
    for seed, name in enumerate(names):
        write_noise(root / "wav" / f"{name}.wav", seed=seed)
    return root


def prepare(root: Path) -> Draft:
    return VOXCELEB.prepare(root, PrepareOptions())


def test_it_is_a_layout() -> None:
    assert isinstance(VOXCELEB, CorpusLayout)


def test_folders_say_speaker_and_video(root: Path) -> None:
    draft = prepare(root)
    found = list(draft.utterances)
    assert (draft.name, draft.licence, draft.notes, len(found)) == ("voxceleb", "CC BY 4.0", (), 8)
    assert found[0] == DraftUtterance(
        id="id10001-1zcIwhmdeo4-00001",
        audio=root / "wav" / "id10001" / "1zcIwhmdeo4" / "00001.wav",
        speaker="id10001",
        group="id10001/1zcIwhmdeo4",
    )


def test_dev_and_test_are_one_corpus(root: Path) -> None:
    (root / "dev").mkdir()
    (root / "wav").rename(root / "dev" / "wav")
    write_noise(root / "test" / "wav" / "id10003" / "x" / "00001.flac", seed=99)
    found = {each.id: each.speaker for each in prepare(root).utterances}
    assert len(found) == 9
    assert found["id10003-x-00001"] == "id10003"


def test_any_folder_of_speakers_is_read_without_groups(tmp_path: Path) -> None:
    for seed, name in enumerate(("anna/1.wav", "anna/2.flac", "ben/1.WAV")):
        write_noise(tmp_path / name, seed=seed)
    write_text(tmp_path / "README.txt", "hello")
    draft = prepare(tmp_path)
    assert (draft.name, draft.licence) == ("speaker-folders", "unknown")
    assert [(each.id, each.speaker, each.group) for each in draft.utterances] == [
        ("anna-1", "anna", None),
        ("anna-2", "anna", None),
        ("ben-1", "ben", None),
    ]


def test_the_official_list_gives_the_splits(root: Path) -> None:
    lines = [f"{code} id10001/1zcIwhmdeo4/0000{take}.wav" for code, take in ((1, 1), (3, 2))]
    write_text(root / "iden_split.txt", *lines, "2 id10002/7gWzIy6yIIk/00001.wav")
    draft = prepare(root)
    splits = {each.id: each.split for each in draft.utterances}
    assert splits["id10001-1zcIwhmdeo4-00001"] == "train"
    assert splits["id10001-1zcIwhmdeo4-00002"] == "test"
    assert splits["id10002-7gWzIy6yIIk-00001"] == "dev"
    assert draft.notes == ("5 of 8 utterances are not in iden_split.txt and belong to no split",)


TRIALS = ("1 id10002/7gWzIy6yIIk/00001.wav id10002/1zcIwhmdeo4/00002.wav",)


def splits_of(root: Path, **options: Any) -> dict[str, str | None]:
    return {each.id: each.split for each in VOXCELEB.prepare(root, PrepareOptions(**options)).utterances}


def test_a_list_of_trials_gives_test_its_sounds_and_train_the_other_speakers(root: Path) -> None:
    write_text(root / "veri_test.txt", *TRIALS)
    splits = splits_of(root)
    assert {id_ for id_, split in splits.items() if split == "test"} == {
        "id10002-7gWzIy6yIIk-00001",
        "id10002-1zcIwhmdeo4-00002",
    }
    assert {id_.split("-")[0] for id_, split in splits.items() if split == "train"} == {"id10001"}
    assert prepare(root).notes == ("2 of 8 utterances are not in veri_test.txt and belong to no split",)
    assert splits_of(root, variant="verification") == splits


def test_the_list_of_identification_goes_before_that_of_trials_unless_one_is_named(root: Path) -> None:
    write_text(root / "iden_split.txt", "1 id10001/1zcIwhmdeo4/00001.wav", "3 id10002/1zcIwhmdeo4/00001.wav")
    write_text(root / "veri_test.txt", *TRIALS)
    identification = splits_of(root)
    assert identification["id10002-1zcIwhmdeo4-00001"] == "test"
    assert splits_of(root, variant="identification") == identification
    assert splits_of(root, variant="verification")["id10002-7gWzIy6yIIk-00001"] == "test"
    write_text(root / "other.txt", "0 id10001/1zcIwhmdeo4/00001.wav id10001/7gWzIy6yIIk/00001.wav")
    assert splits_of(root, table=root / "other.txt")["id10001-7gWzIy6yIIk-00001"] == "test"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("2 id10001/1zcIwhmdeo4/00002.wav id10001/1zcIwhmdeo4/00001.wav", r"must be `0 or 1 SPEAKER.*test\.txt:2"),
        ("1 id10001/1zcIwhmdeo4/00002.wav", r"must be `0 or 1 SPEAKER.*test\.txt:2"),
        ("1 id10001/gone/1.wav id10001/gone/2.wav", r"2 of the 4 sounds .* the first is id10001/gone/1.*test\.txt:2"),
    ],
)
def test_a_broken_list_of_trials_is_refused_by_its_line(root: Path, line: str, fault: str) -> None:
    write_text(root / "veri_test.txt", *TRIALS, line)
    with pytest.raises(DataError, match=fault):
        prepare(root)


def test_a_variant_that_there_is_not_or_whose_list_is_missing_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match=r"no variant `dev`.*identification, verification"):
        splits_of(root, variant="dev")
    with pytest.raises(UsageError, match="does not read"):
        splits_of(root, variant="identification", table=root / "other.txt")
    with pytest.raises(DataError, match=r"missing.*veri_test\.txt"):
        splits_of(root, variant="verification")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("4 id10001/1zcIwhmdeo4/00002.wav", r"must be `1, 2 or 3 SPEAKER.*iden_split\.txt:2"),
        ("id10001/1zcIwhmdeo4/00002.wav", r"must be `1, 2 or 3 SPEAKER.*iden_split\.txt:2"),
        ("3 id10001/1zcIwhmdeo4/00001.wav", r"its sound once.*iden_split\.txt:2"),
        ("3 id10001/gone/00001.wav", r"1 of the 2 sounds listed are missing, the first is id10001/gone/00001.*txt:2"),
    ],
)
def test_a_broken_list_is_refused_by_its_line(root: Path, line: str, fault: str) -> None:
    write_text(root / "iden_split.txt", "1 id10001/1zcIwhmdeo4/00001.wav", line)
    with pytest.raises(DataError, match=fault):
        prepare(root)


def test_the_table_of_speakers_gives_attributes(root: Path) -> None:
    rows = ["id10001\tA.J._Buckley\tm\tIreland\tdev", "id10002\tA.R._Rahman\tf\t\tdev", "id10099\tX\tm\tUSA\ttest"]
    write_text(root / "vox1_meta.csv", META_HEADER, *rows)
    found = {each.speaker: each.attributes for each in prepare(root).utterances}
    assert found == {"id10001": {"gender": "M", "nationality": "Ireland"}, "id10002": {"gender": "F"}}


@pytest.mark.parametrize(
    ("header", "row", "newline"),
    [
        ("VoxCeleb1_ID,VGGFace1_ID,Gender,Nationality,Set", "{0},A.J._Buckley,m,Ireland,dev", "\n"),
        ("ID,Class_name,Gender,Nationality,Set", "{0},A.J._Buckley,m,Ireland,dev", "\n"),
        ("id;vgg face;sex;nationality", "{0};X;male;Ireland", "\n"),
        (f'"{META_HEADER}"', '"{0}\tA.J._Buckley\tm\tIreland\tdev"', "\r\n"),
        ('"VoxCeleb1 ID","VGGFace1 ID","Gender","Nationality"', '"{0}","Buckley, A.J.","M","Ireland"', "\r\n"),
        ("VoxCeleb1 ID\tGender \tNationality\t", "{0} \tm\tIreland\t", "\n"),
    ],
    ids=["underscores", "renamed", "semicolons", "quoted lines", "quoted cells", "a tab too many"],
)
def test_copies_of_the_table_differ_in_names_and_marks(root: Path, header: str, row: str, newline: str) -> None:
    lines = [header, *(row.format(speaker) for speaker in ("id10001", "id10002"))]
    (root / "vox1_meta.csv").write_bytes((newline.join(lines) + newline).encode())
    found = {each.speaker: each.attributes for each in prepare(root).utterances}
    assert found == {speaker: {"gender": "M", "nationality": "Ireland"} for speaker in ("id10001", "id10002")}


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["VoxCeleb1 ID\tGender"], r"no column `Nationality` \(it has VoxCeleb1 ID, Gender\).*vox1_meta\.csv:1"),
        ([META_HEADER, "id10001\tX\tm\tUSA"], r"must have 5 cells.*vox1_meta\.csv:2"),
        ([META_HEADER, "id10001\tX\tq\tUSA\tdev"], r"`f` or `m`.*vox1_meta\.csv:2"),
        ([META_HEADER, *["id10001\tX\tm\tUSA\tdev"] * 2], r"its speaker once.*vox1_meta\.csv:3"),
        ([META_HEADER, "id10001\tX\tm\tUSA\tdev"], r"1 of 2 speakers have no row, the first is id10002"),
    ],
)
def test_a_broken_table_is_refused(root: Path, lines: list[str], fault: str) -> None:
    write_text(root / "vox1_meta.csv", *lines)
    with pytest.raises(DataError, match=fault):
        prepare(root)


@pytest.mark.parametrize("ending", ["m4a", "M4A", "aac", "wma"])
def test_compressed_sound_is_refused_with_how_to_convert_it(root: Path, ending: str) -> None:
    write_text(root / "wav" / "id10001" / "1zcIwhmdeo4" / f"00003.{ending}", "x")
    with pytest.raises(DataError, match=rf"files are not read.*00003\.{ending}.*Convert it first: ffmpeg"):
        prepare(root)


@pytest.mark.parametrize("name", ["a.wav", "id10001/a/b/c.wav"])
def test_a_sound_at_another_depth_is_refused(root: Path, name: str) -> None:
    write_noise(root / "wav" / name, seed=99)
    with pytest.raises(DataError, match=rf"not in the folder of a speaker or video.*wav/{name}"):
        prepare(root)


def test_mixed_depths_are_refused(root: Path) -> None:
    write_noise(root / "wav" / "id10001" / "a.wav", seed=99)
    with pytest.raises(DataError, match=r"Some sounds are in folders of videos and others do not, such as .*/a\.wav"):
        prepare(root)


def test_another_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not laid out like VoxCeleb; looked for SPEAKER/VIDEO/NAME\.wav"):
        prepare(tmp_path)
    with pytest.raises(DataError, match="root folder does not exist"):
        prepare(tmp_path / "gone")


def test_options_of_other_layouts_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="`voxceleb` does not read `--pattern`"):
        VOXCELEB.prepare(root, PrepareOptions(pattern="{id}.wav"))


def test_alignments_are_taken_by_id(root: Path, tmp_path: Path) -> None:
    name = "id10001-1zcIwhmdeo4-00001.TextGrid"
    write_text(tmp_path / "grids" / name, long_textgrid([(0.0, 0.2, "sil"), (0.2, 0.5, "AA1")]))
    draft = VOXCELEB.prepare(root, PrepareOptions(alignments=tmp_path / "grids"))
    assert [each.id for each in draft.utterances if each.phones] == ["id10001-1zcIwhmdeo4-00001"]


def test_fault_18_stereo_is_refused_with_its_id(root: Path, tmp_path: Path) -> None:
    path = root / "wav" / "id10001" / "1zcIwhmdeo4" / "00001.wav"
    soundfile.write(path, np.zeros((800, 2)), 16_000)
    with pytest.raises(DataError, match=r"has 2 channels.*utterance id10001-1zcIwhmdeo4-00001"):
        manifest.write(prepare(root), tmp_path / "out")


def test_fault_24_one_name_with_two_endings_is_refused(root: Path, tmp_path: Path) -> None:
    write_noise(root / "wav" / "id10001" / "1zcIwhmdeo4" / "00001.flac", seed=99)
    with pytest.raises(DataError, match=r"id `id10001-1zcIwhmdeo4-00001` occurs twice: .*00001\.flac.*00001\.wav"):
        manifest.write(prepare(root), tmp_path / "out")


def test_a_link_out_of_the_root_is_refused(root: Path, tmp_path: Path) -> None:
    outside = write_noise(tmp_path / "outside.wav", seed=99)
    (root / "wav" / "id10001" / "1zcIwhmdeo4" / "00009.wav").symlink_to(outside)
    with pytest.raises(DataError, match=r"leads out of the root.*utterance id10001-1zcIwhmdeo4-00009"):
        manifest.write(prepare(root), tmp_path / "out")


def test_it_is_prepared_checked_and_scored_on_speakers(root: Path, tmp_path: Path) -> None:
    corpus = prepared(VOXCELEB, root, tmp_path / "manifest")
    assert corpus.label_sets["speakers"] == SPEAKERS
    record = scored(tmp_path / "manifest", "speaker")
    assert record.n_scored == record.n_listed > 0
    assert not any("session" in warning for warning in record.corpus.warnings)


def test_the_official_splits_are_those_of_the_score(root: Path, tmp_path: Path) -> None:
    codes = {("1zcIwhmdeo4", 1): 1, ("1zcIwhmdeo4", 2): 2, ("7gWzIy6yIIk", 1): 1, ("7gWzIy6yIIk", 2): 3}
    places = [
        (f"{speaker}/{video}/{take:05d}.wav", code) for speaker in SPEAKERS for (video, take), code in codes.items()
    ]
    write_text(root / "iden_split.txt", *(f"{code} {place}" for place, code in places))
    prepared(VOXCELEB, root, tmp_path / "manifest")
    record = scored(tmp_path / "manifest", "speaker")
    assert record.corpus.split_policy == "official splits"
    assert (record.corpus.n_train, record.corpus.n_dev, record.corpus.n_test) == (4, 2, 2)
