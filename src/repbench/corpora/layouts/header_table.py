"""Tables whose columns are known: rows by the names of their header, with file and line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csv_table import TableRow, csv_rows
from repbench.corpora.textfiles import read_utf8
from repbench.errors import DataError


def rows_by_header(path: Path, columns: Collection[str], collector: FaultCollector) -> list[TableRow]:
    """The rows of a table with a header, their cells stripped; a `.tsv` is split at tabs, its quotes are text.

    A row with too few or too many cells is a fault of that row alone.

    Args:
        path: The table.
        columns: The columns that it must have; it may have others.
        collector: Receives the faults of single rows.

    Raises:
        DataError: The table is missing or not UTF-8, or has no such column; names the file.
    """
    lines = list(csv_rows(read_utf8(path), path))
    header = [name.strip() for name in lines[0][1]] if lines else []
    for column in columns:
        if column not in header:
            what = f"The table has no column `{column}` (it has {', '.join(filter(None, header)) or 'none'})"
            raise DataError(what, file=f"{path}:1", key=column, do="Fetch the table again: its header was changed")
    rows = []
    for number, cells in lines[1:]:
        with collector.each():
            rows.append(_row(header, cells, f"{path}:{number}"))
    return rows


def _row(header: Sequence[str], cells: Sequence[str], where: str) -> TableRow:
    if len(cells) != len(header):
        what = f"The row has {len(cells)} cells, but the header has {len(header)}"
        raise DataError(what, file=where, do="Fetch the table again, or remove the row")
    return TableRow({name: cell.strip() for name, cell in zip(header, cells, strict=True)}, where)
