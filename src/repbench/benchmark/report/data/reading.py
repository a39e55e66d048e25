"""Reading the records of a report: each once, checked against its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repbench.benchmark.records.record import Record, digest_of, read_fields, record_of, record_paths
from repbench.benchmark.scoring.metrics import Measured
from repbench.errors import DataError, IntegrityError


@dataclass(frozen=True, slots=True)
class RecomputedMetrics:
    """The metrics recomputed from the predictions of a record.

    Attributes:
        measured: The metrics over all clusters and without each cluster.
        right: Whether each utterance was predicted correctly; empty where speakers or groups vary.
    """

    measured: Measured
    right: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A record with its file and the result of its verification.

    Attributes:
        path: Its `record.json`.
        record: The record.
        fault: The reason that verification failed; None if it has not failed.
        unchecked: The reason that its numbers could not be recomputed; None if they were.
        root: Folder that its file is shown relative to; None: the file is shown as given.
        is_checked: Whether verification has run.
        found: The recomputed metrics, if verification passed.
    """

    path: Path
    record: Record
    fault: str | None = None
    unchecked: str | None = None
    root: Path | None = None
    is_checked: bool = False
    found: RecomputedMetrics | None = field(default=None, repr=False, compare=False)

    @property
    def place(self) -> str:
        """Its file, as the report shows it."""
        if self.root is None or not self.path.is_relative_to(self.root):
            return str(self.path)
        return str(self.path.relative_to(self.root))


@dataclass(frozen=True, slots=True)
class LoadedRecords:
    """The records that were found.

    Attributes:
        runs: Every record that could be read, in the order of their paths.
        unreadable: From a file that is not a record, or cannot be read, to the reason.
    """

    runs: tuple[Run, ...]
    unreadable: dict[Path, str]


def read_run(path: Path, root: Path | None = None) -> Run | str:
    """A record, checked against its id; or the reason that it cannot be read."""
    try:
        fields = read_fields(path)
        record = record_of(fields, path)
    except (DataError, IntegrityError) as error:
        return error.what
    return Run(path, record, fault=_fault_of_id(fields, record), root=root)


def load(
    places: Iterable[Path],
    root: Path | None = None,
    read: Callable[[Sequence[Path], Path | None], Iterable[Run | str]] | None = None,
) -> LoadedRecords:
    """Read every record at or below the places.

    Args:
        places: Records, and folders that hold some at any depth.
        root: Folder that files are shown relative to.
        read: From paths to a run or a reason for each, in order; None: `read_run`.

    Raises:
        DataError: A place does not exist, or none holds a record.
    """
    runs: dict[str, Run] = {}
    unreadable: dict[Path, str] = {}
    several = list(places)
    paths = list(dict.fromkeys(path for place in several for path in _record_files(place)))
    found = read(paths, root) if read is not None else (read_run(path, root) for path in paths)
    for path, run in zip(paths, found, strict=True):
        if isinstance(run, str):
            unreadable[path] = run
            continue
        # A record that is found twice (a copy, or two places that overlap) counts once.
        known = runs.setdefault(f"{run.record.id} {run.fault}", run)
        if known is not run and known.record != run.record:
            runs[f"{path}"] = replace(run, fault=f"it has the id of {known.path}, but other content")
    if not runs and not unreadable:
        names = ", ".join(str(place) for place in several)
        raise DataError("There is no record here", file=names, do="Give the folder that `repbench run` wrote to")
    return LoadedRecords(tuple(runs.values()), unreadable)


def _record_files(place: Path) -> list[Path]:
    if not place.exists():
        raise DataError("There is no record here", file=place, do="Give a run's folder or its record.json")
    return record_paths(place)


def _fault_of_id(fields: dict[str, Any], record: Record) -> str | None:
    try:
        expected = digest_of(fields)
    except ValueError:
        return "it holds NaN or infinity"
    return None if expected == record.id else f"it was changed: its content calls for the id {expected}"
