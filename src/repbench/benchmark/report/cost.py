"""What a number costs: size and work of the upstream, seconds of training, and who is best at its price."""

from __future__ import annotations

import statistics as plain
from dataclasses import dataclass

from repbench.benchmark.report.gather import Cell, Gathered, Row
from repbench.benchmark.report.questions import Column


@dataclass(frozen=True, slots=True)
class RowCost:
    """What a row takes.

    Attributes:
        parameters: Of the upstream.
        macs_per_second: Multiply-accumulates a second of sound.
        train_seconds: Of one record, the median; None where nothing was trained.
        devices: Where that was.
    """

    parameters: int
    macs_per_second: int | None
    train_seconds: float | None
    devices: tuple[str, ...]


def row_cost(gathered: Gathered, row: Row) -> RowCost:
    """Of a row that has at least one cell."""
    records = [run.record for cell in gathered.row_cells(row) for run in cell.runs]
    trained = [record.cost.train_seconds for record in records if record.cost.train_seconds > 0]
    return RowCost(
        parameters=max(record.cost.parameters for record in records),
        macs_per_second=max(
            (record.cost.macs_per_second for record in records if record.cost.macs_per_second is not None), default=None
        ),
        train_seconds=plain.median(trained) if trained else None,
        devices=tuple(sorted({record.cost.device for record in records})),
    )


@dataclass(frozen=True, slots=True)
class Front:
    """Value over work in one column and group.

    Attributes:
        column: The question.
        points: (MACs a second of sound, cell), by rising work.
        front: Keys of the cells that nothing at most as costly beats.
    """

    column: Column
    points: tuple[tuple[int, Cell], ...]
    front: frozenset[str]


def fronts(gathered: Gathered) -> list[Front]:
    """One for each column in which systems of unlike cost were asked, with the most labels that were used there."""
    found: list[Front] = []
    for column in gathered.columns:
        cells = [cell for cell in gathered.column_cells(column) if cell.compared]
        most = max((cell.row.fraction for cell in cells), default=1.0)
        priced = [
            (macs, cell)
            for cell in cells
            if cell.row.fraction == most and (macs := cell.runs[0].record.cost.macs_per_second) is not None
        ]
        if len({macs for macs, _ in priced}) > 1:
            found.append(_front(column, priced))
    return found


def _front(column: Column, priced: list[tuple[int, Cell]]) -> Front:
    sign = -1 if column.higher_is_better else 1
    points = sorted(priced, key=lambda point: (point[0], sign * (point[1].value or 0.0)))
    front: set[str] = set()
    best: float | None = None
    for _, cell in points:
        if cell.value is not None and (best is None or column.better(cell.value, best)):
            best = cell.value
            front.add(cell.key)
    return Front(column, tuple(points), frozenset(front))


def as_count(number: float) -> str:
    """A large number in few characters: 21.4 M."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}\N{NO-BREAK SPACE}{name}"
    return f"{number:.3g}"
