"""One table of many records: a row for each system and layer, a column for each task, corpus and label fraction."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from repbench.benchmark.records.formatting import number
from repbench.benchmark.records.record import Record
from repbench.benchmark.report.data.columns import Column, columns_of
from repbench.benchmark.report.data.gather import ReportRow, rows_of
from repbench.benchmark.report.data.systems import notes_on_files, of_newest_files
from repbench.benchmark.report.render.escaping import shown

if TYPE_CHECKING:
    from repbench.benchmark.report.render.tables import PlainTable

_CAPTION = "primary metrics, {}; chance and majority in separate rows; –: not measured"


def plain_table(plain: PlainTable) -> Table:
    """A table of a report, with its title above and its notes below."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=Text(plain.title),
        title_justify="left",
        caption=Text("\n".join(plain.notes)),
        caption_justify="left",
    )
    for place, heading in enumerate(plain.headings):
        justify: Literal["left", "right"] = "left" if place < plain.num_names else "right"
        table.add_column(Text(heading), justify=justify, overflow="fold")
    for row in plain.rows:
        table.add_row(*(Text(f"{cell.text}\n{cell.interval}".strip()) for cell in row))
    return table


def matrix_table(records: Sequence[Record]) -> Table:
    """The primary metric of every system in every column, as means over seeds alone.

    Rows and columns are those of a report: records that differ in corpus, head, protocol or split are in different
    columns, those that differ in weights, mode or layer in different rows. Names hold only the differences. Of several
    records of one seed the newest counts.
    """
    column_of, row_of = columns_of(records), rows_of(records)
    several: dict[tuple[str, str, float], list[Record]] = defaultdict(list)
    for record in records:
        place = _row_of_all_shares(row_of[record.id]), column_of[record.id].key, record.label_fraction
        several[place].append(record)
    of_files = {place: of_newest_files(members, lambda each: each) for place, members in several.items()}
    # Records come in order of time: the last one of a seed stays.
    cells = {place: {record.seed: record for record in members} for place, members in of_files.items()}
    columns = _columns(records, column_of)
    names = _names(list(row_of.values()))
    caption = _CAPTION.format(_of_seeds({len(seeds) for seeds in cells.values()}))
    counted = {record.id for members in of_files.values() for record in members}
    older = len(counted) - sum(len(seeds) for seeds in cells.values())
    if older:
        caption += f"; {older} older records of the same seeds are left out"
    notes = notes_on_files((row_of[record.id].system, record) for record in records)
    caption = "\n".join([caption, *map(escape, notes)])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("", overflow="fold")
    for heading in columns.values():
        table.add_column(Text("\n".join(heading)), justify="right", overflow="fold")
    known = {column.key: column for column in column_of.values()}
    for name, values in (
        ("chance", [known[key].chance for key, _ in columns]),
        ("majority", [known[key].majority for key, _ in columns]),
    ):
        table.add_row(name, *(number(value) for value in values))
    for row, name in sorted(names.items(), key=lambda each: each[1]):
        table.add_row(Text(name), *(number(_mean(cells.get((row, *column)))) for column in columns))
    return table


def _columns(records: Sequence[Record], column_of: Mapping[str, Column]) -> dict[tuple[str, float], tuple[str, ...]]:
    """From key and label fraction of a column to the lines of its heading, in the order of the table."""
    used = {(column_of[record.id].key, record.label_fraction): column_of[record.id] for record in records}
    several = len({column.corpus for column in used.values()}) > 1
    places = sorted(used, key=lambda place: (int(place[0][1:]), place[1]))
    return {place: tuple(_heading(used[place], place[1], names_corpus=several)) for place in places}


def _heading(column: Column, fraction: float, *, names_corpus: bool) -> Iterator[str]:
    yield shown(column.task)
    if names_corpus:
        yield shown(column.corpus)
    yield from map(shown, column.differs)
    yield f"{100 * fraction:g} %"


def _row_of_all_shares(row: ReportRow) -> str:
    return "\n".join((row.system.name, row.mode, row.layer))


def _names(rows: Sequence[ReportRow]) -> dict[str, str]:
    """The names of the rows: the system, whether it was fine-tuned, and the layer where layers differ."""
    names_layer = len({row.layer for row in rows}) > 1
    return {
        _row_of_all_shares(row): ", ".join(
            [
                row.system.name,
                *["fine-tuned"] * (row.mode == "finetune"),
                *[f"layer {shown(row.layer)}"] * names_layer,
            ]
        )
        for row in rows
    }


def _of_seeds(counts: set[int]) -> str:
    fewest, most = min(counts, default=1), max(counts, default=1)
    if most == 1:
        return "each from one seed"
    return f"means over {most} seeds" if fewest == most else f"means over {fewest} to {most} seeds"


def _mean(records: Mapping[int, Record] | None) -> float | None:
    """None where a record is missing, or its metric undefined."""
    values = [record.primary.value for record in (records or {}).values()]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
