"""`results.csv`: one line for each number, at full precision; and the published numbers, in a file of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.controls import Controlled, Gain
from repbench.benchmark.report.data.cost import place_of
from repbench.benchmark.report.data.gather import Cell
from repbench.benchmark.report.render.commands import LONGEST_COMMAND, commands_of
from repbench.benchmark.report.render.escaping import shown, spreadsheet

HEADINGS = (
    "kind", "task", "corpus", "differs", "metric", "higher_is_better", "system", "checkpoint", "mode", "layer",
    "label_fraction", "label_seconds", "seeds", "num_seeds", "value", "ci95_low", "ci95_high", "ci_unit", "mark",
    "p_value", "test", "unchecked", "selectivity", "gained_by_training", "excluded", "parameters", "macs_per_second",
    "real_time_factor", "train_seconds", "measured_on", "smallest_difference", "column", "cell", "records", "command",
    "citation", "licence",
)  # fmt: skip


def results(report: Report) -> str:
    """The table of numbers; chance and majority are lines of their own."""
    lines: list[dict[str, object]] = []
    gains = {one.cell.key: one for each in report.controls for one in each.controlled}
    for column in report.gathered.all_columns:
        lines += [_cell(report, cell, gains.get(cell.key)) for cell in report.gathered.column_cells(column)]
        for kind, value in (("chance", column.chance), ("majority", column.majority)):
            if value is not None:
                lines.append({**_of_column(column), "kind": kind, "system": kind, "value": value})
    return _written(HEADINGS, ([line.get(heading) for heading in HEADINGS] for line in lines))


def published(report: Report) -> str:
    """The published numbers with their sources, in the units they were published in."""
    return _written(
        ("title", "source", "date", "model", "quantity", "value"),
        (
            [table.title, table.source, table.date, model, name, value]
            for table in report.published
            for model, values in table.values.items()
            for name, value in values.items()
        ),
    )


def _of_column(column: Column) -> dict[str, object]:
    return {
        "task": column.task,
        "corpus": column.corpus,
        "differs": "; ".join(column.differs),
        "metric": column.metric,
        "higher_is_better": column.higher_is_better,
        "column": column.key,
    }


def _cell(report: Report, cell: Cell, controlled: Controlled | None) -> dict[str, object]:
    row, cost = cell.row, report.costs[cell.row.key]
    places = dict.fromkeys(place_of(run.record) for run in cell.runs)
    place = next(iter(places)) if len(places) == 1 else None
    return {
        **_of_column(cell.column),
        "kind": _kind(cell),
        "system": row.system.name,
        "checkpoint": row.system.checkpoint,
        "mode": row.mode,
        "layer": row.layer,
        "label_fraction": row.fraction,
        "label_seconds": cell.label_seconds,
        "seeds": " ".join(map(str, cell.seeds)),
        "num_seeds": len(cell.runs),
        "value": cell.value,
        "ci95_low": None if cell.interval is None else cell.interval.low,
        "ci95_high": None if cell.interval is None else cell.interval.high,
        "ci_unit": cell.interval_unit,
        "mark": report.mark(cell),
        "p_value": report.verdicts.p_values.get(cell.key),
        "test": report.verdicts.tests.get(cell.key),
        "unchecked": cell.unchecked,
        "selectivity": None if controlled is None else _value(controlled.selectivity),
        "gained_by_training": None if controlled is None else _value(controlled.training),
        "excluded": cell.excluded,
        "parameters": cost.parameters,
        "macs_per_second": cost.macs_per_second,
        "real_time_factor": None if place is None else cost.real_time_factors.get(place),
        "train_seconds": None if place is None else cost.train_seconds.get((cell.column.key, place)),
        "measured_on": "; ".join(places),
        "smallest_difference": report.verdicts.resolution.get((*row.group, cell.column.key)),
        "cell": cell.key,
        "records": " ".join(run.record.id for run in cell.runs),
        "command": _commands(cell),
        "citation": row.system.citation,
        "licence": row.system.licence,
    }


def _kind(cell: Cell) -> str:
    if cell.column.shuffled:
        return "shuffled labels"
    return "untrained" if cell.row.system.untrained else "baseline" if cell.row.system.is_baseline else "system"


def _value(gain: Gain | None) -> float | None:
    return None if gain is None else gain.value


def _commands(cell: Cell) -> str:
    """The commands whole and as they are, or where they are to be found."""
    text = "; ".join(commands_of([run.record for run in cell.runs]))
    as_cell = spreadsheet(shown(text, LONGEST_COMMAND))
    return text if text == as_cell else "see results.json"


def _written(headings: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(list(_plain(line)) for line in lines)
    return stream.getvalue()


def _plain(line: Sequence[object]) -> Iterator[str]:
    """Numbers at full precision, text that no spreadsheet computes; nothing where there is nothing."""
    for value in line:
        if isinstance(value, str):
            yield spreadsheet(shown(value, LONGEST_COMMAND))
        else:
            yield "" if value is None else repr(value)
