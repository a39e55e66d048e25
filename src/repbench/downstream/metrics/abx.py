"""ABX error rates: how often a token X is nearer to a token B of another class than to a token A of its own.

Conventions: a cell holds the triples of one pair of classes (a, b) in one context, with A and B of one group. The
error of a triple is 1 if d(X, A) > d(X, B), 1/2 if they are equal, 0 else; that of a cell is the mean over its triples.
A cell is counted in integers, as twice the sum of its errors, so that no order of summing changes a number.

Metrics:
    error_rate: cells are averaged over contexts (and, across speakers, over the speakers of X), then over groups, then
        over the ordered pairs of classes, each time without weights. In [0, 1], lower is better, chance is 1/2. None
        without a cell.

Reference:
    Schatz et al., Evaluating speech features with the Minimal-Pair ABX task, Interspeech 2013; Poli et al., fastabx,
    arXiv 2505.02692.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Distances = NDArray[np.float32]
Integers = NDArray[np.int64]
Rates = NDArray[np.float64]


class Cell(NamedTuple):
    """The triples of one pair of classes, context and group.

    Attributes:
        a: Class of A and X.
        b: Class of B.
        group: That of A and B over which is averaged after contexts: their speaker, or their phone if the classes are
            speakers.
        context: The context that A, B and X share; "" without contexts.
        twice_errors: Twice the sum of the errors.
        triples: Number of triples.
    """

    a: str
    b: str
    group: str
    context: str
    twice_errors: int
    triples: int


def validate(cells: Iterable[Cell]) -> None:
    """Refuse cells without triples, or with more errors than triples.

    Raises:
        ValueError: There is one.
    """
    for cell in cells:
        if cell.triples < 1 or not 0 <= cell.twice_errors <= 2 * cell.triples:
            raise ValueError(f"a cell has {cell.twice_errors} half errors in {cell.triples} triples")


def error_rate(sums: Iterable[tuple[str, str, str, float, int]]) -> float | None:
    """The error rate of cells that are summed over contexts.

    Args:
        sums: Class a, class b, group, sum of the cells' error rates, number of cells; keys may occur more than once.
    """
    groups: dict[tuple[str, str, str], tuple[float, int]] = {}
    for a, b, group, errors, count in sorted(sums):
        known, cells = groups.get((a, b, group), (0.0, 0))
        groups[a, b, group] = known + errors, cells + count
    pairs: dict[tuple[str, str], list[float]] = {}
    for (a, b, _), (errors, count) in groups.items():
        pairs.setdefault((a, b), []).append(errors / count)
    means = [sum(each) / len(each) for each in pairs.values()]
    return sum(means) / len(means) if means else None


def summed_over_contexts(cells: Iterable[Cell]) -> list[tuple[str, str, str, float, int]]:
    """The arguments of `error_rate` from cells of one speaker of X, in an order that the cells' own does not change."""
    sums: dict[tuple[str, str, str], tuple[float, int]] = {}
    for cell in sorted(cells):
        errors, count = sums.get(cell[:3], (0.0, 0))
        sums[cell[:3]] = errors + cell.twice_errors / (2 * cell.triples), count + 1
    return [(*key, errors, count) for key, (errors, count) in sums.items()]


def error_rate_of_tables(sums: Rates, counts: Integers) -> float | None:
    """The error rate, as `error_rate`, of cells whose classes are numbered, summed over contexts in tables.

    Args:
        sums: (G, C, C) sums of the error rates of the cells of each group, class a by class b.
        counts: (G, C, C) numbers of these cells; 0 where there is none.
    """
    known = counts > 0
    groups = known.sum(axis=0)  # (G, C, C) -> (C, C)
    means = np.divide(sums, counts, out=np.zeros(sums.shape), where=known).sum(axis=0)[groups > 0] / groups[groups > 0]
    return float(means.mean()) if len(means) else None


def twice_errors(table: Distances, own: slice, starts: Integers, *, is_self: bool) -> Integers:
    """Twice the errors of each X of one class against each class of the columns, summed over A and B.

    Args:
        table: (X, T) distances of the tokens X of a class to the tokens of all classes, class by class.
        own: The columns of the tokens A.
        starts: (C,) the first column of each class.
        is_self: Whether the tokens X are the tokens A, in the same order; a token is then not its own A.

    Returns:
        (C,); without meaning for the class of X itself.
    """
    totals = np.zeros(len(starts), dtype=np.int64)
    for number, row in enumerate(table):
        to_own = row[own]
        if is_self:
            to_own = np.delete(to_own, number)
        to_own = np.sort(to_own)
        # Of the A, those beyond a B are errors, those as far as it are half an error.
        nearer = np.searchsorted(to_own, row, side="left")
        not_further = np.searchsorted(to_own, row, side="right")
        # (T,) -> (C,)
        totals += np.add.reduceat(2 * len(to_own) - nearer - not_further, starts)
    return totals
