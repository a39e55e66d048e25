"""Controls: the improvement of a score over shuffled labels and over untrained weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.gather import Cell, Gathered, ReportRow
from repbench.benchmark.scoring.statistics import Interval


@dataclass(frozen=True, slots=True)
class Gain:
    """The improvement of a number over its control.

    Attributes:
        control: The control.
        value: Positive where the control is worse, whatever the direction of the metric.
        interval: 95 %, paired over the same utterances; None where it is undefined.
    """

    control: Cell
    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class Controlled:
    """A number and its controls.

    Attributes:
        cell: The number.
        selectivity: Improvement over the same setting with shuffled labels; None without such a record.
        training: Improvement over the same network untrained; None without such a record.
    """

    cell: Cell
    selectivity: Gain | None
    training: Gain | None


@dataclass(frozen=True, slots=True)
class Controls:
    """The numbers of a column that have controls."""

    column: Column
    controlled: tuple[Controlled, ...]


def controls(gathered: Gathered, evidence: Evidence) -> list[Controls]:
    """The columns in which a number has a control."""
    found = (Controls(column, tuple(_controlled(gathered, evidence, column))) for column in gathered.columns)
    return [each for each in found if each.controlled]


def _controlled(gathered: Gathered, evidence: Evidence, column: Column) -> Iterator[Controlled]:
    twin = next((each for each in gathered.controls if _same_but_labels(each, column)), None)
    untrained = [row for row in gathered.rows if row.system.untrained]
    for cell in gathered.column_cells(column):
        shuffled = None if twin is None else gathered.cell(cell.row, twin)
        random = _untrained_row(cell.row, [row for row in untrained if gathered.cell(row, column) is not None])
        selectivity = _gain(evidence, cell, shuffled)
        training = None if random is None else _gain(evidence, cell, gathered.cell(random, column))
        if selectivity is not None or training is not None:
            yield Controlled(cell, selectivity, training)


def _same_but_labels(one: Column, other: Column) -> bool:
    return one.task == other.task and {**one.facts, "labels": ""} == {**other.facts, "labels": ""}


def _untrained_row(row: ReportRow, untrained: list[ReportRow]) -> ReportRow | None:
    """The row of the same network untrained, in the same setting: that of this checkpoint, or the only one."""
    if row.system.untrained:
        return None
    alike = [
        each
        for each in untrained
        if (each.system.upstream, each.group, each.layer) == (row.system.upstream, row.group, row.layer)
    ]
    own = [each for each in alike if each.system.checkpoint == f"random:{row.system.checkpoint}"]
    several = own or alike
    return several[0] if len(several) == 1 else None


def _gain(evidence: Evidence, cell: Cell, control: Cell | None) -> Gain | None:
    if control is None or not cell.compared or not control.compared or cell.value is None or control.value is None:
        return None
    signed = cell.column.signed
    difference = evidence.difference(cell.runs, control.runs, cell.column.metric)
    value = cell.value - control.value if difference is None or difference.value is None else difference.value
    known = None if difference is None else difference.interval
    # Where lower is better, the sign swaps the two ends.
    interval = None if known is None else Interval(*sorted((signed(known.low), signed(known.high))))
    return Gain(control, signed(value), interval)
