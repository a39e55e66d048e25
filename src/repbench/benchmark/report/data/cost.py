"""Costs of a number: size, multiply-accumulates and speed of the upstream, training time, and the Pareto front.

Times hold for one machine: each is given with the machine that it was measured on, and times of several machines are
neither pooled nor ranked.
"""

from __future__ import annotations

import statistics as plain
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from repbench.benchmark.records.parts import FinetunedPart
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.gather import Cell, Gathered, Machine, ReportRow, machine_of


@dataclass(frozen=True, slots=True)
class RowCost:
    """The costs of a row.

    Attributes:
        parameters: Number of parameters of the upstream.
        macs_per_second: Multiply-accumulates per second of sound.
        real_time_factors: Seconds of sound computed by the upstream in one second, by machine: the median of the
            records that have it.
        train_seconds: Seconds of training per record, by key of the column and machine: the median over the seeds of
            the records that trained a probe or a network.
        finetuned: What was fine-tuned, by key of the column; of the seed that moved the most weights. Columns of frozen
            models, and of records made before it was kept, are left out.
    """

    parameters: int
    macs_per_second: int | None
    real_time_factors: Mapping[Machine, float]
    train_seconds: Mapping[tuple[str, Machine], float]
    finetuned: Mapping[str, FinetunedPart] = field(default_factory=dict)

    @property
    def machines(self) -> tuple[Machine, ...]:
        """The machines on which its times were measured, sorted."""
        return tuple(sorted({*self.real_time_factors, *(machine for _, machine in self.train_seconds)}))

    @property
    def real_time_factor(self) -> float | None:
        """That of the one machine; None where there are several."""
        return _only(self.real_time_factors.values())

    @property
    def weights_moved(self) -> int | None:
        """The most of any column; None where nothing was fine-tuned."""
        return max((each.moved for each in self.finetuned.values()), default=None)

    @property
    def one_training(self) -> float | None:
        """Seconds of the one column and machine; None where there are several."""
        return _only(self.train_seconds.values())


def row_cost(gathered: Gathered, row: ReportRow) -> RowCost:
    """The costs of a row that has at least one cell."""
    cells = gathered.row_cells(row)
    records = [run.record for cell in cells for run in cell.runs]
    return RowCost(
        parameters=max(record.cost.parameters for record in records),
        macs_per_second=max(
            (record.cost.macs_per_second for record in records if record.cost.macs_per_second is not None), default=None
        ),
        real_time_factors=_medians(records, lambda record: record.cost.real_time_factor),
        train_seconds={
            (cell.column.key, machine): seconds
            for cell in cells
            for machine, seconds in _medians(
                (run.record for run in cell.runs), lambda record: record.cost.train_seconds
            ).items()
        },
        finetuned={
            cell.column.key: max(parts, key=lambda part: part.moved) for cell in cells if (parts := _finetuned(cell))
        },
    )


def _finetuned(cell: Cell) -> list[FinetunedPart]:
    return [run.record.finetuned for run in cell.runs if run.record.finetuned is not None]


def _medians(records: Iterable[Record], value_of: Callable[[Record], float | None]) -> dict[Machine, float]:
    """Medians by machine; values that are 0 or unknown are left out."""
    values: dict[Machine, list[float]] = defaultdict(list)
    for record in records:
        value = value_of(record)
        # A probe that was loaded has 0 seconds of training, and frames that were read have no real-time factor.
        if value:
            values[machine_of(record)].append(value)
    return {machine: plain.median(several) for machine, several in sorted(values.items())}


def _only(values: Iterable[float]) -> float | None:
    several = list(values)
    return several[0] if len(several) == 1 else None


@dataclass(frozen=True, slots=True)
class Front:
    """Metric over multiply-accumulates in one column and mode.

    Attributes:
        column: The column.
        mode: Of all its rows; the multiply-accumulates of the upstream do not include those of fine-tuning.
        points: (MACs per second of sound, cell), in ascending order of MACs.
        front: Keys of the cells that no cell of equal or lower cost exceeds.
    """

    column: Column
    mode: str
    points: tuple[tuple[int, Cell], ...]
    front: frozenset[str]

    @property
    def title(self) -> str:
        """Heading of its figure and table: mode and column."""
        return f"Accuracy and cost, {'fine-tuned' if self.mode == 'finetune' else 'frozen'}: {self.column.title}"


def fronts(gathered: Gathered) -> list[Front]:
    """A front for each column and mode that has systems of different cost, at the largest label fraction there."""
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
    # By cost, and at equal cost the best first: one sweep then finds every point that is better than all cheaper ones.
    points = sorted(priced, key=lambda point: (point[0], -point[1].signed_value))
    front: set[str] = set()
    best: float | None = None
    for _, cell in points:
        if cell.value is not None and (best is None or cell.signed_value > best):
            best = cell.signed_value
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
