"""The task `units`: counts of an utterance, metrics, the saved codebook, controls and verification."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repbench import load_upstream
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.codebook import CODEBOOK_FILE, read_codebook
from repbench.corpora.contract import Phone, Utterance
from repbench.corpora.open import open_corpus
from repbench.corpora.read import read_utterance
from repbench.downstream.contract import LabelledUtterance, TaskContext
from repbench.downstream.problems.units import UNITS, UnitsPrediction, phone_boundaries
from repbench.downstream.units import Units
from repbench.errors import IntegrityError, UsageError
from repbench.testing import DownstreamSubject, tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS
from repbench.upstream.contract import UpstreamInfo

CLASSES = ("a", "b", "sil")
TIMES = UpstreamInfo(
    name="x", sample_rate_hz=100, hop_samples=1, first_center_samples=0, min_samples=1, layer_names=("x",), width=1,
    utterance_normalised=False, trainable=False, citation="", licence="",
)  # fmt: skip
"""A frame every 10 ms, the first one centred on 0."""


def utterance(*phones: Phone, seconds: float = 0.2) -> LabelledUtterance:
    return LabelledUtterance(
        Utterance(
            id="u", audio=Path("u.wav"), sample_rate_hz=100, num_samples=round(100 * seconds), speaker="s", group="g",
            samples_sha256="", phones=phones,
        ),
        phones,
    )  # fmt: skip


def compared(units: list[int], *phones: Phone) -> UnitsPrediction:
    return UNITS.compared(TaskContext(Units(), CLASSES, TIMES), utterance(*phones), np.array(units))


def test_the_counts_of_an_utterance() -> None:
    # frames at 0.00 … 0.09; a covers 0.02 to 0.05, b 0.05 to 0.08: the frame on an end is in the next phone
    found = compared([7, 7, 7, 7, 5, 5, 5, 7, 7, 7], Phone(0.02, 0.05, "a"), Phone(0.05, 0.08, "b"))
    assert found.joint == ((0, 5, 1), (0, 7, 2), (1, 5, 2), (1, 7, 1))
    assert found.symbols == ((5, 3, 1), (7, 7, 2))
    assert found.seconds == 0.2
    # changes at 0.035 and 0.065, both within 20 ms of the one boundary at 0.05
    assert found.boundaries == (1, 2, 1)


def test_a_change_outside_of_the_phones_is_not_judged() -> None:
    assert compared([1, 2, 2, 2, 2, 2, 2, 2, 3, 3], Phone(0.02, 0.05, "a"), Phone(0.05, 0.07, "b")).boundaries == (
        1,
        0,
        0,
    )


def test_boundaries_are_the_edges_between_the_first_start_and_the_last_end() -> None:
    phones = (Phone(0.1, 0.2, "a"), Phone(0.2, 0.3, "a"), Phone(0.4, 0.5, "b"))
    assert phone_boundaries(phones) == [0.2, 0.3, 0.4]
    rounded = (Phone(0.1, 0.20001, "a"), Phone(0.20003, 0.3, "b"))
    assert phone_boundaries(rounded) == [0.20001]
    assert phone_boundaries(()) == []


def test_a_single_frame_and_no_frame_are_counted() -> None:
    assert compared([4], Phone(0.0, 0.2, "a")).symbols == ((4, 1, 1),)
    assert compared([], Phone(0.0, 0.2, "a")).symbols == ()


def test_a_line_is_read_back_and_refused_where_it_is_another() -> None:
    found = compared([7, 7, 5], Phone(0.0, 0.2, "a"))
    line = json.loads(json.dumps(found.as_line()))
    assert UnitsPrediction.of_line(line) == found
    for changed in ({"joint": [[1, 2]]}, {"boundaries": [1, 2]}, {"symbols": [[1, 2, 3, 4]]}, {"more": 1}):
        with pytest.raises((ValueError, TypeError)):
            UnitsPrediction.of_line({**line, **changed})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"joint": ((3, 7, 1),)}, "none of 3 classes"),
        ({"joint": ((0, 7, 9),)}, "more frames of a unit"),
        ({"joint": ((0, 7, -1),)}, "no count"),
        ({"symbols": ((7, 2, 3),)}, "3 runs of 2 frames"),
        ({"boundaries": (1, 5, 2)}, "2 of 1 boundaries are found by 5"),
    ],
)
def test_what_no_run_writes_is_a_fault(changes: dict[str, Any], fault: str) -> None:
    found = compared([7, 7, 5], Phone(0.0, 0.2, "a"))
    assert list(UNITS.faults([found], 3)) == [None]
    (told,) = UNITS.faults([replace(found, **changes)], 3)
    assert told is not None
    assert fault in told


def test_metrics_are_of_pooled_counts() -> None:
    """Two utterances whose joint counts add up to the table of TASKS: PNMI, purities, and the pooled rates."""
    parts = [
        UnitsPrediction(
            id=f"u{number}", speaker="s", group=None, seconds=2.0, joint=joint, symbols=symbols, boundaries=boundaries
        )
        for number, (joint, symbols, boundaries) in enumerate([
            (((0, 0, 8), (1, 0, 3)), ((0, 11, 1),), (11, 14, 10)),
            (((0, 1, 2), (1, 1, 7)), ((1, 9, 3),), (10, 10, 8)),
        ])
    ]  # fmt: skip
    measured = Units().measure(parts, ("a", "b"))
    assert measured["pnmi"].value == pytest.approx(0.19116495692878016, abs=1e-12)
    assert measured["phone_purity"].value == measured["cluster_purity"].value == 0.75
    assert measured["boundary_f1"].value == pytest.approx(0.8)
    assert measured["r_value"].value == pytest.approx(0.798, abs=5e-4)
    assert measured["bitrate"].value == pytest.approx(4 / 4 * (0.25 * 2 + 0.75 * np.log2(4 / 3)))
    assert measured["frame_bitrate"].value is not None
    assert measured["frame_bitrate"].value == pytest.approx(20 / 4 * 0.9927744539878084)


@pytest.mark.parametrize("options", [{"clusters": 1}, {"clusters": 2.0}, {"clusters": 50, "train_frames": 49}])
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be a whole number from"):
        Units(**options)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("units") / "tones"
    tone_corpus(folder, num_speakers=5, per_session=2)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))


def test_the_conformance_suite_holds(tones: Path) -> None:
    subject = DownstreamSubject(Units(), open_corpus(str(tones)))
    results = {check.id: DOWNSTREAM_CHECKS.result(check.id, subject) for check in DOWNSTREAM_CHECKS}
    assert {id_: result.detail for id_, result in results.items() if result.status == "failed"} == {}
    assert results["perfect-scores-perfect"].status == results["inside-the-bounds"].status == "passed"


def go(tones: Path, out: Path, **changes: Any) -> list[WrittenRecord]:
    protocol = Protocol(task=changes.pop("task", {"clusters": 12}))
    return run(
        RunRequest(
            upstream=changes.pop("upstream", "mel"), downstream="units", corpus=str(tones), out=out, protocol=protocol,
            **changes,
        )
    )  # fmt: skip


def test_a_run_finds_the_tones_and_keeps_the_codebook(tones: Path, tmp_path: Path) -> None:
    given, shuffled = go(tones, tmp_path, controls=True)
    record = given.record
    assert record.head == "none"
    assert record.primary.value is not None
    assert record.primary.value > 0.3, "a phone of this corpus is a frequency"
    assert verify_record(given.path, weights=True).holds
    codebook = read_codebook(given.path.with_name(CODEBOOK_FILE), record.downstream.files[CODEBOOK_FILE])
    assert tuple(codebook.centroids.shape) == (12, 160)
    other = shuffled.record.primary.value
    assert other is not None
    assert other < record.primary.value - 0.1, "the phones of test are shuffled, as no label of train is read"
    assert shuffled.record.downstream.files == record.downstream.files


def test_the_seed_draws_the_start_and_the_options_are_read(tones: Path, tmp_path: Path) -> None:
    one, other = go(tones, tmp_path, seeds=(0, 1))
    assert one.record.downstream.files != other.record.downstream.files
    (again,) = go(tones, tmp_path / "again")
    assert again.record.downstream.files == one.record.downstream.files
    (few,) = go(tones, tmp_path / "few", task={"clusters": 3, "train_frames": 40})
    assert few.record.metrics["bitrate"].value is not None
    assert few.record.metrics["pnmi"].counts["units"] <= 3


def test_a_changed_codebook_is_found_by_verify(tones: Path, tmp_path: Path) -> None:
    (written,) = go(tones, tmp_path)
    file = written.path.with_name(CODEBOOK_FILE)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    (change,) = verify_record(written.path, weights=True).changes
    assert change.field == f"downstream.files.{CODEBOOK_FILE}"
    with pytest.raises(IntegrityError):
        read_codebook(file, written.record.downstream.files[CODEBOOK_FILE])


def test_units_are_those_of_the_frames(tones: Path, tmp_path: Path) -> None:
    """The counts of the predictions are those of the upstream's frames, assigned by hand."""
    (written,) = go(tones, tmp_path)
    record = written.record
    centroids = read_codebook(written.path.with_name(CODEBOOK_FILE), record.downstream.files[CODEBOOK_FILE]).centroids
    line = json.loads(written.path.with_name("predictions.jsonl").read_text().splitlines()[0])
    found = next(each for each in open_corpus(str(tones)).utterances if each.id == line["id"])
    samples = read_utterance(found, 16_000)[None]
    frames = load_upstream("mel")(samples, torch.tensor([samples.shape[1]])).layers[0, 0]
    units = torch.cdist(frames.double(), centroids.double()).argmin(dim=1)
    counts = torch.bincount(units, minlength=12)
    assert [[unit, count] for unit, count, _ in line["symbols"]] == [
        [unit, int(count)] for unit, count in enumerate(counts) if count
    ]
