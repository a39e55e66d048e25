"""ABX of units: the cells of the task `abx`, what they are measured by, and records from before they were kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.predictions_file import predictions_digest
from repbench.benchmark.records.record import read_record
from repbench.benchmark.records.verify import verify_record
from repbench.benchmark.run import RunRequest, run
from repbench.benchmark.scoring.metrics import measure_clusters, metrics_part
from repbench.codebook import CODEBOOK_FILE
from repbench.corpora.contract import Phone, Utterance
from repbench.downstream.abx import Abx
from repbench.downstream.contract import FrozenFeatures, LabelledUtterance, TaskContext
from repbench.downstream.metrics.abx import Cell, error_rate, error_rate_of_tables, summed_over_contexts
from repbench.downstream.problems.abx import AbxPrediction
from repbench.downstream.problems.units import UNITS, UnitsPrediction
from repbench.downstream.units import Units
from repbench.testing import tone_corpus
from tests.benchmark.forging import copied, edit, edit_predictions

CLASSES = ("a", "b", "c", "sil")


@dataclass
class Frames:
    """Frames of a split in memory."""

    examples: Sequence[LabelledUtterance]
    frames: Sequence[Tensor]

    def of(self, number: int) -> Tensor:
        return self.frames[number]

    def each(self) -> Iterator[Tensor]:
        return iter(self.frames)


class Times:
    """A frame every 10 ms, the first centred at 5 ms."""

    sample_rate_hz, hop_samples, first_center_samples = 16_000, 160, 80


def example(number: int, speaker: str | None, group: str | None = None) -> LabelledUtterance:
    """The phones a, b, c, a, a silence between, and a b that is too short for a frame."""
    phones = tuple(
        Phone(place / 10, (place + 1) / 10, label) for place, label in enumerate(("a", "b", "sil", "c", "a"))
    )
    utterance = Utterance(
        id=f"u{number:02}", audio=Path("u.wav"), sample_rate_hz=16_000, num_samples=9_600, speaker=speaker,
        group=group, phones=(*phones, Phone(0.5001, 0.5049, "b")), samples_sha256="0",
    )  # fmt: skip
    return LabelledUtterance(utterance, utterance.phones)


def features(examples: Sequence[LabelledUtterance], seed: int = 0) -> FrozenFeatures:
    """Frames around the direction of their phone; train is those of test."""
    frames = []
    for each in examples:
        own = torch.eye(4)[[0, 1, 3, 2, 0, 3]].repeat_interleave(10, dim=0)
        random = np.random.default_rng(int(each.id[1:]))
        frames.append(own + 0.6 * torch.from_numpy(random.standard_normal((60, 4))).float())
    split = Frames(examples, frames)
    return FrozenFeatures(
        context=TaskContext(Units(), CLASSES, Times()), train=split, dev=None, test=split, seed=seed,
        device=torch.device("cpu"), memory_bytes=10**8,
    )  # fmt: skip


def found(given: FrozenFeatures, clusters: int = 8) -> list[UnitsPrediction]:
    return cast(list[UnitsPrediction], Units(clusters=clusters).outcome(given).predictions)


def value(predictions: Sequence[UnitsPrediction]) -> float | None:
    return Units().measure(predictions, CLASSES)["abx_error_rate"].value


@pytest.mark.parametrize("distance", ["identical", "angular"])
@pytest.mark.parametrize("seed", [0, 3])
def test_cells_are_those_of_the_task_abx_on_one_hot_units(distance: str, seed: int) -> None:
    """Twenty tokens of a and ten of b and c by each speaker, so that the limit of ten draws."""
    given = features([example(number, f"s{number % 3}") for number in range(30)], seed)
    outcome = Units(clusters=8).outcome(given)
    codebook = _codebook(outcome.files[CODEBOOK_FILE])
    task = Abx(distance=distance)
    one_hot = Frames(
        [LabelledUtterance(each.utterance, task.labels(each.utterance)) for each in given.test.examples],
        [
            torch.nn.functional.one_hot(torch.cdist(each, codebook).argmin(dim=1), 8).float()
            for each in given.test.each()
        ],
    )
    expected = cast(list[AbxPrediction], task.outcome(replace(given, test=one_hot)).predictions)
    for own, other in zip(cast(list[UnitsPrediction], outcome.predictions), expected, strict=True):
        named = [(CLASSES[a], CLASSES[b], errors, triples) for a, b, errors, triples in own.abx or ()]
        assert named == [(cell.a, cell.b, cell.twice_errors, cell.triples) for cell in other.cells]
    measured = Units().measure(outcome.predictions, CLASSES)["abx_error_rate"]
    assert measured.value == pytest.approx(task.measure(expected, ())["error_rate"].value, abs=1e-15)
    assert measured.value is not None
    assert 0 < measured.value < 0.5
    # 3 phones, each with 2 others, of 3 speakers: 10 tokens of each are A or X, and 10 are B
    assert measured.counts == {"cells": 18, "triples": 18 * 10 * 9 * 10}


def _codebook(content: bytes) -> Tensor:
    from safetensors.torch import load

    return load(content)["centroids"]


def test_more_units_that_split_phones_are_not_errors_but_fewer_are() -> None:
    given = features([example(number, f"s{number % 3}") for number in range(12)])
    assert (value(found(given, clusters=2)) or 0) > (value(found(given, clusters=8)) or 1)


def test_without_a_speaker_there_are_no_cells_and_no_error() -> None:
    predictions = found(features([example(number, None) for number in range(6)]))
    assert [each.abx for each in predictions] == [()] * 6
    measured = Units().measure(predictions, CLASSES)
    assert measured["abx_error_rate"].value is None
    assert measured["abx_error_rate"].counts == {"cells": 0, "triples": 0}
    assert measured["pnmi"].value is not None


def test_a_label_that_is_no_class_is_no_token() -> None:
    given = features([example(number, f"s{number % 3}") for number in range(12)])
    without_c = replace(given, context=replace(given.context, classes=("a", "b", "sil")))
    assert {pair[:2] for each in found(without_c) for pair in each.abx or ()} == {(0, 1), (1, 0)}


def test_tables_have_the_error_rate_of_their_cells() -> None:
    random = np.random.default_rng(0)
    cells: dict[str, list[Cell]] = {}
    sums, counts = np.zeros((3, 5, 5)), np.zeros((3, 5, 5), dtype=np.int64)
    for _ in range(40):
        group, a, b = int(random.integers(3)), *(int(each) for each in random.choice(5, 2, replace=False))
        triples = int(random.integers(1, 9))
        errors = int(random.integers(2 * triples + 1))
        cells.setdefault("x", []).append(Cell(str(a), str(b), str(group), "", errors, triples))
        sums[group, a, b] += errors / (2 * triples)
        counts[group, a, b] += 1
    expected = error_rate(summed_over_contexts(cells["x"]))
    assert error_rate_of_tables(sums, counts) == pytest.approx(expected, abs=1e-15)
    assert error_rate_of_tables(np.zeros((0, 5, 5)), np.zeros((0, 5, 5), dtype=np.int64)) is None


def test_intervals_leave_speakers_out_with_their_cells() -> None:
    predictions = found(features([example(number, f"s{number % 3}") for number in range(12)]))
    measured = measure_clusters(Units(), CLASSES, predictions)
    assert measured.names == ("s0", "s1", "s2")
    for name, without in zip(measured.names, measured.values.without, strict=True):
        others = Units().measure([each for each in predictions if each.speaker != name], CLASSES)
        assert without == {metric: each.value for metric, each in others.items()}
    part = metrics_part(Units(), CLASSES, predictions)
    low, high = part["abx_error_rate"]["ci95"]
    assert low < part["abx_error_rate"]["value"] < high


def test_chapters_of_one_speaker_give_abx_no_interval() -> None:
    """The cell of a token in one chapter has tokens of all."""
    predictions = found(features([example(number, "s", f"g{number % 3}") for number in range(12)]))
    part = metrics_part(Units(), CLASSES, predictions)
    assert part["pnmi"]["ci95"] is not None
    assert part["pnmi"]["ci_unit"] == "group"
    assert part["abx_error_rate"]["value"] is not None
    assert part["abx_error_rate"]["ci95"] is None


def test_a_group_has_the_cells_of_speakers_who_are_in_it_alone() -> None:
    predictions = found(features([example(number, f"s{number % 3}") for number in range(12)]))
    inside = {each.id for each in predictions if each.speaker == "s0"}
    partly = inside | {"u01"}
    assert UNITS.among(predictions, inside) == [each for each in predictions if each.speaker == "s0"]
    found_partly = cast(list[UnitsPrediction], UNITS.among(predictions, partly))
    assert {each.id for each in found_partly} == partly
    assert [each.abx for each in found_partly if each.speaker == "s1"] == [()]
    assert value(found_partly) == value([each for each in predictions if each.speaker == "s0"])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"abx": ((0, 0, 1, 2),)}, "is none of 4 classes"),
        ({"abx": ((0, 4, 1, 2),)}, "is none of 4 classes"),
        ({"abx": ((0, 1, -1, 2),)}, "is none of 4 classes"),
        ({"abx": ((0, 1, 5, 2),)}, "5 half errors in 2 triples"),
        ({"abx": ((0, 1, 0, 0),)}, "0 half errors in 0 triples"),
        ({"speaker": None}, "cells of ABX without a speaker"),
    ],
)
def test_cells_that_no_run_writes_are_a_fault(changes: dict[str, Any], fault: str) -> None:
    first = found(features([example(number, "s") for number in range(6)]))[0]
    assert first.abx
    assert list(UNITS.faults([first], 4)) == [None]
    (told,) = UNITS.faults([replace(first, **changes)], 4)
    assert told is not None
    assert fault in told


def test_lines_keep_cells_and_older_lines_are_without() -> None:
    first = found(features([example(number, "s") for number in range(6)]))[0]
    line = first.as_line()
    assert UnitsPrediction.of_line(line) == first
    with pytest.raises(ValueError, match="`abx` does not have four numbers"):
        UnitsPrediction.of_line({**line, "abx": [[0, 1, 2]]})
    del line["abx"]
    older = UnitsPrediction.of_line(line)
    assert older.abx is None
    assert older.as_line() == line


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a record."""
    folder = tmp_path_factory.mktemp("units-abx")
    tone_corpus(folder / "tones", num_speakers=5, per_session=2)
    request = RunRequest(
        upstream="mel", downstream="units", corpus=str(folder / "tones"), out=folder / "runs",
        protocol=Protocol(task={"clusters": 12}),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPBENCH_CACHE", str(folder / "cache"))
        return run(request)[0].path.parent


def test_a_record_has_the_metric_and_verification_computes_it_again(written: Path, tmp_path: Path) -> None:
    metric = read_record(written / "record.json").metrics["abx_error_rate"]
    assert metric.value is not None
    assert metric.value < 0.5, "a phone of this corpus is a frequency"
    assert verify_record(written).holds
    folder = copied(written, tmp_path / "changed")

    def without_errors(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            line["abx"] = [[a, b, 0, triples] for a, b, _, triples in line["abx"]]

    edit_predictions(folder, without_errors)
    changes = verify_record(folder).changes
    assert [each.found for each in changes if each.field == "metrics.abx_error_rate.value"] == [0]


def test_a_record_from_before_the_metric_holds(written: Path, tmp_path: Path) -> None:
    folder = copied(written, tmp_path / "older")

    def without_cells(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            del line["abx"]

    def older(record: dict[str, Any]) -> None:
        del record["metrics"]["abx_error_rate"]
        record["predictions_sha256"] = predictions_digest(verify_record(folder).predictions)

    edit_predictions(folder, without_cells)
    edit(folder, older, sealed_anew=True)
    verdict = verify_record(folder)
    assert verdict.changes == ()
    assert verdict.measured.whole["abx_error_rate"].value is None


def test_a_metric_cannot_be_taken_out_of_a_record_whose_predictions_have_it(written: Path, tmp_path: Path) -> None:
    folder = copied(written, tmp_path / "less")
    edit(folder, lambda record: record["metrics"].pop("abx_error_rate"), sealed_anew=True)
    assert [each.field for each in verify_record(folder).changes] == ["metrics.abx_error_rate"]
