"""The layout `kaldi`, on small data folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.audio.sound import measure
from repbench.corpora import manifest
from repbench.corpora.contract import CorpusLayout, Draft, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.kaldi import KALDI
from repbench.corpora.manifest.prepare import prepare as layout_prepare
from repbench.errors import DataError, UsageError
from tests.corpora.scored import prepared, scored
from tests.corpora.sounds import long_textgrid, write_noise, write_text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two recordings of two seconds, each cut into four utterances of one speaker."""
    root = tmp_path / "train"
    for seed, name in enumerate(("rec1", "rec2")):
        write_noise(root / "wav" / f"{name}.wav", seed=seed, seconds=2.0)
    write_text(root / "wav.scp", "rec1 wav/rec1.wav", "rec2  wav/rec2.wav")
    ids = [(speaker, take) for speaker in (1, 2) for take in range(4)]
    write_text(root / "segments", *(f"s{s}-{t} rec{s} {t / 2:.2f} {t / 2 + 0.5:.2f}" for s, t in ids))
    write_text(root / "utt2spk", *(f"s{s}-{t} s{s}" for s, t in ids))
    write_text(root / "text", *(f"s{s}-{t} take {t} of {s}" for s, t in ids))
    return root


def prepare(root: Path) -> Draft:
    return KALDI.prepare(root, PrepareOptions())


def replace_line(path: Path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    write_text(path, *lines)


def test_it_is_a_layout() -> None:
    assert isinstance(KALDI, CorpusLayout)


def test_segments_are_the_utterances(root: Path) -> None:
    draft = prepare(root)
    found = {each.id: each for each in draft.utterances}
    assert (draft.name, draft.licence, draft.notes, len(found)) == ("train", "unknown", (), 8)
    assert found["s2-1"] == DraftUtterance(
        id="s2-1",
        audio=root / "wav" / "rec2.wav",
        start=0.5,
        end=1.0,
        speaker="s2",
        text="take 1 of 2",
        group="rec2",
    )


def write_call(root: Path) -> Path:
    """A telephone call of two channels, whose sides are two recordings of one file."""
    call = root / "wav" / "call.wav"
    soundfile.write(call, np.random.default_rng(5).uniform(-0.5, 0.5, (32_000, 2)), 16_000)
    write_text(root / "wav.scp", "call-A wav/call.wav", "call-B wav/call.wav")
    write_text(root / "segments", "u1 call-A 0.0 1.0", "u2 call-B 0.5 1.5")
    write_text(root / "utt2spk", "u1 s1", "u2 s2")
    (root / "text").unlink()
    return call


@pytest.mark.parametrize("sides", ["AB", "ab", "12"])
def test_the_sides_of_a_call_are_channels_of_its_file(root: Path, tmp_path: Path, sides: str) -> None:
    call = write_call(root)
    write_text(root / "reco2file_and_channel", f"call-A call {sides[0]}", f"call-B call {sides[1]}")
    corpus = manifest.write(prepare(root), tmp_path / "out")
    assert [(each.id, each.channel, each.group) for each in corpus.utterances] == [
        ("u1", 1, "call-A"),
        ("u2", 2, "call-B"),
    ]
    assert corpus.utterances[1].samples_sha256 == measure(call, start=0.5, end=1.5, channel=2).samples_sha256


def test_a_side_in_a_file_of_its_own_is_read_as_it_is(root: Path) -> None:
    write_text(root / "reco2file_and_channel", "rec1 call A", "rec2 call B")
    assert {each.channel for each in prepare(root).utterances} == {None}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("call-A call C", r"`RECORDING FILE CHANNEL`.*but is `call-A call C`"),
        ("call-A A", "`RECORDING FILE CHANNEL`"),
        ("call-A call 0", "`RECORDING FILE CHANNEL`"),
        ("call-X call A", "`call-X` is not in wav.scp"),
    ],
)
def test_a_broken_line_of_channels_is_refused(root: Path, line: str, what: str) -> None:
    write_call(root)
    write_text(root / "reco2file_and_channel", "call-B call B", line)
    with pytest.raises(DataError, match=rf"{what}.*reco2file_and_channel:2"):
        prepare(root)


def test_an_end_of_minus_one_is_the_end_of_the_recording(root: Path) -> None:
    replace_line(root / "segments", 4, "s1-3 rec1 1.50 -1")
    found = {each.id: each for each in prepare(root).utterances}
    assert (found["s1-3"].start, found["s1-3"].end) == (1.5, None)


def test_without_segments_each_recording_is_an_utterance(root: Path) -> None:
    for name in ("segments", "text"):
        (root / name).unlink()
    write_text(root / "utt2spk", "rec2 s2", "rec1 s1")
    assert list(prepare(root).utterances) == [
        DraftUtterance(id=f"rec{number}", audio=root / "wav" / f"rec{number}.wav", speaker=f"s{number}")
        for number in (1, 2)
    ]


def test_other_files_become_attributes_of_one_type_each(root: Path) -> None:
    write_text(root / "spk2gender", "s2 m", "s1 f")
    write_text(root / "utt2lang", "s1-0 en", "s2-0 de")
    write_text(root / "utt2valence", *(f"s{s}-{t} {t - 1.5}" for s in (1, 2) for t in range(4)))
    write_text(root / "utt2dur", "s1-0 0.5")
    write_text(root / "reco2dur", "nobody 7")
    write_text(root / "spk2utt", "s1 s1-0")
    found = {each.id: each.attributes for each in prepare(root).utterances}
    assert found["s1-0"] == {"gender": "F", "lang": "en", "valence": -1.5}
    assert found["s2-3"] == {"gender": "M", "valence": 1.5}


def test_files_of_speakers_become_attributes_of_their_utterances(root: Path) -> None:
    write_text(root / "spk2age", "s2 9", "s1 31")
    write_text(root / "spk2l1", "s2 zh")
    write_text(root / "utt2l1", "s2-1 yue")
    found = {each.id: each.attributes for each in prepare(root).utterances}
    assert found["s1-0"] == {"age": 31}
    assert found["s2-0"] == {"age": 9, "l1": "zh"}
    assert found["s2-1"] == {"age": 9, "l1": "yue"}
    write_text(root / "spk2age", "s2 9", "s3 31")
    with pytest.raises(DataError, match=r"`s3` is no speaker of utt2spk.*spk2age:2"):
        prepare(root)


def test_what_is_missing_is_counted(root: Path) -> None:
    write_noise(root / "wav" / "rec3.wav", seed=9)
    write_text(root / "wav.scp", *(f"rec{number} wav/rec{number}.wav" for number in (3, 1, 2)))
    write_text(root / "text", "s1-0 hello", "s1-1")
    draft = prepare(root)
    assert draft.notes == ("1 of 3 recordings have no segment", "6 of 8 utterances have no text")
    assert {each.id: each.text for each in draft.utterances if each.text is not None} == {"s1-0": "hello", "s1-1": ""}


def test_the_order_of_the_lines_does_not_matter(root: Path, tmp_path: Path) -> None:
    first = manifest.write(prepare(root), tmp_path / "a").fingerprint
    for name in ("wav.scp", "segments", "utt2spk", "text"):
        write_text(root / name, *reversed((root / name).read_text().splitlines()))
    assert manifest.write(prepare(root), tmp_path / "b").fingerprint == first


def test_absolute_paths_under_the_root_are_read(root: Path) -> None:
    replace_line(root / "wav.scp", 1, f"rec1 {root}/wav/rec1.wav")
    assert {each.audio for each in prepare(root).utterances} == {root / "wav" / f"rec{n}.wav" for n in (1, 2)}


def test_the_data_folder_may_lie_elsewhere(root: Path, tmp_path: Path) -> None:
    (root / "wav").rename(tmp_path / "sounds")
    write_text(root / "wav.scp", f"rec1 {tmp_path}/sounds/rec1.wav", f"rec2 {tmp_path}/sounds/rec2.wav")
    with pytest.raises(DataError, match=rf"is not under the root.*wav\.scp:1.*--root {tmp_path}/sounds --table {root}"):
        prepare(root)
    draft = KALDI.prepare(tmp_path / "sounds", PrepareOptions(table=root))
    assert (draft.name, draft.root) == ("train", tmp_path / "sounds")
    assert len(manifest.write(draft, tmp_path / "out").utterances) == 8
    write_text(root / "wav.scp", "rec1 rec1.wav", "rec2 rec2.wav")
    assert len(list(KALDI.prepare(tmp_path / "sounds", PrepareOptions(table=root)).utterances)) == 8


@pytest.mark.parametrize(
    "value",
    ["sph2pipe -f wav -p a.sph |", "touch CANARY; cat wav/rec1.wav |", "cat a.wav|", "| cat", "-"],
)
def test_a_command_is_refused_and_never_run(root: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    replace_line(root / "wav.scp", 2, f"rec2 {value}")
    with pytest.raises(DataError, match=r"output of a command, which is never run.*wav\.scp:2.*Write the sounds first"):
        prepare(root)
    assert not (root / "CANARY").exists()


def test_an_archive_is_refused(root: Path) -> None:
    replace_line(root / "wav.scp", 2, "rec2 data/raw_wav.1.ark:12345")
    with pytest.raises(DataError, match=r"is in an archive.*wav\.scp:2.*wav-copy"):
        prepare(root)


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("../outside.wav", r"has a part `\.\.`"),
        ("wav/../../outside.wav", r"has a part `\.\.`"),
        ("ROOT/../outside.wav", "is not under the root"),
        ("/etc/passwd", "is not under the root"),
        ("file:///etc/passwd", "is a URL"),
        ("link.wav", "leads out of the root"),
        ("ROOT/link.wav", "leads out of the root .* by a link, to .*outside"),
    ],
)
def test_a_path_out_of_the_root_is_refused(root: Path, tmp_path: Path, place: str, fault: str) -> None:
    (root / "link.wav").symlink_to(write_noise(tmp_path / "outside.wav", seed=9))
    replace_line(root / "wav.scp", 2, f"rec2 {place.replace('ROOT', os.fspath(root))}")
    with pytest.raises(DataError, match=rf"{fault}.*wav\.scp:2, utterance rec2"):
        prepare(root)


@pytest.mark.parametrize(
    ("name", "number", "line", "fault"),
    [
        ("wav.scp", 2, "rec1 wav/rec2.wav", r"`rec1` occurs twice, first in .*wav\.scp:1 \(file .*wav\.scp:2"),
        ("wav.scp", 2, "rec2", r"`rec2` has no value \(file .*wav\.scp:2"),
        ("segments", 2, "s1-0 rec1 0 1", r"`s1-0` occurs twice.*segments:2"),
        ("segments", 2, "s1-1 rec9 0 1", r"recording `rec9` is not in wav\.scp.*segments:2, utterance s1-1"),
        ("segments", 2, "s1-1 rec1 0", r"UTTERANCE RECORDING START END.*segments:2, utterance s1-1"),
        ("segments", 2, "s1-1 rec1 a 1", r"a number of seconds from 0, but is `a`.*segments:2, utterance s1-1"),
        ("segments", 2, "s1-1 rec1 -0.5 1", r"a number of seconds from 0, but is `-0\.5`.*segments:2"),
        ("segments", 2, "s1-1 rec1 0 nan", r"a number of seconds from 0, but is `nan`.*segments:2"),
        ("utt2spk", 3, "s1-0 s1", r"`s1-0` occurs twice.*utt2spk:3"),
        ("utt2spk", 3, "who s1", r"`who` is no utterance of wav\.scp or segments.*utt2spk:3"),
        ("utt2spk", 3, "", r"1 of 8 utterances have no line, the first is `s1-2`.*utt2spk"),
        ("text", 3, "who hello", r"`who` is no utterance.*text:3"),
        ("text", 3, "s1-0 hello", r"`s1-0` occurs twice.*text:3"),
    ],
)
def test_a_broken_line_is_refused_by_its_number(root: Path, name: str, number: int, line: str, fault: str) -> None:
    replace_line(root / name, number, line)
    with pytest.raises(DataError, match=fault):
        prepare(root)


@pytest.mark.parametrize("line", ["s1 x", "who f", "s1 female"])
def test_a_broken_gender_is_refused(root: Path, line: str) -> None:
    write_text(root / "spk2gender", "s2 m", line)
    with pytest.raises(DataError, match=r"speaker of utt2spk and `f` or `m`.*spk2gender:2"):
        prepare(root)


@pytest.mark.parametrize("name", ["segments", "utt2spk", "text", "utt2lang"])
def test_an_empty_file_is_refused(root: Path, name: str) -> None:
    write_text(root / name)
    with pytest.raises(DataError, match=rf"file has no line.*{name}"):
        prepare(root)


def test_missing_files_are_named(root: Path, tmp_path: Path) -> None:
    (root / "utt2spk").unlink()
    with pytest.raises(DataError, match=r"missing.*utt2spk"):
        prepare(root)
    (root / "wav.scp").unlink()
    with pytest.raises(DataError, match=r"not a data folder of Kaldi; looked for wav\.scp and utt2spk"):
        prepare(root)
    with pytest.raises(DataError, match="root folder does not exist"):
        prepare(tmp_path / "gone")


def test_options_of_other_layouts_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="`kaldi` does not read `--column`"):
        KALDI.prepare(root, PrepareOptions(columns={"path": "x"}))


def test_a_segment_past_its_recording_is_refused(root: Path, tmp_path: Path) -> None:
    replace_line(root / "segments", 4, "s1-3 rec1 1.50 2.60")
    with pytest.raises(DataError, match=r"does not lie in the file, which lasts 2 s.*rec1\.wav, utterance s1-3"):
        manifest.write(prepare(root), tmp_path / "out")


def test_fault_18_stereo_and_a_missing_sound_are_refused(root: Path, tmp_path: Path) -> None:
    soundfile.write(root / "wav" / "rec1.wav", np.zeros((32_000, 2)), 16_000)
    with pytest.raises(DataError, match=r"has 2 channels.*rec1\.wav, utterance s1-0"):
        manifest.write(prepare(root), tmp_path / "out")
    (root / "wav" / "rec1.wav").unlink()
    with pytest.raises(DataError, match=r"missing.*rec1\.wav, utterance s1-0"):
        manifest.write(prepare(root), tmp_path / "out")


def test_alignments_are_taken_by_id(root: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "grids" / "s1-2.TextGrid", long_textgrid([(0.0, 0.2, "sil"), (0.2, 0.5, "AA1")]))
    draft = KALDI.prepare(root, PrepareOptions(alignments=tmp_path / "grids"))
    assert [each.id for each in draft.utterances if each.phones] == ["s1-2"]


def test_it_is_prepared_checked_and_scored_on_speakers(root: Path, tmp_path: Path) -> None:
    corpus = prepared(KALDI, root, tmp_path / "manifest")
    assert corpus.label_sets["speakers"] == ("s1", "s2")
    assert {each.num_samples for each in corpus.utterances} == {8_000}
    record = scored(tmp_path / "manifest", "speaker")
    assert record.n_scored == record.n_listed > 0


def test_every_line_that_gives_no_utterance_is_a_fault_of_its_own(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_noise(tmp_path / f"{name}.wav", seed=seed, seconds=1.0)
    write_text(tmp_path / "wav.scp", "a a.wav", "b b.wav", "c sph2pipe c.sph |", "d /elsewhere/d.wav")
    write_text(tmp_path / "segments", "a1 a 0 0.5", "a2 a x 1", "b1 b 0 -1", "c1 c 0 1", "c2 c 1 2", "d1 d 0 1")
    write_text(tmp_path / "utt2spk", *(f"{name} s" for name in ("a1", "a2", "b1", "c1", "c2", "d1")))
    draft = layout_prepare(KALDI, tmp_path, PrepareOptions())
    with pytest.raises(DataError, match=r"4 of 6 utterances of .* They are a2, c1, c2, d1") as found:
        manifest.write(draft, tmp_path / "out")
    assert "2 × The sound is the output of a command" in str(found.value)
    assert [each.id for each in manifest.write(draft, tmp_path / "out", drop_faulty=4).utterances] == ["a1", "b1"]
