"""What is best, what cannot be told from it, and what many tasks say together.

Only rows of one mode and one share of labels are compared, and only numbers that follow from predictions. The family
for Holm's adjustment is every comparison with a best number that a report shows, of all modes, shares and columns.
"""

from __future__ import annotations

import statistics as plain
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.evidence import Comparison, Evidence
from repbench.benchmark.report.data.gather import Cell, Gathered, ReportRow
from repbench.benchmark.scoring.statistics import (
    Aggregate,
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
        tied: Keys of those that were compared with a best one and cannot be told from it.
        untested: Keys of those that could not be compared with it: there is one speaker or group alone, or there are no
            predictions of the same utterances.
        p_values: From the key of a cell to the p-value of its difference to the best one, before adjustment.
        tests: From the same key to what gave the p-value.
        resolution: From the keys of mode, share of labels and column to the smallest difference that would be seen
            with 80 % power, the median over the comparisons made there.
    """

    best: frozenset[str]
    tied: frozenset[str]
    untested: frozenset[str]
    p_values: Mapping[str, float]
    tests: Mapping[str, str]
    resolution: Mapping[tuple[str, float, str], float]


def compare(gathered: Gathered, evidence: Evidence) -> Verdicts:
    """Find the best of each column and group, and what is tied with it."""
    families: dict[str, Mapping[str, Comparison | None]] = {}
    resolution: dict[tuple[str, float, str], float] = {}
    for group in gathered.groups:
        rows = gathered.group_rows(group)
        for column in gathered.columns:
            cells = [cell for row in rows if (cell := gathered.cell(row, column)) is not None and cell.compared]
            leader = _leader(cells)
            if leader is None:
                continue
            families[leader.key] = family = {
                cell.key: evidence.comparison(leader.runs, cell.runs, column.metric)
                for cell in cells
                if cell is not leader
            }
            seen = [size for each in family.values() if (size := _resolution(each)) is not None]
            if seen:
                resolution[(*group, column.key)] = plain.median(seen)
    known = {key: each for family in families.values() for key, each in family.items() if each is not None}
    untested = frozenset(
        key
        for family in families.values()
        for key, each in family.items()
        if each is None or (each.p_value is None and not each.is_equal)
    )
    return Verdicts(
        best=frozenset(families),
        tied=_tied(families) - untested,
        untested=untested,
        p_values={key: each.p_value for key, each in known.items() if each.p_value is not None},
        tests={key: each.test for key, each in known.items() if each.test is not None},
        resolution=resolution,
    )


def _leader(cells: Sequence[Cell]) -> Cell | None:
    """The best of two or more; one alone is best of nothing."""
    if len(cells) < 2:
        return None
    return max(cells, key=lambda cell: cell.signed_value)


def _tied(families: Mapping[str, Mapping[str, Comparison | None]]) -> frozenset[str]:
    """What cannot be told from the best of its family, adjusted for all families together."""
    p_values = {
        best: {key: None if each is None else each.p_value for key, each in family.items()}
        for best, family in families.items()
    }
    tied: set[str] = set()
    for best, family in p_values.items():
        others = (other.values() for key, other in p_values.items() if key != best)
        beside = [p for values in others for p in values if p is not None]
        tied |= tie_group(best, family, beside=beside) - {best}
    return frozenset(tied)


def _resolution(comparison: Comparison | None) -> float | None:
    difference = None if comparison is None else comparison.difference
    if difference is None or not difference.standard_error or difference.degrees_of_freedom is None:
        return None
    return smallest_difference(difference.standard_error, difference.degrees_of_freedom)


@dataclass(frozen=True, slots=True)
class RowAggregates:
    """A row's numbers over the tasks of its group.

    Attributes:
        row: Whose they are.
        answered: Keys of the columns that went into them.
        mean: Of normalised scores.
        borda: Points for rows left behind.
    """

    row: ReportRow
    answered: frozenset[str]
    mean: Aggregate
    borda: Aggregate


@dataclass(frozen=True, slots=True)
class GroupAggregates:
    """Many tasks together, for the rows of one mode and share of labels.

    Attributes:
        columns: One for each task and corpus.
        relative: Those of them on which guessing or perfection has no number.
        rows: Of each row its numbers.
    """

    columns: tuple[Column, ...]
    relative: tuple[Column, ...]
    rows: tuple[RowAggregates, ...]


def overall(gathered: Gathered, group: tuple[str, float]) -> GroupAggregates | None:
    """Two numbers over all tasks for each row of a group, never one alone; None where there is one task or one row.

    Each task and corpus counts once: by the column that most rows answered; of equals by the tuned one, and of those by
    the one that stands first. Numbers that do not follow from predictions count as not there. The mean is of scores
    where guessing is 0 and a perfect system 1; where either has no number, the worst and best of the column stand for
    them.
    """
    rows = gathered.group_rows(group)
    columns = _one_a_subject(gathered, rows)
    if len(columns) < 2 or len(rows) < 2:
        return None
    table = {row.key: {column.key: _value(gathered.cell(row, column)) for column in columns} for row in rows}
    directions = {column.key: column.higher_is_better for column in columns}
    ends = {
        column.key: (column.chance, column.best_possible)
        for column in columns
        if column.chance is not None and column.best_possible is not None
    }
    means = normalised_means(
        table,
        directions,
        zeros={key: chance for key, (chance, _) in ends.items()},
        ones={key: best for key, (_, best) in ends.items()},
    )
    points = borda(table, directions)
    return GroupAggregates(
        columns,
        tuple(column for column in columns if column.key not in ends),
        tuple(
            RowAggregates(
                row,
                frozenset(key for key, value in table[row.key].items() if value is not None),
                means[row.key],
                points[row.key],
            )
            for row in rows
        ),
    )


def _one_a_subject(gathered: Gathered, rows: Sequence[ReportRow]) -> tuple[Column, ...]:
    """The columns that stand for the tasks that rows answered, in the order of columns."""
    counts = {
        column.key: sum(_value(gathered.cell(row, column)) is not None for row in rows) for column in gathered.columns
    }
    chosen: dict[tuple[str, str], Column] = {}
    for column in gathered.columns:
        other = chosen.get(column.subject)
        if counts[column.key] and (other is None or _goes_before(column, other, counts)):
            chosen[column.subject] = column
    kept = {column.key for column in chosen.values()}
    return tuple(column for column in gathered.columns if column.key in kept)


def _goes_before(column: Column, other: Column, counts: Mapping[str, int]) -> bool:
    return (counts[column.key], column.tuned) > (counts[other.key], other.tuned)


def _value(cell: Cell | None) -> float | None:
    return cell.value if cell is not None and cell.compared else None
