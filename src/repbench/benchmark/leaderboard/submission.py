"""The file of a submission: one JSON file with a record and its predictions.

A submission has one canonical form: keys are sorted, predictions are in order of ids and one per line, characters
beyond ASCII are escaped, the file ends in a newline. Equal submissions have equal bytes, git merges submissions without
conflicts and shows differences line by line, and control or bidi characters in names appear as escapes in a review. The
file is not compressed: git compresses it, and a compressed file cannot be reviewed.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from repbench.benchmark.records.predictions_file import prediction_line
from repbench.benchmark.records.record import Record, is_of_known_kind, prediction_of, record_of
from repbench.benchmark.records.verify import task_of
from repbench.downstream.contract import Prediction, problem_of
from repbench.errors import DataError, IntegrityError
from repbench.files import parse_json

SCHEMA: Final = "repbench.submission/1"


@dataclass(frozen=True, slots=True)
class Submission:
    """A record and its predictions.

    Attributes:
        fields: Fields of the record as written.
        record: The same, parsed.
        predictions: In order of ids.
    """

    fields: dict[str, Any]
    record: Record
    predictions: tuple[Prediction, ...]


def submission_of(fields: dict[str, Any], record: Record, predictions: Iterable[Prediction]) -> Submission:
    """A submission, its predictions in order of ids."""
    return Submission(fields, record, tuple(sorted(predictions, key=lambda each: each.id)))


def encode(submission: Submission) -> str:
    """The canonical text of a submission."""
    lines = [_encode(prediction_line(each)) for each in submission.predictions]
    record = json.dumps(submission.fields, indent=1, sort_keys=True, allow_nan=False)
    return f'{{\n"predictions": {listed(lines)},\n"record": {record},\n"schema": "{SCHEMA}"\n}}\n'


def listed(lines: Sequence[str], brackets: str = "[]") -> str:
    """A JSON list or object with one member per line."""
    members = ",\n".join(lines)
    return f"{brackets[0]}\n{members}\n{brackets[1]}" if lines else brackets


def _encode(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def read_submission(path: Path, most_bytes: int) -> Submission:
    """Read a submission, which comes from an untrusted source.

    Raises:
        IntegrityError: It is not a plain file, is too large, is not a submission, or is not in canonical form.
    """
    content = read_plain(path, most_bytes)
    try:
        whole = parse_json(content)
        if not isinstance(whole, dict) or whole.get("schema") != SCHEMA or not isinstance(whole.get("record"), dict):
            raise ValueError(f"the schema is not {SCHEMA}")
        record = record_of(whole["record"], path)
        lines = whole["predictions"]
        # The task is loaded only where a line is of no built-in kind.
        problem = None if all(map(is_of_known_kind, lines)) else problem_of(task_of(record, path))
        predictions = [prediction_of(line, problem) for line in lines]
        submission = submission_of(whole["record"], record, predictions)
        # Encoding again and comparing bytes refuses all that the parser tolerates: doubled keys, other orders, unknown
        # escapes, bytes after the end.
        if encode(submission).encode("ascii") != content:
            raise ValueError("it is not in the form that `repbench leaderboard add` writes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"This is not a submission: {error}"
        raise IntegrityError(what, file=path, do="Add the record again with `repbench leaderboard add`") from error
    return submission


def read_plain(path: Path, most_bytes: int) -> bytes:
    """The content of a plain file; links are not followed, pipes and devices are not opened.

    Raises:
        DataError: There is no such file.
        IntegrityError: It is not a plain file, or too large.
    """
    try:
        # O_NOFOLLOW: a link could lead to any file of the machine. O_NONBLOCK: opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise DataError("There is no such file", file=path) from error
    except OSError as error:
        raise IntegrityError(f"This is no plain file: {error.strerror}", file=path, do="Remove it") from error
    try:
        # Of the open descriptor: the name could lead to another file by the next call.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IntegrityError("This is no plain file", file=path, do="Remove it")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:
        do = "Submit less, or raise `max_submission_mib` in the head"
        raise IntegrityError(f"This is larger than {most_bytes / (1 << 20):g} MiB", file=path, do=do)
    return content
