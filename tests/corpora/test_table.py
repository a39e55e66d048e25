"""The layout `csv`: a table and the sounds it names."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, DraftUtterance, Phone, PrepareOptions
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.manifest.prepare import prepare
from repbench.errors import DataError, UsageError
from tests.corpora.sounds import long_textgrid, write_noise


def utterances(
    root: Path, table: str, *, columns: Mapping[str, str] | None = None, name: str = "table.csv"
) -> list[DraftUtterance]:
    (root / name).write_bytes(table.encode())
    return list(CSV.prepare(root, PrepareOptions(columns=columns or {})).utterances)


def test_it_is_a_layout() -> None:
    assert isinstance(CSV, CorpusLayout)


def test_columns_become_fields_and_the_others_attributes(tmp_path: Path) -> None:
    header = "id,path,start,end,speaker,text,group,split,emotion,age,valence"
    found = utterances(tmp_path, f'{header}\nu1,deep/a.wav,0.5,1.5,s1,"hello, you",g1,dev,joy,27,-0.5\n')
    assert found == [
        DraftUtterance(
            id="u1",
            audio=tmp_path / "deep" / "a.wav",
            start=0.5,
            end=1.5,
            speaker="s1",
            text="hello, you",
            group="g1",
            split="dev",
            attributes={"emotion": "joy", "age": 27, "valence": -0.5},
        )
    ]


def test_only_the_path_is_needed_and_names_the_utterance(tmp_path: Path) -> None:
    assert utterances(tmp_path, "path\ndeep/ü.b.wav\n") == [
        DraftUtterance(id="ü.b", audio=tmp_path / "deep" / "ü.b.wav")
    ]


def test_columns_may_be_called_anything(tmp_path: Path) -> None:
    table = "file_id\tspeaker_id\tpath\na.wav\t  EB0\tx\n"
    columns = {"path": "file_id", "speaker": "speaker_id"}
    found = utterances(tmp_path, table, columns=columns, name="data.tsv")
    assert found == [
        DraftUtterance(id="a", audio=tmp_path / "a.wav", speaker="EB0", attributes={"path": "x"}),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    table = "\n".join(delimiter.join(cells) for cells in (["path", "text"], ["a.wav", "hello"]))
    assert utterances(tmp_path, table)[0].text == "hello"


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_bom_blank_lines_and_line_ends_are_tolerated(tmp_path: Path, newline: str) -> None:
    table = "\ufeff" + newline.join(["path,text", "", "a.wav,hello", ",", "b.wav,you", ""])
    assert [utterance.text for utterance in utterances(tmp_path, table)] == ["hello", "you"]


def test_quotes_are_text_in_a_tsv_and_hold_cells_in_a_csv(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    tsv = utterances(tmp_path / "one", 'path\ttext\na.wav\t"Hello" he said\n', name="t.tsv")
    assert tsv[0].text == '"Hello" he said'
    comma = utterances(tmp_path / "two", 'path,text\na.wav,"two\nlines, ""quoted"""\n')
    assert comma[0].text == 'two\nlines, "quoted"'


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["1", "2.5", "1e-3"], [1.0, 2.5, 0.001]),
        (["1", "2", "x"], ["1", "2", "x"]),
        (["007", "8", "9"], ["007", "8", "9"]),
        (["1", "nan", "2"], ["1", "nan", "2"]),
        (["1_000", "2", "3"], ["1_000", "2", "3"]),
        (["0.5", "0", "00.5"], ["0.5", "0", "00.5"]),
        (["9" * 30, "1", "2"], ["9" * 30, "1", "2"]),
    ],
    ids=str,
)
def test_a_column_is_read_as_one_type(tmp_path: Path, cells: list[str], values: list[object]) -> None:
    table = "path,x\n" + "".join(f"{index}.wav,{cell}\n" for index, cell in enumerate(cells))
    found = [utterance.attributes["x"] for utterance in utterances(tmp_path, table)]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_an_empty_cell_is_not_known(tmp_path: Path) -> None:
    found = utterances(tmp_path, "path,speaker,split,x\na.wav,,,1\nb.wav,s,train,\n")
    assert (found[0].speaker, found[0].split, found[0].attributes) == (None, None, {"x": 1})
    assert (found[1].speaker, found[1].split, found[1].attributes) == ("s", "train", {})


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("", "table is empty"),
        ("path,text\n", "has a header but no row"),
        ("file,text\na.wav,x\n", r"no column `path` for `path` \(it has file, text\).*table\.csv:1"),
        ("path,text,text\na.wav,x,y\n", r"column `text` occurs twice.*table\.csv:1"),
        ("path,\na.wav,x\n", "column has no name"),
        ("path,text\na.wav,x\nb.wav\n", r"row has 1 cells, but the header has 2.*table\.csv:3"),
        ("path,split\na.wav,train\nb.wav,valid\n", r"`split` must be train, dev or test, but is `valid`.*csv:3.*e b,"),
        ("path,start\na.wav,one\n", r"`start` must be a number of seconds, but is `one`.*table\.csv:2"),
        ("path,end\na.wav,nan\n", r"`end` must be a number of seconds, but is `nan`.*table\.csv:2"),
        ("path,text\n,x\n", r"row has no path.*table\.csv:2"),
        ('path,text\na.wav,"x\n', r"cannot be read: unexpected end of data.*table\.csv:2"),
        ("path,text\na.wav,\0\n", "holds a NUL"),
        ("path\n../a.wav\n", r"part `\.\.`.*table\.csv:2"),
        ("path\n/etc/passwd\n", r"absolute.*table\.csv:2"),
    ],
)
def test_a_broken_table_is_refused_by_its_line(tmp_path: Path, table: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        utterances(tmp_path, table)


def test_a_column_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column `who` for `speaker` \(it has path, speaker\)"):
        utterances(tmp_path, "path,speaker\na.wav,x\n", columns={"speaker": "who"})


def test_an_unknown_field_is_refused_before_the_table_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no field `emotion` \(there are id, path,"):
        utterances(tmp_path, "", columns={"emotion": "emo"})


def test_the_table_is_the_only_one_in_the_root_or_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must hold one \.csv or \.tsv file, but there are: none"):
        CSV.prepare(tmp_path, PrepareOptions())
    for name in ("a.csv", "b.tsv"):
        (tmp_path / name).write_text(f"path\n{name}.wav\n")
    with pytest.raises(DataError, match=r"but there are: a\.csv, b\.tsv"):
        CSV.prepare(tmp_path, PrepareOptions())
    draft = CSV.prepare(tmp_path, PrepareOptions(table=tmp_path / "b.tsv"))
    assert (draft.name, draft.licence, [utterance.id for utterance in draft.utterances]) == ("b", "unknown", ["b.tsv"])
    with pytest.raises(DataError, match=r"missing.*gone\.csv"):
        CSV.prepare(tmp_path, PrepareOptions(table=tmp_path / "gone.csv"))
    with pytest.raises(DataError, match="root folder does not exist"):
        CSV.prepare(tmp_path / "gone", PrepareOptions())


def test_alignments_are_held_against_the_part_that_a_row_names(tmp_path: Path) -> None:
    write_noise(tmp_path / "long.flac", seed=0, seconds=2.0)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "u1.TextGrid").write_text(long_textgrid([(0.0, 0.5, "sil"), (0.5, 1.0, "AA1")]))
    table = "id,path,start,end,alignment\nu1,long.flac,0.5,1.5,grids/u1.TextGrid\nu2,long.flac,1.5,,\n"
    assert [utterance.phones for utterance in utterances(tmp_path, table)] == [
        (Phone(0.0, 0.5, "sil"), Phone(0.5, 1.0, "AA1")),
        None,
    ]
    with pytest.raises(DataError, match=r"to 1 s, but the sound lasts 0\.5 s.*utterance u1"):
        utterances(tmp_path, table.replace("0.5,1.5", "1.0,1.5"))


def test_alignments_lie_under_their_own_folder(tmp_path: Path) -> None:
    write_noise(tmp_path / "root" / "a.wav", seed=0)
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "x.TextGrid").write_text(long_textgrid([(0.0, 0.5, "sil")]))
    table = tmp_path / "root" / "table.csv"
    table.write_text("path,alignment\na.wav,x.TextGrid\n")
    draft = CSV.prepare(tmp_path / "root", PrepareOptions(alignments=tmp_path / "grids"))
    assert [utterance.phones for utterance in draft.utterances] == [(Phone(0.0, 0.5, "sil"),)]
    table.write_text("path,alignment\na.wav,../grids/x.TextGrid\n")
    with pytest.raises(DataError, match=r"part `\.\.`.*table\.csv:2, utterance a"):
        CSV.prepare(tmp_path / "root", PrepareOptions())
    table.write_text("path\na.wav\n")
    with pytest.raises(DataError, match="None of the 1 utterances has an alignment, such as `a`"):
        CSV.prepare(tmp_path / "root", PrepareOptions(alignments=tmp_path / "grids"))


def test_it_becomes_a_manifest_whatever_the_order_of_its_rows(tmp_path: Path) -> None:
    rows = [f"{name}.wav,{index}\n" for index, name in enumerate("abc")]
    for seed, name in enumerate("abc"):
        write_noise(tmp_path / "root" / f"{name}.wav", seed=seed)
    fingerprints = set()
    for order in (rows, rows[::-1]):
        (tmp_path / "root" / "table.csv").write_text("path,x\n" + "".join(order))
        corpus = manifest.write(CSV.prepare(tmp_path / "root", PrepareOptions()), tmp_path / "out")
        fingerprints.add(corpus.fingerprint)
    assert len(fingerprints) == 1


def test_fault_24_two_files_with_one_stem_need_ids(tmp_path: Path) -> None:
    write_noise(tmp_path / "one" / "a.wav", seed=0)
    write_noise(tmp_path / "two" / "a.wav", seed=1)
    (tmp_path / "table.csv").write_text("path\none/a.wav\ntwo/a.wav\n")
    with pytest.raises(DataError, match=r"id `a` occurs twice: for .*one/a\.wav and for .*two/a\.wav"):
        manifest.write(CSV.prepare(tmp_path, PrepareOptions()), tmp_path / "out")


def test_an_unnamed_first_column_is_the_index_of_pandas(tmp_path: Path) -> None:
    header = ",path,speakerId,transcription,action"
    rows = "0,wavs/a.wav,s1,Lights on,activate\n1,wavs/b.wav,s2,Off,deactivate\n"
    (tmp_path / "train_data.csv").write_text(f"{header}\n{rows}")
    draft = CSV.prepare(tmp_path, PrepareOptions(columns={"speaker": "speakerId", "text": "transcription"}))
    first = next(iter(draft.utterances))
    assert (first.id, first.speaker, first.text, first.attributes) == ("a", "s1", "Lights on", {"action": "activate"})
    assert draft.notes == ("the first column of train_data.csv has no name and is passed over: 0, 1",)
    again = utterances(tmp_path, "Unnamed: 0,path\n0,a.wav\n1,b.wav\n", name="train_data.csv")
    assert [utterance.attributes for utterance in again] == [{}, {}]


def test_unnamed_columns_that_hold_nothing_are_passed_over_and_others_refused(tmp_path: Path) -> None:
    found = utterances(tmp_path, "path,text,,\na.wav,x,,\nb.wav,y,,\n")
    assert [(utterance.text, utterance.attributes) for utterance in found] == [("x", {}), ("y", {})]
    with pytest.raises(DataError, match=r"column has no name: column 2, which begins with `z` .*table\.csv:1"):
        utterances(tmp_path, "path,,text\na.wav,z,x\n")


def test_an_absolute_place_under_the_root_is_taken(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    for given, written in itertools.product((root, tmp_path / "link"), repeat=2):
        (root / "t.csv").write_text(f"path\n{written}/deep/a.wav\n")
        (draft,) = CSV.prepare(given, PrepareOptions()).utterances
        assert (draft.id, draft.audio) == ("a", given / "deep" / "a.wav")
    (root / "t.csv").write_text(f"path\n{tmp_path}/other/a.wav\n{tmp_path}/other/sub/b.wav\n")
    with pytest.raises(DataError, match=r"absolute and is not under the root .*t\.csv:2") as found:
        CSV.prepare(root, PrepareOptions())
    assert str(found.value).endswith(f"--root {tmp_path}/other --table {root}/t.csv.")
    (root / "t.csv").write_text(f"path\n{root}/../other/a.wav\n")
    with pytest.raises(DataError, match="is not under the root"):
        CSV.prepare(root, PrepareOptions())


def test_names_of_columns_are_matched_without_regard_to_case(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Path,Speaker,Emotion\na.wav,s1,joy\n")
    draft = CSV.prepare(tmp_path, PrepareOptions())
    assert [(each.speaker, each.attributes) for each in draft.utterances] == [("s1", {"Emotion": "joy"})]
    assert draft.notes == ("columns of t.csv are read under other names: `Path` as path, `Speaker` as speaker",)
    exact = utterances(tmp_path, "path,Path\na.wav,x\n", name="t.csv")
    assert exact[0].attributes == {"Path": "x"}
    with pytest.raises(DataError, match=r"columns `Path` and `PATH` could each be `path`.*--column path=Path"):
        utterances(tmp_path, "Path,PATH\na.wav,b.wav\n", name="t.csv")


@pytest.mark.parametrize(
    ("table", "columns", "do"),
    [
        ("speaker,wav file\ns1,a.wav\n", {}, "--column path='wav file'"),
        ("path,speaker_id\na.wav,s1\n", {"speaker": "speaker_ID"}, "--column speaker=speaker_id"),
        ("path,who\na.wav,s1\n", {"speaker": "voice"}, "--column speaker=NAME"),
    ],
)
def test_a_missing_column_is_guessed(tmp_path: Path, table: str, columns: Mapping[str, str], do: str) -> None:
    with pytest.raises(DataError, match="has no column") as found:
        utterances(tmp_path, table, columns=columns)
    assert str(found.value).endswith(f"{do}.")


class TestJson:
    def test_metadata_of_hugging_face(self, tmp_path: Path) -> None:
        text = '{"file_name": "a.wav", "text": "x", "label": 1}\n\n{"file_name": "b.wav", "text": null, "gain": -0.5}\n'
        found = utterances(tmp_path, text, name="metadata.jsonl")
        assert found == [
            DraftUtterance(id="a", audio=tmp_path / "a.wav", text="x", attributes={"label": 1}),
            DraftUtterance(id="b", audio=tmp_path / "b.wav", attributes={"gain": -0.5}),
        ]

    def test_manifests_of_nemo_cut_by_offset_and_duration(self, tmp_path: Path) -> None:
        write_noise(tmp_path / "a.wav", seed=0, seconds=1.0)
        rows = [
            '{"audio_filepath": "a.wav", "duration": 1.004, "text": "all", "id": "u1"}',
            '{"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.5, "id": "u2", "lang": "en"}',
            '{"audio_filepath": "a.wav", "offset": 0.5, "duration": 0.5, "id": "u3"}',
            '{"audio_filepath": "gone.wav", "offset": 0, "duration": 2}',
        ]
        (tmp_path / "train.json").write_text("\n".join(rows))
        draft = CSV.prepare(tmp_path, PrepareOptions(table=tmp_path / "train.json"))
        assert [(each.id, each.start, each.end) for each in draft.utterances] == [
            ("u1", None, None),
            ("u2", 0.25, 0.75),
            ("u3", 0.5, None),
            ("gone", None, 2.0),
        ]
        assert [each.attributes for each in draft.utterances] == [{}, {"lang": "en"}, {}, {}]

    def test_beside_another_path_offset_and_duration_are_attributes(self, tmp_path: Path) -> None:
        found = utterances(tmp_path, '{"path": "a.wav", "offset": 1, "duration": 2.5}', name="t.jsonl")
        assert (found[0].start, found[0].end, found[0].attributes) == (None, None, {"offset": 1, "duration": 2.5})

    def test_a_list_of_objects_and_a_table_of_another_ending(self, tmp_path: Path) -> None:
        rows = '{"path": "a.wav", "ok": true}'
        assert utterances(tmp_path, f"[\n {rows}\n]", name="t.ndjson")[0].attributes == {"ok": "true"}
        (tmp_path / "t.manifest").write_text(rows)
        draft = CSV.prepare(tmp_path, PrepareOptions(table=tmp_path / "t.manifest"))
        assert [each.id for each in draft.utterances] == ["a"]

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ('{"path": "a.wav"}\n{"path": "b.wav", "tags": ["x"]}', r"`tags` holds a list.*t\.jsonl:2, key tags"),
            ('{"audio": {"path": "a.wav"}}', r"`audio` holds an object.*a separate column"),
            ('{"id": "c", "supervisions": [], "recording": {}}', r"`supervisions` holds a list.*corpus prepare lhotse"),
            ('{"path": "a.wav"\n', r"not valid JSON.*t\.jsonl:1"),
            ('{"path": "a.wav", "path": "b.wav"}', "a key occurs twice"),
            ('{"path": "a.wav", "x": NaN}', "NaN is not a number"),
            ('"a.wav"', r"not a JSON object.*t\.jsonl:1"),
            ("[" * 100_000, "nested too deeply"),
            ("", "table is empty"),
            ('{\n  "u1": {"path": "a.wav"}\n}', r"not valid JSON.*one object a line"),
            ('{"recording_id": "r", "start": 0}', r"no column `path`.*--column path=NAME"),
        ],
    )
    def test_what_is_no_table_is_refused_by_its_line(self, tmp_path: Path, text: str, fault: str) -> None:
        with pytest.raises(DataError, match=fault):
            utterances(tmp_path, text, name="t.jsonl")

    def test_a_packed_table_is_said_to_be_one(self, tmp_path: Path) -> None:
        (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(b"{}"))
        with pytest.raises(DataError, match=r"This is a gzip file.*Unpack it"):
            CSV.prepare(tmp_path, PrepareOptions(table=tmp_path / "cuts.jsonl.gz"))

    def test_a_manifest_of_our_own_in_the_root_is_not_the_table(self, tmp_path: Path) -> None:
        write_noise(tmp_path / "a.wav", seed=0)
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.wav"}')
        for _ in range(2):
            corpus = manifest.write(CSV.prepare(tmp_path, PrepareOptions()), tmp_path)
            assert [utterance.id for utterance in corpus.utterances] == ["a"]


def test_rows_that_are_no_utterance_are_faults_of_their_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("s1_joy", "s2_fear")):
        write_noise(tmp_path / f"{name}.wav", seed=seed)
    table = "path,start,split\ns1_joy.wav,x,\n,0.5,\nnotes.wav,,valid\nshort\ns2_fear.wav,,\n/etc/passwd,,\n"
    (tmp_path / "t.csv").write_text(table)
    corpus = manifest.write(prepare(CSV, tmp_path, PrepareOptions()), tmp_path / "out", drop_faulty=5)
    assert [utterance.id for utterance in corpus.utterances] == ["s2_fear"]
    assert sorted(corpus.dropped) == ["notes", "passwd", "s1_joy", "t.csv:3", "t.csv:5"]


def test_rows_without_a_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,text\na.wav,x\nb.wav,\n")
    assert CSV.prepare(tmp_path, PrepareOptions()).notes == ("1 of 2 utterances have no transcript",)
