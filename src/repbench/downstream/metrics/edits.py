"""Error rates of sequences.

Conventions: a path gives one class an instant; collapsing joins repeats and drops classes that are no events. Edits and
reference lengths are summed over utterances and divided once.

Metrics:
    error rate: (substitutions + deletions + insertions) / reference length. From 0, may exceed 1; lower is better.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from itertools import groupby, zip_longest

import numpy as np
from rapidfuzz.distance import Levenshtein


def collapse(path: Sequence[int], dropped: Collection[int]) -> list[int]:
    """Join repeats, then drop the classes of `dropped`: silence between two equal phones keeps them apart."""
    return [value for value, _ in groupby(path) if value not in dropped]


def count_edits(reference: Sequence[Hashable], estimated: Sequence[Hashable]) -> int:
    """Fewest substitutions, deletions and insertions that turn one sequence into the other (Levenshtein).

    Args:
        reference: Of classes, words, or characters (a text).
        estimated: Likewise.

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


def aligned(reference: Sequence[str], estimated: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Pairs of words of an alignment with the fewest edits; None in place of a word that is missing on one side.

    Of several such alignments one is given, always the same.
    """
    pairs: list[tuple[str | None, str | None]] = []
    for step in Levenshtein.opcodes(reference, estimated):
        before = reference[step.src_start : step.src_end]
        after = estimated[step.dest_start : step.dest_end]
        pairs += zip_longest(before, after)
    return pairs
