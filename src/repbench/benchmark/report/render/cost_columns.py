"""The columns of costs, each with its value, text and meaning: read by every form of the report.

A new column is one entry of `COST_COLUMNS`; Markdown, LaTeX, the page with its legend, results.csv and results.json
take it from there. A value that `RowCost` does not have yet is a field of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

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
        legend: Its meaning, without its heading: "the training time of one record".
        in_json: Its field in results.json; "" for one that follows from others.
        of_json: Of a row, as results.json has it.
        is_timed: Whether it is measured in time, so that values of several machines cannot be compared.
        is_text: Whether its values are text.
        first: Order after the first press on the heading of the page.
        short: Of a row, as the page shows it in place of a long text, which then opens by a press; None: the text.
    """

    name: str
    heading: str
    text: Callable[[Report, ReportRow], str]
    of_row: Callable[[RowCost], float | str | None]
    of_cell: Callable[[RowCost, Cell, Machine | None], float | str | None]
    legend: str
    in_json: str
    of_json: Callable[[RowCost], Any]
    is_timed: bool = False
    is_text: bool = False
    first: str = "ascending"
    short: Callable[[RowCost], str] | None = None


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


def _weights_moved(cost: RowCost) -> str:
    """Each way of fine-tuning that the columns of a row have: "65.5 k (lora:8)"."""
    return "; ".join(dict.fromkeys(f"{as_count(part.moved)} ({part.rule})" for part in cost.finetuned.values()))


def _moved_in(cost: RowCost, cell: Cell) -> int | None:
    part = cost.finetuned.get(cell.column.key)
    return None if part is None else part.moved


def _range(values: Iterable[float], text: Callable[[float], str]) -> str:
    """The least and the largest: "0.2 s–15.6 s"; one where they read the same."""
    several = sorted(values)
    ends = dict.fromkeys([text(several[0]), text(several[-1])]) if several else ()
    return "–".join(ends)


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
        legend="those of the upstream, without the head",
        in_json="parameters",
        of_json=lambda cost: cost.parameters,
    ),
    CostColumn(
        name="weights_moved",
        heading="weights moved",
        text=lambda report, row: _weights_moved(report.costs[row.key]),
        of_row=lambda cost: cost.weights_moved,
        of_cell=lambda cost, cell, machine: _moved_in(cost, cell),
        legend="the weights of the upstream that fine-tuning moved, and by which rule (finetune.trainable)",
        in_json="finetuned",
        of_json=lambda cost: [{"column": key, **part.model_dump(mode="json")} for key, part in cost.finetuned.items()],
    ),
    CostColumn(
        name="macs_per_second",
        heading="MACs/s",
        text=_macs,
        of_row=lambda cost: cost.macs_per_second,
        of_cell=lambda cost, cell, machine: cost.macs_per_second,
        legend="multiply-accumulates of the upstream per second of sound",
        in_json="macs_per_second",
        of_json=lambda cost: cost.macs_per_second,
    ),
    CostColumn(
        name="real_time_factor",
        heading="real time",
        text=_speeds,
        of_row=lambda cost: cost.real_time_factor,
        of_cell=lambda cost, cell, machine: None if machine is None else cost.real_time_factors.get(machine),
        legend="the seconds of sound that the upstream computes in one second at batch size 1",
        in_json="real_time_factors",
        of_json=lambda cost: [
            {"measured_on": machine, "value": value} for machine, value in cost.real_time_factors.items()
        ],
        is_timed=True,
        first="descending",
        short=lambda cost: _range(cost.real_time_factors.values(), as_factor),
    ),
    CostColumn(
        name="train_seconds",
        heading="training",
        text=_trainings,
        of_row=lambda cost: cost.one_training,
        of_cell=lambda cost, cell, machine: (
            None if machine is None else cost.train_seconds.get((cell.column.key, machine))
        ),
        legend="the training time of one record",
        in_json="train_seconds",
        of_json=lambda cost: [
            {"column": key, "measured_on": machine, "value": value}
            for (key, machine), value in cost.train_seconds.items()
        ],
        is_timed=True,
        short=lambda cost: _range(cost.train_seconds.values(), as_time),
    ),
    CostColumn(
        name="measured_on",
        heading="measured on",
        text=_machines,
        of_row=lambda cost: "; ".join(cost.machines),
        of_cell=lambda cost, cell, machine: "; ".join(cell.machines),
        legend="the machine that the times hold for; those of different machines cannot be compared and are not sorted",
        in_json="",
        of_json=lambda cost: None,
        is_text=True,
        short=lambda cost: f"{len(cost.machines)} machines",
    ),
)
