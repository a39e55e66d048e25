"""The columns of costs, each with its value and its text: read by results.csv, Markdown, LaTeX and the page alike.

A new column of costs is one entry of `COST_COLUMNS`; results.json takes its fields from `RowCost`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.cost import RowCost, as_count, as_factor
from repbench.benchmark.report.data.efficiency import as_time
from repbench.benchmark.report.data.gather import Cell, Machine, ReportRow
from repbench.benchmark.report.render.escaping import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class CostColumn:
    """A column of costs.

    Attributes:
        name: Its heading in results.csv.
        heading: Its heading in the other tables.
        text: Of a row, as the tables show it.
        of_row: Of a row, by which the page sorts; None where it has no single value.
        of_cell: Of a number measured on the one machine given, for results.csv; None where it is not known.
        is_timed: Whether it is measured in time, so that values of several machines cannot be compared.
        is_text: Whether its values are text.
        first: Order after the first press on the heading of the page.
    """

    name: str
    heading: str
    text: Callable[[Report, ReportRow], str]
    of_row: Callable[[RowCost], float | str | None]
    of_cell: Callable[[RowCost, Cell, Machine | None], float | str | None]
    is_timed: bool = False
    is_text: bool = False
    first: str = "ascending"


def _macs(report: Report, row: ReportRow) -> str:
    macs = report.costs[row.key].macs_per_second
    return "" if macs is None else as_count(macs)


def _numbers(cost: RowCost) -> dict[Machine, str]:
    """A number for each machine of a row, where there are several."""
    several = len(cost.machines) > 1
    return {machine: f" [{number}]" if several else "" for number, machine in enumerate(cost.machines, start=1)}


def _speeds(report: Report, row: ReportRow) -> str:
    cost = report.costs[row.key]
    on = _numbers(cost)
    return "; ".join(f"{as_factor(factor)}{on[machine]}" for machine, factor in cost.real_time_factors.items())


def _trainings(report: Report, row: ReportRow) -> str:
    cost = report.costs[row.key]
    on = _numbers(cost)
    several = Counter(column.task for column in report.gathered.all_columns)
    tasks = {
        column.key: shown(column.task) if several[column.task] == 1 else column.title
        for column in report.gathered.all_columns
    }
    alone = len({key for key, _ in cost.train_seconds}) == 1
    return "; ".join(
        f"{as_time(seconds)}{on[machine]}{'' if alone else f' {tasks.get(key, key)}'}"
        for (key, machine), seconds in cost.train_seconds.items()
    )


def _machines(report: Report, row: ReportRow) -> str:
    cost = report.costs[row.key]
    on = _numbers(cost)
    return "; ".join(f"{on[machine].strip()} {machine}".strip() for machine in cost.machines)


COST_COLUMNS = (
    CostColumn(
        name="parameters",
        heading="parameters",
        text=lambda report, row: as_count(report.costs[row.key].parameters),
        of_row=lambda cost: cost.parameters,
        of_cell=lambda cost, cell, machine: cost.parameters,
    ),
    CostColumn(
        name="macs_per_second",
        heading="MACs/s",
        text=_macs,
        of_row=lambda cost: cost.macs_per_second,
        of_cell=lambda cost, cell, machine: cost.macs_per_second,
    ),
    CostColumn(
        name="real_time_factor",
        heading="real time",
        text=_speeds,
        of_row=lambda cost: cost.real_time_factor,
        of_cell=lambda cost, cell, machine: None if machine is None else cost.real_time_factors.get(machine),
        is_timed=True,
        first="descending",
    ),
    CostColumn(
        name="train_seconds",
        heading="training",
        text=_trainings,
        of_row=lambda cost: cost.one_training,
        of_cell=lambda cost, cell, machine: (
            None if machine is None else cost.train_seconds.get((cell.column.key, machine))
        ),
        is_timed=True,
    ),
    CostColumn(
        name="measured_on",
        heading="measured on",
        text=_machines,
        of_row=lambda cost: "; ".join(cost.machines),
        of_cell=lambda cost, cell, machine: "; ".join(cell.machines),
        is_text=True,
    ),
)
