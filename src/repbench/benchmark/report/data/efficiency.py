"""Label efficiency: a curve over seconds of labelled sound for each system with several label fractions."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.gather import Cell, Gathered
from repbench.benchmark.report.data.systems import System
from repbench.benchmark.scoring.statistics import label_efficiency_area, labels_to_reach


@dataclass(frozen=True, slots=True)
class Curve:
    """One system, mode and layer in one column.

    Attributes:
        name: Name of the system, with mode and layer.
        system: The system.
        cells: In ascending order of seconds.
        area: Mean height over the logarithm of seconds; None with fewer than two budgets.
        to_reach: Seconds of labels with which it reaches the target; None if it does not.
    """

    name: str
    system: System
    cells: tuple[Cell, ...]
    area: float | None
    to_reach: float | None

    @property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of labelled sound of each cell, mean over seeds."""
        return tuple(cell.label_seconds for cell in self.cells)

    @property
    def values(self) -> tuple[float, ...]:
        """Metric of each cell, mean over seeds."""
        return tuple(cell.value for cell in self.cells if cell.value is not None)


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The curves of a column.

    Attributes:
        column: The column.
        curves: In descending order of area.
        target: Metric of mel with all labels; None without such a record.
        same_range: Whether all curves span the same label budgets, so that their areas can be compared.
    """

    column: Column
    curves: tuple[Curve, ...]
    target: float | None
    same_range: bool


def efficiencies(gathered: Gathered) -> list[Efficiency]:
    """The columns in which a system has two or more label fractions."""
    found = (_efficiency(gathered, column) for column in gathered.columns)
    return [each for each in found if each.curves]


def _efficiency(gathered: Gathered, column: Column) -> Efficiency:
    families: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell in gathered.column_cells(column):
        if cell.compared and cell.label_seconds > 0:
            families[cell.row.system.name, cell.row.mode, cell.row.layer].append(cell)
    target = next(
        (
            cells_of_all.value
            for (_, mode, _), cells in families.items()
            for cells_of_all in cells
            if mode == "frozen" and cells_of_all.row.system.is_baseline and cells_of_all.row.fraction == 1.0
        ),
        None,
    )
    # By seconds, not fractions: of a tiny corpus two fractions can keep the same utterances.
    several = {key: cells for key, cells in families.items() if len({cell.label_seconds for cell in cells}) > 1}
    layers = {key[:2]: len({other[2] for other in several if other[:2] == key[:2]}) for key in several}
    curves = [_curve(column, cells, target, layers[key[:2]] > 1) for key, cells in several.items()]
    curves.sort(key=lambda curve: (-column.signed(curve.area or 0.0), curve.name))
    # Rounded, because a mean over seeds in another order can differ in its last digits.
    ranges = {(round(min(curve.seconds), 3), round(max(curve.seconds), 3)) for curve in curves}
    return Efficiency(column, tuple(curves), target, len(ranges) <= 1)


def _curve(column: Column, cells: list[Cell], target: float | None, names_layer: bool) -> Curve:
    # One cell a budget, which `label_efficiency_area` requires.
    cells = sorted({cell.label_seconds: cell for cell in cells}.values(), key=lambda cell: cell.label_seconds)
    row = cells[0].row
    parts = [row.title if names_layer else row.system.name, *(["fine-tuned"] if row.mode == "finetune" else [])]
    seconds = [cell.label_seconds for cell in cells]
    values = [cell.value for cell in cells if cell.value is not None]
    reached = None
    if target is not None:
        reached = labels_to_reach(seconds, values, target, higher_is_better=column.higher_is_better)
    return Curve(", ".join(parts), row.system, tuple(cells), label_efficiency_area(seconds, values), reached)


def as_time(seconds: float) -> str:
    """A duration in s, min or h."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.3g} h"
