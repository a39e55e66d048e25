"""What a number costs: size, work and speed of the upstream, seconds of training, and who is best at its price.

Seconds are of one machine: they are given with the place where they were measured, and neither pooled nor ranked over
several.
"""

from __future__ import annotations

import statistics as plain
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from repbench.benchmark.records.record import Record
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.gather import Cell, Gathered, ReportRow
from repbench.benchmark.report.render.escaping import shown

SPEED_HEADING = "real time"
"""Of the column in which more is better."""
COST_HEADINGS = ("parameters", "MACs/s", SPEED_HEADING, "training", "measured on")
"""Of the columns of costs in tables."""

Place = str
"""A device, its processor and the threads of torch."""


@dataclass(frozen=True, slots=True)
class RowCost:
    """What a row takes.

    Attributes:
        parameters: Of the upstream.
        macs_per_second: Multiply-accumulates a second of sound.
        real_time_factors: Seconds of sound a second of the upstream's computing, by place, each the median of its
            records; without records that do not say.
        train_seconds: Of one record, by the key of the column and by place, each the median over the seeds; without
            records that trained nothing.
    """

    parameters: int
    macs_per_second: int | None
    real_time_factors: Mapping[Place, float]
    train_seconds: Mapping[tuple[str, Place], float]

    @property
    def places(self) -> tuple[Place, ...]:
        """Where its seconds were measured."""
        return tuple(sorted({*self.real_time_factors, *(place for _, place in self.train_seconds)}))

    @property
    def real_time_factor(self) -> float | None:
        """Of the one place; None where there are several."""
        return _only(self.real_time_factors.values())

    @property
    def one_training(self) -> float | None:
        """Seconds of the one column and place; None where there are several."""
        return _only(self.train_seconds.values())


def row_cost(gathered: Gathered, row: ReportRow) -> RowCost:
    """Of a row that has at least one cell."""
    cells = gathered.row_cells(row)
    records = [run.record for cell in cells for run in cell.runs]
    return RowCost(
        parameters=max(record.cost.parameters for record in records),
        macs_per_second=max(
            (record.cost.macs_per_second for record in records if record.cost.macs_per_second is not None), default=None
        ),
        real_time_factors=_medians(records, lambda record: record.cost.real_time_factor),
        train_seconds={
            (cell.column.key, place): seconds
            for cell in cells
            for place, seconds in _medians(
                (run.record for run in cell.runs), lambda record: record.cost.train_seconds
            ).items()
        },
    )


def place_of(record: Record) -> Place:
    """Where a record was made, in words."""
    threads = record.environment.threads
    return f"{shown(record.cost.device)}, {shown(record.environment.cpu)}, {threads} thread{'s' * (threads != 1)}"


def _medians(records: Iterable[Record], value_of: Callable[[Record], float | None]) -> dict[Place, float]:
    """By place; what is 0 or unknown is left out."""
    values: dict[Place, list[float]] = defaultdict(list)
    for record in records:
        value = value_of(record)
        if value:
            values[place_of(record)].append(value)
    return {place: plain.median(several) for place, several in sorted(values.items())}


def _only(values: Iterable[float]) -> float | None:
    several = list(values)
    return several[0] if len(several) == 1 else None


@dataclass(frozen=True, slots=True)
class Front:
    """Value over work in one column and mode.

    Attributes:
        column: The question.
        mode: Of all its rows: fine-tuning costs what the work of the upstream does not show.
        points: (MACs a second of sound, cell), by rising work.
        front: Keys of the cells that nothing at most as costly beats.
    """

    column: Column
    mode: str
    points: tuple[tuple[int, Cell], ...]
    front: frozenset[str]

    @property
    def title(self) -> str:
        """Mode and question."""
        return f"Accuracy and cost, {'fine-tuned' if self.mode == 'finetune' else 'frozen'}: {self.column.title}"


def fronts(gathered: Gathered) -> list[Front]:
    """One for each column and mode in which systems of unlike cost were asked, with the most labels used there."""
    found: list[Front] = []
    for column in gathered.columns:
        cells = [cell for cell in gathered.column_cells(column) if cell.compared]
        for mode in sorted({cell.row.mode for cell in cells}, reverse=True):
            alike = [cell for cell in cells if cell.row.mode == mode]
            most = max(cell.row.fraction for cell in alike)
            priced = [
                (macs, cell)
                for cell in alike
                if cell.row.fraction == most and (macs := cell.runs[0].record.cost.macs_per_second) is not None
            ]
            if len({macs for macs, _ in priced}) > 1:
                found.append(_front(column, mode, priced))
    return found


def _front(column: Column, mode: str, priced: list[tuple[int, Cell]]) -> Front:
    sign = -1 if column.higher_is_better else 1
    points = sorted(priced, key=lambda point: (point[0], sign * (point[1].value or 0.0)))
    front: set[str] = set()
    best: float | None = None
    for _, cell in points:
        if cell.value is not None and (best is None or column.better(cell.value, best)):
            best = cell.value
            front.add(cell.key)
    return Front(column, mode, tuple(points), frozenset(front))


def as_count(number: float) -> str:
    """A large number in few characters: 21.4 M."""
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}\N{NO-BREAK SPACE}{name}"
    return f"{number:.3g}"


def as_factor(value: float) -> str:
    """How many times faster than real time: 412×."""
    return f"{value:.3g}×" if value < 1000 else f"{value:,.0f}×"
