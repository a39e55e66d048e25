"""Records as a report finds them: read, checked against their own id, each once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from repbench.benchmark.record import Record, digest_of, read_record, record_paths
from repbench.errors import DataError, IntegrityError


@dataclass(frozen=True, slots=True)
class Run:
    """A record and where it lies.

    Attributes:
        path: Of its `record.json`.
        record: What it says.
        fault: Why it is not believed; None while nothing speaks against it.
        unchecked: Why its numbers could not be computed again; None where they were.
        root: Where its file is seen from; None: from where the report is made.
    """

    path: Path
    record: Record
    fault: str | None = None
    unchecked: str | None = None
    root: Path | None = None

    @property
    def place(self) -> str:
        """Its file, as it is shown."""
        if self.root is None or not self.path.is_relative_to(self.root):
            return str(self.path)
        return str(self.path.relative_to(self.root))


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was found.

    Attributes:
        runs: Every record that could be read, in the order of their paths.
        unreadable: From the file of what is no record, or cannot be read, to why.
    """

    runs: tuple[Run, ...]
    unreadable: dict[Path, str]


def load(places: Iterable[Path], root: Path | None = None) -> Loaded:
    """Read every record at or below the places, to be shown as seen from `root`.

    Raises:
        DataError: A place does not exist, or none holds a record.
    """
    runs: dict[str, Run] = {}
    unreadable: dict[Path, str] = {}
    several = list(places)
    for path in dict.fromkeys(path for place in several for path in _record_files(place)):
        try:
            record = read_record(path)
        except (DataError, IntegrityError) as error:
            unreadable[path] = error.what
            continue
        run = Run(path, record, fault=_fault_of_id(path, record), root=root)
        known = runs.setdefault(f"{record.id} {run.fault}", run)
        if known is not run and known.record != record:
            runs[f"{path}"] = replace(run, fault=f"it has the id of {known.path}, but other content")
    if not runs and not unreadable:
        names = ", ".join(str(place) for place in several)
        raise DataError("There is no record here", file=names, do="Give the folder that `repbench run` wrote to")
    return Loaded(tuple(runs.values()), unreadable)


def _record_files(place: Path) -> list[Path]:
    if not place.exists():
        raise DataError("There is no record here", file=place, do="Give a run's folder or its record.json")
    return record_paths(place)


def _fault_of_id(path: Path, record: Record) -> str | None:
    try:
        expected = digest_of(json.loads(path.read_text(encoding="utf-8")))
    except ValueError:
        return "it holds NaN or infinity"
    return None if expected == record.id else f"it was changed: its content calls for the id {expected}"
