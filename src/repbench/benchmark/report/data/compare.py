"""The best number of each column, the numbers that do not differ significantly from it, and aggregates over tasks.

Rows are compared within one mode and label fraction, and only by numbers that were recomputed from predictions. The
family of Holm's adjustment is every comparison with a best number in the report, over all modes, fractions and columns.
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
    """The results of the comparisons.

    Attributes:
        best: Keys of the best cell of each column and group.
        tied: Keys of cells that do not differ significantly from the best one.
        untested: Keys of cells that could not be tested against it: there is only one speaker or group, or there are
            no predictions of the same utterances.
        p_values: From the key of a cell to the p-value of its difference to the best one, before adjustment.
        tests: From the same key to the name of the test.
        resolution: From mode, label fraction and key of the column to the smallest difference detectable with 80 %
            power, the median over the comparisons there.
    """

    best: frozenset[str]
    tied: frozenset[str]
    untested: frozenset[str]
    p_values: Mapping[str, float]
    tests: Mapping[str, str]
    resolution: Mapping[tuple[str, float, str], float]


def compare(gathered: Gathered, evidence: Evidence) -> Verdicts:
    """Find the best cell of each column and group, and test the others against it."""
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
        # An untested cell has no p-value, which `tie_group` takes as no difference; it gets its own mark instead.
        tied=_tied(families) - untested,
        untested=untested,
        p_values={key: each.p_value for key, each in known.items() if each.p_value is not None},
        tests={key: each.test for key, each in known.items() if each.test is not None},
        resolution=resolution,
    )


def _leader(cells: Sequence[Cell]) -> Cell | None:
    """The best of two or more cells; None of fewer."""
    if len(cells) < 2:
        return None
    # Of equals `max` takes the first, and the order of rows is fixed.
    return max(cells, key=lambda cell: cell.signed_value)


def _tied(families: Mapping[str, Mapping[str, Comparison | None]]) -> frozenset[str]:
    """Keys of cells without a significant difference from the best of their family, adjusted over all families."""
    p_values = {
        best: {key: None if each is None else each.p_value for key, each in family.items()}
        for best, family in families.items()
    }
    tied: set[str] = set()
    for best, family in p_values.items():
        # One family for the whole report: a reader looks at all columns, so α has to hold over all of them.
        others = (other.values() for key, other in p_values.items() if key != best)
        shown_too = [p for values in others for p in values if p is not None]
        tied |= tie_group(best, family, beside=shown_too) - {best}
    return frozenset(tied)


def _resolution(comparison: Comparison | None) -> float | None:
    difference = None if comparison is None else comparison.difference
    if difference is None or not difference.standard_error or difference.degrees_of_freedom is None:
        return None
    return smallest_difference(difference.standard_error, difference.degrees_of_freedom)


@dataclass(frozen=True, slots=True)
class RowAggregates:
    """The aggregates of a row over the tasks of its group.

    Attributes:
        row: The row.
        answered: Keys of the columns that they are computed from.
        mean: Mean of normalised scores.
        borda: Borda points.
    """

    row: ReportRow
    answered: frozenset[str]
    mean: Aggregate
    borda: Aggregate


@dataclass(frozen=True, slots=True)
class GroupAggregates:
    """The aggregates of the rows of one mode and label fraction.

    Attributes:
        columns: One for each task and corpus.
        relative: Those of them without a chance level or a perfect score.
        trivial: Columns that are left out, because always predicting the most frequent class is perfect there.
        rows: The aggregates of each row.
    """

    columns: tuple[Column, ...]
    relative: tuple[Column, ...]
    trivial: tuple[Column, ...]
    rows: tuple[RowAggregates, ...]


def overall(gathered: Gathered, group: tuple[str, float]) -> GroupAggregates | None:
    """The aggregates of each row of a group; None where there is only one task or one row.

    Each task and corpus counts once: by the column with the most rows, of equals by the tuned one, else by the first;
    those on which the most frequent class is perfect do not count. Numbers that were not recomputed from predictions
    count as missing. Scores are normalised so that chance is 0 and a perfect system 1; where either is undefined, the
    worst and the best of the column take their place.
    """
    rows = gathered.group_rows(group)
    columns = _one_a_subject(gathered, rows)
    if len(columns) < 2 or len(rows) < 2:
        return None
    table = {row.key: {column.key: _value(gathered.cell(row, column)) for column in columns} for row in rows}
    directions = {column.key: column.higher_is_better for column in columns}
    # A score of (value - chance) / (perfect - chance) does not depend on which systems are in the table.
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
        tuple(column for column in gathered.columns if column.is_trivial),
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
    """One column for each task and corpus that the rows have numbers for, in the order of columns."""
    counts = {
        column.key: sum(_value(gathered.cell(row, column)) is not None for row in rows) for column in gathered.columns
    }
    chosen: dict[tuple[str, str], Column] = {}
    for column in (column for column in gathered.columns if not column.is_trivial):
        other = chosen.get(column.subject)
        if counts[column.key] and (other is None or _goes_before(column, other, counts)):
            chosen[column.subject] = column
    kept = {column.key for column in chosen.values()}
    return tuple(column for column in gathered.columns if column.key in kept)


def _goes_before(column: Column, other: Column, counts: Mapping[str, int]) -> bool:
    # Strictly: of equals the earlier column stays.
    return (counts[column.key], column.tuned) > (counts[other.key], other.tuned)


def _value(cell: Cell | None) -> float | None:
    return cell.value if cell is not None and cell.compared else None
