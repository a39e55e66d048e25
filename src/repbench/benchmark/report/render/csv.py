"""`results.csv`: one line for each number, at full precision; and the published numbers, in a separate file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from repbench.benchmark.report.data.assemble import Report
from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.cost import RowCost
from repbench.benchmark.report.data.gather import Cell, Machine, ReportRow
from repbench.benchmark.report.data.heard import declared_in_words, in_words
from repbench.benchmark.report.data.robustness import Estimate
from repbench.benchmark.report.render.commands import LONGEST_COMMAND, commands_of
from repbench.benchmark.report.render.cost_columns import COST_COLUMNS
from repbench.benchmark.report.render.escaping import shown, spreadsheet
from repbench.benchmark.scoring.statistics import Interval


class CsvLine(NamedTuple):
    """A number and what belongs to it.

    Attributes:
        report: The report it is in.
        cell: The number.
        row: Its row.
        cost: Of the row.
        machine: The one machine on which its records were made; None where there are several.
        selectivity: Its gain over shuffled labels; None without such a control.
        gained: Its gain over the untrained network; None without such a control.
        drop: Its drop from clean sound; None of clean sound and where it is undefined.
    """

    report: Report
    cell: Cell
    row: ReportRow
    cost: RowCost
    machine: Machine | None
    selectivity: float | None
    gained: float | None
    drop: Estimate | None


class CsvColumn(NamedTuple):
    """A column of `results.csv`.

    Attributes:
        heading: Its name.
        value: Of a number.
        of_column: Of a column of the report; such a value is also in the lines of chance and majority.
    """

    heading: str
    value: Callable[[CsvLine], object] = lambda line: None
    of_column: Callable[[Column], object] | None = None

    def of(self, line: CsvLine) -> object:
        """The value in the line of a number."""
        return self.value(line) if self.of_column is None else self.of_column(line.cell.column)


COLUMNS = (
    CsvColumn("kind", lambda line: _kind(line.cell)),
    CsvColumn("task", of_column=lambda column: column.task),
    CsvColumn("corpus", of_column=lambda column: column.corpus),
    CsvColumn("differs", of_column=lambda column: "; ".join(column.differs)),
    CsvColumn("metric", of_column=lambda column: column.metric),
    CsvColumn("higher_is_better", of_column=lambda column: column.higher_is_better),
    CsvColumn("system", lambda line: line.row.system.name),
    CsvColumn("checkpoint", lambda line: line.row.system.checkpoint),
    CsvColumn("mode", lambda line: line.row.mode),
    CsvColumn("layer", lambda line: line.row.layer),
    CsvColumn("label_fraction", lambda line: line.row.fraction),
    CsvColumn("label_seconds", lambda line: line.cell.label_seconds),
    CsvColumn("seeds", lambda line: " ".join(map(str, line.cell.seeds))),
    CsvColumn("num_seeds", lambda line: len(line.cell.runs)),
    CsvColumn("value", lambda line: line.cell.value),
    CsvColumn("ci95_low", lambda line: None if line.cell.interval is None else line.cell.interval.low),
    CsvColumn("ci95_high", lambda line: None if line.cell.interval is None else line.cell.interval.high),
    CsvColumn("ci_unit", lambda line: line.cell.interval_unit),
    CsvColumn("mark", lambda line: line.report.mark(line.cell)),
    CsvColumn("p_value", lambda line: line.report.verdicts.p_values.get(line.cell.key)),
    CsvColumn("test", lambda line: line.report.verdicts.tests.get(line.cell.key)),
    CsvColumn("unchecked", lambda line: line.cell.unchecked),
    CsvColumn("selectivity", lambda line: line.selectivity),
    CsvColumn("gained_by_training", lambda line: line.gained),
    CsvColumn("excluded", lambda line: line.cell.excluded),
    *(
        CsvColumn(each.name, lambda line, of_cell=each.of_cell: of_cell(line.cost, line.cell, line.machine))  # type: ignore[misc]
        for each in COST_COLUMNS
    ),
    CsvColumn("smallest_difference", lambda line: line.report.verdicts.resolution.get(line.cell.comparison_key)),
    CsvColumn("column", of_column=lambda column: column.key),
    CsvColumn("cell", lambda line: line.cell.key),
    CsvColumn("records", lambda line: " ".join(run.record.id for run in line.cell.runs)),
    CsvColumn("command", lambda line: _commands(line.cell)),
    CsvColumn("citation", lambda line: line.row.system.citation),
    CsvColumn("licence", lambda line: line.row.system.licence),
    CsvColumn("condition", of_column=lambda column: column.facts["condition"]),
    CsvColumn("drop", lambda line: None if line.drop is None else line.drop.value),
    CsvColumn("drop_ci95_low", lambda line: None if (ends := _ends(line.drop)) is None else ends.low),
    CsvColumn("drop_ci95_high", lambda line: None if (ends := _ends(line.drop)) is None else ends.high),
    CsvColumn("heard_before", lambda line: line.cell.heard.verdict),
    CsvColumn("heard_utterances", lambda line: line.cell.heard.n_overlapping),
    CsvColumn("heard_of", lambda line: line.cell.heard.n_test),
    CsvColumn("trained_on", lambda line: declared_in_words(line.cell.heard.declared)),
    CsvColumn("heard_basis", lambda line: in_words(line.cell.heard)),
)


def results(report: Report) -> str:
    """The table of numbers; chance and majority have separate lines."""
    return _written([column.heading for column in COLUMNS], _lines(report))


def _lines(report: Report) -> Iterator[list[object]]:
    controlled = [one for each in report.controls for one in each.controlled]
    selectivities = {one.cell.key: one.selectivity.value for one in controlled if one.selectivity is not None}
    gains = {one.cell.key: one.training.value for one in controlled if one.training is not None}
    drops = {
        each.cell.key: each.drop for table in report.robustness for row in table.rows for each in row.disturbed.values()
    }
    for column in report.gathered.every_column:
        for cell in report.gathered.column_cells(column):
            machine = cell.machines[0] if len(cell.machines) == 1 else None
            line = CsvLine(
                report,
                cell,
                cell.row,
                report.costs[cell.row.key],
                machine,
                selectivities.get(cell.key),
                gains.get(cell.key),
                drops.get(cell.key),
            )
            yield [each.of(line) for each in COLUMNS]
        for name, value in (("chance", column.chance), ("majority", column.majority)):
            if value is not None:
                known = {"kind": name, "system": name, "value": value}
                yield [each.of_column(column) if each.of_column else known.get(each.heading) for each in COLUMNS]


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


def _ends(drop: Estimate | None) -> Interval | None:
    return None if drop is None else drop.interval


def _kind(cell: Cell) -> str:
    if cell.column.shuffled:
        return "shuffled labels"
    return "untrained" if cell.row.system.untrained else "baseline" if cell.row.system.is_baseline else "system"


def _commands(cell: Cell) -> str:
    """The commands in full, or where they can be found."""
    text = "; ".join(commands_of([run.record for run in cell.runs]))
    as_cell = spreadsheet(shown(text, LONGEST_COMMAND))
    # An escaped or shortened command would not run.
    return text if text == as_cell else "see results.json"


def _written(headings: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(list(_plain(line)) for line in lines)
    return stream.getvalue()


def _plain(line: Sequence[object]) -> Iterator[str]:
    """Numbers at full precision, text that no spreadsheet computes, an empty cell for a value that is missing."""
    for value in line:
        if isinstance(value, str):
            yield spreadsheet(shown(value, LONGEST_COMMAND))
        else:
            yield "" if value is None else repr(value)
