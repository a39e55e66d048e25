"""The layouts `pattern`, `ravdess` and `emodb`, on small folders of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.pattern import EMODB, PATTERN, RAVDESS, read_pattern
from repbench.errors import DataError, UsageError
from tests.corpora.scored import prepared, scored
from tests.corpora.sounds import long_textgrid, write_noise, write_text


def write_all(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write_noise(root / name, seed=seed)
    return root


def utterances(root: Path, pattern: str) -> list[DraftUtterance]:
    return list(PATTERN.prepare(root, PrepareOptions(pattern=pattern)).utterances)


def parts(name: str, pattern: str) -> dict[str, str] | None:
    return read_pattern(pattern).read(Path("root") / name, Path("root"))


def test_they_are_layouts() -> None:
    assert all(isinstance(layout, CorpusLayout) for layout in (PATTERN, RAVDESS, EMODB))


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("{speaker}_{emotion}.wav", "s1_joy.wav", {"speaker": "s1", "emotion": "joy"}),
        ("{speaker}_{emotion}.wav", "deep/er/s1_joy.WAV", {"speaker": "s1", "emotion": "joy"}),
        ("{speaker:2}{take}.wav", "s1joy.wav", {"speaker": "s1", "take": "joy"}),
        ("{take}{speaker:2}.wav", "joys1.wav", {"take": "joy", "speaker": "s1"}),
        ("{speaker}/{_}-{take:2}.flac", "x/s1/a b-07.flac", {"speaker": "s1", "take": "07"}),
        ("{_}/{id}.wav", "a/b.c.wav", {"id": "b.c"}),
        ("{split}/{speaker}/{x}.wav", "dev/ü/1.wav", {"split": "dev", "speaker": "ü", "x": "1"}),
        ("a+({x}).wav", "a+(1).wav", {"x": "1"}),
        ("{x}__{y}.wav", "a_b__c.wav", {"x": "a_b", "y": "c"}),
        ("{x}.wav", "a\nb.wav", {"x": "a\nb"}),
        ("{speaker}_{emotion}.wav", "s1-joy.wav", None),
        ("{speaker}_{emotion}.wav", "_joy.wav", None),
        ("{speaker:2}{take}.wav", "s1.wav", None),
        ("{speaker}/{take}.wav", "a.wav", None),
        ("a+({x}).wav", "aa(1).wav", None),
        ("x_{a}.wav", "X_1.wav", None),
        # several matches, which differ in what is ignored alone
        ("{a:1}_{_}_{_}.WAV", "x_y_z_w.wav", {"a": "x"}),
    ],
)
def test_a_pattern_reads_the_last_parts_of_a_place(pattern: str, name: str, found: dict[str, str] | None) -> None:
    assert parts(name, pattern) == found


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{a}_{b}.wav", "x_y_z.wav"),
        ("{a}{b}.wav", "xyz.wav"),
        ("{_}_{b}.wav", "x_y_z.wav"),
        ("{a}{_}.wav", "xyz.wav"),
        # the shortest and the longest match agree in a = q, but a = r fits too
        ("{_}_{a}_{_}.wav", "p_q_r_q_p.wav"),
        ("{_}/{_}{a:1}{_}.wav", "x/pqrqp.wav"),
    ],
)
def test_a_name_that_can_be_read_in_two_ways_is_refused(pattern: str, name: str) -> None:
    with pytest.raises(DataError, match=r"in more than one way.*Give fields a length"):
        parts(name, pattern)


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("a.wav", "has no field"),
        ("{_}.wav", "has no field"),
        ("{a}_{a}.wav", "has the field `a` twice"),
        ("{a", "has a brace"),
        ("{a b}.wav", "has a brace"),
        ("{a:0}.wav", "has a brace"),
        ("{a:x}.wav", "has a brace"),
        ("{}.wav", "has a brace"),
        ("{a}", "does not end in the ending of the files"),
        ("{a}.{b}", "does not end in the ending of the files"),
        ("a.wav{b}", "does not end in the ending of the files"),
        ("/{a}.wav", "does not name places under the root"),
        ("../{a}.wav", "does not name places under the root"),
        ("x//{a}.wav", "does not name places under the root"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(pattern: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        read_pattern(pattern)


def test_fields_fill_the_utterance_and_other_names_are_attributes(tmp_path: Path) -> None:
    write_all(tmp_path, "train/c1/s1_joy_1_2.5_hello.wav", "test/c1/s2_fear_12_-1_you.wav")
    found = utterances(tmp_path, "{split}/{group}/{speaker}_{emotion}_{take}_{valence}_{text}.wav")
    assert found == [
        DraftUtterance(
            id="test-c1-s2_fear_12_-1_you",
            audio=tmp_path / "test" / "c1" / "s2_fear_12_-1_you.wav",
            speaker="s2",
            text="you",
            attributes={"emotion": "fear", "take": 12, "valence": -1.0},
            group="c1",
            split="test",
        ),
        DraftUtterance(
            id="train-c1-s1_joy_1_2.5_hello",
            audio=tmp_path / "train" / "c1" / "s1_joy_1_2.5_hello.wav",
            speaker="s1",
            text="hello",
            attributes={"emotion": "joy", "take": 1, "valence": 2.5},
            group="c1",
            split="train",
        ),
    ]


def test_an_id_is_taken_and_other_endings_are_read_over(tmp_path: Path) -> None:
    write_all(tmp_path, "x/u1_s1.wav", "x/._u2_s2.wav", "x/u3.flac")
    write_text(tmp_path / "x" / "notes.txt", "hello")
    found = utterances(tmp_path, "{id}_{speaker}.wav")
    assert [(each.id, each.speaker) for each in found] == [("u1", "s1")]


def test_files_that_do_not_match_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    write_all(tmp_path, "s1_1.wav", "b.wav", "a.wav")
    with pytest.raises(
        DataError, match=r"2 of 3 files do not match the pattern `\{speaker\}_\{x\}\.wav`.*file .*/a\.wav"
    ):
        utterances(tmp_path, "{speaker}_{x}.wav")


def test_an_empty_folder_a_missing_root_and_another_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.wav file; looked for `\{id\}\.wav`"):
        utterances(tmp_path, "{id}.wav")
    with pytest.raises(DataError, match="root folder does not exist"):
        utterances(tmp_path / "gone", "{id}.wav")
    write_all(tmp_path, "valid_1.wav")
    with pytest.raises(DataError, match=r"`split` must be train, dev or test, but is `valid`.*valid_1\.wav"):
        utterances(tmp_path, "{split}_{x}.wav")


def test_the_pattern_is_asked_for_before_the_root_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`pattern` needs a pattern.*key --pattern"):
        PATTERN.prepare(tmp_path / "gone", PrepareOptions())
    with pytest.raises(UsageError, match="`ravdess` does not read `--pattern`"):
        RAVDESS.prepare(tmp_path, PrepareOptions(pattern="{id}.wav"))
    with pytest.raises(UsageError, match="`pattern` does not read `--table`"):
        PATTERN.prepare(tmp_path, PrepareOptions(pattern="{id}.wav", table=tmp_path))


def test_alignments_are_taken_by_id(tmp_path: Path) -> None:
    write_all(tmp_path / "root", "s1_1.wav", "s1_2.wav")
    write_text(tmp_path / "grids" / "s1_2.TextGrid", long_textgrid([(0.0, 0.2, "sil"), (0.2, 0.5, "AA1")]))
    options = PrepareOptions(pattern="{speaker}_{take}.wav", alignments=tmp_path / "grids")
    draft = PATTERN.prepare(tmp_path / "root", options)
    assert [each.id for each in draft.utterances if each.phones] == ["s1_2"]


def test_fault_24_one_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    write_all(tmp_path / "root", "a/s1_1.wav", "b/s1_1.wav")
    draft = PATTERN.prepare(tmp_path / "root", PrepareOptions(pattern="{speaker}_{take}.wav"))
    with pytest.raises(DataError, match=r"id `s1_1` occurs twice: for .*a/s1_1\.wav and for .*b/s1_1\.wav"):
        manifest.write(draft, tmp_path / "out")


def test_fault_18_stereo_is_refused_with_its_id(tmp_path: Path) -> None:
    (tmp_path / "Actor_01").mkdir()
    soundfile.write(tmp_path / "Actor_01" / "03-01-06-01-02-01-01.wav", np.zeros((800, 2)), 16_000)
    with pytest.raises(DataError, match=r"has 2 channels.*utterance 03-01-06-01-02-01-01"):
        manifest.write(RAVDESS.prepare(tmp_path, PrepareOptions()), tmp_path / "out")


def test_ravdess_is_named_by_codes(tmp_path: Path) -> None:
    write_all(tmp_path, "Actor_12/03-01-06-01-02-01-12.wav", "Actor_01/03-02-03-02-01-02-01.wav")
    draft = RAVDESS.prepare(tmp_path, PrepareOptions())
    song, speech = draft.utterances
    assert (draft.name, draft.licence) == ("ravdess", "CC BY-NC-SA 4.0")
    assert (speech.id, speech.speaker, speech.text) == ("03-01-06-01-02-01-12", "12", "Dogs are sitting by the door")
    assert (speech.group, speech.split) == (None, None)
    assert speech.attributes == {
        "modality": "audio",
        "channel": "speech",
        "emotion": "fearful",
        "intensity": "normal",
        "statement": "02",
        "repetition": "01",
        "gender": "F",
    }
    assert (song.attributes["channel"], song.attributes["emotion"], song.attributes["gender"]) == ("song", "happy", "M")


def test_emodb_is_named_by_codes(tmp_path: Path) -> None:
    write_all(tmp_path, "wav/03a01Fa.wav", "wav/16b10Wb.wav")
    draft = EMODB.prepare(tmp_path, PrepareOptions())
    first, second = draft.utterances
    assert (first.id, first.speaker, first.text) == ("03a01Fa", "03", "Der Lappen liegt auf dem Eisschrank.")
    assert first.attributes == {"sentence": "a01", "emotion": "happiness", "version": "a", "gender": "M"}
    assert second.attributes == {"sentence": "b10", "emotion": "anger", "version": "b", "gender": "F"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("03-01-09-01-02-01-12", r"`emotion` is `09`, which is no code of ravdess \(there are 01, 02, .*08\)"),
        ("03-01-06-01-02-01-25", "`speaker` is `25`, which is no code of ravdess"),
        ("03-01-06-01-03-01-12", "`statement` is `03`, which is no code of ravdess"),
        ("03-01-06-01-02-12", "1 of 1 files do not match the pattern"),
    ],
)
def test_another_code_is_refused_with_those_there_are(tmp_path: Path, name: str, fault: str) -> None:
    write_all(tmp_path, f"{name}.wav")
    with pytest.raises(DataError, match=rf"{fault}.*{name}\.wav"):
        RAVDESS.prepare(tmp_path, PrepareOptions())


@pytest.mark.parametrize("name", ["03a03Fa", "03a01Xa", "04a01Fa"])
def test_another_code_of_emodb_is_refused(tmp_path: Path, name: str) -> None:
    write_all(tmp_path, f"{name}.wav")
    with pytest.raises(DataError, match=rf"which is no code of emodb.*{name}\.wav"):
        EMODB.prepare(tmp_path, PrepareOptions())


def test_ravdess_is_prepared_checked_and_scored_on_sentiment(tmp_path: Path) -> None:
    codes = [f"03-01-{emotion}-01-01-01-{actor:02d}" for actor in range(1, 7) for emotion in ("03", "04", "05", "01")]
    write_all(tmp_path / "root", *(f"Actor_{code[-2:]}/{code}.wav" for code in codes))
    corpus = prepared(RAVDESS, tmp_path / "root", tmp_path / "manifest")
    assert len(corpus.utterances) == 24
    record = scored(tmp_path / "manifest", "sentiment")
    assert record.corpus.split_policy == "seeded by speaker (seed 0)"
    assert record.n_scored == record.n_listed == 3


def test_emodb_is_prepared_checked_and_scored_on_sentiment(tmp_path: Path) -> None:
    codes = [f"{speaker}a01{emotion}a" for speaker in ("03", "08", "09", "10", "11") for emotion in "WFTL"]
    write_all(tmp_path / "root", *(f"wav/{code}.wav" for code in codes))
    prepared(EMODB, tmp_path / "root", tmp_path / "manifest")
    with pytest.raises(DataError, match="`boredom` of the attribute `emotion` is neither"):
        scored(tmp_path / "manifest", "sentiment")
    record = scored(tmp_path / "manifest", "sentiment", unasked=["neutral", "boredom"])
    assert record.n_scored == record.n_listed == 3


def test_any_pattern_is_prepared_checked_and_scored_on_speakers(tmp_path: Path) -> None:
    write_all(tmp_path / "root", *(f"s{speaker}/{take}.wav" for speaker in range(3) for take in range(6)))
    prepared(PATTERN, tmp_path / "root", tmp_path / "manifest", PrepareOptions(pattern="{speaker}/{take}.wav"))
    record = scored(tmp_path / "manifest", "speaker")
    assert record.n_scored == record.n_listed > 0


def test_the_order_of_the_folders_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path / "root", "wav/03a01Fa.wav", "wav/16b10Wb.wav", "wav/08a02Na.wav")
    first = manifest.write(EMODB.prepare(tmp_path / "root", PrepareOptions()), tmp_path / "a").fingerprint
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(rglob(self, pattern))))
    assert manifest.write(EMODB.prepare(tmp_path / "root", PrepareOptions()), tmp_path / "b").fingerprint == first
