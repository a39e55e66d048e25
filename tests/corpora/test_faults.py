"""All faults of a corpus at once, and going on without them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.benchmark.data.dataset import label_splits, splits_for_probe
from repbench.benchmark.data.splits import divide
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora import manifest
from repbench.corpora.contract import Draft, DraftFeatures, DraftUtterance, PrepareOptions
from repbench.corpora.faults import counts_by_kind, warnings_of
from repbench.corpora.layouts.csv_table import CSV
from repbench.corpora.layouts.pattern import PATTERN, RAVDESS
from repbench.corpora.layouts.timit import TIMIT
from repbench.corpora.manifest.prepare import prepare
from repbench.downstream.sentiment import Sentiment
from repbench.errors import DataError, IntegrityError, UsageError
from tests.commands import repbench
from tests.corpora.sounds import RATE_HZ, long_textgrid, noise_draft, write_noise, write_text


def ravdess(root: Path) -> Path:
    """RAVDESS as it is found: two actors, stereo files among mono, one take that stands twice."""
    for actor in ("01", "02"):
        for emotion in ("01", "03", "04", "05"):
            for take in ("01", "02"):
                name = f"03-01-{emotion}-01-01-{take}-{actor}.wav"
                write_noise(root / f"Actor_{actor}" / name, seed=int(actor + emotion + take), seconds=0.3)
    for emotion in ("01", "03", "04", "05", "05"):
        path = root / "Actor_01" / f"03-01-{emotion}-01-01-01-01.wav"
        samples = np.random.default_rng(int(emotion)).uniform(-0.5, 0.5, (800, 2))
        soundfile.write(path, samples, RATE_HZ, subtype="PCM_16")
    same = (root / "Actor_02" / "03-01-05-01-01-01-02.wav").read_bytes()
    (root / "Actor_02" / "03-01-05-01-01-02-02.wav").write_bytes(same)
    return root


def test_stereo_among_mono_and_an_equal_pair_in_one_run(tmp_path: Path) -> None:
    draft = prepare(RAVDESS, ravdess(tmp_path / "root"), PrepareOptions())
    with pytest.raises(
        DataError, match="4 of 16 utterances of ravdess are faulty: 4 × The sound has 2 channels"
    ) as found:
        manifest.write(draft, tmp_path / "out")
    assert str(found.value).endswith("`sox IN OUT remix 1`. Or go on without them: --drop-faulty 4.")
    assert not (tmp_path / "out").exists()
    stereo = [f"03-01-{emotion}-01-01-01-01" for emotion in ("01", "03", "04", "05")]
    assert [fault["utterance"] for fault in found.value.fields()["faults"]] == stereo
    corpus = manifest.write(draft, tmp_path / "out", drop_faulty=4)
    assert (len(corpus.utterances), sorted(corpus.dropped)) == (12, stereo)
    plan = label_splits(corpus, Sentiment(), SplitSettings(), excludes=lambda each: None)
    assert plan.warnings[0].startswith("4 of 16 utterances were left out when the corpus was prepared, such as 03-01")
    assert plan.warnings[1].startswith("1 of 12 utterances have the sound of another one, such as `03-01-05-01-01")
    scoring = splits_for_probe(corpus, Sentiment(), ("negative", "positive"), "a run", excludes=lambda each: None)
    assert scoring.warnings == plan.warnings[:2]


def test_the_command_names_the_first_faults_and_json_all(tmp_path: Path) -> None:
    for number in range(12):
        (write_noise(tmp_path / "root" / f"u{number:02d}.wav", seed=number)).write_bytes(b"")
    write_noise(tmp_path / "root" / "whole.wav", seed=99)
    command = ("corpus", "prepare", "pattern", "--pattern", "{id}.wav", "--root", tmp_path / "root", "--out")
    refused = repbench(*command, tmp_path / "out", "--json")
    assert (refused.code, len(refused.json["faults"])) == (3, 12)
    assert refused.err.count("fault: The sound file is empty") == 10
    assert "fault: … and 2 more; --json names all\n" in refused.err
    assert "error: 12 of 13 utterances of pattern are faulty: 12 × The sound file is empty" in refused.err
    done = repbench(*command, tmp_path / "out", "--drop-faulty", "12", "--json")
    assert (done.code, done.json["utterances"], len(done.json["dropped"])) == (0, 1, 12)


@pytest.mark.slow
def test_a_record_counts_what_was_left_out(tmp_path: Path) -> None:
    root, out = ravdess(tmp_path / "root"), tmp_path / "out"
    assert repbench("corpus", "prepare", "ravdess", "--root", root, "--out", out, "--drop-faulty", "4").code == 0
    ran = repbench(
        *("run", "--upstream", "mel", "--downstream", "sentiment", "--corpus", out),
        *("--set", "probe.steps=5", "--out", tmp_path / "runs", "--json"),
    )
    assert ran.code == 0, ran.err
    warnings = ran.json["results"][0]["corpus"]["warnings"]
    assert warnings[0].startswith("4 of 16 utterances were left out when the corpus was prepared, such as 03-01-01")
    assert warnings[1].startswith("1 of 12 utterances have the sound of another one")


def test_a_broken_sound_among_alignments_is_one_of_the_faults(tmp_path: Path) -> None:
    for seed, name in enumerate(("aar_001", "aar_002", "abk_001", "abk_002")):
        write_noise(tmp_path / "root" / name[:3] / f"{name}.flac", seed=seed)
        write_text(tmp_path / "grids" / f"{name}.TextGrid", long_textgrid([(0.0, 0.25, "a"), (0.25, 0.5, "b")]))
    broken = tmp_path / "root" / "aar" / "aar_002.flac"
    broken.write_bytes(broken.read_bytes()[:200])
    write_text(tmp_path / "grids" / "abk_002.TextGrid", long_textgrid([(0.0, 0.9, "a")]))
    options = PrepareOptions(pattern="{speaker:3}_{word}.flac", alignments=tmp_path / "grids")
    draft = prepare(PATTERN, tmp_path / "root", options)
    with pytest.raises(DataError, match=r"2 of 4 utterances of pattern are faulty.*They are aar_002, abk_002") as found:
        manifest.write(draft, tmp_path / "out")
    assert [fault.utterance for fault in found.value.faults] == ["aar_002", "abk_002"]
    corpus = manifest.write(draft, tmp_path / "out", drop_faulty=2)
    assert set(corpus.dropped) == {"aar_002", "abk_002"}
    assert all(utterance.phones for utterance in corpus.utterances)


def test_faults_of_every_kind_are_counted_and_named(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "sound", names=("a", "b", "c", "d", "e", "f", "g"))
    a, b, c, d, e, f, g = draft.utterances
    (tmp_path / "sound" / "b.wav").write_bytes(b"")
    (tmp_path / "sound" / "c.wav").unlink()
    wrong = [a, b, c, replace(d, id="a"), replace(e, attributes={"x": float("nan")}), replace(f, speaker=""), g]
    draft = replace(draft, utterances=wrong)
    with pytest.raises(DataError, match="6 of 7 utterances of noise are faulty") as found:
        manifest.write(draft, tmp_path / "out", drop_faulty=5)
    assert "more than the 5 that may be left out" in str(found.value)
    corpus = manifest.write(draft, tmp_path / "out", drop_faulty=6)
    assert [utterance.id for utterance in corpus.utterances] == ["g"]
    assert corpus.dropped == {
        "f": "`speaker` is empty",
        "a (a.wav)": f"The id `a` occurs twice: for {a.audio} and for {d.audio}",
        "a (d.wav)": f"The id `a` occurs twice: for {a.audio} and for {d.audio}",
        "b": "The sound file is empty",
        "c": "The sound file is missing",
        "e": "The attribute `x` must be a string or a finite number, but is nan",
    }
    assert manifest.read(tmp_path / "out") == corpus


def test_a_faulty_row_takes_no_other_utterance_with_it(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_noise(tmp_path / f"{name}.wav", seed=seed)
    (tmp_path / "t.csv").write_text("id,path,split\nu,a.wav,train\nu,b.wav,valid\n")
    corpus = manifest.write(prepare(CSV, tmp_path, PrepareOptions()), tmp_path / "out", drop_faulty=1)
    assert [utterance.id for utterance in corpus.utterances] == ["u"]
    assert corpus.dropped == {"u (t.csv:3)": "`split` must be train, dev or test, but is `valid`"}
    draft = noise_draft(tmp_path / "sound", names=("a", "b", "c"))
    a, b, c = draft.utterances
    draft = replace(draft, utterances=[a, replace(b, id="a", fault=DataError("odd", utterance="a")), c])
    corpus = manifest.write(draft, tmp_path / "twice", drop_faulty=2)
    assert (len(corpus.utterances), set(corpus.dropped)) == (1, {"a (a.wav)", "a (b.wav)"})


def test_one_fault_is_raised_as_it_is_with_the_way_around_it(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "sound")
    (tmp_path / "sound" / "b.wav").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"empty \(file .*b\.wav, utterance b\)\. .*corpus\. Or go on without it: --drop-faulty 1\.$"
    ):
        manifest.write(draft, tmp_path / "out")


def test_nothing_left_is_refused_whatever_may_be_dropped(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "sound", names=("a", "b"))
    for utterance in draft.utterances:
        utterance.audio.write_bytes(b"")
    with pytest.raises(DataError, match="2 of 2 utterances of noise are faulty") as found:
        manifest.write(draft, tmp_path / "out", drop_faulty=9)
    assert "--drop-faulty" not in str(found.value)


def test_of_a_sound_in_all_splits_that_of_test_stays(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "sound", names=("a", "b", "c", "d"))
    sound = (tmp_path / "sound" / "a.wav").read_bytes()
    for name in "bc":
        (tmp_path / "sound" / f"{name}.wav").write_bytes(sound)
    splits = dict(zip("abcd", ("dev", "test", "train", "train"), strict=True))
    utterances = [replace(each, split=splits[each.id]) for each in draft.utterances]  # type: ignore[arg-type]
    corpus = manifest.write(replace(draft, utterances=utterances), tmp_path / "out", drop_faulty=2)
    assert [utterance.id for utterance in corpus.utterances] == ["b", "d"]
    assert corpus.dropped["c"] == "The same sound has two ids, `b` (test) and `c` (train)"


def test_a_seeded_division_keeps_equal_sounds_on_one_side(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "sound", names=tuple("abcdefghij"))
    for name in "bcdefghi":
        (tmp_path / "sound" / f"{name}.wav").write_bytes((tmp_path / "sound" / "a.wav").read_bytes())
    corpus = manifest.write(draft, tmp_path / "out")
    for seed in range(30):
        try:
            division = divide(corpus, "speaker-disjoint", SplitSettings(seed=seed))
        except DataError:
            continue
        sides = [{each.samples_sha256 for each in part} for part in (division.train, division.dev, division.test)]
        assert len(set().union(*sides)) == sum(map(len, sides))
    with pytest.raises(DataError, match="too few utterances"):
        divide(replace(corpus, utterances=corpus.utterances[:9]), "speaker-disjoint", SplitSettings())


def test_names_that_say_nothing_are_faults_of_their_own(tmp_path: Path) -> None:
    for seed, name in enumerate(("s1_joy", "s2_fear", "notes", "s3_x_y")):
        write_noise(tmp_path / f"{name}.wav", seed=seed)
    options = PrepareOptions(pattern="{speaker}_{emotion}.wav")
    corpus = manifest.write(prepare(PATTERN, tmp_path, options), tmp_path / "out", drop_faulty=2)
    assert len(corpus.utterances) == 2
    assert corpus.dropped["notes.wav"] == "The name does not match the pattern `{speaker}_{emotion}.wav`"
    assert "more than one way" in corpus.dropped["s3_x_y.wav"]


def test_a_code_and_a_place_of_another_corpus_are_faults_of_their_own(tmp_path: Path) -> None:
    for seed, emotion in enumerate(("01", "03", "77")):
        write_noise(tmp_path / "r" / f"03-01-{emotion}-01-01-01-01.wav", seed=seed)
    draft = prepare(RAVDESS, tmp_path / "r", PrepareOptions())
    assert [fault.what for fault in draft.faults] == [
        "`emotion` is `77`, which is no code of ravdess (there are 01, 02, 03, 04, 05, 06, 07, 08)"
    ]
    write_noise(tmp_path / "t" / "TRAIN" / "DR1" / "FCJF0" / "SA1.WAV", seed=0)
    write_noise(tmp_path / "t" / "TRAIN" / "odd.wav", seed=1)
    draft = prepare(TIMIT, tmp_path / "t", PrepareOptions())
    assert [Path(fault.file or "").name for fault in draft.faults] == ["odd.wav"]
    with pytest.raises(DataError, match="not where TIMIT puts it"):
        TIMIT.prepare(tmp_path / "t", PrepareOptions())


def test_what_a_layout_leaves_out_is_named_and_counted_too(tmp_path: Path) -> None:
    draft = replace(noise_draft(tmp_path / "sound"), left_out={"v[3]": "its interval has length 0"})
    corpus = manifest.write(draft, tmp_path / "out")
    assert manifest.read(tmp_path / "out").dropped == {"v[3]": "its interval has length 0"}
    said = "1 of 4 utterances were left out when the corpus was prepared, such as v[3]: its interval has length 0"
    assert warnings_of(corpus) == (said,)


def test_faults_of_sounds_are_told_before_features_that_nobody_has_left(tmp_path: Path) -> None:
    draft = noise_draft(tmp_path / "sound", names=("a", "b"))
    a, b = draft.utterances
    a.audio.write_bytes(b"")
    draft = replace(draft, utterances=[replace(a, features=tmp_path / "a.npy"), b])
    draft = replace(draft, features=DraftFeatures(name="f", hop_seconds=0.01))
    with pytest.raises(DataError, match=r"sound file is empty .*utterance a"):
        manifest.write(draft, tmp_path / "out")


def test_a_manifest_of_before_has_nothing_dropped(tmp_path: Path) -> None:
    manifest.write(noise_draft(tmp_path / "sound"), tmp_path / "out")
    header = json.loads((tmp_path / "out" / "corpus.json").read_text("utf-8"))
    assert "dropped" not in header
    assert manifest.read(tmp_path / "out").dropped == {}
    (tmp_path / "out" / "corpus.json").write_text(json.dumps(header | {"dropped": {"a": 1}}), "utf-8")
    with pytest.raises(DataError, match=r"`dropped` must give a reason"):
        manifest.read(tmp_path / "out")


def test_the_gravest_fault_gives_the_exit_code(tmp_path: Path) -> None:
    sound = write_noise(tmp_path / "a.wav", seed=0)
    for name in ("b", "c"):
        (tmp_path / f"{name}.npy").write_bytes(b"\x93NUMPY")
    utterances = [
        DraftUtterance(id="a", audio=sound),
        DraftUtterance(id="b", audio=write_noise(tmp_path / "b.wav", seed=1), fault=IntegrityError("not what it was")),
        DraftUtterance(id="c", audio=tmp_path / "gone.wav"),
    ]
    draft = Draft(name="x", licence="", root=tmp_path, utterances=utterances)
    with pytest.raises(IntegrityError, match="2 of 3 utterances of x are faulty"):
        manifest.write(draft, tmp_path / "out")


def test_faults_are_of_one_kind_where_only_numbers_names_and_places_differ() -> None:
    found = [("The file holds 3 samples", 1), ("The file holds 40 samples", 1), ("`a` is gone", 2), ("It is empty", 1)]
    assert counts_by_kind(found) == ["2 × The file holds … samples", "2 × `a` is gone", "1 × It is empty"]
    many = [("x" * number, 1) for number in range(1, 13)]
    assert counts_by_kind(many)[9:] == ["1 × xxxxxxxxxx", "2 of other kinds"]


class TestOverwriting:
    def test_the_manifest_of_another_corpus_is_refused_and_kept(self, tmp_path: Path) -> None:
        manifest.write(noise_draft(tmp_path / "one"), tmp_path / "out")
        before = (tmp_path / "out" / "corpus.json").read_bytes()
        other = replace(noise_draft(tmp_path / "two", names=("x",)), name="other")
        with pytest.raises(
            UsageError, match=r"manifest of another corpus, noise of .*/one .*replace it with --overwrite"
        ):
            manifest.write(other, tmp_path / "out")
        with pytest.raises(UsageError, match="another corpus"):
            manifest.write(replace(noise_draft(tmp_path / "one"), name="renamed"), tmp_path / "out")
        assert (tmp_path / "out" / "corpus.json").read_bytes() == before
        assert len(manifest.write(other, tmp_path / "out", overwrite=True).utterances) == 1

    def test_two_corpora_under_one_folder_do_not_share_its_manifest(self, tmp_path: Path) -> None:
        manifest.write(noise_draft(tmp_path / "one"), tmp_path)
        with pytest.raises(UsageError, match="another corpus, noise of"):
            manifest.write(noise_draft(tmp_path / "two"), tmp_path)

    @pytest.mark.parametrize("name", ["manifest.jsonl", "corpus.json"])
    def test_a_file_of_the_corpus_itself_is_not_replaced(self, tmp_path: Path, name: str) -> None:
        draft = noise_draft(tmp_path)
        (tmp_path / name).write_text("{}")
        for overwrite in (False, True):
            with pytest.raises(UsageError, match=f"has a file `{name}`, which the manifest would replace"):
                manifest.write(draft, tmp_path, overwrite=overwrite)
        assert (tmp_path / name).read_text() == "{}"

    def test_the_same_corpus_is_prepared_again_and_a_change_is_said(self, tmp_path: Path) -> None:
        draft = noise_draft(tmp_path / "root")
        command = ("corpus", "prepare", "pattern", "--root", tmp_path / "root", "--out", tmp_path / "out")
        before = manifest.write(replace(draft, name="pattern"), tmp_path / "out")
        assert manifest.write(replace(draft, name="pattern"), tmp_path / "out") == before
        other = repbench(*command, "--pattern", "{id}.wav", "--json")
        assert (other.code, other.json["replaced"]) == (0, True)
