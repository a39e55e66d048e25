"""Sensitivity to the learning rate: the best dev value at each rate of a record's grid."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.gather import Cell, Gathered


@dataclass(frozen=True, slots=True)
class TriedRates:
    """The rates of one cell.

    Attributes:
        cell: The cell.
        dev_values: From learning rate to the best dev value over the steps, mean over the seeds.
        chosen: The rates that its records, or their folds, chose.
    """

    cell: Cell
    dev_values: dict[float, float]
    chosen: frozenset[float]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The cells of a column that tried two or more rates."""

    column: Column
    tried: tuple[TriedRates, ...]


def sensitivities(gathered: Gathered) -> list[Sensitivity]:
    """The columns with grids of learning rates, each at its largest label fraction."""
    found: list[Sensitivity] = []
    for column in gathered.columns:
        tried = [each for cell in gathered.column_cells(column) if len((each := _tried(cell)).dev_values) > 1]
        most = max((each.cell.row.fraction for each in tried), default=1.0)
        if tried:
            found.append(Sensitivity(column, tuple(each for each in tried if each.cell.row.fraction == most)))
    return found


def _tried(cell: Cell) -> TriedRates:
    several: dict[float, list[float]] = defaultdict(list)
    for run in cell.runs:
        of_run: dict[float, list[float]] = defaultdict(list)
        for point in run.record.selection.grid:
            if point.get("learning_rate", 0.0) > 0 and "dev_value" in point:
                of_run[point["learning_rate"]].append(point["dev_value"])
        for rate, values in of_run.items():
            # The best step within each run first, then the mean over runs: seeds may peak at different steps.
            several[rate].append(max(values, key=cell.column.signed))
    means = {rate: math.fsum(values) / len(values) for rate, values in sorted(several.items())}
    selections = (
        selection
        for run in cell.runs
        for selection in ([fold.selection for fold in run.record.folds] if run.record.folds else [run.record.selection])
    )
    chosen = (selection.chosen.get("learning_rate") for selection in selections)
    return TriedRates(cell, means, frozenset(rate for rate in chosen if rate is not None))
