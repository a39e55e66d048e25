"""The file of a record's predictions as it is written: one canonical JSON object a line, by id."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, Final, Self

from repbench.downstream.problems.contract import Prediction
from repbench.files import atomic_write, canonical_json, environment_faults

PREDICTIONS_FILE: Final = "predictions.jsonl"

_IN_MEMORY_BYTES = 64 << 20
"""Encoded predictions up to this size wait for their place in memory."""


class EncodedPredictions:
    """`predictions.jsonl` before it has its place: encoded once, as its digest is part of the record's name.

    Beyond some size it waits on the disk. Close it, or use it in a `with`.

    Attributes:
        digest: The SHA-256 of its bytes.
    """

    def __init__(self, predictions: Iterable[Prediction], folder: Path) -> None:
        """Encode predictions.

        Args:
            predictions: In any order.
            folder: Where they may wait.
        """
        self._file = SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115 - closed by `close`
        digest = hashlib.sha256()
        try:
            with environment_faults(folder):
                folder.mkdir(parents=True, exist_ok=True)
                for line in canonical_lines(predictions):
                    digest.update(line)
                    self._file.write(line)
        except BaseException:
            self.close()
            raise
        self.digest = digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Write the file into `folder`, atomically."""
        self._file.seek(0)
        with atomic_write(folder / PREDICTIONS_FILE) as stream:
            shutil.copyfileobj(self._file, stream)

    def close(self) -> None:
        """Give the memory, or the place on the disk, back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prediction_line(prediction: Prediction) -> dict[str, Any]:
    """One line of `predictions.jsonl`; it has a `fold` where there are folds, and `attributes` where any are kept."""
    line = prediction.as_line()
    if prediction.fold is not None:
        line = {**line, "fold": prediction.fold}
    return {**line, "attributes": dict(prediction.attributes)} if prediction.attributes else line


def predictions_digest(predictions: Iterable[Prediction]) -> str:
    """The SHA-256 of `predictions.jsonl` as it is written, however the predictions were spelt and ordered before."""
    digest = hashlib.sha256()
    for line in canonical_lines(predictions):
        digest.update(line)
    return digest.hexdigest()


def canonical_lines(predictions: Iterable[Prediction]) -> Iterator[bytes]:
    """One canonical JSON object a line, by id."""
    # Runs read utterances in batches of similar length; the file must not depend on that order.
    for each in sorted(predictions, key=lambda each: each.id):
        yield canonical_json(prediction_line(each)) + b"\n"
