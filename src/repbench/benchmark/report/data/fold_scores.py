"""The score of each fold, with the mean over folds that published protocols report."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.gather import Cell, Gathered


@dataclass(frozen=True, slots=True)
class CellFolds:
    """The folds of one cell.

    Attributes:
        cell: The cell, whose value is that of the pooled predictions.
        values: From the name of a fold to its primary metric, mean over the seeds; None where it is undefined in one.
        mean: Over the folds, each with the same weight; None if one is undefined.
        deviation: Standard deviation of the folds (n - 1); None likewise.
    """

    cell: Cell
    values: dict[str, float | None]
    mean: float | None
    deviation: float | None


@dataclass(frozen=True, slots=True)
class FoldScores:
    """The cells of a column that has folds."""

    column: Column
    cells: tuple[CellFolds, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The folds, in their order."""
        return tuple(dict.fromkeys(name for each in self.cells for name in each.values))


def fold_scores(gathered: Gathered) -> list[FoldScores]:
    """The columns whose records have folds."""
    found = []
    for column in gathered.columns:
        cells = [cell for cell in gathered.column_cells(column) if any(run.record.folds for run in cell.runs)]
        if cells:
            found.append(FoldScores(column, tuple(_folds(cell) for cell in cells)))
    return found


def _folds(cell: Cell) -> CellFolds:
    several: dict[str, list[float | None]] = {}
    for run in cell.runs:
        for fold in run.record.folds or ():
            several.setdefault(fold.name, []).append(fold.metrics[cell.column.metric].value)
    values = {name: _mean(of_seeds) for name, of_seeds in several.items()}
    known = [value for value in values.values() if value is not None]
    is_whole = len(known) == len(values)
    return CellFolds(
        cell, values, _mean(list(values.values())), statistics.stdev(known) if is_whole and len(known) > 1 else None
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
