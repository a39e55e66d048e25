"""The invariance files at or below the folders of a report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repbench.benchmark.similarity.invariance_document import Invariance, invariance_paths, read_invariance
from repbench.errors import DataError, IntegrityError


@dataclass(frozen=True, slots=True)
class FoundInvariance:
    """A measurement of invariance and its file, as the report shows it."""

    invariance: Invariance
    place: str


def found_invariances(
    places: Iterable[Path], root: Path | None = None
) -> tuple[list[FoundInvariance], dict[Path, str]]:
    """Read every invariance file at or below the places, each measurement once.

    Args:
        places: Folders, and files.
        root: Folder that files are shown relative to; None: files are shown as given.

    Returns:
        The measurements, in the order of their paths, and from each file that cannot be read or was changed to the
        reason.
    """
    found: dict[str, FoundInvariance] = {}
    unreadable: dict[Path, str] = {}
    for path in invariance_paths(places):
        try:
            invariance = read_invariance(path)
        except (DataError, IntegrityError) as error:
            unreadable[path] = error.what
            continue
        place = path if root is None or not path.is_relative_to(root) else path.relative_to(root)
        found.setdefault(invariance.id, FoundInvariance(invariance, str(place)))
    return list(found.values()), unreadable
