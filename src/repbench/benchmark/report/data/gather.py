"""From records to a table: a row is a system, mode, layer and label fraction; a cell is the mean over its seeds."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from repbench.benchmark.records.formatting import number
from repbench.benchmark.records.parts import HeardPart
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.data.columns import CLEAN, Column, columns_of
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.heard import heard_of, together
from repbench.benchmark.report.data.reading import LoadedRecords, Run
from repbench.benchmark.report.data.systems import System, notes_on_files, of_newest_files, systems_of
from repbench.benchmark.report.render.escaping import shown
from repbench.benchmark.scoring.statistics import Interval

Machine = str
"""A device, its processor and the number of torch threads, in words."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A system, mode, layer and label fraction."""

    key: str
    system: System
    mode: str
    layer: str
    fraction: float

    @property
    def group(self) -> tuple[str, float]:
        """Mode and label fraction: rows that share them are ranked together."""
        return self.mode, self.fraction

    @property
    def labels(self) -> str:
        """The label fraction, in percent."""
        return f"{100 * self.fraction:g} %"

    @property
    def title(self) -> str:
        """System and layer, on one line."""
        return f"{self.system.name}, layer {shown(self.layer)}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the table.

    Attributes:
        key: Its id in pages and files.
        column: Its column.
        row: Its row.
        runs: Its records, one for each seed, in order of seeds.
        value: Mean over the seeds of the primary metric; None where it is undefined in one of them.
        interval: 95 %, over speakers or groups and over seeds.
        interval_unit: speaker or group.
    """

    key: str
    column: Column
    row: ReportRow
    runs: tuple[Run, ...]
    value: float | None
    interval: Interval | None
    interval_unit: str | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each record."""
        return tuple(run.record.seed for run in self.runs)

    @property
    def signed_value(self) -> float:
        """The value, negated where lower is better; 0 where it is undefined."""
        return self.column.signed(self.value or 0.0)

    @property
    def against_baselines(self) -> list[str]:
        """What keeps it from being worth something, in words: its interval holds chance, or majority is as good."""
        column = self.column
        if self.value is None:
            return []
        worst = self.value
        if self.interval is not None:
            worst = self.interval.low if column.higher_is_better else self.interval.high
        found = []
        if column.chance is not None and column.signed(worst) <= column.signed(column.chance):
            found.append(f"not {'above' if column.higher_is_better else 'below'} chance ({number(column.chance)})")
        if column.majority is not None and number(self.value) == number(column.majority):
            found.append(f"= majority ({number(column.majority)})")
        elif column.majority is not None and self.signed_value < column.signed(column.majority):
            found.append(f"worse than majority ({number(column.majority)})")
        return found

    @property
    def comparison_key(self) -> tuple[str, float, str]:
        """Mode, label fraction and column: cells that share them are compared."""
        return (*self.row.group, self.column.key)

    @property
    def machines(self) -> tuple[Machine, ...]:
        """The machines that its records were made on, each once."""
        return tuple(dict.fromkeys(machine_of(run.record) for run in self.runs))

    @property
    def label_seconds(self) -> float:
        """Seconds of labelled sound that trained it, mean over the seeds."""
        return math.fsum(run.record.label_seconds.train for run in self.runs) / len(self.runs)

    @property
    def origins(self) -> tuple[str, ...]:
        """The packages of upstream, task and corpus, as far as its records name them."""
        records = [run.record for run in self.runs]
        parts = [part for each in records for part in (each.upstream, each.downstream, each.corpus)]
        known = [(part.name, part.origin) for part in parts]
        return tuple(dict.fromkeys(f"{name} of {origin.shown()}" for name, origin in known if origin is not None))

    @property
    def unchecked(self) -> str | None:
        """The reasons that records of it could not be recomputed from predictions; None if all were."""
        reasons = dict.fromkeys(run.unchecked for run in self.runs if run.unchecked is not None)
        return "; ".join(reasons) or None

    @property
    def compared(self) -> bool:
        """Whether it takes part in comparisons: it is defined, and was recomputed from predictions."""
        return self.value is not None and self.unchecked is None

    @property
    def heard(self) -> HeardPart:
        """Whether the system was trained on the test utterances before."""
        return together(heard_of(run.record) for run in self.runs)

    @property
    def flags(self) -> list[str]:
        """Remarks that every table shows with it."""
        return [
            *([f"without {self.excluded}"] if self.excluded else []),
            *(["unchecked"] if self.unchecked is not None else []),
        ]

    @property
    def excluded(self) -> int:
        """Largest number of test utterances that one of its records left out."""
        return max(len(run.record.excluded) for run in self.runs)


@dataclass(frozen=True)
class Gathered:
    """The table of a report, independent of its form.

    Attributes:
        columns: In descending order of their number of rows.
        controls: Columns with shuffled labels.
        conditions: Columns of disturbed test sound that is clean in another column, in the order of their keys.
        rows: By label fraction, mode, and score in the first column.
        cells: By the keys of row and column.
        failed: Records that failed verification.
        unreadable: From a file that is not a record to the reason.
        notes: Sentences for the reader.
    """

    columns: tuple[Column, ...]
    controls: tuple[Column, ...]
    conditions: tuple[Column, ...]
    rows: tuple[ReportRow, ...]
    cells: Mapping[tuple[str, str], Cell]
    failed: tuple[Run, ...]
    unreadable: Mapping[Path, str]
    notes: tuple[str, ...]

    def cell(self, row: ReportRow, column: Column) -> Cell | None:
        """The cell of a row in a column; None without records."""
        return self.cells.get((row.key, column.key))

    def column_cells(self, column: Column) -> list[Cell]:
        """The numbers of a column, in the order of rows."""
        return [cell for row in self.rows if (cell := self.cell(row, column)) is not None]

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Every column of clean sound, controls last."""
        return (*self.columns, *self.controls)

    @property
    def every_column(self) -> tuple[Column, ...]:
        """Every column, those of conditions last."""
        return (*self.all_columns, *self.conditions)

    def row_cells(self, row: ReportRow) -> list[Cell]:
        """The numbers of a row, in the order of columns, controls last."""
        return [cell for column in self.all_columns if (cell := self.cell(row, column)) is not None]

    @functools.cached_property
    def usual_seeds(self) -> int:
        """The most frequent number of seeds without controls; of equally frequent ones the largest."""
        counts = Counter(len(cell.runs) for column in self.columns for cell in self.column_cells(column))
        return max(counts, key=lambda seeds: (counts[seeds], seeds), default=1)

    def heard(self, row: ReportRow) -> HeardPart:
        """Whether the system of a row was trained on test utterances of any of its columns before."""
        cells = self.row_cells(row)
        if len({cell.column.corpus for cell in cells}) == 1:
            return together(cell.heard for cell in cells)
        return together(
            cell.heard.model_copy(
                update={"basis": tuple(f"{shown(cell.column.corpus)}: {sentence}" for sentence in cell.heard.basis)}
            )
            for cell in cells
        )

    def covered(self, row: ReportRow) -> int:
        """Number of columns in which a row has a number, controls left out."""
        return sum((row.key, column.key) in self.cells for column in self.columns)

    @property
    def groups(self) -> tuple[tuple[str, float], ...]:
        """Modes and label fractions of the rows, in order."""
        return tuple(dict.fromkeys(row.group for row in self.rows))

    def group_rows(self, group: tuple[str, float]) -> list[ReportRow]:
        """The rows of one mode and label fraction."""
        return [row for row in self.rows if row.group == group]


def gather(loaded: LoadedRecords, evidence: Evidence) -> Gathered:
    """Verify every record, and lay out those that pass."""
    checked = [run if run.fault is not None else evidence.checked(run) for run in loaded.runs]
    passed = [run for run in checked if run.fault is None]
    records = [run.record for run in passed]
    column_of, row_of = columns_of(records), rows_of(records)
    grouped: dict[tuple[ReportRow, str], list[Run]] = defaultdict(list)
    for run in passed:
        grouped[row_of[run.record.id], column_of[run.record.id].key].append(run)
    of_files = notes_on_files((row_of[record.id].system, record) for record in records)
    columns = {column.key: column for column in column_of.values()}
    cells, notes = _cells(grouped, columns, evidence)
    filled = Counter(column_key for _, column_key in cells)
    # The number in the key, because as text c10 sorts before c9.
    in_order = sorted(columns.values(), key=lambda column: (-filled[column.key], int(column.key[1:])))
    apart = {column.key for column in in_order if clean_twin(column, in_order) is not None}
    own = [column for column in in_order if column.key not in apart]
    scored = tuple(column for column in own if not column.shuffled)
    return Gathered(
        columns=scored,
        controls=tuple(column for column in own if column.shuffled),
        conditions=tuple(column for column in columns.values() if column.key in apart),
        rows=tuple(sorted(dict.fromkeys(row_of.values()), key=lambda row: _order(row, scored, cells))),
        cells=cells,
        failed=tuple(run for run in checked if run.fault is not None),
        unreadable=loaded.unreadable,
        notes=(*of_files, *notes),
    )


def clean_twin(column: Column, columns: Iterable[Column]) -> Column | None:
    """The column of a condition on clean sound, all else alike; None for a column of clean sound, and without one."""
    if column.is_clean:
        return None
    wanted = {**column.facts, "condition": CLEAN}

    def shared(other: Column) -> int:
        """Number of facts that both have, if they are the same in both, else 0."""
        # A column of both modes has settings that one of a single mode lacks.
        names = wanted.keys() & other.facts.keys()
        return len(names) if all(wanted[name] == other.facts[name] for name in names) else 0

    return max((each for each in columns if each.task == column.task and shared(each)), key=shared, default=None)


def _cells(
    grouped: Mapping[tuple[ReportRow, str], Sequence[Run]], columns: Mapping[str, Column], evidence: Evidence
) -> tuple[dict[tuple[str, str], Cell], tuple[str, ...]]:
    cells: dict[tuple[str, str], Cell] = {}
    notes: list[str] = []
    for (row, column_key), runs in grouped.items():
        of_files = of_newest_files(runs, lambda run: run.record)
        # The last of a key wins in a dictionary, so the order of time leaves the newest.
        newest = {run.record.seed: run for run in of_files}
        column = columns[column_key]
        if len(newest) < len(of_files):
            notes.append(
                f"{row.title}, {row.labels} of the labels, {column.title}: of {len(of_files)} records, "
                f"the newest of each seed counts ({len(newest)})"
            )
        cells[row.key, column_key] = _cell(row, column, [newest[seed] for seed in sorted(newest)], evidence)
    return cells, tuple(notes)


def _cell(row: ReportRow, column: Column, runs: Sequence[Run], evidence: Evidence) -> Cell:
    values = [run.record.metrics[column.metric].value for run in runs]
    known = [value for value in values if value is not None]
    interval, unit = evidence.interval(runs, column.metric)
    return Cell(
        key=f"{row.key}{column.key}",
        column=column,
        row=row,
        runs=tuple(runs),
        # Undefined in one seed makes the mean undefined: a mean over the others would be of other seeds than its
        # neighbours.
        value=math.fsum(known) / len(known) if len(known) == len(values) else None,
        interval=interval,
        interval_unit=unit,
    )


def machine_of(record: Record) -> Machine:
    """The machine that a record was made on."""
    threads = record.environment.threads
    return f"{shown(record.cost.device)}, {shown(record.environment.cpu)}, {threads} thread{'s' * (threads != 1)}"


def rows_of(records: Sequence[Record]) -> dict[str, ReportRow]:
    """The row of each record, by the record's id."""
    system_of = systems_of(records)
    rows: dict[tuple[str, str, str, float], ReportRow] = {}
    of_record: dict[str, ReportRow] = {}
    for record in records:
        identity = (system_of[record.id].name, record.mode, record.layer, record.label_fraction)
        key = f"r{len(rows) + 1}"
        of_record[record.id] = rows.setdefault(identity, ReportRow(key, system_of[record.id], *identity[1:]))
    return of_record


def _order(row: ReportRow, columns: Sequence[Column], cells: Mapping[tuple[str, str], Cell]) -> tuple[object, ...]:
    """Sort key: label fraction descending, mode, then score in each column; cells that are not compared come last."""
    places: list[tuple[bool, float]] = []
    for column in columns:
        cell = cells.get((row.key, column.key))
        value = cell.value if cell is not None and cell.compared else None
        # False sorts before True: rows without a number come after all that have one.
        places.append((value is None, 0.0 if value is None else -column.signed(value)))
    return (-row.fraction, row.mode, places, row.system.name, row.layer)
