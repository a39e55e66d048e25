"""Records as a report finds them: read, checked against their own id, each once."""

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
    """What the predictions of a record give.

    Attributes:
        measured: The metrics, whole and by cluster.
        right: Which utterances were answered right, where utterances are all that can vary.
    """

    measured: Measured
    right: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """A record and where it lies.

    Attributes:
        path: Of its `record.json`.
        record: What it says.
        fault: Why it is not believed; None while nothing speaks against it.
        unchecked: Why its numbers could not be computed again; None where they were.
        root: Where its file is seen from; None: from where the report is made.
        is_checked: Whether it was verified when it was read.
        found: What its predictions give, where it was verified and holds.
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
        """Its file, as it is shown."""
        if self.root is None or not self.path.is_relative_to(self.root):
            return str(self.path)
        return str(self.path.relative_to(self.root))


@dataclass(frozen=True, slots=True)
class LoadedRecords:
    """What was found.

    Attributes:
        runs: Every record that could be read, in the order of their paths.
        unreadable: From the file of what is no record, or cannot be read, to why.
    """

    runs: tuple[Run, ...]
    unreadable: dict[Path, str]


def read_run(path: Path, root: Path | None = None) -> Run | str:
    """A record, held to its own id; or why it is none."""
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
    """Read every record at or below the places, to be shown as seen from `root`.

    Args:
        places: Records, and folders that hold some at any depth.
        root: Where their files are seen from.
        read: Gives for each path a run or why there is none, in their order; None: `read_run`.

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
