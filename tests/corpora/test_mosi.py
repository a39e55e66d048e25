"""The layouts `mosi` and `mosei`, on labels that mmsdk wrote, on those that CMU published, and on sounds of noise."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, run
from repbench.corpora import manifest
from repbench.corpora.audit.check import check
from repbench.corpora.contract import Corpus, CorpusLayout, DraftUtterance, PrepareOptions
from repbench.corpora.layouts.csd import read_csd
from repbench.corpora.layouts.mosi import EMOTIONS, MOSEI, MOSI, mockingjay_filter, split_by_video
from repbench.errors import DataError, EnvironmentFault, UsageError
from tests.commands import repbench
from tests.corpora.computational_sequences import PUBLISHED, Rows, pack, write_csd
from tests.corpora.sounds import long_textgrid, write_noise

pytest.importorskip("h5py", reason="needs the extra `mosi`")
pytest.importorskip("mmsdk", reason="needs the extra `mosi`")

TRAIN, DEV, TEST = "2iD-tVS8NPw", "WKA5OygbEKI", "tmZoasNr4rU"
"""A video of each of mmsdk's standard folds of CMU-MOSI."""

MOSEI_TRAIN, MOSEI_DEV, MOSEI_TEST = "hh04W3xXa5s", "188343", "7l3BNtSE0xc"
"""A video of each of CMU-MOSEI's."""

TWO: Rows = [(0.0, 1.0, [1.4]), (1.0, 2.5, [-0.6])]
GOLDEN_TEST_OF_20 = ["v12", "v19"]

CALM = [0.0] * len(EMOTIONS)


def corpus_folder(root: Path, videos: Mapping[str, Rows], *, seconds: float = 3.0) -> Path:
    """A root with labels and a whole sound for each video."""
    for seed, video in enumerate(videos):
        write_noise(root / "wav" / f"{video}.wav", seed=seed, seconds=seconds)
    write_csd(root / "labels.csd", videos)
    return root


def found(layout: CorpusLayout, root: Path, **options: str) -> dict[str, DraftUtterance]:
    return {each.id: each for each in layout.prepare(root, PrepareOptions(variant=options.get("variant"))).utterances}


def test_they_are_layouts() -> None:
    assert isinstance(MOSI, CorpusLayout)
    assert isinstance(MOSEI, CorpusLayout)


def test_intervals_become_utterances_of_their_video(tmp_path: Path) -> None:
    root = corpus_folder(tmp_path, {TRAIN: TWO, DEV: TWO, TEST: TWO, "unheard": TWO})
    draft = MOSI.prepare(root, PrepareOptions())
    utterances = {each.id: each for each in draft.utterances}
    assert draft.name == "mosi"
    assert utterances[f"{TRAIN}[1]"] == DraftUtterance(
        id=f"{TRAIN}[1]",
        audio=root / "wav" / f"{TRAIN}.wav",
        start=1.0,
        end=2.5,
        speaker=TRAIN,
        group=TRAIN,
        split="train",
        attributes={
            "sentiment": -0.6,
            "sentiment2": "negative",
            "sentiment3": "negative",
            "sentiment7": "-1",
            "sentiment7_rounded": "-1",
        },
    )
    assert utterances[f"{TRAIN}[0]"].attributes["sentiment"] == 1.4
    assert {each.group: each.split for each in utterances.values()} == {
        TRAIN: "train", DEV: "dev", TEST: "test", "unheard": None,
    }  # fmt: skip
    assert "Splits are mmsdk's standard folds; 2 opinions of 1 videos stand in none" in draft.notes
    assert any("one speaker" in note for note in draft.notes)


def test_mosei_has_emotions(tmp_path: Path) -> None:
    rows: Rows = [(0.0, 1.0, [0.0, 0.5, 0.0, 0.0, 0.0, 1.5, 0.0]), (1.0, 2.0, [1.0, *CALM])]
    root = corpus_folder(tmp_path, {MOSEI_TRAIN: rows, MOSEI_DEV: rows, MOSEI_TEST: rows})
    utterances = found(MOSEI, root)
    first = utterances[f"{MOSEI_TRAIN}[0]"].attributes
    assert {name: first[name] for name in EMOTIONS} == {
        "happy": 0.5, "sad": 0.0, "anger": 0.0, "surprise": 0.0, "disgust": 1.5, "fear": 0.0,
    }  # fmt: skip
    assert first["emotion"] == "disgust"
    assert "emotion" not in utterances[f"{MOSEI_TRAIN}[1]"].attributes
    assert {each.group: each.split for each in utterances.values()} == {
        MOSEI_TRAIN: "train", MOSEI_DEV: "dev", MOSEI_TEST: "test",
    }  # fmt: skip
    assert "3 of 6 opinions have a sentiment of exactly 0" in " ".join(MOSEI.prepare(root, PrepareOptions()).notes)


def test_mosei_may_have_the_sentiment_alone(tmp_path: Path) -> None:
    root = corpus_folder(tmp_path, {MOSEI_TRAIN: TWO})
    assert "happy" not in found(MOSEI, root)[f"{MOSEI_TRAIN}[0]"].attributes


@pytest.mark.parametrize("name", ["{video}[{number}]", "{video}_{one_up}"])
def test_segments_may_lie_beside(tmp_path: Path, name: str) -> None:
    write_csd(tmp_path / "labels.csd", {TRAIN: TWO})
    for number, seconds in enumerate((1.0, 1.5)):
        stem = name.format(video=TRAIN, number=number, one_up=number + 1)
        write_noise(tmp_path / f"{stem}.wav", seed=number, seconds=seconds)
    utterances = found(MOSI, tmp_path)
    second = utterances[f"{TRAIN}[1]"]
    assert second.audio.stem == name.format(video=TRAIN, number=1, one_up=2)
    assert (second.start, second.end) == (None, None)


def test_segments_numbered_otherwise_are_found_out_by_their_length(tmp_path: Path) -> None:
    write_csd(tmp_path / "labels.csd", {TRAIN: TWO})
    for number, seconds in ((1, 1.5), (2, 1.0)):
        write_noise(tmp_path / f"{TRAIN}_{number}.wav", seed=number, seconds=seconds)
    with pytest.raises(DataError, match=r"_1\.wav lasts 1\.5 s, but its interval 1 s.*numbered otherwise"):
        found(MOSI, tmp_path)


def test_an_end_within_a_frame_behind_the_sound_is_the_end_of_the_sound(tmp_path: Path) -> None:
    rows: Rows = [(0.0, 1.0, [1.0]), (1.0, 3.009, [1.0])]
    assert found(MOSI, corpus_folder(tmp_path, {TRAIN: rows}))[f"{TRAIN}[1]"].end is None


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([(0.0, 3.02, [1.0])], r"ends at 3\.02 s, but the sound of `2iD-tVS8NPw` lasts 3 s"),
        ([(2.0, 1.0, [1.0])], "interval from `2` to `1` s is reversed or negative"),
        ([(1.0, 1.0, [1.0])], "1 of 1 labelled segments.*its interval, at 1 s, has length 0"),
        ([(-1.0, 1.0, [1.0])], "interval from `-1` to `1` s is reversed or negative"),
        ([(0.0, 1.0, [3.2])], r"Sentiment must be in \[-3, 3\] and emotions in \[0, 3\], but they are `3\.2`"),
        ([(0.0, 1.0, [float("nan")])], "NaN or infinite"),
        ([(0.0, float("inf"), [1.0])], "NaN or infinite"),
        ([(0.0, 1.0, [1.0, 0.0])], "must have 1 columns, but has 2"),
    ],
)
def test_labels_that_cannot_be_are_refused(tmp_path: Path, rows: Rows, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        found(MOSI, corpus_folder(tmp_path, {TRAIN: rows}))
    assert caught.value.file is not None
    assert TRAIN in f"{caught.value.utterance} {caught.value.key}"


def test_as_published_labels_are_packed_and_some_segments_are_left_out_by_name(tmp_path: Path) -> None:
    """CMU's own file: packed by gzip, one interval of length 0, pairs of equal intervals with labels of their own."""
    rows: Rows = [(0.0, 1.0, [1.4]), (1.0, 1.0, [0.2]), (1.0, 2.5, [-1.0]), (1.0, 2.5, [-0.6]), (2.5, 3.0, [0.0])]
    root = corpus_folder(tmp_path, {TRAIN: rows, TEST: TWO})
    pack(root / "labels.csd", **PUBLISHED)
    draft = MOSI.prepare(root, PrepareOptions())
    kept = [each.id for each in draft.utterances if each.group == TRAIN]
    assert kept == [f"{TRAIN}[0]", f"{TRAIN}[2]", f"{TRAIN}[4]"]
    assert draft.left_out == {
        f"{TRAIN}[1]": "its interval, at 1 s, has length 0",
        f"{TRAIN}[3]": f"{TRAIN}[2] has the same interval, labelled -1 there and -0.6 here",
    }
    assert f"2 of 7 labelled segments are left out by their labels: {TRAIN}[1], {TRAIN}[3]" in draft.notes


def test_of_equal_intervals_the_first_that_can_be_used_is_kept(tmp_path: Path) -> None:
    rows: Rows = [(0.0, 1.0, [1.4]), (1.0, 2.0, [5.0]), (1.0, 2.0, [-0.6]), (1.0, 2.0, [-0.6])]
    root = corpus_folder(tmp_path, {TRAIN: rows})
    draft = MOSI.prepare(root, PrepareOptions(gather_faults=True))
    assert [each.id for each in draft.utterances] == [f"{TRAIN}[0]", f"{TRAIN}[2]"]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((2.0, 1.0, [1.0]), r"from `2` to `1` s is reversed or negative"),
        ((-0.02, 1.0, [1.0]), r"from `-0\.02` to `1` s is reversed or negative"),
        ((0.0, 0.5, [3.2]), r"Sentiment must be in \[-3, 3\]"),
        ((2.0, 3.02, [1.0]), r"ends at 3\.02 s, but the sound of `2iD-tVS8NPw` lasts 3 s"),
        ((3.0, 3.005, [1.0]), r"ends at 3\.005 s"),
    ],
)
def test_a_segment_that_cannot_be_used_is_a_fault_that_may_be_dropped(
    tmp_path: Path, row: tuple[float, float, list[float]], fault: str
) -> None:
    root = corpus_folder(tmp_path / "root", {TRAIN: [*TWO, row]})
    place = ("corpus", "prepare", "mosi", "--root", root, "--out", tmp_path / "out", "--json")
    refused = repbench(*place)
    assert refused.code == 3
    assert re.search(fault, refused.json["what"])
    assert (refused.json["utterance"], repbench(*place, "--drop-faulty", "1").code) == (f"{TRAIN}[2]", 0)
    dropped = manifest.read(tmp_path / "out").dropped
    assert list(dropped) == [f"{TRAIN}[2]"]
    assert re.search(fault, dropped[f"{TRAIN}[2]"])


def test_videos_without_sound_are_faults_named_one_by_one(tmp_path: Path) -> None:
    root = corpus_folder(tmp_path / "root", {TRAIN: TWO, DEV: TWO, TEST: TWO})
    for video in (DEV, TEST):
        (root / "wav" / f"{video}.wav").unlink()
    place = ("corpus", "prepare", "mosi", "--root", root, "--out", tmp_path / "out", "--json")
    refused = repbench(*place)
    assert (refused.code, len(refused.json["faults"])) == (3, 4)
    assert "4 of 6 utterances of mosi are faulty: 4 × The segment has no sound" in refused.json["what"]
    assert f"as {DEV}.wav, {DEV}[0].wav or {DEV}_1.wav" in refused.json["faults"][0]["do"]
    assert "--drop-faulty 4" in refused.json["do"]
    assert repbench(*place, "--drop-faulty", "3").code == 3
    assert repbench(*place, "--drop-faulty", "4").code == 0
    assert sorted(manifest.read(tmp_path / "out").dropped) == sorted(
        f"{video}[{number}]" for video in (DEV, TEST) for number in range(2)
    )


def test_most_segments_of_length_0_are_refused(tmp_path: Path) -> None:
    rows: Rows = [(0.0, 1.0, [1.0]), (1.0, 1.0, [1.0]), (2.0, 2.0, [1.0])]
    with pytest.raises(DataError, match=rf"2 of 3 labelled segments cannot be used, such as {TRAIN}\[1\]: its int"):
        found(MOSI, corpus_folder(tmp_path, {TRAIN: rows}))


def test_the_half_second_around_the_segments_of_mosei_is_cut_off_at_the_sound(tmp_path: Path) -> None:
    rows: Rows = [(-0.4876, 1.5, [1.0]), (1.0, 3.4, [1.0]), (0.5, 3.6, [1.0])]
    draft = MOSEI.prepare(corpus_folder(tmp_path, {MOSEI_TRAIN: rows}), PrepareOptions(gather_faults=True))
    assert [(each.start, each.end) for each in draft.utterances] == [(0.0, 1.5), (1.0, None)]
    assert "1 intervals start before their sound and 1 end behind it, and are cut off there" in draft.notes
    assert [fault.utterance for fault in draft.faults] == [f"{MOSEI_TRAIN}[2]"]


def test_the_segments_of_mosei_may_lack_the_half_second(tmp_path: Path) -> None:
    write_csd(tmp_path / "labels.csd", {MOSEI_TRAIN: [(-0.4876, 1.5, [1.0]), (1.0, 3.4, [1.0])]})
    for number, seconds in ((1, 1.5), (2, 1.9)):
        write_noise(tmp_path / f"{MOSEI_TRAIN}_{number}.wav", seed=number, seconds=seconds)
    assert len(found(MOSEI, tmp_path)) == 2


@pytest.mark.parametrize(
    ("array", "match"),
    [
        ({"features": np.array([[b"good"], [b"bad"]])}, "is no table of numbers"),
        ({"features": np.zeros((2, 1, 1))}, "is no table of numbers"),
        ({"intervals": np.zeros((2, 3))}, r"must be \(N, 2\) and \(N, C\)"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, array: dict[str, object], match: str) -> None:
    write_noise(tmp_path / f"{TRAIN}.wav", seed=0)
    write_csd(tmp_path / "labels.csd", {TRAIN: TWO}, **{TRAIN: array})
    with pytest.raises(DataError, match=match):
        found(MOSI, tmp_path)


def test_hdf5_that_is_no_computational_sequence_is_refused(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "labels.csd", "w") as file:
        file["numbers"] = np.zeros(4)
    with pytest.raises(DataError, match="mmsdk cannot read the computational sequence"):
        found(MOSI, tmp_path)


def test_aligned_labels_are_refused(tmp_path: Path) -> None:
    write_csd(tmp_path / "labels.csd", {f"{TRAIN}[0]": TWO})
    with pytest.raises(DataError, match="is an interval, not a video"):
        found(MOSI, tmp_path)


def test_whole_and_segment_of_one_video_are_refused(tmp_path: Path) -> None:
    root = corpus_folder(tmp_path, {TRAIN: TWO})
    write_noise(root / "wav" / f"{TRAIN}_1.wav", seed=9, seconds=1.0)
    with pytest.raises(DataError, match="Two files could be its sound"):
        found(MOSI, root)


def test_the_labels_must_be_one_file_or_named(tmp_path: Path) -> None:
    root = corpus_folder(tmp_path / "root", {TRAIN: TWO})
    elsewhere = write_csd(tmp_path / "other.csd", {TRAIN: TWO[:1]})
    draft = MOSI.prepare(root, PrepareOptions(table=elsewhere))
    assert len(list(draft.utterances)) == 1
    write_csd(root / "more.csd", {TRAIN: TWO})
    with pytest.raises(DataError, match=r"one \.csd file of labels, but there are: labels\.csd, more\.csd"):
        found(MOSI, root)
    with pytest.raises(DataError, match=r"ends in \.csd"):
        MOSI.prepare(root, PrepareOptions(table=tmp_path / "labels.h5"))


def test_phones_are_read_by_the_id_of_the_utterance(tmp_path: Path) -> None:
    root = corpus_folder(tmp_path / "root", {TRAIN: TWO})
    (tmp_path / "phones").mkdir()
    (tmp_path / "phones" / f"{TRAIN}[1].TextGrid").write_text(long_textgrid([(0.0, 0.5, "AA1"), (0.5, 1.5, "sil")]))
    utterances = {
        each.id: each for each in MOSI.prepare(root, PrepareOptions(alignments=tmp_path / "phones")).utterances
    }
    assert utterances[f"{TRAIN}[1]"].phones is not None
    assert utterances[f"{TRAIN}[0]"].phones is None


def test_what_is_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not read `--column`"):
        MOSI.prepare(tmp_path, PrepareOptions(columns={"path": "file"}))
    with pytest.raises(UsageError, match=r"no variant `mockingjay2020`.*Choose from standard"):
        MOSI.prepare(tmp_path, PrepareOptions(variant="mockingjay2020"))


def test_without_mmsdk_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = corpus_folder(tmp_path, {TRAIN: TWO})
    monkeypatch.setitem(sys.modules, "mmsdk", None)
    with pytest.raises(EnvironmentFault, match=r"mmsdk cannot be imported.*pip install 'repbench\[mosi\]'"):
        found(MOSI, root)


@pytest.fixture(scope="module")
def published(speech_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the label file of CMU-MOSI as CMU distributes it, and noise as long as each of its videos."""
    labels = speech_data / "mosi" / "CMU_MOSI_Opinion_Labels.csd"
    if not labels.is_file():
        pytest.skip(f"{speech_data} holds no mosi/{labels.name}")
    root = tmp_path_factory.mktemp("published")
    for seed, (video, intervals) in enumerate(read_csd(labels).items()):
        last = max(interval.end_s for interval in intervals)
        write_noise(root / "wav" / f"{video}.wav", seed=seed, seconds=last + 0.001, rate_hz=1000)
    shutil.copy(labels, root)
    return root


@pytest.mark.slow
def test_the_published_labels_of_mosi_are_read(published: Path, tmp_path: Path) -> None:
    ran = repbench("corpus", "prepare", "mosi", "--root", published, "--out", tmp_path / "out", "--json")
    assert (ran.code, ran.json["utterances"]) == (0, 2196)
    corpus = manifest.read(tmp_path / "out")
    assert Counter(each.split for each in corpus.utterances) == {"train": 1283, "dev": 228, "test": 685}
    assert len({each.group for each in corpus.utterances}) == 93
    signs = Counter(each.attributes["sentiment3"] for each in corpus.utterances)
    assert (signs["positive"], signs["negative"], signs["neutral"]) == (1079, 1021, 96)
    left_out = ("2WGyTLYerpo[43]", "bOL9jKpeJRs[24]", "d6hH302o4v8[33]")
    assert sorted(corpus.dropped) == sorted(left_out)
    assert any(note.endswith(f"left out by their labels: {', '.join(left_out)}") for note in corpus.notes)
    assert {each.id for each in corpus.utterances}.isdisjoint(left_out)


class TestMockingjay2020:
    @pytest.mark.parametrize(
        ("seconds", "sentiment", "kept"),
        [(1.0, 0.1, True), (20.0, -0.1, True), (0.999, 1.0, False), (20.001, 1.0, False), (5.0, 0.09, False)],
    )
    def test_the_filter_at_its_borders(self, seconds: float, sentiment: float, kept: bool) -> None:
        assert mockingjay_filter(seconds, sentiment) is kept

    def test_the_split_is_the_one_of_numpys_legacy_generator(self) -> None:
        """A golden of `np.random.seed(29); np.random.permutation(20)`, whose last two are the test split."""
        names = [f"v{number:02}" for number in range(20)]
        split = split_by_video(reversed(names))
        assert [name for name in names if split[name] == "test"] == GOLDEN_TEST_OF_20
        assert sorted(split) == names

    def test_the_share_is_rounded_down(self) -> None:
        assert list(split_by_video(["a", "b", "c", "d", "e"]).values()).count("train") == 4

    def test_the_variant_filters_and_splits(self, tmp_path: Path) -> None:
        kept, short, neutral = (0.0, 1.5, [1.0, *CALM]), (1.5, 2.0, [1.0, *CALM]), (2.0, 3.0, [0.05, *CALM])
        videos: dict[str, Rows] = {f"v{number:02}": [kept, short, neutral] for number in range(20)}
        draft = MOSEI.prepare(corpus_folder(tmp_path, videos), PrepareOptions(variant="mockingjay2020"))
        utterances = list(draft.utterances)
        assert draft.name == "mosei-mockingjay2020"
        assert sorted(each.id for each in utterances) == [f"v{number:02}[0]" for number in range(20)]
        assert {each.group for each in utterances if each.split == "test"} == set(GOLDEN_TEST_OF_20)
        assert {each.split for each in utterances} == {"train", "test"}
        assert any("40 of 60 opinions are left out" in note for note in draft.notes)

    def test_it_chooses_by_the_length_that_is_left_of_a_segment(self, tmp_path: Path) -> None:
        rows: Rows = [(-0.4, 0.9, [1.0]), (0.5, 3.0, [1.0])]
        draft = MOSEI.prepare(corpus_folder(tmp_path, {"v": rows, "w": rows}), PrepareOptions(variant="mockingjay2020"))
        assert [each.id for each in draft.utterances] == ["v[1]", "w[1]"]


class TestTheWay:
    """From the files to a record."""

    @pytest.fixture(scope="class")
    @staticmethod
    def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpus]:
        """Videos of the standard folds, eight of train, four of dev and test each."""
        from mmsdk.mmdatasdk.dataset.standard_datasets.CMU_MOSI import cmu_mosi_std_folds as folds

        names = [*folds.standard_train_fold[:8], *folds.standard_valid_fold[:4], *folds.standard_test_fold[:4]]
        folder = tmp_path_factory.mktemp("mosi")
        rows: Rows = [(0.0, 1.0, [1.4]), (1.0, 2.0, [-0.6]), (2.0, 3.0, [0.0])]
        odd: Rows = [(1.0, 2.0, [-1.0]), (3.0, 3.0, [1.0])]
        root = corpus_folder(folder / "root", {**dict.fromkeys(names, rows), names[0]: [*rows, *odd]})
        pack(root / "labels.csd", **PUBLISHED)
        ran = repbench("corpus", "prepare", "mosi", "--root", root, "--out", folder / "manifest", "--json")
        assert ran.code == 0, ran.err
        assert ran.json["utterances"] == 48
        return folder / "manifest", manifest.read(folder / "manifest")

    def test_the_scale_is_declared_and_a_manifest_of_before_still_read(
        self, prepared: tuple[Path, Corpus], tmp_path: Path
    ) -> None:
        folder, corpus = prepared
        header = json.loads((folder / "corpus.json").read_text())
        assert header.pop("scales") == {"sentiment": 0.0}
        before = tmp_path / "before"
        shutil.copytree(folder, before)
        (before / "corpus.json").write_text(json.dumps(header))
        assert {each.scales["sentiment"] for each in manifest.read(before).utterances} == {0.0}
        assert manifest.read(before).fingerprint == corpus.fingerprint

    def test_the_audit_finds_no_problem(self, prepared: tuple[Path, Corpus]) -> None:
        report = check(prepared[1])
        assert report.problems == ()
        assert report.splits == {"train": 24, "dev": 12, "test": 12}

    @pytest.mark.parametrize(
        ("task", "num_scored"),
        [({}, 8), ({"attribute": "sentiment2", "positive": ["non-negative"]}, 12), ({"attribute": "sentiment3"}, 8)],
    )
    def test_sentiment_is_asked_of_it(
        self, prepared: tuple[Path, Corpus], tmp_path: Path, task: dict[str, object], num_scored: int
    ) -> None:
        request = RunRequest(
            upstream="mel",
            downstream="sentiment",
            corpus=str(prepared[0]),
            protocol=Protocol(probe=ProbeSettings(steps=20), task=task),
            out=tmp_path,
        )
        (written,) = run(request)
        record = json.loads(written.path.read_text(encoding="utf-8"))
        assert record["corpus"]["split_policy"] == "official splits"
        assert record["n_scored"] == num_scored
        assert 0 <= record["metrics"]["accuracy"]["value"] <= 1


def test_the_command_line_knows_the_variant(tmp_path: Path) -> None:
    videos: dict[str, Rows] = {f"v{number:02}": [(0.0, 1.5, [1.0])] for number in range(10)}
    root = corpus_folder(tmp_path / "root", videos)
    place = ("--root", root, "--out", tmp_path / "out", "--json")
    ran = repbench("corpus", "prepare", "mosei", "--variant", "mockingjay2020", *place)
    assert (ran.code, ran.json["name"]) == (0, "mosei-mockingjay2020")
    refused = repbench("corpus", "prepare", "fsdd", "--variant", "mockingjay2020", *place)
    assert refused.code == 2
    assert "has no variants" in refused.out + refused.err
