"""The layout `huggingface`: tables with sounds in them, and audiofolders. Tables are written with pyarrow alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from repbench.audio.table_files import cell_path
from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, Draft, DraftUtterance, Phone, PrepareOptions, Turn
from repbench.corpora.layouts.huggingface import HUGGINGFACE
from repbench.corpora.layouts.split_names import split_of_name
from repbench.corpora.manifest.prepare import prepare
from repbench.errors import DataError, UsageError
from tests.corpora.scored import prepared, scored
from tests.corpora.sounds import write_noise, write_text

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
SPAN = pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), ("label", pa.string())]))
TURN = pa.list_(pa.struct([("start", pa.float64()), ("end", pa.float64()), ("speaker", pa.string())]))


def sound(folder: Path, seed: int) -> bytes:
    return write_noise(folder / "made" / f"{seed}.wav", seed=seed).read_bytes()


def cells(folder: Path, seeds: Sequence[int]) -> Any:
    return pa.array([{"bytes": sound(folder, seed), "path": f"u{seed}.wav"} for seed in seeds], AUDIO)


def write_table(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    """A table as `datasets` writes it: Parquet, or a stream of Arrow, with the features in its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with path.open("wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
    return path


def saved(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    """A folder as of `Dataset.save_to_disk`."""
    write_table(folder / "data-00000-of-00001.arrow", columns, **options)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"license": "CC0"}))
    return folder


def described(root: Path, options: PrepareOptions | None = None) -> dict[str, DraftUtterance]:
    return {each.id: each for each in prepare(HUGGINGFACE, root, options or PrepareOptions()).utterances}


def span(start: float, end: float, label: str) -> dict[str, Any]:
    return {"start": start, "end": end, "label": label}


def test_it_is_a_layout() -> None:
    assert isinstance(HUGGINGFACE, CorpusLayout)


def test_a_saved_dataset_is_read_where_it_lies(tmp_path: Path) -> None:
    columns = {
        "audio": cells(tmp_path, [0, 1]), "speaker": [7, 8], "Text": ["one", ""], "label": [1, -1],
        "loud": [True, None],
        "level": [0.5, float("nan")], "words": [["a"], ["b", "c"]], "group": ["", "g"],
    }  # fmt: skip
    features = {"label": {"_type": "ClassLabel", "names": ["no", "yes"]}, "audio": {"_type": "Audio"}}
    root = saved(tmp_path / "set", columns, features=features)
    draft = HUGGINGFACE.prepare(root, PrepareOptions())
    table = root / "data-00000-of-00001.arrow"
    assert list(draft.utterances) == [
        DraftUtterance(
            id="u0", audio=cell_path(table, "audio", 0), speaker="7", text="one",
            attributes={"label": "yes", "loud": "true", "level": 0.5}, where=f"{table}: row 0",
        ),
        DraftUtterance(
            id="u1", audio=cell_path(table, "audio", 1), speaker="8", text="", attributes={}, group="g",
            where=f"{table}: row 1",
        ),
    ]  # fmt: skip
    assert (draft.name, draft.licence) == ("set", "CC0")
    assert draft.notes == (
        "columns of lists, objects or times are not read: words",
        "columns are read under other names: `Text` as text",
    )
    files = sorted(root.rglob("*"))
    corpus = prepared(HUGGINGFACE, root, tmp_path / "manifest")
    assert sorted(root.rglob("*")) == files  # nothing was unpacked
    assert [each.audio for each in corpus.utterances] == [cell_path(table, "audio", row) for row in (0, 1)]


@pytest.mark.slow
def test_a_corpus_in_tables_is_scored(tmp_path: Path) -> None:
    columns = {"audio": cells(tmp_path, range(12)), "speaker": [f"s{k % 3}" for k in range(12)]}
    write_table(tmp_path / "root" / "all.parquet", columns)
    prepared(HUGGINGFACE, tmp_path / "root", tmp_path / "manifest")
    assert scored(tmp_path / "manifest", "speaker").metrics["accuracy"].value is not None


def test_parts_of_a_dict_are_splits(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number, name in enumerate(("train.clean", "validation", "test", "extra")):
        saved(root / name, {"audio": cells(tmp_path, [number])})
    names = ["train.clean", "validation", "test", "extra"]
    (root / "dataset_dict.json").write_text(json.dumps({"splits": names}))
    draft = HUGGINGFACE.prepare(root, PrepareOptions())
    assert [each.split for each in draft.utterances] == ["train", "dev", "test", None]
    assert draft.notes == ("`extra` belong to no official split",)


def test_files_are_splits_and_a_column_goes_before(tmp_path: Path) -> None:
    for seed, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        write_table(tmp_path / "root" / "data" / f"{name}.parquet", {"audio": cells(tmp_path, [seed])})
    assert [each.split for each in described(tmp_path / "root").values()] == ["test", "train", "train"]
    write_table(
        tmp_path / "root" / "data" / "other.parquet", {"audio": cells(tmp_path, [5, 6]), "split": ["dev", None]}
    )
    assert {name: each.split for name, each in described(tmp_path / "root").items()} == {
        "u0": None, "u1": None, "u2": None, "u5": "dev", "u6": None,
    }  # fmt: skip


def test_a_lone_train_is_no_division(tmp_path: Path) -> None:
    write_table(tmp_path / "root" / "train.parquet", {"audio": cells(tmp_path, [0])})
    draft = HUGGINGFACE.prepare(tmp_path / "root", PrepareOptions())
    assert [each.split for each in draft.utterances] == [None]
    assert draft.notes == ("`train` is the only part of the corpus and is taken for all of it",)


def test_names_of_splits() -> None:
    found = {
        name: split_of_name(name) for name in ("training", "dev-clean", "valid_2", "evaluation", "contest", "trains")
    }
    assert list(found.values()) == ["train", "dev", "dev", "test", None, None]


def test_columns_are_named_as_for_csv(tmp_path: Path) -> None:
    columns = {"clip": cells(tmp_path, [0]), "who": ["ann"], "sentence": ["hello"], "key": [12]}
    write_table(tmp_path / "root" / "a.parquet", columns)
    options = PrepareOptions(columns={"path": "clip", "speaker": "who", "text": "sentence", "id": "key"})
    (found,) = described(tmp_path / "root", options).values()
    assert (found.id, found.speaker, found.text, found.attributes) == ("12", "ann", "hello", {})
    with pytest.raises(UsageError, match=r"no field `alignment` \(there are id, path"):
        described(tmp_path / "root", PrepareOptions(columns={"alignment": "key"}))
    with pytest.raises(DataError, match=r"no column `whom` for `speaker` \(it has clip, who, sentence, key\)"):
        described(tmp_path / "root", PrepareOptions(columns={"speaker": "whom"}))


def test_two_columns_of_sounds_must_be_chosen(tmp_path: Path) -> None:
    columns = {"near": cells(tmp_path, [0]), "far": cells(tmp_path, [1])}
    write_table(tmp_path / "root" / "a.parquet", columns)
    with pytest.raises(DataError, match=r"2 columns of sounds, near, far.*Name it with --column path=near"):
        described(tmp_path / "root")
    (found,) = described(tmp_path / "root", PrepareOptions(columns={"path": "far"})).values()
    assert found.audio.parent.name == "far"
    write_table(tmp_path / "root" / "a.parquet", {"n": [1]})
    with pytest.raises(DataError, match=r"no column of sounds \(its columns are n\)"):
        described(tmp_path / "root")


def test_ids_are_rows_where_paths_are_none(tmp_path: Path) -> None:
    columns = {"audio": pa.array([{"bytes": sound(tmp_path, k), "path": "same.wav"} for k in range(12)], AUDIO)}
    write_table(tmp_path / "root" / "test.parquet", columns)
    assert list(described(tmp_path / "root"))[::11] == ["test-test-00", "test-test-11"]


def test_a_cell_without_bytes_is_the_file_it_names(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_noise(root / "wav" / "a.wav", seed=0)
    write_noise(root / "data" / "b.wav", seed=1)
    columns = {"audio": pa.array([{"bytes": None, "path": "wav/a.wav"}, {"bytes": None, "path": "b.wav"}], AUDIO)}
    write_table(root / "data" / "t.parquet", columns)
    assert [each.audio for each in described(root).values()] == [root / "wav" / "a.wav", root / "data" / "b.wav"]
    write_table(root / "data" / "t.parquet", {"path": ["wav/a.wav"], "speaker": ["s"]})
    assert [each.audio for each in described(root).values()] == [root / "wav" / "a.wav"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, r"holds neither a sound nor a path .*t.parquet: row 1, utterance"),
        ({"bytes": None, "path": None}, r"holds neither a sound nor a path .*t.parquet: row 1, utterance"),
        ({"bytes": None, "path": "gone.wav"}, r"`gone.wav` is neither beside the table nor under the root .*row 1"),
        ({"bytes": None, "path": "/etc/passwd"}, r"`/etc/passwd` is absolute.*row 1.*Embed the sounds"),
        ({"bytes": None, "path": "../made/0.wav"}, r"not under the root|a part `..`"),
        ({"bytes": b"", "path": "u9.wav"}, r"The cell of `audio` holds no sound .*t.parquet: row 1"),
        ({"bytes": b"not a sound", "path": "u9.wav"}, r"neither WAV nor FLAC .*t.parquet/audio/1"),
    ],
)
def test_a_broken_cell_is_one_fault_that_names_its_row(tmp_path: Path, cell: Any, message: str) -> None:
    good = {"bytes": sound(tmp_path, 0), "path": "u0.wav"}
    write_table(tmp_path / "root" / "t.parquet", {"audio": pa.array([good, cell], AUDIO), "id": ["a", "b"]})
    draft = prepare(HUGGINGFACE, tmp_path / "root", PrepareOptions())
    with pytest.raises(DataError, match=message):
        manifest.write(draft, tmp_path / "manifest")
    corpus = manifest.write(draft, tmp_path / "manifest", drop_faulty=1)
    assert [each.id for each in corpus.utterances] == ["a"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a", None]}, r"The row has no id .*t.parquet: row 1"),
        ({"id": ["a", "a"]}, r"The id `a` occurs twice: for .*t.parquet: row 0 and for .*t.parquet: row 1"),
        ({"split": ["train", "tests"]}, r"must be train, dev or test, but is `tests` .*t.parquet: row 1"),
        ({"start": ["0.1", "soon"]}, r"`start` must be a number of seconds, but is `soon` .*t.parquet: row 1"),
        ({"end": [0.2, 9.0]}, r"from 0 to 9 s does not lie in the file, which lasts 0.5 s .*t.parquet/audio/1"),
        (
            {"phones": pa.array([None, [{"start": 0.0, "end": 0.9, "label": "AA"}]], SPAN)},
            r"ends at 0.9 s, but the sound lasts 0.5 s .*t.parquet: row 1",
        ),
        (
            {"phones": [None, ["AA"]]},
            r"`phones` must be a list of start, end and label.*item 1 is AA .*t.parquet: row 1",
        ),
        (
            {"turns": pa.array([None, [{"start": 0.0, "end": 0.9, "speaker": "x"}]], TURN)},
            r"A turn of x is from 0 to 0.9 s, but the sound ends at 0.5 s .*t.parquet: row 1",
        ),
        ({"repbench_attributes": [None, "[1]"]}, r"must be a JSON object, but is '\[1\]' .*t.parquet: row 1"),
    ],
)
def test_broken_labels_name_file_and_row(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    write_table(tmp_path / "root" / "t.parquet", {"audio": cells(tmp_path, [0, 1]), **columns})
    with pytest.raises(DataError, match=message):
        manifest.write(prepare(HUGGINGFACE, tmp_path / "root", PrepareOptions()), tmp_path / "manifest")


def test_phones_and_turns_are_lists(tmp_path: Path) -> None:
    columns = {
        "audio": cells(tmp_path, [0, 1]),
        "phones": pa.array([[span(0, 0.25, "AH0"), span(0.25, 0.5, "sp")], None], SPAN),
        "turns": pa.array([[{"start": 0.1, "end": 0.2, "speaker": "x"}], []], TURN),
    }  # fmt: skip
    write_table(tmp_path / "root" / "t.parquet", columns)
    first, second = described(tmp_path / "root").values()
    assert first.phones == (Phone(0.0, 0.25, "AH0"), Phone(0.25, 0.5, "sp"))
    assert (first.turns, second.turns, second.phones) == ((Turn(0.1, 0.2, "x"),), (), None)
    # folded as those of any aligner
    corpus = manifest.write(prepare(HUGGINGFACE, tmp_path / "root", PrepareOptions()), tmp_path / "manifest")
    assert [phone.label for phone in corpus.utterances[0].phones or ()] == ["AH", "sil"]
    kept = prepare(HUGGINGFACE, tmp_path / "root", PrepareOptions(relabel={"sp": "AH1"}))
    assert (kept.phone_map or {})["sp"] == "AH"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": "x"}, "no folder of `save_to_disk`, no .parquet or .arrow and no metadata.csv"),
        ({"dataset_dict.json": "{}"}, "`splits` must list the parts .*dataset_dict.json"),
        ({"dataset_dict.json": '{"splits": ["../x"]}'}, r"has a part `\.\.` .*dataset_dict.json"),
        ({"state.json": "{"}, "not valid JSON.*state.json"),
        ({"state.json": '{"_data_files": [{"filename": "/etc/passwd"}]}'}, "is absolute .*state.json"),
        ({"state.json": '{"_data_files": [{"filename": "gone.arrow"}]}'}, "The table is missing .*gone.arrow"),
        ({"state.json": '{"_data_files": [], "_indices_data_files": [{}]}'}, "is a selection by"),
        ({"t.parquet": "PAR1 and no more"}, "The table is broken.*t.parquet"),
    ],
)
def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        HUGGINGFACE.prepare(tmp_path, PrepareOptions())


def test_an_attribute_has_one_type_in_all_tables(tmp_path: Path) -> None:
    for seed, (name, values) in enumerate({"a": [1], "b": [0.5], "c": [None]}.items()):
        columns = {"audio": cells(tmp_path, [seed]), "level": values, "code": [str(seed)] if seed else [seed]}
        write_table(tmp_path / "root" / f"{name}.parquet", columns)
    levels = {name: dict(each.attributes) for name, each in described(tmp_path / "root").items()}
    assert levels == {"u0": {"level": 1.0, "code": "0"}, "u1": {"level": 0.5, "code": "1"}, "u2": {"code": "2"}}
    assert isinstance(levels["u0"]["level"], float)


def audiofolder(root: Path) -> Path:
    for seed, name in enumerate(("train/a.wav", "train/deep/b.wav", "test/c.flac")):
        write_noise(root / name, seed=seed)
    write_text(root / "train" / "metadata.csv", "file_name,speaker,level,text", "a.wav,s1,1,hello", "deep/b.wav,s2,,x")
    lines = [json.dumps({"file_name": "c.flac", "speaker": "s1", "level": 2.5})]
    write_text(root / "test" / "metadata.jsonl", *lines)
    return root


def test_an_audiofolder_is_its_tables(tmp_path: Path) -> None:
    root = audiofolder(tmp_path / "root")
    found = described(root)
    assert {name: (each.split, each.speaker, each.text, dict(each.attributes)) for name, each in found.items()} == {
        "a": ("train", "s1", "hello", {"level": 1.0}),
        "b": ("train", "s2", "x", {}),
        "c": ("test", "s1", None, {"level": 2.5}),
    }
    assert found["b"].audio == root / "train" / "deep" / "b.wav"
    prepared(HUGGINGFACE, root, tmp_path / "manifest")


def test_an_audiofolder_names_the_row_of_a_sound_that_is_gone(tmp_path: Path) -> None:
    root = audiofolder(tmp_path / "root")
    write_text(root / "train" / "metadata.csv", "file_name", "a.wav", "../../x.wav")
    with pytest.raises(DataError, match=r"a part `..` .*train/metadata.csv:3"):
        described_draft(root)
    (root / "train" / "a.wav").unlink()
    write_text(root / "train" / "metadata.csv", "file_name", "a.wav")
    with pytest.raises(DataError, match=r"The sound file is missing .*train/a\.wav"):
        manifest.write(prepare(HUGGINGFACE, root, PrepareOptions()), tmp_path / "manifest")


def described_draft(root: Path) -> Draft:
    return HUGGINGFACE.prepare(root, PrepareOptions())


def test_options_of_other_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`huggingface` does not read `--pattern`"):
        HUGGINGFACE.prepare(tmp_path, PrepareOptions(pattern="{speaker}.wav"))
