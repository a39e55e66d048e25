"""The record: a schema, an id that is its content, a counting rule."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from repbench.benchmark.records import record as records
from repbench.benchmark.records.predictions_file import EncodedPredictions, predictions_digest
from repbench.benchmark.records.record import (
    Record,
    digest_of,
    json_schema,
    read_predictions,
    read_record,
    read_records,
    sealed_record,
    write_record,
)
from repbench.downstream.contract import FramePrediction, Prediction, SequencePrediction, UtterancePrediction
from repbench.errors import DataError, IntegrityError
from repbench.files import MAX_DEPTH, parse_json

SCHEMA_FILE = Path(records.__file__).with_name("record.schema.json")

METRIC = {
    "value": 0.75, "unit": "proportion of utterances", "higher_is_better": True, "ci95": [0.5, 1.0],
    "ci_unit": "speaker", "counts": {"correct": 3, "total": 4},
}  # fmt: skip


def fields(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "created": "2026-01-02T03:04:05+00:00",
        "upstream": {"name": "mel", "checkpoint": None, "fingerprint": "0" * 64,
                     "origin": {"distribution": "repbench", "version": "1"}, "layer_names": ["mel"]},
        "downstream": {"name": "speaker", "version": "1"},
        "corpus": {"name": "c", "fingerprint": "1" * 64, "split_policy": "official splits", "warnings": [],
                   "n_train": 8, "n_dev": 2, "n_test": 4},
        "mode": "frozen", "layer": "last", "label_fraction": 1.0, "label_seconds": {"train": 8.0, "dev": 2.0},
        "seed": 0, "head": "mlp1", "protocol": {"probe": {"steps": 5}},
        "selection": {"grid": [{"learning_rate": 0.1, "step": 5, "dev_value": 0.5}],
                      "chosen": {"learning_rate": 0.1, "step": 5}, "dev_value": 0.5},
        "primary_metric": "accuracy", "metrics": {"accuracy": METRIC},
        "baselines": {"chance": 0.25, "majority": 0.25}, "n_listed": 4, "n_scored": 4, "excluded": {},
        "test_accesses": 1,
        "cost": {"parameters": 0, "macs_per_second": 10, "extract_seconds": 0.1, "train_seconds": 0.2,
                 "peak_rss_bytes": 1000, "device": "cpu"},
        "environment": {"python": "3.11", "torch": "2.11", "platform": "linux", "cpu": "c", "threads": 2,
                        "precision": "float32", "git": None},
    }  # fmt: skip
    return {**whole, **changes}


def test_the_schema_that_ships_is_the_one_the_code_writes() -> None:
    assert json.loads(SCHEMA_FILE.read_text(encoding="utf-8")) == json_schema()


def test_a_record_follows_the_schema_and_a_changed_one_does_not() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    record = sealed_record(fields()).as_dict()
    validator.validate(record)
    for change in ({"mode": "thawed"}, {"n_scored": "4"}, {"label_fraction": 2.0}, {"surprise": 1}):
        assert not validator.is_valid({**record, **change})


def test_the_id_is_a_digest_of_everything_else() -> None:
    record = sealed_record(fields())
    assert record.id == digest_of(record.as_dict())
    assert record.id == sealed_record(fields()).id
    assert record.id != sealed_record(fields(seed=1)).id


def test_what_is_scored_and_excluded_must_be_what_is_listed() -> None:
    with pytest.raises(ValidationError, match=r"n_scored \(4\) \+ excluded \(1\) must be n_listed \(4\)"):
        sealed_record(fields(excluded={"u": "too short"}))


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        sealed_record(fields(metrics={"accuracy": {**METRIC, "value": float("nan")}}))


def test_a_record_and_its_predictions_come_back(tmp_path: Path) -> None:
    predictions: list[Prediction] = [
        UtterancePrediction(id="a\u2028\x85ü", speaker="s", group=None, reference=1, scores=(0.25, 0.75)),
        FramePrediction(id="v", speaker=None, group="g", confusion=((0, 1, 5),), edits=2, reference_length=3),
        SequencePrediction(id="w", speaker="s", group=None, reference=(0, 1, 1), hypothesis=(), edits=3),
    ]
    path = write_record(tmp_path / "run", sealed_record(fields()), predictions)
    assert read_predictions(tmp_path / "run" / "predictions.jsonl") == predictions
    assert read_record(path) == sealed_record(fields())
    assert read_records(tmp_path) == read_records(str(path)) == read_records([path])
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "repbench.record/2"}', "<html>"])
def test_what_is_no_record_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text, encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"not a record of repbench.record/1.*record\.json"):
        read_records(tmp_path)


def test_a_place_without_a_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no record here"):
        read_record(tmp_path / "record.json")


def test_a_broken_line_of_predictions_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"id": "u"}\n', encoding="utf-8")
    with pytest.raises(IntegrityError, match="Line 1 is not a prediction"):
        read_predictions(path)


@pytest.mark.parametrize(
    "line",
    [
        {"reference": 0, "scores": [0.0, 1.0]},
        {"reference": [0], "hypothesis": [], "edits": 1, "reference_length": 1},
        {"confusion": [[0, 0, 4]], "edits": 0, "reference_length": 1},
    ],
    ids=["utterance", "sequence", "frames"],
)
@pytest.mark.parametrize("more", ["note", "reference_lengths"])
def test_a_prediction_that_says_more_than_is_read_is_refused(tmp_path: Path, line: dict[str, Any], more: str) -> None:
    path = tmp_path / "predictions.jsonl"
    common = {"id": "u", "speaker": None, "group": None, **line}
    path.write_text(json.dumps(common) + "\n", encoding="utf-8")
    assert len(read_predictions(path)) == 1
    path.write_text(json.dumps({**common, more: 0}) + "\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match=f"Line 1 is not a prediction: unknown field `{more}`"):
        read_predictions(path)


def test_a_sequence_whose_length_is_not_its_length_is_refused(tmp_path: Path) -> None:
    line = {"id": "u", "speaker": None, "group": None, "reference": [0], "hypothesis": [], "edits": 1}
    (tmp_path / "predictions.jsonl").write_text(json.dumps({**line, "reference_length": 2}) + "\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="Line 1 is not a prediction: `reference_length` is not the length"):
        read_predictions(tmp_path / "predictions.jsonl")


def test_a_record_is_frozen() -> None:
    record: Record = sealed_record(fields())
    with pytest.raises(ValidationError, match="frozen"):
        record.seed = 3


@pytest.mark.parametrize(
    "text",
    [
        "[" * 40 + "]" * 40,
        '{"a":' * 40 + "1" + "}" * 40,
        '["]",' * 40 + '"["' + ', "["]' * 40,
        '["\\"",' * 40 + "1" + "]" * 40,
    ],
)
def test_json_that_is_nested_too_deeply_is_refused_however_its_brackets_are_hidden(text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(text)
    assert parse_json(json.dumps({"a [[[": ["]]", {"b": [[1, "{"]]}]})) == {"a [[[": ["]]", {"b": [[1, "{"]]}]}


@pytest.mark.parametrize(
    ("opening", "closing", "times"),
    [("[", "]", MAX_DEPTH), ('{"a":', "}", MAX_DEPTH), ('{"a":[', "]}", MAX_DEPTH // 2)],
)
def test_json_is_parsed_down_to_the_deepest_nesting_and_no_further(opening: str, closing: str, times: int) -> None:
    assert parse_json(f"{opening * times}1{closing * times}")
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(f"[{opening * times}1{closing * times}]")


def test_the_order_of_predictions_plays_no_part_in_their_digest_or_file(tmp_path: Path) -> None:
    predictions: list[Prediction] = [
        UtterancePrediction(id=name, speaker="s", group=None, reference=1, scores=(1e-7, 2)) for name in ("b", "a", "ü")
    ]
    for folder, several in (("one", predictions), ("other", predictions[::-1])):
        write_record(tmp_path / folder, sealed_record(fields()), several)
    content = (tmp_path / "one" / "predictions.jsonl").read_bytes()
    assert (tmp_path / "other" / "predictions.jsonl").read_bytes() == content
    assert predictions_digest(predictions[::-1]) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_predictions_are_encoded_before_their_place_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr("repbench.benchmark.records.predictions_file._IN_MEMORY_BYTES", in_memory or 1)
    predictions = [
        UtterancePrediction(id=name, speaker="s", group=None, reference=1, scores=(1e-7, 2)) for name in ("b", "a", "ü")
    ]
    with EncodedPredictions(predictions, tmp_path / "runs") as encoded:
        path = write_record(tmp_path / "runs" / "one", sealed_record(fields()), encoded)
    content = (path.parent / "predictions.jsonl").read_bytes()
    assert encoded.digest == hashlib.sha256(content).hexdigest() == predictions_digest(predictions)
    assert read_predictions(path.parent / "predictions.jsonl") == sorted(predictions, key=lambda each: each.id)
    assert sorted(each.name for each in (tmp_path / "runs").iterdir()) == ["one"]
