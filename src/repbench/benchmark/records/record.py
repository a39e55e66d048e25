"""The record of a run: its numbers with everything that is needed to compare them and to compute them again.

`record.json` follows the JSON Schema `record.schema.json` in this folder (`repbench.record/1`). It is written once,
atomically, and never edited; its `id` is a digest of all its other fields. `predictions.jsonl` in the same folder has
what the metrics need to be computed again, one utterance a line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from repbench.benchmark.records.attributes import attributes_of
from repbench.benchmark.records.parts import (
    ConditionPart,
    Cost,
    Count,
    EnvironmentPart,
    FinetunedPart,
    FoldPart,
    HeardPart,
    LabelSeconds,
    Number,
    Origin,
    Part,
    SelectionPart,
    UpstreamPart,
)
from repbench.benchmark.records.predictions_file import (  # noqa: F401 - some of these names were here
    PREDICTIONS_FILE,
    EncodedPredictions,
    canonical_lines,
    prediction_line,
    predictions_digest,
)
from repbench.configs.requests import argument
from repbench.downstream.problems import FRAMES, PROBLEMS, Problem
from repbench.downstream.problems.contract import ENCODER_FILES, Prediction
from repbench.errors import DataError, IntegrityError
from repbench.files import (
    atomic_write,
    canonical_json,
    is_surely_flat,
    parse_json,
    read_bounded,
    write_json,
)

SCHEMA: Final = "repbench.record/1"
RECORD_FILE = "record.json"
PROBE_FILE = "probe.safetensors"
NETWORK_FILE = "network.safetensors"
"""The weights of a fine-tuned run, in place of a probe."""

MAX_RECORD_BYTES: Final = 16 << 20
"""The largest record that is read."""

MAX_PREDICTIONS_BYTES: Final = 1 << 30
"""The largest predictions that are read, unless a record has more utterances and classes than that holds."""

_LINE_BYTES, _SCORE_BYTES = 1024, 32
"""Bounds of a line of predictions without its scores, and of the score of a class."""

EncoderFile = Annotated[str, Field(pattern=ENCODER_FILES)]


class DownstreamPart(Part):
    """The task, the classes that predictions number, and the id of its certificate, if there is one.

    All three are None in records made before they were kept here. `files` has the SHA-256 of each file in the folder of
    the record that the targets were encoded with, by its name; records of tasks without such files do not have the
    field.
    """

    name: str
    version: str
    classes: tuple[str, ...] | None = None
    origin: Origin | None = None
    certificate: str | None = None
    files: dict[EncoderFile, str] = Field(default_factory=dict, exclude_if=lambda files: not files)


class CorpusPart(Part):
    """The corpus and its division; the origin is that of the plugin that made or opened it, None for a manifest.

    `resampler` names what brought sounds of another rate to that of the upstream; None where none had to be, and in
    records made before it was kept. `licence` is what the corpus declares of its sound; records made before it was kept
    do not have the field.
    """

    name: str
    fingerprint: str
    split_policy: str
    warnings: tuple[str, ...]
    n_train: Count
    n_dev: Count
    n_test: Count
    origin: Origin | None = None
    resampler: str | None = None
    # Left out of records that were made before it was kept, whose ids stay.
    licence: str | None = Field(default=None, exclude_if=lambda licence: licence is None)

    @property
    def resampled_by(self) -> str | None:
        """As `resampler`, also of records made before it was kept: torchaudio was the only one then."""
        if self.resampler is None and any(warning.startswith("resampled from ") for warning in self.warnings):
            return "torchaudio"
        return self.resampler


class Metric(Part):
    """One number with its unit, direction, interval and counts."""

    value: Number | None
    unit: str
    higher_is_better: bool
    ci95: tuple[Number, Number] | None
    ci_unit: str | None
    counts: dict[str, Count]


class Baselines(Part):
    """Chance and majority, in the primary metric."""

    chance: Number | None
    majority: Number | None


class Record(Part):
    """One pair of upstream and downstream, one setting, one seed.

    `predictions_sha256` is that of `predictions.jsonl` as it was written, `probe_sha256` that of the file of weights
    in its folder; both are None in records made before they were kept. With `folds`, each fold has its own file of
    weights, and `mean_over_folds` is the mean of each metric in which every fold counts alike, as published protocols
    report it; records without folds do not have these two fields. `head_origin` is that of a plugin's head;
    records with a built-in head do not have the field. `heard` states whether the upstream was trained on test
    utterances before; records made before it was kept do not have the field. `finetuned` states which weights of the
    upstream were trained; records of frozen models, and those made before it was kept, do not have the field.
    """

    schema_: Literal["repbench.record/1"] = Field(default=SCHEMA, alias="schema")
    id: str
    created: str
    upstream: UpstreamPart
    downstream: DownstreamPart
    corpus: CorpusPart
    mode: Literal["frozen", "finetune"]
    layer: str
    label_fraction: Annotated[float, Field(gt=0, le=1)]
    label_seconds: LabelSeconds
    seed: Count
    head: str
    # Left out where it is None, so that the ids of records with built-in heads stay those of before the field.
    head_origin: Origin | None = Field(default=None, exclude_if=lambda origin: origin is None)
    # Left out of records of clean sound, whose ids stay those of before the field.
    condition: ConditionPart | None = Field(default=None, exclude_if=lambda condition: condition is None)
    protocol: dict[str, Any]
    selection: SelectionPart
    primary_metric: str
    metrics: dict[str, Metric]
    baselines: Baselines
    n_listed: Count
    n_scored: Count
    excluded: dict[str, str]
    test_accesses: Count
    cost: Cost
    environment: EnvironmentPart
    certificate: str | None = None
    predictions_sha256: str | None = None
    probe_sha256: str | None = None
    folds: tuple[FoldPart, ...] | None = Field(default=None, exclude_if=lambda folds: folds is None)
    mean_over_folds: dict[str, Number | None] | None = Field(default=None, exclude_if=lambda mean: mean is None)
    # Left out where it is None, so that the ids of records made before it was kept stay.
    heard: HeardPart | None = Field(default=None, exclude_if=lambda heard: heard is None)
    # Likewise.
    finetuned: FinetunedPart | None = Field(default=None, exclude_if=lambda finetuned: finetuned is None)
    seal: dict[str, str] | None = None

    @model_validator(mode="after")
    def _counting_rule(self) -> Record:
        if self.n_scored + len(self.excluded) != self.n_listed:
            raise ValueError(
                f"n_scored ({self.n_scored}) + excluded ({len(self.excluded)}) must be n_listed ({self.n_listed})"
            )
        if self.primary_metric not in self.metrics:
            raise ValueError(f"the primary metric {self.primary_metric} is not among the metrics")
        if (self.folds is None) != (self.mean_over_folds is None):
            raise ValueError("`folds` and `mean_over_folds` must both be there, or neither")
        if self.folds is not None and sum(fold.n_scored for fold in self.folds) != self.n_scored:
            raise ValueError(f"the `n_scored` of the folds must add up to {self.n_scored}")
        return self

    @property
    def primary(self) -> Metric:
        """The metric that ranks."""
        return self.metrics[self.primary_metric]

    @property
    def condition_shown(self) -> str:
        """The condition of the test sound in words."""
        if self.condition is None:
            return "clean"
        trained = ", trained on it" if self.condition.training == "matched" else ""
        return f"{self.condition.name}{trained}"

    @property
    def most_predictions_bytes(self) -> int:
        """The largest file of predictions that is read for it: 100,000 utterances of 1,250 speakers take 2.6 GB."""
        num_classes = len(self.downstream.classes or ())
        return max(MAX_PREDICTIONS_BYTES, self.n_scored * (_LINE_BYTES + _SCORE_BYTES * num_classes))

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return self.model_dump(mode="json", by_alias=True)


def sealed_record(fields: dict[str, Any]) -> Record:
    """Make a record of its fields; the seal has a digest of each, the id is a digest of them all."""
    draft = Record.model_validate({**fields, "schema": SCHEMA, "id": ""})
    # The order matters: the seal covers all fields but id and itself, the id all fields with the seal.
    sealed = draft.model_copy(update={"seal": seal_of(draft.as_dict())})
    return sealed.model_copy(update={"id": digest_of(sealed.as_dict())})


def digest_of(record: dict[str, Any]) -> str:
    """The id that a record's fields call for: 16 hexadecimal digits of a SHA-256 over all of them but the id."""
    return hashlib.sha256(canonical_json({**record, "id": ""})).hexdigest()[:16]


def seal_of(record: dict[str, Any]) -> dict[str, str]:
    """8 digits of a SHA-256 for each field, one level into parts: they name a field that was changed later."""
    fields: dict[str, Any] = {}
    for name, value in record.items():
        if name not in {"id", "seal"}:
            # An empty mapping has no inner names; as one field it is sealed all the same, so that adding a key to it
            # shows.
            nested = value if isinstance(value, dict) and value else {"": value}
            fields |= {f"{name}.{inner}".removesuffix("."): each for inner, each in nested.items()}
    return {name: hashlib.sha256(canonical_json(value)).hexdigest()[:8] for name, value in sorted(fields.items())}


def write_record(folder: Path, record: Record, predictions: EncodedPredictions | Iterable[Prediction]) -> Path:
    """Write predictions and record into `folder`; the record last, so that one that is there is whole."""
    return write_fields(folder, record.as_dict(), predictions)


def write_fields(folder: Path, fields: dict[str, Any], predictions: EncodedPredictions | Iterable[Prediction]) -> Path:
    """As `write_record`, of a record as read from another file: its id is of exactly these fields."""
    if isinstance(predictions, EncodedPredictions):
        predictions.write(folder)
    else:
        with atomic_write(folder / PREDICTIONS_FILE) as stream:
            stream.writelines(canonical_lines(predictions))
    write_json(folder / RECORD_FILE, fields)
    return folder / RECORD_FILE


def weights_file(record: Record) -> str:
    """The name of the file of weights in the folder of a record."""
    return NETWORK_FILE if record.mode == "finetune" else PROBE_FILE


def fold_probe_file(number: int) -> str:
    """The name of the file of weights of a fold, by its number from 1 on: its name may be none of a file."""
    return f"probe.fold-{number}.safetensors"


def is_of_known_kind(line: dict[str, Any]) -> bool:
    """Whether a line of `predictions.jsonl` has a field that marks the predictions of a problem of the table."""
    return any(each.prediction.marker in line for each in PROBLEMS.values())


def read_predictions(
    path: Path, most_bytes: int = MAX_PREDICTIONS_BYTES, *, problem: Problem | None = None
) -> list[Prediction]:
    """Read `predictions.jsonl`.

    Args:
        path: Of the file.
        most_bytes: A larger file is refused.
        problem: Of the task; None: one of the table.

    Raises:
        IntegrityError: Names the line that is not a prediction.
    """
    return read_predictions_and_digest(path, most_bytes, problem=problem)[0]


def read_predictions_and_digest(
    path: Path, most_bytes: int = MAX_PREDICTIONS_BYTES, *, problem: Problem | None = None
) -> tuple[list[Prediction], str]:
    """As `read_predictions`, with the SHA-256 of the file; errors too."""
    try:
        content = read_bounded(path, most_bytes)
        text = content.decode("utf-8")
    except ValueError as error:
        raise IntegrityError(f"These are no predictions: {error}", file=path, do="Run it again") from error
    predictions: list[Prediction] = []
    parse = _parsed if is_surely_flat(content) else parse_json
    # Line feeds alone part the lines: an id may hold any other separator.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            predictions.append(prediction_of(parse(line), problem))
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"Line {number} is not a prediction: {error}", file=path, do="Run it again") from error
    return predictions, hashlib.sha256(content).hexdigest()


def _parsed(line: str) -> Any:
    """As `json.loads`, in less time where pydantic's parser reads it too."""
    try:
        return from_json(line)
    except ValueError:
        return json.loads(line)


def prediction_of(line: dict[str, Any], problem: Problem | None = None) -> Prediction:
    """The prediction of a line of `predictions.jsonl`.

    Its kind is that of the problem whose predictions have one of the line's fields: `problem` if it does, else one of
    the table of problems.

    Raises:
        ValueError, KeyError, TypeError: It is none, or holds more.
    """
    if "attributes" in line:
        rest = {name: value for name, value in line.items() if name != "attributes"}
        return replace(prediction_of(rest, problem), attributes=attributes_of(line["attributes"]))
    if "fold" in line:
        fold, line = line["fold"], {name: value for name, value in line.items() if name != "fold"}
        if not isinstance(fold, str):
            raise ValueError(f"`fold` must be a name, but is {fold!r}")
        return replace(prediction_of(line, problem), fold=fold)
    several = [*([] if problem is None else [problem]), *PROBLEMS.values()]
    # Frame predictions are the fallback, whose parser names the missing field of a line that fits nothing.
    kind = next((each.prediction for each in several if each.prediction.marker in line), FRAMES.prediction)
    return kind.of_line(line)


def read_record(path: Path) -> Record:
    """Read one `record.json`.

    Raises:
        DataError: There is no such file.
        IntegrityError: It is not a record of this schema.
    """
    return record_of(read_fields(path), path)


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of one `record.json` as they are in the file.

    Raises:
        DataError: There is no such file, or it cannot be read.
        IntegrityError: It is not a JSON object.
    """
    try:
        fields = parse_json(read_bounded(path, MAX_RECORD_BYTES))
    except FileNotFoundError as error:
        raise DataError("There is no record here", file=path, do="Give a run's folder or its record.json") from error
    except OSError as error:
        raise DataError(f"The record cannot be read: {error.strerror}", file=path, do="Give a run's folder") from error
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise IntegrityError(f"This is not a record of {SCHEMA}: {reason}", file=path, do="Run it again") from error
    if not isinstance(fields, dict):
        raise IntegrityError(f"This is not a record of {SCHEMA}: it is no object", file=path, do="Run it again")
    return fields


def record_of(fields: dict[str, Any], path: Path) -> Record:
    """The record that fields are, or an IntegrityError that names the file they came from."""
    try:
        return Record.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise IntegrityError(
            f"This is not a record of {SCHEMA}: {place}: {first['msg']}", file=path, do="Run it again"
        ) from error


def read_records(places: str | Path | Iterable[str | Path]) -> list[Record]:
    """Every record in the given files and folders, searched to any depth, in the order of their paths.

    Args:
        places: One or more `record.json` files or folders that hold some.

    Raises:
        UsageError: A place is no path.
        DataError: A place does not exist.
        IntegrityError: A file is not a record.
    """
    given = [places] if isinstance(places, str | Path) or not isinstance(places, Iterable) else places
    several = [argument("places", place, Path) for place in given]
    return [read_record(path) for place in several for path in record_paths(place)]


def record_paths(place: Path) -> list[Path]:
    """The record files at or below `place`."""
    if place.is_dir():
        # A file system lists in any order.
        return sorted(place.rglob(RECORD_FILE))
    return [place]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a record; the file that ships is its output."""
    schema = Record.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}
