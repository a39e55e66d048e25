"""Manifests: written once, read strictly."""

from __future__ import annotations

import json
import os
import shutil
import time
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from repbench.audio.sound import measure
from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Draft, DraftUtterance, Phone, Split
from repbench.corpora.phone_sets import fold_map
from repbench.errors import DataError, EnvironmentFault, UsageError
from tests.corpora.sounds import RATE_HZ, noise_draft, write_noise

PHONES = (Phone(0.0, 0.1, "sp"), Phone(0.1, 0.3, "AH0"), Phone(0.3, 0.35, "spn"), Phone(0.4, 0.5, "T"))
LINE = 2
"""The line that `tampered` changes, which is that of the utterance `b`."""


def full_draft(root: Path) -> Draft:
    """Three utterances with all that can be known of one; two of them are cut from one file."""
    write_noise(root / "deep" / "long.flac", seed=9, seconds=1.2, rate_hz=8_000)
    a = DraftUtterance(
        id="a",
        audio=write_noise(root / "a.wav", seed=0),
        speaker="Zoë",
        text="say “ü”",
        phones=PHONES,
        attributes={"emotion": "joy", "valence": -0.5, "take": 3},
        group="g1",
        split="train",
    )
    b = DraftUtterance(id="b", audio=root / "deep" / "long.flac", start=0.25, end=0.75, speaker="B", split="test")
    c = DraftUtterance(id="c", audio=root / "deep" / "long.flac", start=0.75)
    phone_map, phone_set = fold_map(phone.label for phone in PHONES)
    return Draft(
        name="full",
        licence="CC0",
        root=root,
        utterances=[c, a, b],
        phone_map=phone_map,
        phone_set=phone_set,
        notes=("made up",),
    )


def same_sounds(root: Path, splits: tuple[Split | None, ...]) -> Draft:
    """An utterance for each split, called a, b, …, all with the same sound."""
    utterances = [
        DraftUtterance(id=name, audio=write_noise(root / f"{name}.wav", seed=0), split=split)
        for name, split in zip("abc", splits, strict=False)
    ]
    return Draft(name="a", licence="", root=root, utterances=utterances)


def written(tmp_path: Path) -> Path:
    """The manifest of `full_draft`, its sound beside it."""
    manifest.write(full_draft(tmp_path / "sound"), tmp_path / "manifest")
    return tmp_path / "manifest"


def tampered(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The manifest with one line changed as JSON."""
    path = folder / "manifest.jsonl"
    lines = path.read_text("utf-8").splitlines()
    fields = json.loads(lines[LINE - 1])
    change(fields)
    lines[LINE - 1] = json.dumps(fields)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def replaced(folder: Path, line: str) -> Path:
    """The manifest with one line replaced."""
    path = folder / "manifest.jsonl"
    lines = path.read_text("utf-8").splitlines()
    lines[LINE - 1] = line
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return folder


class TestWrite:
    def test_what_is_read_is_what_was_written(self, tmp_path: Path) -> None:
        corpus = manifest.write(full_draft(tmp_path / "sound"), tmp_path / "manifest", resample="refused")
        assert manifest.read(tmp_path / "manifest") == corpus
        assert (corpus.name, corpus.licence, corpus.resample, corpus.notes) == ("full", "CC0", "refused", ("made up",))

    def test_utterances_stand_in_the_order_of_their_ids_with_all_that_is_known(self, tmp_path: Path) -> None:
        corpus = manifest.write(full_draft(tmp_path / "sound"), tmp_path / "manifest")
        a, b, c = corpus.utterances
        assert (a.id, a.speaker, a.text, a.group, a.split) == ("a", "Zoë", "say “ü”", "g1", "train")
        assert a.attributes == {"emotion": "joy", "valence": -0.5, "take": 3}
        assert (a.sample_rate_hz, a.num_samples, a.seconds) == (RATE_HZ, RATE_HZ // 2, 0.5)
        assert (b.start, b.end, b.sample_rate_hz, b.num_samples, b.split) == (0.25, 0.75, 8_000, 4_000, "test")
        assert (c.start, c.end, c.num_samples, c.speaker, c.text, c.phones) == (0.75, None, 3_600, None, None, None)
        assert c.samples_sha256 == measure(c.audio, start=0.75).samples_sha256

    def test_phones_are_folded_and_what_is_not_labelled_becomes_a_gap(self, tmp_path: Path) -> None:
        corpus = manifest.write(full_draft(tmp_path / "sound"), tmp_path / "manifest")
        assert corpus.utterances[0].phones == (Phone(0.0, 0.1, "sil"), Phone(0.1, 0.3, "AH"), Phone(0.4, 0.5, "T"))
        assert len(corpus.label_sets["phones"]) == 40
        assert corpus.label_sets["speakers"] == ("B", "Zoë")
        header = json.loads((tmp_path / "manifest" / "corpus.json").read_text("utf-8"))
        assert header["phone_map"] == {"AH0": "AH", "T": "T", "sp": "sil", "spn": None}

    def test_absent_fields_are_left_out_of_a_line(self, tmp_path: Path) -> None:
        lines = (written(tmp_path) / "manifest.jsonl").read_text("utf-8").splitlines()
        fields = json.loads(lines[2])
        assert set(fields) == {"id", "audio", "start", "sample_rate_hz", "num_samples", "samples_sha256"}
        assert fields["audio"] == "deep/long.flac"

    def test_the_header_says_what_made_it(self, tmp_path: Path) -> None:
        header = json.loads((written(tmp_path) / "corpus.json").read_text("utf-8"))
        assert header["schema"] == "repbench.corpus/1"
        assert header["root"] == str(tmp_path / "sound")
        assert set(header["tools"]) == {"repbench", "python", "soundfile", "libsndfile"}

    def test_progress_counts_every_utterance(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        manifest.write(noise_draft(tmp_path), tmp_path / "out", progress=lambda done, of: seen.append((done, of)))
        assert seen == [(1, 3), (2, 3), (3, 3)]

    def test_a_relative_root_travels_with_the_folder(self, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        corpus = manifest.write(noise_draft(tmp_path / "here" / "sound"), tmp_path / "here")
        (tmp_path / "here").rename(tmp_path / "there")
        moved = manifest.read(tmp_path / "there")
        assert moved.fingerprint == corpus.fingerprint
        assert moved.utterances[0].audio == tmp_path / "there" / "sound" / "a.wav"

    @pytest.mark.parametrize("kind", ["new", "empty", "old"])
    def test_a_folder_may_be_new_or_empty_or_an_older_manifest(self, tmp_path: Path, kind: str) -> None:
        out = tmp_path / "deep" / "out"
        if kind == "empty":
            out.mkdir(parents=True)
        if kind == "old":
            manifest.write(replace(full_draft(tmp_path / "sound"), licence="of before"), out)
        manifest.write(full_draft(tmp_path / "sound"), out)
        assert [path.name for path in sorted(out.iterdir())] == ["corpus.json", "manifest.jsonl"]
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        assert len(manifest.read(out).utterances) == 3

    @pytest.mark.parametrize("name", ["thesis.txt", "corpus.json"])
    def test_a_folder_with_something_else_is_refused_and_kept(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / name).write_text("{}")
        with pytest.raises(UsageError, match=r"not empty and is not a manifest.*/out"):
            manifest.write(noise_draft(tmp_path / "sound"), tmp_path / "out")
        assert (tmp_path / "out" / name).read_text() == "{}"

    def test_a_file_is_refused_as_folder(self, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(UsageError, match="manifest is a folder"):
            manifest.write(noise_draft(tmp_path / "sound"), tmp_path / "out")

    def test_a_fault_leaves_no_folder_and_keeps_the_old_one(self, tmp_path: Path) -> None:
        draft = noise_draft(tmp_path / "sound")
        old = manifest.write(draft, tmp_path / "old")
        (tmp_path / "sound" / "b.wav").write_bytes(b"")
        for out in ("new", "old"):
            with pytest.raises(DataError, match=r"empty.*b\.wav, utterance b"):
                manifest.write(draft, tmp_path / out)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "sound"]
        assert manifest.read(tmp_path / "old") == old

    def test_a_full_disk_leaves_no_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(folder: Path, lines: str, header: object) -> None:
            (folder / "manifest.jsonl").write_text(lines[:10])
            raise EnvironmentFault("No space left", file=folder)

        monkeypatch.setattr("repbench.corpora.manifest.writer._fill", full)
        with pytest.raises(EnvironmentFault, match="No space left"):
            manifest.write(noise_draft(tmp_path / "sound"), tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["sound"]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), None, True, [1], 10**400])
    def test_an_attribute_that_is_no_string_or_number_is_refused(self, tmp_path: Path, value: Any) -> None:
        draft = noise_draft(tmp_path / "sound")
        utterances = [replace(utterance, attributes={"mood": value}) for utterance in draft.utterances]
        with pytest.raises(DataError, match=r"attribute `mood` must be a string or a finite number.*utterance a"):
            manifest.write(replace(draft, utterances=utterances), tmp_path / "out")

    @pytest.mark.parametrize("field", ["id", "speaker", "group"])
    def test_an_empty_name_is_refused(self, tmp_path: Path, field: str) -> None:
        draft = noise_draft(tmp_path / "sound", names=("a",))
        empty: dict[str, Any] = {field: ""}
        utterances = [replace(utterance, **empty) for utterance in draft.utterances]
        with pytest.raises(DataError, match=f"`{field}` is empty"):
            manifest.write(replace(draft, utterances=utterances), tmp_path / "out")

    def test_no_utterance_and_no_root_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="has no utterance"):
            manifest.write(Draft(name="none", licence="", root=tmp_path, utterances=[]), tmp_path / "out")
        with pytest.raises(DataError, match=r"root folder of the corpus does not exist.*gone"):
            manifest.write(Draft(name="none", licence="", root=tmp_path / "gone", utterances=[]), tmp_path / "out")


class TestFingerprint:
    def test_it_does_not_depend_on_place_name_time_or_order(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        before = manifest.read(folder)
        shutil.copytree(tmp_path / "sound", tmp_path / "elsewhere")
        for path in (tmp_path / "elsewhere").rglob("*.*"):
            os.utime(path, (time.time() + 1e8, time.time() + 1e8))
        lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
        (folder / "manifest.jsonl").write_text("\n\n".join(reversed(lines)), "utf-8")
        shutil.rmtree(tmp_path / "sound")
        after = manifest.read(folder, root=tmp_path / "elsewhere")
        assert after.fingerprint == before.fingerprint
        assert [utterance.id for utterance in after.utterances] == ["a", "b", "c"]

    def test_it_does_not_depend_on_how_json_is_written(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        before = manifest.read(folder).fingerprint
        lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
        loose = [json.dumps(dict(reversed(json.loads(line).items())), indent=None) for line in lines]
        (folder / "manifest.jsonl").write_text("\n".join(loose), "utf-8")
        assert manifest.read(folder).fingerprint == before

    def test_a_segment_and_a_file_with_the_same_samples_are_one(self, tmp_path: Path) -> None:
        write_noise(tmp_path / "long" / "long.wav", seed=0)
        samples, _ = soundfile.read(tmp_path / "long" / "long.wav", dtype="int16")
        (tmp_path / "cut").mkdir()
        soundfile.write(tmp_path / "cut" / "a.flac", samples[:4_000], RATE_HZ)
        segment = DraftUtterance(id="a", audio=tmp_path / "long" / "long.wav", end=0.25)
        file = DraftUtterance(id="a", audio=tmp_path / "cut" / "a.flac")
        fingerprints = {
            manifest.write(
                Draft(name=name, licence="", root=tmp_path / name, utterances=[utterance]), tmp_path / f"m-{name}"
            ).fingerprint
            for name, utterance in (("long", segment), ("cut", file))
        }
        assert len(fingerprints) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"text": "other"},
            {"speaker": "B"},
            {"split": "dev"},
            {"group": "g2"},
            {"attributes": {"take": 4}},
            {"attributes": {"take": 3.0}},
            {"phones": (*PHONES[:3], Phone(0.4, 0.49, "T"))},
            {"phones": (*PHONES[:3], Phone(0.4, 0.5, "sp"))},
            {"phones": ()},
            {"phones": None},
            {"id": "0"},
        ],
        ids=str,
    )
    def test_it_depends_on_everything_else(self, tmp_path: Path, change: dict[str, Any]) -> None:
        draft = full_draft(tmp_path / "sound")
        changed = [replace(item, **change) if item.id == "a" else item for item in draft.utterances]
        before = manifest.write(draft, tmp_path / "before").fingerprint
        assert manifest.write(replace(draft, utterances=changed), tmp_path / "after").fingerprint != before

    def test_it_depends_on_the_samples(self, tmp_path: Path) -> None:
        before = manifest.write(full_draft(tmp_path / "sound"), tmp_path / "before").fingerprint
        draft = full_draft(tmp_path / "sound")
        write_noise(tmp_path / "sound" / "a.wav", seed=1)
        assert manifest.write(draft, tmp_path / "after").fingerprint != before

    def test_it_depends_on_the_labels_there_can_be(self, tmp_path: Path) -> None:
        draft = full_draft(tmp_path / "sound")
        before = manifest.write(draft, tmp_path / "before").fingerprint
        smaller = replace(draft, phone_set=("AH", "T", "sil"))
        assert manifest.write(smaller, tmp_path / "after").fingerprint != before


class TestRead:
    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"mood": "good"}, "Unknown field `mood`"),
            ({"sample_rate_hz": "16000"}, "`sample_rate_hz` must be a whole number of at least 1"),
            ({"sample_rate_hz": 0}, "`sample_rate_hz` must be a whole number of at least 1"),
            ({"num_samples": 1.0}, "`num_samples` must be a whole number"),
            ({"num_samples": True}, "`num_samples` must be a whole number"),
            ({"num_samples": 3_999}, "span 4000 samples, but `num_samples` is 3999"),
            ({"start": -1.0}, "`start` must be seconds of at least 0"),
            ({"end": "1"}, "`end` must be seconds"),
            ({"end": 10**400}, "`end` must be seconds"),
            ({"speaker": 7}, "`speaker` must be a string"),
            ({"speaker": ""}, "`speaker` is empty"),
            ({"speaker": None}, "`speaker` must be a string"),
            ({"text": ["a"]}, "`text` must be a string"),
            ({"text": "\ud800"}, "`text` is not valid Unicode"),
            ({"split": "validation"}, "`split` must be train, dev or test"),
            ({"split": None}, "`split` must be train, dev or test"),
            ({"samples_sha256": "abc"}, "`samples_sha256` must be 64 small hexadecimal digits"),
            ({"attributes": []}, "`attributes` must be an object"),
            ({"attributes": {"a": None}}, "attribute `a` must be"),
            ({"attributes": {"a": {"b": 1}}}, "attribute `a` must be"),
            ({"phones": "AH"}, "`phones` must be a list"),
            ({"phones": [[0.0, 0.1]]}, r"Phone 1 must be \[start, end, label\]"),
            ({"phones": [[0.0, 0.1, "AH"], [0.1, "0.2", "T"]]}, r"Phone 2 must be \[start, end, label\]"),
            ({"phones": [[0.0, 0.1, ""]]}, r"Phone 1 must be \[start, end, label\]"),
            ({"phones": [[0.0, 0.2, "AH"], [0.1, 0.3, "T"]]}, "Interval 2 starts before"),
            ({"phones": [[0.0, 5.0, "AH"]]}, "Interval 1 ends at 5 s, but the sound lasts 0.5 s"),
        ],
        ids=str,
    )
    def test_a_wrong_field_is_refused_by_line_and_utterance(
        self, tmp_path: Path, change: dict[str, Any], fault: str
    ) -> None:
        folder = tampered(written(tmp_path), lambda fields: fields.update(change))
        with pytest.raises(DataError, match=rf"{fault}.*manifest\.jsonl:{LINE}, utterance b"):
            manifest.read(folder)

    @pytest.mark.parametrize("field", ["audio", "sample_rate_hz", "num_samples", "samples_sha256"])
    def test_a_missing_field_is_refused(self, tmp_path: Path, field: str) -> None:
        folder = tampered(written(tmp_path), lambda fields: fields.pop(field))
        with pytest.raises(DataError, match=f"`{field}` is missing.*:{LINE}, utterance b"):
            manifest.read(folder)

    @pytest.mark.parametrize(
        ("line", "fault"),
        [
            ("{", "not valid JSON"),
            ('{"id": "b", "id": "c"}', "not valid JSON: a key occurs twice"),
            ('{"id": NaN}', "not valid JSON: NaN is not a number"),
            ('["b"]', "not a JSON object"),
            ("[" * 100_000, "not valid JSON"),
            ('{"id": ' + "9" * 5_000 + "}", "not valid JSON"),
        ],
    )
    def test_a_line_that_is_not_json_is_refused(self, tmp_path: Path, line: str, fault: str) -> None:
        with pytest.raises(DataError, match=rf"{fault}.*manifest\.jsonl:{LINE}"):
            manifest.read(replaced(written(tmp_path), line))

    def test_a_line_that_is_not_utf_8_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path) / "manifest.jsonl"
        path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff"))
        with pytest.raises(DataError, match=r"not valid JSON.*utf-8.*manifest\.jsonl:1"):
            manifest.read(path.parent)

    def test_a_manifest_that_lost_a_line_is_refused(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines(keepends=True)
        (folder / "manifest.jsonl").write_text("".join(lines[:-1]), "utf-8")
        with pytest.raises(DataError, match=r"does not list the sounds of `corpus\.json`"):
            manifest.read(folder)
        (folder / "manifest.jsonl").write_text("")
        with pytest.raises(DataError, match="lists no utterance"):
            manifest.read(folder)

    def test_a_root_that_no_file_system_takes_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="root folder of the corpus does not exist"):
            manifest.read(written(tmp_path), root=tmp_path / ("x" * 300))

    def test_a_root_that_is_gone_is_named(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        (tmp_path / "sound").rename(tmp_path / "moved")
        with pytest.raises(DataError, match=r"root folder of the corpus does not exist \(file .*/sound\).*`root`"):
            manifest.read(folder)
        assert manifest.read(folder, root=tmp_path / "moved").utterances[0].audio == tmp_path / "moved" / "a.wav"

    def test_no_sound_is_decoded(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        (tmp_path / "sound" / "a.wav").unlink()
        assert manifest.read(folder).utterances[0].id == "a"

    def test_a_folder_that_is_no_manifest_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"not a manifest: it has no `corpus\.json`.*corpus prepare"):
            manifest.read(tmp_path)
        folder = written(tmp_path)
        (folder / "manifest.jsonl").unlink()
        with pytest.raises(DataError, match=r"not a manifest: it has no `manifest\.jsonl`"):
            manifest.read(folder)

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"schema": "repbench.corpus/2"}, "`schema` must be `repbench.corpus/1`"),
            ({"mood": 1}, "Unknown key `mood`"),
            ({"name": 1}, "`name` has the wrong type, int"),
            ({"resample": "maybe"}, "`resample` must be"),
            ({"notes": [1]}, "`notes` must be"),
            ({"label_sets": {"phones": ["b", "a"]}}, r"`label_sets\.phones` must be a sorted list"),
            ({"label_sets": {"phones": "ab"}}, r"`label_sets\.phones` must be a sorted list"),
        ],
        ids=str,
    )
    def test_a_wrong_header_is_refused(self, tmp_path: Path, change: dict[str, Any], fault: str) -> None:
        path = written(tmp_path) / "corpus.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
        with pytest.raises(DataError, match=rf"{fault}.*corpus\.json, key"):
            manifest.read(path.parent)

    def test_a_header_that_is_not_json_or_lacks_a_key_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path) / "corpus.json"
        header = json.loads(path.read_text("utf-8"))
        del header["licence"]
        path.write_text(json.dumps(header), "utf-8")
        with pytest.raises(DataError, match="`licence` is missing"):
            manifest.read(path.parent)
        path.write_text("{")
        with pytest.raises(DataError, match=r"not valid JSON.*corpus\.json"):
            manifest.read(path.parent)


class TestFaults:
    @pytest.mark.parametrize("ending", ["wav", "flac"])
    def test_fault_14_and_15_truncated_sound_is_refused_with_its_utterance(self, tmp_path: Path, ending: str) -> None:
        path = write_noise(tmp_path / f"a.{ending}", seed=0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        draft = Draft(name="a", licence="", root=tmp_path, utterances=[DraftUtterance(id="u1", audio=path)])
        with pytest.raises(DataError, match=rf"a\.{ending}, utterance u1"):
            manifest.write(draft, tmp_path / "out")

    def test_fault_17_each_rate_is_recorded_as_it_is(self, tmp_path: Path) -> None:
        rates = {"a": 8_000, "b": 16_000, "c": 44_100}
        utterances = [
            DraftUtterance(id=name, audio=write_noise(tmp_path / f"{name}.wav", seed=seed, rate_hz=rate))
            for seed, (name, rate) in enumerate(rates.items())
        ]
        corpus = manifest.write(Draft(name="a", licence="", root=tmp_path, utterances=utterances), tmp_path / "out")
        assert {utterance.id: utterance.sample_rate_hz for utterance in corpus.utterances} == rates
        assert {utterance.seconds for utterance in corpus.utterances} == {0.5}

    def test_fault_18_stereo_is_refused(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", np.zeros((800, 2)), RATE_HZ)
        draft = Draft(
            name="a", licence="", root=tmp_path, utterances=[DraftUtterance(id="u1", audio=tmp_path / "a.wav")]
        )
        with pytest.raises(DataError, match=r"2 channels.*utterance u1"):
            manifest.write(draft, tmp_path / "out")

    def test_fault_20_strange_names_survive(self, tmp_path: Path) -> None:
        name = "ü \n'\""
        draft = noise_draft(tmp_path / name, names=(name,))
        corpus = manifest.write(draft, tmp_path / "out")
        assert manifest.read(tmp_path / "out") == corpus
        assert corpus.utterances[0].audio == tmp_path / name / f"{name}.wav"

    def test_fault_20_ids_are_nfc_and_collisions_are_refused(self, tmp_path: Path) -> None:
        composed, decomposed = unicodedata.normalize("NFC", "ü"), unicodedata.normalize("NFD", "ü")
        alone = manifest.write(noise_draft(tmp_path / "one", names=(decomposed,)), tmp_path / "out")
        assert [utterance.id for utterance in alone.utterances] == [composed]
        with pytest.raises(DataError, match="id `ü` occurs twice"):
            manifest.write(noise_draft(tmp_path / "two", names=(composed, decomposed)), tmp_path / "both")

    def test_fault_20_a_collision_of_forms_in_a_manifest_is_refused(self, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        manifest.write(noise_draft(tmp_path / "sound", names=("ä", "ü")), folder)
        path = folder / "manifest.jsonl"
        path.write_text(path.read_text("utf-8").replace('"id":"ä"', '"id":"' + unicodedata.normalize("NFD", "ü") + '"'))
        with pytest.raises(DataError, match=r"id `ü` occurs 2 times: .*:1, .*:2"):
            manifest.read(folder)

    def test_fault_20_undecodable_names_are_refused(self, tmp_path: Path) -> None:
        broken = os.fsdecode(b"\xff")
        with pytest.raises(DataError, match=r"`id` is not valid UTF-8.*\\udcff"):
            manifest.write(noise_draft(tmp_path / "sound", names=(broken,)), tmp_path / "out")
        draft = noise_draft(tmp_path / broken)
        with pytest.raises(DataError, match="not valid UTF-8"):
            manifest.write(draft, tmp_path / "out")

    def test_fault_22_an_alignment_past_its_sound_is_refused(self, tmp_path: Path) -> None:
        draft = full_draft(tmp_path / "sound")
        late = [
            replace(item, phones=(Phone(0.0, 0.6, "AH0"),)) if item.id == "a" else item for item in draft.utterances
        ]
        with pytest.raises(DataError, match=r"ends at 0\.6 s, but the sound lasts 0\.5 s.*utterance a"):
            manifest.write(replace(draft, utterances=late), tmp_path / "out")

    def test_fault_23_an_unknown_phone_is_refused(self, tmp_path: Path) -> None:
        draft = full_draft(tmp_path / "sound")
        with pytest.raises(DataError, match=r"phone map does not know: `spn`.*utterance a"):
            manifest.write(replace(draft, phone_map={"sp": "sil", "AH0": "AH", "T": "T"}), tmp_path / "out")
        with pytest.raises(DataError, match="phone set does not know: T"):
            manifest.write(replace(draft, phone_set=("AH", "sil")), tmp_path / "out")

    def test_fault_23_a_label_that_the_header_does_not_list_is_refused(self, tmp_path: Path) -> None:
        folder = tampered(written(tmp_path), lambda fields: fields.update(speaker="nobody"))
        with pytest.raises(DataError, match=r"`label_sets`.*does not list: nobody.*utterance b"):
            manifest.read(folder)

    def test_fault_23_the_order_of_the_draft_does_not_matter(self, tmp_path: Path) -> None:
        draft = full_draft(tmp_path / "sound")
        backwards = replace(draft, utterances=list(draft.utterances)[::-1])
        manifest.write(draft, tmp_path / "one")
        manifest.write(backwards, tmp_path / "two")
        for name in ("manifest.jsonl", "corpus.json"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()

    def test_fault_24_duplicate_ids_are_refused(self, tmp_path: Path) -> None:
        draft = noise_draft(tmp_path / "sound")
        twice = [replace(utterance, id="same") for utterance in draft.utterances]
        with pytest.raises(DataError, match=r"id `same` occurs 3 times: for .*a\.wav and for .*b\.wav and for"):
            manifest.write(replace(draft, utterances=twice), tmp_path / "out")
        with pytest.raises(DataError, match=r"id `a` occurs 2 times: .*jsonl:1, .*jsonl:2"):
            manifest.read(tampered(written(tmp_path), lambda fields: fields.update(id="a")))

    @pytest.mark.parametrize("splits", [("train", "dev"), ("dev", "test"), ("train", "test")])
    def test_fault_24_the_same_sound_in_two_splits_is_refused(
        self, tmp_path: Path, splits: tuple[Split | None, Split | None]
    ) -> None:
        draft = same_sounds(tmp_path / "sound", splits)
        shown = [f" \\({split}\\)" for split in splits]
        with pytest.raises(DataError, match=f"sound has two ids, `a`{shown[0]} and `b`{shown[1]} .*a.wav, utterance a"):
            manifest.write(draft, tmp_path / "out")
        corpus = manifest.write(draft, tmp_path / "out", drop_faulty=1)
        assert [utterance.id for utterance in corpus.utterances] == ["b"]

    @pytest.mark.parametrize("splits", [(None, None), ("train", "train"), ("test", None)])
    def test_fault_24_the_same_sound_in_one_split_is_counted(
        self, tmp_path: Path, splits: tuple[Split | None, Split | None]
    ) -> None:
        corpus = manifest.write(same_sounds(tmp_path / "sound", splits), tmp_path / "out")
        assert corpus.notes[0].startswith("1 of 2 utterances have the sound of another one, such as `a`")
        assert manifest.read(tmp_path / "out") == corpus

    def test_fault_24_the_same_sound_in_a_manifest_is_refused(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        first = json.loads((folder / "manifest.jsonl").read_text("utf-8").splitlines()[0])
        tampered(folder, lambda fields: fields.update(samples_sha256=first["samples_sha256"]))
        with pytest.raises(DataError, match=r"same sound has two ids, `a` \(train\) and `b` \(test\)"):
            manifest.read(folder)

    @pytest.mark.parametrize(
        "place",
        ["../outside.wav", "deep/../../outside.wav", "/etc/passwd", "file:///etc/passwd", "https://x.org/a.wav"],
    )
    def test_fault_42_a_place_that_leads_out_is_refused(self, tmp_path: Path, place: str) -> None:
        folder = tampered(written(tmp_path), lambda fields: fields.update(audio=place))
        with pytest.raises(DataError, match=rf"The place `{place}`.*manifest\.jsonl:{LINE}, utterance b"):
            manifest.read(folder)

    def test_fault_42_a_link_that_leads_out_is_refused(self, tmp_path: Path) -> None:
        folder = written(tmp_path)
        write_noise(tmp_path / "outside.wav", seed=5)
        (tmp_path / "sound" / "link.wav").symlink_to(tmp_path / "outside.wav")
        with pytest.raises(DataError, match="leads out of the root"):
            manifest.read(tampered(folder, lambda fields: fields.update(audio="link.wav")))
        linked = DraftUtterance(id="a", audio=tmp_path / "sound" / "link.wav")
        draft = Draft(name="a", licence="", root=tmp_path / "sound", utterances=[linked])
        with pytest.raises(DataError, match="leads out of the root"):
            manifest.write(draft, tmp_path / "out")

    def test_fault_42_a_draft_from_outside_the_root_is_refused(self, tmp_path: Path) -> None:
        draft = replace(noise_draft(tmp_path / "sound"), root=tmp_path / "other")
        (tmp_path / "other").mkdir()
        with pytest.raises(DataError, match=r"is not under the root .*/other.*utterance a"):
            manifest.write(draft, tmp_path / "out")


def test_a_corpus_is_opened_in_the_order_of_its_ids(tmp_path: Path) -> None:
    corpus: Corpus = manifest.write(noise_draft(tmp_path, names=("b", "a10", "a2")), tmp_path / "out")
    assert [utterance.id for utterance in corpus.utterances] == ["a10", "a2", "b"]
