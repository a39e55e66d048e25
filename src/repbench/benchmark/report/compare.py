"""What is best, what cannot be told from it, and what many tasks say together.

Only rows of one mode and one share of labels are compared. The family for Holm's adjustment is every comparison with
a best number in the columns of that group.
"""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping
from dataclasses import dataclass

from repbench.benchmark.report.evidence import Evidence
from repbench.benchmark.report.gather import Cell, Gathered, Row
from repbench.benchmark.report.questions import Column
from repbench.benchmark.statistics import (
    Aggregate,
    Difference,
    borda,
    normalised_means,
    smallest_difference,
    tie_group,
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What is told apart.

    Attributes:
        best: Keys of the cells that are best in their column and group.
        tied: Keys of those that cannot be told from a best one.
        p_values: From the key of a cell to the p-value of its difference to the best one, before adjustment.
        resolution: From the keys of mode, share of labels and column to the smallest difference that would be seen
            with 80 % power, the median over the comparisons made there.
    """

    best: frozenset[str]
    tied: frozenset[str]
    p_values: Mapping[str, float]
    resolution: Mapping[tuple[str, float, str], float]


def compare(gathered: Gathered, evidence: Evidence) -> Verdicts:
    """Find the best of each column and group, and what is tied with it."""
    best: set[str] = set()
    tied: set[str] = set()
    p_values: dict[str, float] = {}
    resolution: dict[tuple[str, float, str], float] = {}
    for group in gathered.groups:
        families: dict[str, dict[str, float | None]] = {}
        for column in gathered.columns:
            cells = [cell for row in gathered.group_rows(group) if (cell := gathered.cell(row, column)) is not None]
            leader = _leader(cells, column)
            if leader is None:
                continue
            differences = {
                cell.key: evidence.difference(leader.runs, cell.runs, column.metric)
                for cell in cells
                if cell is not leader and cell.value is not None
            }
            families[leader.key] = {key: each.p_value if each else None for key, each in differences.items()}
            seen = [size for each in differences.values() if (size := _resolution(each)) is not None]
            if seen:
                resolution[(*group, column.key)] = plain.median(seen)
        best |= families.keys()
        for leader_key, family in families.items():
            beside = [
                p for key, other in families.items() if key != leader_key for p in other.values() if p is not None
            ]
            tied |= tie_group(leader_key, family, beside=beside) - {leader_key}
            p_values |= {key: p for key, p in family.items() if p is not None}
    return Verdicts(frozenset(best), frozenset(tied), p_values, resolution)


def _leader(cells: list[Cell], column: Column) -> Cell | None:
    """The best of two or more; one alone is best of nothing."""
    known = [cell for cell in cells if cell.value is not None]
    if len(known) < 2:
        return None
    sign = 1 if column.higher_is_better else -1
    return max(known, key=lambda cell: sign * (cell.value or 0.0))


def _resolution(difference: Difference | None) -> float | None:
    if difference is None or not difference.standard_error or difference.degrees_of_freedom is None:
        return None
    return smallest_difference(difference.standard_error, difference.degrees_of_freedom)


@dataclass(frozen=True, slots=True)
class Overall:
    """A row's numbers over all columns that its group has."""

    row: Row
    mean: Aggregate
    borda: Aggregate


def overall(gathered: Gathered, group: tuple[str, float]) -> list[Overall]:
    """Two numbers over all tasks for each row of a group, never one alone; none where there is one task.

    The mean is of scores where guessing is 0 and a perfect system 1, as far as both are known; else the worst and best
    of the column stand for them.
    """
    rows = gathered.group_rows(group)
    columns = [column for column in gathered.columns if any(gathered.cell(row, column) for row in rows)]
    if len(columns) < 2 or len(rows) < 2:
        return []
    table = {row.key: {column.key: _value(gathered.cell(row, column)) for column in columns} for row in rows}
    directions = {column.key: column.higher_is_better for column in columns}
    absolute = [column for column in columns if column.chance is not None and column.best_possible is not None]
    means = normalised_means(
        table,
        directions,
        zeros={column.key: column.chance for column in absolute if column.chance is not None},
        ones={column.key: column.best_possible for column in absolute if column.best_possible is not None},
    )
    points = borda(table, directions)
    return [Overall(row, means[row.key], points[row.key]) for row in rows]


def _value(cell: Cell | None) -> float | None:
    return None if cell is None else cell.value
