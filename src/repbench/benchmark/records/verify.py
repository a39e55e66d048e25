"""Verification: a record's numbers against its predictions, and its fields against its seal.

Every metric and interval is computed again from `predictions.jsonl`, joined by utterance and not by line. Baselines are
not: they need the labels of the corpus. A record that was changed and sealed anew is found out where its numbers no
longer follow from its predictions; a change of both is found only by running it again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.records.predictions_file import PREDICTIONS_FILE, predictions_digest
from repbench.benchmark.records.record import (
    PROBE_FILE,
    RECORD_FILE,
    Record,
    digest_of,
    fold_probe_file,
    read_fields,
    read_predictions_and_digest,
    record_of,
    seal_of,
    weights_file,
)
from repbench.benchmark.scoring.metrics import (
    Measured,
    mean_over_folds,
    measure_clusters,
    metrics_of_folds,
    metrics_part,
)
from repbench.downstream.contract import Downstream, Prediction, Problem, problem_of
from repbench.errors import DataError, IntegrityError, UsageError, plugin_faults
from repbench.registry import RESERVED_PREFIXES, registry

COUNTS = frozenset({"n_scored", "n_listed", "corpus.n_test"})
"""Fields that have to agree with one another; where the seal shows which one was changed, only that one is named."""

TOLERANCE = 1e-9
"""Numbers closer than this are the same: another version of a library may round otherwise."""


PREDICTIONS = "the predictions give"
"""The witness of most changes."""

_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Change:
    """A field of a record with another value than it should have.

    Attributes:
        field: Its dotted path in the record, such as `metrics.accuracy.value`.
        stored: The value in the record.
        found: The value that it should have; for a field that only its seal covers, both are digests.
        witness: The source of that value, with a verb; None for the seal.
    """

    field: str
    stored: Any
    found: Any
    witness: str | None = PREDICTIONS

    @property
    def sentence(self) -> str:
        """The change in words."""
        if self.witness is None:
            return f"`{self.field}` was changed after it was sealed"
        stored, found = _shown(self.stored, 6), _shown(self.found, 6)
        if stored == found:
            # 17 significant digits are enough to tell any two doubles apart.
            stored, found = _shown(self.stored, 17), _shown(self.found, 17)
        return f"`{self.field}` is {stored}, but {self.witness} {found}"


def _shown(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(each, digits) for each in value)}]"
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification.

    Attributes:
        path: Of the record.
        record: As it was read.
        fields: The record as it is in its file.
        predictions: Those in the folder of the record.
        changes: Every field that was changed, those of the numbers first; empty for a record that holds.
        is_whole: Whether the record's fields are those that its id was made of, be its numbers what they may.
        measured: The metrics of the predictions.
    """

    path: Path
    record: Record
    fields: dict[str, Any]
    predictions: tuple[Prediction, ...]
    changes: tuple[Change, ...]
    is_whole: bool
    measured: Measured

    @property
    def holds(self) -> bool:
        """Whether nothing was changed."""
        return not self.changes


def verify_record(path: Path, task: Downstream | None = None, *, weights: bool = False) -> Verification:
    """Compute a record's numbers again from its predictions, and compare its fields with its seal and id.

    Args:
        path: Of `record.json`, or of its folder.
        weights: Whether the digest of its weights is checked too; no number is computed from them.
        task: The record's task, for a caller that verifies many records; None: from `task_of`.

    Raises:
        DataError: There is no record, or its folder has no predictions.
        IntegrityError: One of the two cannot be parsed, or the classes are not known.
        PluginError: The task is installed, but fails.
        UsageError: The task is not installed, or does not take the record's options.
    """
    path = path / RECORD_FILE if path.is_dir() else path
    fields = read_fields(path)
    record = record_of(fields, path)
    beside = path.with_name(PREDICTIONS_FILE)
    task = task or task_of(record, path)
    predictions, digest = _beside(path, record.most_predictions_bytes, problem_of(task))
    verdict = verify(fields, record, predictions, path=path, beside=beside, task=task, digest=digest)
    changed = _changed_weights(path, record) if weights else []
    return replace(verdict, changes=(*verdict.changes, *changed))


def verify(
    fields: dict[str, Any],
    record: Record,
    predictions: Sequence[Prediction],
    *,
    path: Path,
    beside: Path,
    task: Downstream | None = None,
    digest: str | None = None,
) -> Verification:
    """As `verify_record`, of what was read already.

    Args:
        fields: The record as it is in its file.
        record: The same, parsed.
        predictions: Joined by utterance: their order plays no part.
        path: Of the record, for errors.
        beside: Of the predictions, for errors.
        task: As in `verify_record`.
        digest: Of the file of predictions, where they were read from one; it spares writing them down again.
    """
    classes = _classes_of(path, record)
    task = task or task_of(record, path)
    refuse_impossible(predictions, classes, task, beside)
    broken, is_whole = _since_sealed(path, fields)
    measured = measure_clusters(task, classes, predictions)
    # Numbers first: a change of a number also breaks its seal, and the number with what was found is the better
    # message.
    changes = list(_changed_numbers(record, task, metrics_part(task, classes, predictions, measured)))
    changes += _changed_folds(record, task, classes, predictions)
    if not COUNTS & {change.field for change in broken}:
        changes += _changed_counts(record, predictions)
    changes += _changed_predictions(record, predictions, digest)
    # The trailing dot keeps `metrics.accuracy` from matching `metrics.accuracy_top5`.
    named = [f"{change.field}." for change in changes]
    changes += [each for each in broken if not any(name.startswith(f"{each.field}.") for name in named)]
    if not is_whole and not changes:
        changes.append(Change("id", record.id, digest_of(fields), "the fields call for"))
    return Verification(path, record, fields, tuple(predictions), tuple(changes), is_whole, measured)


def task_of(record: Record, path: Path | None = None) -> Downstream:
    """The record's task with its options, from an installed package; errors name the file at `path`.

    Raises:
        UsageError: It is not installed, does not take the options, or is a `py:` module that the record names.
        PluginError: It is installed, but fails.
    """
    name = record.downstream.name
    # A record may come from a stranger: `py:` would run code that its text names.
    if ":" in name and name.partition(":")[0] in RESERVED_PREFIXES:
        what = f"The task `{name}` belongs to no installed package, and nothing is imported because a record names it"
        raise UsageError(
            what, file=path, key="downstream.name", do="Install its package, and run it again with its own name"
        )
    return build_task(registry().find("downstream", name).entry, record.protocol.get("task", {}))


def predictions_beside(path: Path, most_bytes: int, problem: Problem) -> list[Prediction]:
    """The predictions in the folder of a record; errors as `verify_record`."""
    return _beside(path, most_bytes, problem)[0]


def _beside(path: Path, most_bytes: int, problem: Problem) -> tuple[list[Prediction], str]:
    beside = path.with_name(PREDICTIONS_FILE)
    try:
        return read_predictions_and_digest(beside, most_bytes, problem=problem)
    except FileNotFoundError as error:
        raise DataError(
            "The folder of the record has no predictions", file=beside, do="Copy them there, or run it again"
        ) from error
    except OSError as error:
        raise DataError(f"The predictions cannot be read: {error.strerror}", file=beside) from error


def _classes_of(path: Path, record: Record) -> tuple[str, ...]:
    if record.downstream.classes is not None:
        return record.downstream.classes
    if not path.with_name(PROBE_FILE).exists():
        raise IntegrityError(
            "Neither the record nor a probe in its folder names the classes",
            file=path,
            key="downstream.classes",
            do=f"Copy {PROBE_FILE} into its folder, or run it again",
        )
    from repbench.benchmark.probing.probe import load_probe

    return load_probe(path.with_name(PROBE_FILE))[0].shape.classes


def refuse_impossible(predictions: Sequence[Prediction], classes: Sequence[str], task: Downstream, file: Path) -> None:
    """Refuse predictions that no run writes: an id twice, a class there is not, a score that is no number.

    Raises:
        IntegrityError: Names the utterance.
    """
    refuse_nameless(predictions, file)
    twice = [id_ for id_, count in Counter(each.id for each in predictions).items() if count > 1]
    if twice:
        raise IntegrityError("An utterance has two predictions", file=file, utterance=twice[0], do="Run it again")
    problem = problem_of(task)
    # A plugin's `faults` may rely on the type of its predictions, so it gets none while one is of another kind.
    other = next((each for each in predictions if not isinstance(each, problem.prediction)), None)
    with plugin_faults(task.info.name):
        faults = [None] * len(predictions) if other else list(problem.faults(predictions, len(classes)))
    for each, found in zip(predictions, faults, strict=True):
        fault = _fault_of_names(each) or (f"it is no prediction of {problem.name}" if each is other else found)
        if fault is not None:
            raise IntegrityError(f"No run writes this prediction: {fault}", file=file, utterance=each.id)


def refuse_nameless(predictions: Sequence[Prediction], file: Path) -> None:
    """Refuse predictions with ids that are no text, with an IntegrityError."""
    nameless = next((each for each in predictions if not _is_name(each.id)), None)
    if nameless is not None:
        raise IntegrityError(f"No run writes this id: {nameless.id!r}", file=file, do="Run it again")


def _fault_of_names(prediction: Prediction) -> str | None:
    if not all(each is None or _is_name(each) for each in (prediction.speaker, prediction.group)):
        return "speaker and group must be names"
    return None


def _is_name(value: object) -> bool:
    """Whether it is text that can be written as UTF-8; JSON can also spell halves of characters."""
    if not isinstance(value, str):
        return False
    try:
        # `\ud800` is valid JSON, but has no UTF-8: every later write or digest of it would raise.
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _changed_numbers(record: Record, task: Downstream, found: Mapping[str, Any]) -> Iterator[Change]:
    stored = record.model_dump()["metrics"]
    yield from _changed_metrics("metrics", stored, found)
    if record.primary_metric != task.info.primary_metric:
        yield Change("primary_metric", record.primary_metric, task.info.primary_metric, "the task ranks by")


def _changed_metrics(field: str, stored: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Change]:
    """The changes of metrics, without those that a task has got since and of which older predictions hold nothing."""
    for name in dict.fromkeys([*found, *stored]):
        own = found.get(name)
        if name in stored or own is None or own["value"] is not None or own["counts"]:
            yield from _differences(f"{field}.{name}", stored.get(name), own)


def _changed_folds(
    record: Record, task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction]
) -> Iterator[Change]:
    """The numbers of the folds, which the predictions name, and their means."""
    found = metrics_of_folds(task, classes, predictions)
    without = sum(each.fold is None for each in predictions)
    if found and without:
        yield Change("folds", len(found), f"no fold of {without} utterances", "the predictions name")
    stored = {
        fold.name: {"n_scored": fold.n_scored, "metrics": fold.model_dump()["metrics"]} for fold in record.folds or ()
    }
    for name in dict.fromkeys([*found, *stored]):
        given, own = stored.get(name, {}), found.get(name, {})
        yield from _differences(f"folds.{name}.n_scored", given.get("n_scored"), own.get("n_scored"))
        yield from _changed_metrics(f"folds.{name}.metrics", given.get("metrics", {}), own.get("metrics", {}))
    mean = mean_over_folds(found.values()) if found else None
    yield from _differences("mean_over_folds", record.mean_over_folds, mean)


def _changed_counts(record: Record, predictions: Sequence[Prediction]) -> Iterator[Change]:
    if record.n_scored != len(predictions):
        yield Change("n_scored", record.n_scored, len(predictions), "the predictions are")
    if record.n_listed != record.corpus.n_test:
        yield Change("n_listed", record.n_listed, record.corpus.n_test, "`corpus.n_test` is")
    both = sorted(record.excluded.keys() & {each.id for each in predictions})
    if both:
        yield Change("excluded", both[0], "predict it", "the predictions")


def _changed_predictions(record: Record, predictions: Sequence[Prediction], digest: str | None) -> Iterator[Change]:
    """Whether they are other ones, also where no number shows it; their order and spelling play no part."""
    # The file's own digest is the cheap test; only where it differs are the predictions put in canonical form.
    if record.predictions_sha256 not in {None, digest}:
        found = predictions_digest(predictions)
        if found != record.predictions_sha256:
            yield Change("predictions_sha256", record.predictions_sha256, found, "the predictions have")


def _changed_weights(path: Path, record: Record) -> Iterator[Change]:
    stored = {f"downstream.files.{name}": (name, sha256) for name, sha256 in record.downstream.files.items()}
    if record.probe_sha256 is not None:
        stored["probe_sha256"] = weights_file(record), record.probe_sha256
    for number, fold in enumerate(record.folds or (), start=1):
        if fold.probe_sha256 is not None:
            stored[f"folds.{fold.name}.probe_sha256"] = fold_probe_file(number), fold.probe_sha256
    for field, (name, sha256) in stored.items():
        file = path.with_name(name)
        if file.is_file():
            with file.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != sha256:
                yield Change(field, sha256, found, f"{name} has")


def _since_sealed(path: Path, raw: dict[str, Any]) -> tuple[list[Change], bool]:
    """The fields that differ from their seal (none in a record without one), and whether the id is that of them all."""
    try:
        # Of the fields as read, not of the parsed record: parsing would fill in defaults that the sealed record did not
        # have.
        now, is_whole = seal_of(raw), raw["id"] == digest_of(raw)
    except ValueError as error:
        what = "The record holds NaN or infinity"
        if isinstance(error, UnicodeEncodeError):
            what = "The record holds half a character"
        raise IntegrityError(what, file=path, do="Run it again") from error
    sealed = now if raw.get("seal") is None else raw["seal"]
    changed = [name for name in sorted({*sealed, *now}) if sealed.get(name) != now.get(name)]
    return [Change(name, sealed.get(name), now.get(name), None) for name in changed], is_whole


def _differences(field: str, stored: Any, found: Any) -> Iterator[Change]:
    """The leaves in which two values differ by more than rounding."""
    if isinstance(stored, Mapping) and isinstance(found, Mapping):
        for name in dict.fromkeys([*found, *stored]):
            yield from _differences(f"{field}.{name}", stored.get(name), found.get(name))
    elif not same(stored, found):
        yield Change(field, stored, found)


def same(stored: Any, found: Any) -> bool:
    """Whether two values are equal up to rounding."""
    if isinstance(stored, list | tuple) and isinstance(found, list | tuple):
        return len(stored) == len(found) and all(map(same, stored, found))
    # JSON writes 1.0 as a float, and another program may have written it as 1.
    if isinstance(stored, float) or isinstance(found, float):
        known = isinstance(stored, int | float) and isinstance(found, int | float)
        return known and math.isclose(stored, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(stored == found)
