"""Error rates of sequences.

Conventions: a path gives one class an instant; collapsing joins repeats and drops classes that are no events. Edits and
reference lengths are summed over utterances and divided once.

Metrics:
    error rate: (substitutions + deletions + insertions) / reference length. From 0, may exceed 1; lower is better.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby

import numpy as np
from rapidfuzz.distance import Levenshtein


def collapse(path: Sequence[int], dropped: Collection[int]) -> list[int]:
    """Join repeats, then drop the classes of `dropped`: silence between two equal phones keeps them apart."""
    return [value for value, _ in groupby(path) if value not in dropped]


def count_edits(reference: Sequence[int], estimated: Sequence[int]) -> int:
    """Fewest substitutions, deletions and insertions that turn one sequence into the other (Levenshtein).

    Raises:
        ValueError: One is a tensor, whose elements are never equal to those of another.
    """
    # rapidfuzz compares by hash; two 0-d tensors of one value have different hashes, so every item would be an edit.
    sequences: tuple[object, object] = (reference, estimated)
    for sequence in sequences:
        if hasattr(sequence, "tolist") and not isinstance(sequence, np.ndarray):
            raise ValueError(f"a sequence must be a list, tuple or numpy array, but is a {type(sequence).__name__}")
    return Levenshtein.distance(reference, estimated)


def error_rate(edits: int, reference_length: int) -> float | None:
    """Edits per reference event; None for an empty reference.

    Raises:
        ValueError: A count is negative.
    """
    if edits < 0 or reference_length < 0:
        raise ValueError(f"edits and events are counts, but are {edits} and {reference_length}")
    return edits / reference_length if reference_length else None
