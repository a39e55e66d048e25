"""Any corpus that a table describes: one utterance a row, in a `.csv` or `.tsv` file with a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast, get_args

from repbench.corpora.alignments import align
from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.places import Root
from repbench.corpora.rounded_ends import cut_at_sounds
from repbench.corpora.textfiles import read_utf8
from repbench.errors import DataError, UsageError

FIELDS = ("id", "path", "start", "end", "speaker", "text", "group", "split", "alignment", "features")
"""What a column can stand for; every other column is an attribute."""

_DELIMITERS = ",;\t|"
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")


class Row(NamedTuple):
    """One row: its cells by column, stripped, and where it stands: `table.csv:12`."""

    cells: dict[str, str]
    where: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table and which of its columns stand for which field."""

    rows: tuple[Row, ...]
    column_of: Mapping[str, str]
    attribute_columns: tuple[str, ...]

    def cell(self, row: Row, field: str) -> str | None:
        """The cell of a field; None where it is empty or there is no such column."""
        return row.cells[self.column_of[field]] or None if field in self.column_of else None


class CsvTable:
    """The layout `csv`: a table of utterances, their sound under the root.

    The columns `id`, `path`, `start`, `end`, `speaker`, `text`, `group`, `split`, `alignment` and `features` say what
    they are called (`columns` names others); only `path` is needed. `path` is relative to the root; `alignment`, the
    file of its phones, to `--alignments` or else the root; `features`, its precomputed frames, whose hop must be
    declared, to the root; `start` and `end` are seconds, and an end at most `OVERSHOOT_S` past its sound is cut there
    and counted in a note; `split` is train, dev or test; `id` defaults to the name of the file without its ending.
    Every other column becomes an attribute: whole numbers if all its cells are whole numbers, decimals if all are
    numbers, else strings. Space around a cell is taken away; an empty cell says that nothing is known. A table that
    names no alignment takes those of `--alignments` as any layout does.

    A `.tsv` is split at tabs and its quotes are text; a `.csv` is split at the comma, semicolon, tab or bar, whichever
    its header has most of, and quotes its cells as RFC 4180 says.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the rows of the table; errors as `CorpusLayout.prepare`.

        Raises:
            UsageError: `columns` names an unknown field.
            DataError: The table is missing, ambiguous or broken; names file and line.
        """
        if not root.is_dir():
            raise DataError("The root folder does not exist", file=root, do="Check --root")
        path = _find_table(root) if options.table is None else options.table
        table = _read_table(path, options.columns)
        attributes = _attributes(table)
        sounds = Root(root)
        utterances = [_utterance(table, row, known, sounds) for row, known in zip(table.rows, attributes, strict=True)]
        utterances, notes = cut_at_sounds(utterances)
        _refuse_undeclared_features(table, options, path)
        draft = Draft(
            name=path.stem,
            licence="unknown",
            root=root,
            utterances=utterances,
            features=options.features,
            notes=notes,
        )
        named = _alignments(table, utterances, Root(options.alignments or root))
        if named:
            return align(draft, named, options)
        return draft if options.alignments is None else align(draft, options.alignments, options)


CSV = CsvTable()


def _find_table(root: Path) -> Path:
    found = sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv") and path.is_file())
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        what = f"The root must hold one .csv or .tsv file, but there are: {names}"
        raise DataError(what, file=root, do="Name the table")
    return found[0]


def _read_table(path: Path, columns: Mapping[str, str]) -> Table:
    _refuse_unknown_fields(columns)
    records = _records(path)
    if not records:
        raise DataError("The table is empty", file=path, do="Give it a header and a row for each utterance")
    header = [name.strip() for name in records[0][1]]
    column_of = _column_of(header, columns, path)
    rows = tuple(_row(header, cells, f"{path}:{number}") for number, cells in records[1:])
    if not rows:
        raise DataError("The table has a header but no row", file=path, do="Give it a row for each utterance")
    return Table(rows, column_of, tuple(name for name in header if name not in column_of.values()))


def _refuse_unknown_fields(columns: Mapping[str, str]) -> None:
    for field in sorted(set(columns) - set(FIELDS)):
        what = f"There is no field `{field}` (there are {', '.join(FIELDS)})"
        raise UsageError(what, key=field, do="Columns that are no field become attributes by themselves")


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """Every record that is not blank, after the number of its last line."""
    text = read_utf8(path)
    if "\0" in text:
        raise DataError("The table holds a NUL", file=path, do="Save it as UTF-8 text")
    lines = io.StringIO(text, newline="")
    if path.suffix.lower() == ".tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        header = text.lstrip().partition("\n")[0]
        reader = csv.reader(lines, delimiter=max(_DELIMITERS, key=header.count), strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        what = f"The table cannot be read: {error}"
        raise DataError(what, file=f"{path}:{reader.line_num}", do="Mend the line") from error


def _column_of(header: Sequence[str], columns: Mapping[str, str], path: Path) -> dict[str, str]:
    """From field to column, of the fields that the table has."""
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or "" in header:
        what = f"The column `{twice[0]}` stands twice" if twice else "A column has no name"
        raise DataError(what, file=f"{path}:1", do="Give every column a name of its own")
    column_of = {field: field for field in FIELDS if field in header and field not in columns} | dict(columns)
    for field, column in column_of.items():
        if column not in header:
            raise _missing_column(field, column, header, path)
    if "path" not in column_of:
        raise _missing_column("path", "path", header, path)
    return column_of


def _missing_column(field: str, column: str, header: Sequence[str], path: Path) -> DataError:
    what = f"The table has no column `{column}` for `{field}` (it has {', '.join(header)})"
    return DataError(what, file=f"{path}:1", key=field, do="Name the column that holds it")


def _row(header: Sequence[str], cells: Sequence[str], where: str) -> Row:
    if len(cells) != len(header):
        what = f"The row has {len(cells)} cells, but the header has {len(header)}"
        raise DataError(what, file=where, do="Mend the row; quote a cell that holds the delimiter")
    return Row({name: cell.strip() for name, cell in zip(header, cells, strict=True)}, where)


def _utterance(table: Table, row: Row, attributes: Mapping[str, AttributeValue], root: Root) -> DraftUtterance:
    place = table.cell(row, "path")
    if place is None:
        raise DataError("The row has no path", file=row.where, key="path", do="Fill the cell or remove the row")
    identifier = table.cell(row, "id") or Path(place).stem
    features = table.cell(row, "features")
    return DraftUtterance(
        id=identifier,
        audio=root.place(place, file=row.where, utterance=identifier),
        start=_seconds(table, row, "start", identifier),
        end=_seconds(table, row, "end", identifier),
        speaker=table.cell(row, "speaker"),
        text=table.cell(row, "text"),
        attributes=attributes,
        group=table.cell(row, "group"),
        split=_split(table, row, identifier),
        features=None if features is None else root.place(features, file=row.where, utterance=identifier),
    )


def _refuse_undeclared_features(table: Table, options: PrepareOptions, path: Path) -> None:
    if options.features is None and "features" in table.column_of:
        what = "The table has a column `features`, but their hop is not declared"
        raise UsageError(what, file=path, key="--features-hop", do="Give the time between two frames in seconds")
    if options.features is not None and "features" not in table.column_of:
        what = "The hop of features is declared, but the table has no column `features`"
        raise UsageError(
            what, file=path, key="--features-hop", do="Add the column, or name it with --column features=…"
        )


def _seconds(table: Table, row: Row, field: str, utterance: str) -> float | None:
    cell = table.cell(row, field)
    if cell is None:
        return None
    if not _DECIMAL.fullmatch(cell):
        what = f"`{field}` must be a number of seconds, but is `{cell}`"
        raise DataError(what, file=row.where, utterance=utterance, key=field, do="Write it like 1.25")
    return float(cell)


def _split(table: Table, row: Row, utterance: str) -> Split | None:
    cell = table.cell(row, "split")
    if cell is not None and cell not in get_args(Split):
        what, do = f"`split` must be train, dev or test, but is `{cell}`", "Use one of these, or leave it empty"
        raise DataError(what, file=row.where, utterance=utterance, key="split", do=do)
    return cast(Split | None, cell)


def _alignments(table: Table, utterances: Sequence[DraftUtterance], root: Root) -> dict[str, Path]:
    """From the id of an utterance to the file of its alignment that its row names."""
    return {
        utterance.id: root.place(place, file=row.where, utterance=utterance.id)
        for row, utterance in zip(table.rows, utterances, strict=True)
        if (place := table.cell(row, "alignment")) is not None
    }


def _attributes(table: Table) -> list[dict[str, AttributeValue]]:
    """The attributes of each row, every column read as one type."""
    types = {name: column_type([row.cells[name] for row in table.rows]) for name in table.attribute_columns}
    return [{name: read(row.cells[name]) for name, read in types.items() if row.cells[name]} for row in table.rows]


def column_type(cells: Sequence[str]) -> Callable[[str], AttributeValue]:
    """What reads every cell that is not empty: `int`, `float` or `str`. `007` is a name, not a number."""
    known = [cell for cell in cells if cell]
    if all(_WHOLE.fullmatch(cell) for cell in known):
        return int
    if all(_DECIMAL.fullmatch(cell) and not _is_padded(cell) for cell in known):
        return float
    return str


def _is_padded(cell: str) -> bool:
    """Whether a number has zeros in front that a name would lose."""
    digits = cell.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
