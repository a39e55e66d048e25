"""The similarity files at or below the folders of a report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repbench.benchmark.similarity.document import Similarity, read_similarity, similarity_paths
from repbench.errors import DataError, IntegrityError


@dataclass(frozen=True, slots=True)
class FoundSimilarity:
    """A comparison and its file, as the report shows it."""

    similarity: Similarity
    place: str


def found_similarities(
    places: Iterable[Path], root: Path | None = None
) -> tuple[list[FoundSimilarity], dict[Path, str]]:
    """Read every similarity file at or below the places, each comparison once.

    Args:
        places: Folders, and files.
        root: Folder that files are shown relative to; None: files are shown as given.

    Returns:
        The comparisons, in the order of their paths, and from each file that cannot be read or was changed to the
        reason.
    """
    found: dict[str, FoundSimilarity] = {}
    unreadable: dict[Path, str] = {}
    for path in similarity_paths(places):
        try:
            similarity = read_similarity(path)
        except (DataError, IntegrityError) as error:
            unreadable[path] = error.what
            continue
        place = path if root is None or not path.is_relative_to(root) else path.relative_to(root)
        found.setdefault(similarity.id, FoundSimilarity(similarity, str(place)))
    return list(found.values()), unreadable
