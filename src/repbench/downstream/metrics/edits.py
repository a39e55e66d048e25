"""Error rates of sequences.

Conventions: a path gives one class an instant; collapsing joins repeats and drops what is not an event. Edits and
reference lengths are summed over utterances and divided once.

Metrics:
    error rate: (substitutions + deletions + insertions) / reference length. From 0, may exceed 1; lower is better.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

from rapidfuzz.distance import Levenshtein


def collapse(path: Sequence[int], dropped: Collection[int]) -> list[int]:
    """Join repeats, then drop the classes of `dropped`: silence between two equal phones keeps them apart."""
    return [value for value, _ in groupby(path) if value not in dropped]


def count_edits(reference: Sequence[int], estimated: Sequence[int]) -> int:
    """Fewest substitutions, deletions and insertions that turn one sequence into the other (Levenshtein)."""
    return Levenshtein.distance(reference, estimated)


def error_rate(edits: int, reference_length: int) -> float | None:
    """Edits per reference event; None for an empty reference."""
    return edits / reference_length if reference_length else None
