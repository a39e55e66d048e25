"""Planted faults, each named by `corpus prepare` or `corpus check` with its exit code; the clean twin passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from repbench.audio.quality import quality
from repbench.audio.resample import to_rate
from repbench.corpora import manifest
from repbench.corpora.audit.check import CheckReport, check
from repbench.corpora.contract import Draft, DraftUtterance, Phone
from tests.commands import repbench
from tests.corpora.sounds import RATE_HZ, write_noise


def clean(folder: Path) -> Path:
    """A manifest with nothing wrong, not even for a strict audit, its sounds in the same folder."""
    long = write_noise(folder / "sounds" / "long.wav", seed=7, seconds=1.0)
    aligned = (Phone(0.0, 0.25, "AA"), Phone(0.25, 0.5, "sil"))
    utterances = [
        DraftUtterance(id="a", audio=write_noise(folder / "sounds" / "a.wav", seed=1), speaker="s1", split="train"),
        DraftUtterance(id="b", audio=long, start=0.0, end=0.5, speaker="s1", split="train"),
        DraftUtterance(id="c", audio=long, start=0.5, end=1.0, speaker="s1", split="train"),
        DraftUtterance(id="d", audio=write_noise(folder / "sounds" / "d.wav", seed=2), speaker="s2", split="test"),
    ]
    utterances = [replace(each, phones=aligned, text=f"says {each.id}") for each in utterances]
    labels = {"AA": "AA", "sil": "sil"}
    draft = Draft(
        name="planted", licence="none", root=folder, utterances=utterances, phone_map=labels, phone_set=("AA", "sil")
    )
    manifest.write(draft, folder)
    return folder


def edited(folder: Path, utterance: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the line of one utterance."""
    path = folder / "manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for fields in lines:
        if fields["id"] == utterance:
            change(fields)
    path.write_text("".join(json.dumps(fields) + "\n" for fields in lines), "utf-8")


def rewritten(folder: Path, name: str, samples: Any, rate_hz: int = RATE_HZ, subtype: str = "PCM_16") -> None:
    soundfile.write(folder / "sounds" / f"{name}.wav", samples, rate_hz, subtype=subtype)


def noise(seconds: float = 0.5) -> Any:
    return np.random.default_rng(5).uniform(-0.5, 0.5, round(seconds * RATE_HZ))


def nan(folder: Path) -> None:
    samples = noise()
    samples[100:103] = np.nan
    rewritten(folder, "d", samples, subtype="FLOAT")


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a duplicate across splits": (
        lambda folder: (folder / "sounds" / "d.wav").write_bytes((folder / "sounds" / "a.wav").read_bytes()),
        "The same sound has two ids, `a` (train) and `d` (test)",
    ),
    "a checksum": (
        lambda folder: edited(folder, "d", lambda fields: fields.update(samples_sha256="0" * 64)),
        "`manifest.jsonl` does not list the sounds of `corpus.json`",
    ),
    "other samples": (
        lambda folder: rewritten(folder, "d", noise()),
        "The samples are not those that the manifest was made of",
    ),
    "overlapping segments": (
        lambda folder: edited(folder, "c", lambda fields: fields.update(start=0.4, end=0.9)),
        "The utterances `b` (train) and `c` (train) overlap by 0.100 s of one file",
    ),
    "a reversed interval": (
        lambda folder: edited(folder, "d", lambda fields: fields.update(phones=[[0.25, 0.1, "AA"]])),
        "utterance d",
    ),
    "an unknown phone": (
        lambda folder: edited(folder, "d", lambda fields: fields.update(phones=[[0.0, 0.25, "QQ"]])),
        "Labels that `label_sets` of `corpus.json` does not list: QQ",
    ),
    "stereo": (
        lambda folder: rewritten(folder, "d", np.stack([noise(), noise()], axis=1)),
        "The sound has 2 channels",
    ),
    "8 kHz named 16 kHz": (
        lambda folder: rewritten(folder, "d", noise(), rate_hz=8_000),
        "The sound has 8000 Hz, but the manifest has 16000",
    ),
    "NaN samples": (nan, "3 of 8000 samples are NaN or infinite"),
    "a part .. in a path": (
        lambda folder: edited(folder, "d", lambda fields: fields.update(audio="../d.wav")),
        "The place `../d.wav` has a part `..`",
    ),
    "digital silence": (
        lambda folder: rewritten(folder, "d", np.zeros(8_000)),
        "The samples are not those that the manifest was made of",
    ),
}


def test_the_clean_twin_passes_even_a_strict_audit(tmp_path: Path) -> None:
    finished = repbench("corpus", "check", clean(tmp_path / "c"), "--strict")
    assert (finished.code, finished.err.count("problem")) == (0, 0)
    assert "no problems found" in finished.out


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_and_ends_with_3(tmp_path: Path, fault: str) -> None:
    plant, named = FAULTS[fault]
    plant(clean(tmp_path / "c"))
    finished = repbench("corpus", "check", tmp_path / "c")
    assert finished.code == 3
    assert named in finished.err
    assert "Traceback" not in finished.err


def test_fault_25_a_shared_speaker_is_a_warning_and_a_problem_for_a_strict_audit(tmp_path: Path) -> None:
    edited(clean(tmp_path / "c"), "d", lambda fields: fields.update(speaker="s1"))
    warned = repbench("corpus", "check", tmp_path / "c", "--json")
    assert (warned.code, warned.json["problems"]) == (0, [])
    assert warned.json["warnings"] == ["1 of the 1 speakers of test are also in train"]
    strict = repbench("corpus", "check", tmp_path / "c", "--strict")
    assert strict.code == 3
    assert "problem: 1 of the 1 speakers of test are also in train" in strict.err


def test_the_same_text_in_two_splits_is_a_warning(tmp_path: Path) -> None:
    edited(clean(tmp_path / "c"), "d", lambda fields: fields.update(text=" Says  A"))
    assert audited(tmp_path / "c").warnings == ("1 of the 1 texts of test are also in train",)


def test_a_phone_that_test_never_asks_is_a_warning(tmp_path: Path) -> None:
    edited(clean(tmp_path / "c"), "d", lambda fields: fields.update(phones=[[0.0, 0.5, "sil"]]))
    assert audited(tmp_path / "c").warnings == ("1 phones never occur in test: `AA`",)


def audited(folder: Path) -> CheckReport:
    return check(manifest.read(folder))


def one_sound(tmp_path: Path, samples: Any, rate_hz: int = RATE_HZ) -> CheckReport:
    soundfile.write(tmp_path / "x.wav", samples, rate_hz, subtype="PCM_16")
    utterance = DraftUtterance(id="x", audio=tmp_path / "x.wav")
    draft = Draft(name="one", licence="", root=tmp_path, utterances=[utterance])
    return check(manifest.write(draft, tmp_path / "out"))


def test_eight_khz_sound_stored_as_16_khz_is_noticed(tmp_path: Path) -> None:
    spoken = np.random.default_rng(3).uniform(-0.3, 0.3, 8_000).astype(np.float32)
    assert one_sound(tmp_path, to_rate(spoken, 8_000, 16_000).numpy()).flagged == {"narrow": ("x",)}
    assert one_sound(tmp_path, spoken).flagged == {}
    assert one_sound(tmp_path, spoken, 8_000).flagged == {}


def test_clipping_zeros_and_offset_are_noticed(tmp_path: Path) -> None:
    assert one_sound(tmp_path, np.clip(4 * noise(), -1, 1)).flagged == {"clipped": ("x",)}
    silent = noise()
    silent[:5_000] = 0
    report = one_sound(tmp_path, silent)
    assert report.flagged == {"zeros": ("x",)}
    assert report.sound is not None
    assert report.sound.zero_share == pytest.approx(5_000 / 8_000, abs=1e-3)
    assert one_sound(tmp_path, noise() + 0.1).flagged == {"offset": ("x",)}
    assert one_sound(tmp_path, noise()).flagged == {}


def test_digital_silence_is_a_problem(tmp_path: Path) -> None:
    report = one_sound(tmp_path, np.zeros(8_000))
    assert "Every sample is 0" in report.problems[0]
    assert report.exit_code == 3


def test_the_figures_of_a_sound_are_those_of_its_samples() -> None:
    samples = np.array([0.0, 1.0, 1.0, -1.0, 0.5, 1.0], dtype=np.float32)
    found = quality(samples, RATE_HZ)
    assert found.clipped_share == pytest.approx(4 / 6)
    assert found.longest_clip_samples == 3
    assert found.zero_share == pytest.approx(1 / 6)
    assert found.offset == pytest.approx(2.5 / 6)
    assert found.level_db == pytest.approx(10 * np.log10(4.25 / 6))
    assert found.high_share is None


def test_a_moved_corpus_is_checked_under_its_new_root_and_moved_for_good(tmp_path: Path) -> None:
    write_noise(tmp_path / "old" / "a.wav", seed=1)
    draft = Draft(
        name="moved", licence="", root=tmp_path / "old",
        utterances=[DraftUtterance(id="a", audio=tmp_path / "old" / "a.wav")],
    )  # fmt: skip
    corpus = manifest.write(draft, tmp_path / "m")
    (tmp_path / "old").rename(tmp_path / "new")
    lost = repbench("corpus", "check", tmp_path / "m")
    assert (lost.code, "root folder of the corpus does not exist" in lost.err) == (3, True)
    assert repbench("corpus", "check", tmp_path / "m", "--root", tmp_path / "new").code == 0
    moved = repbench("corpus", "move", tmp_path / "m", "--root", tmp_path / "new", "--json")
    assert (moved.code, moved.json["fingerprint"]) == (0, corpus.fingerprint)
    assert manifest.read(tmp_path / "m").utterances[0].audio == tmp_path / "new" / "a.wav"


@pytest.mark.parametrize(
    ("seconds", "fault"), [(None, "The sound file is missing"), (0.4, "has 6400 samples at 16000 Hz")]
)
def test_a_root_that_lacks_a_sound_is_not_written_down(tmp_path: Path, seconds: float | None, fault: str) -> None:
    folder = clean(tmp_path / "c")
    before = (folder / "corpus.json").read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    if seconds is not None:
        write_noise(other / "sounds" / "a.wav", seed=1, seconds=seconds)
    finished = repbench("corpus", "move", folder, "--root", other)
    assert (finished.code, fault in finished.err, "utterance a)" in finished.err) == (3, True, True)
    assert (folder / "corpus.json").read_bytes() == before


def test_a_name_has_no_root(tmp_path: Path) -> None:
    finished = repbench("corpus", "check", "synthetic", "--root", tmp_path)
    assert (finished.code, "has no root" in finished.err) == (2, True)
