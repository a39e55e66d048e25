"""Any corpus that a table describes: one utterance a row, in CSV with a header or in JSON, an object a line."""

from __future__ import annotations

import csv
import difflib
import io
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast, get_args

from repbench.audio.sound import inspect
from repbench.corpora.alignments import align
from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import refuse_missing_root
from repbench.corpora.layouts.json_table import is_json, read_json_table
from repbench.corpora.layouts.rounded_ends import cut_at_sounds
from repbench.corpora.layouts.sound_files import without_ending
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.safe_paths import RootFolder, common_folder
from repbench.corpora.textfiles import read_utf8
from repbench.errors import DataError, UsageError

FIELDS = ("id", "path", "start", "end", "speaker", "text", "group", "split", "alignment", "features")
"""The fields that a column can hold; every other column is an attribute."""

NEMO_PATH = "audio_filepath"
"""The column of paths in manifests of NeMo; with it, `offset` and `duration` are seconds of that file."""

_NEMO_TIMES = ("offset", "duration")
_PATHS = ("file_name", NEMO_PATH)
_ROUNDED_S = 0.01
_DELIMITERS = ",;\t|"
_PANDAS_INDEX = re.compile(r"Unnamed: [0-9]+")
_LINE = re.compile(r":( item )?[0-9]+\Z")
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")


class TableRow(NamedTuple):
    """One row: its cells by column, stripped, and its file and line: `table.csv:12`."""

    cells: dict[str, str]
    where: str


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table and the columns of its fields.

    Attributes:
        rows: Its rows.
        column_of: From each field that the table has to its column.
        attribute_columns: The columns that are no field.
        notes: Notes on columns that are read under another name or skipped.
        is_nemo: Whether `offset` and `duration` give the part of the sound, as in manifests of NeMo.
    """

    rows: tuple[TableRow, ...]
    column_of: Mapping[str, str]
    attribute_columns: tuple[str, ...]
    notes: tuple[str, ...] = ()
    is_nemo: bool = False

    def cell(self, row: TableRow, field: str) -> str | None:
        """The cell of a field; None where it is empty or there is no such column."""
        return row.cells[self.column_of[field]] or None if field in self.column_of else None


class CsvTable:
    """The layout `csv`: a table of utterances, their sound under the root.

    The columns `id`, `path`, `start`, `end`, `speaker`, `text`, `group`, `split`, `alignment` and `features` hold the
    fields of these names (`columns` gives other names); only `path` is needed. It is relative to the root, or absolute
    and under it; `alignment`, the file of its phones, to `--alignments` or else the root; `features`, its precomputed
    frames, whose hop must be declared, to the root. `start` and `end` are seconds; an end at most `OVERSHOOT_S` past
    its sound is cut there and counted in a note. `split` is train, dev or test; `id` defaults to the name of the file
    without its ending. Every other column becomes an attribute: whole numbers if all its cells are whole numbers,
    decimals if all are numbers, else strings. Space around a cell is removed; an empty cell is an unknown
    value. A table that names no alignment takes those of `--alignments` as any layout does.

    Names of columns are matched without regard to case where they differ in nothing else. Without a column `path`,
    `file_name` (Hugging Face) and `audio_filepath` (NeMo) are taken for it; with the latter, `offset` and `duration`
    give the part of the sound. A first column without a name is the index that pandas writes.

    A `.tsv` is split at tabs and its quotes are text; a `.csv` is split at the comma, semicolon, tab or bar, whichever
    its header has most of, and quotes its cells as in RFC 4180. A `.jsonl`, `.ndjson` or `.json` holds an object a
    line, or one list of objects, without lists and objects in them.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the rows of the table; errors as `CorpusLayout.prepare`.

        Raises:
            UsageError: `columns` names an unknown field.
            DataError: The table is missing, ambiguous or broken; names file and line.
        """
        refuse_missing_root(root)
        path = _find_table(root) if options.table is None else options.table
        collector = FaultCollector(gather=options.gather_faults)
        table = read_table(path, options.columns, collector)
        sounds = RootFolder(root, follow_links=options.follow_links)
        _refuse_undeclared_features(table, options, path)
        grids = RootFolder(options.alignments or root, follow_links=options.follow_links)
        named = dict[str, Path]()

        def note_alignment(utterance: DraftUtterance, row: TableRow) -> None:
            if (place := table.cell(row, "alignment")) is not None:
                named[utterance.id] = grids.locate(place, file=row.where, utterance=utterance.id)

        utterances = described(table, sounds, collector, note_alignment)
        utterances, notes = cut_at_sounds(utterances)
        draft = Draft(
            name=path.stem,
            licence="unknown",
            root=root,
            utterances=utterances,
            notes=(*table.notes, *notes, *(text_notes(utterances) if "text" in table.column_of else ())),
            features=options.features,
            faults=tuple(collector.faults),
        )
        if named:
            return align(draft, named, options)
        return draft if options.alignments is None else align(draft, options.alignments, options)


CSV = CsvTable()


def described(
    table: SourceTable,
    sounds: RootFolder,
    collector: FaultCollector,
    also: Callable[[DraftUtterance, TableRow], None] = lambda utterance, row: None,
) -> list[DraftUtterance]:
    """The utterances of a table.

    Args:
        table: The table.
        sounds: The root of the paths.
        collector: Receives the faults of single rows.
        also: Called with each utterance and its row; a row for which it raises is faulty.
    """
    utterances = []
    for row, known in zip(table.rows, _attributes(table), strict=True):
        with collector.each():
            utterance = _utterance(table, row, known, sounds)
            also(utterance, row)
            utterances.append(utterance)
    return utterances


def _find_table(root: Path) -> Path:
    """The one table in the root; those in JSON count where there is no other, without a manifest of repbench's own."""
    files = sorted(path for path in root.iterdir() if path.is_file() and not path.name.startswith("."))
    found = [path for path in files if path.suffix.lower() in (".csv", ".tsv")]
    if not found:
        # a manifest that was written into the root of the sounds is no table of them
        own = "manifest.jsonl" if (root / "corpus.json").is_file() else None
        found = [path for path in files if path.suffix.lower() in (".jsonl", ".ndjson") and path.name != own]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        what = f"The root must hold one .csv or .tsv file, but there are: {names}"
        raise DataError(what, file=root, do="Name the table with --table FILE; without any, one .jsonl is read")
    return found[0]


def read_table(path: Path, columns: Mapping[str, str], collector: FaultCollector) -> SourceTable:
    """The rows of a table and the columns of its fields; errors as `CsvTable.prepare`."""
    refuse_unknown_fields(columns)
    header, records = _records(path)
    header, records, notes = _with_named_columns(header, records, path)
    column_of, notes_on_names = _column_of(header, columns, path, records)
    rows = []
    for where, cells in records:
        with collector.each():
            # one by one, so that a row with too many cells is one fault among the others
            rows.append(_row(header, cells, where))
    is_nemo = column_of["path"] == NEMO_PATH and "path" not in columns
    used = {*column_of.values(), *(_NEMO_TIMES if is_nemo else ())}
    # in the order of the header
    attributes = tuple(name for name in header if name not in used)
    return SourceTable(tuple(rows), column_of, attributes, (*notes, *notes_on_names), is_nemo)


def refuse_unknown_fields(columns: Mapping[str, str], fields: Sequence[str] = FIELDS) -> None:
    """Refuse a column for a field that there is not.

    Raises:
        UsageError: Names the fields that there are.
    """
    for field in sorted(set(columns) - set(fields)):
        what = f"There is no field `{field}` (there are {', '.join(fields)})"
        raise UsageError(what, key=field, do="Columns that are no field become attributes by themselves")


_Records = list[tuple[str, list[str]]]
"""The file and line of each row, and its cells."""


def _records(path: Path) -> tuple[list[str], _Records]:
    """The names of the columns and every row that is not blank."""
    text = read_utf8(path)
    if "\0" in text:
        raise DataError("The table holds a NUL", file=path, do="Save it as UTF-8 text")
    if is_json(path, text):
        header, records = read_json_table(text, path)
        if not records:
            raise DataError("The table is empty", file=path, do="Write an object for each utterance, one a line")
        return header, records
    lines = list(csv_rows(text, path))
    if not lines:
        raise DataError("The table is empty", file=path, do="Give it a header and a row for each utterance")
    if len(lines) == 1:
        raise DataError("The table has a header but no row", file=path, do="Give it a row for each utterance")
    return [name.strip() for name in lines[0][1]], [(f"{path}:{number}", cells) for number, cells in lines[1:]]


def csv_rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every row of a CSV that is not blank, after the number of its last line.

    Raises:
        DataError: A quote does not end.
    """
    # `newline=""`, or a line break inside a quoted cell would be changed
    lines = io.StringIO(text, newline="")
    if path.suffix.lower() == ".tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        header = text.lstrip().partition("\n")[0]
        # `max` takes the first of equals: the comma where the header has none of them
        reader = csv.reader(lines, delimiter=max(_DELIMITERS, key=header.count), strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    except csv.Error as error:
        what = f"The table cannot be read: {error}"
        raise DataError(what, file=f"{path}:{reader.line_num}", do="Mend the line") from error


def _with_named_columns(
    header: Sequence[str], records: _Records, path: Path
) -> tuple[list[str], _Records, tuple[str, ...]]:
    """The columns with a name: without the index that pandas writes, and without columns that hold nothing.

    Raises:
        DataError: Another column has no name, or two have the same.
    """
    passed, notes = [], []
    for index, name in enumerate(header):
        cells = [row[index].strip() for _, row in records if index < len(row)]
        is_index = index == 0 and (not name or (_PANDAS_INDEX.fullmatch(name) and all(map(_WHOLE.fullmatch, cells))))
        if is_index and len(header) > 1:
            shown = ", ".join(cells[:3]) + (", …" if len(cells) > 3 else "")
            notes.append(f"the first column of {path.name} has no name and is passed over: {shown}")
        elif name:
            continue
        elif any(cells):
            begins = next(cell for cell in cells if cell)
            what = f"A column has no name: column {index + 1}, which begins with `{begins}`"
            raise DataError(what, file=f"{path}:1", do="Give every column a unique name")
        passed.append(index)
    names = [name for index, name in enumerate(header) if index not in passed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        what = f"The column `{twice[0]}` occurs twice"
        raise DataError(what, file=f"{path}:1", do="Give every column a unique name")
    if not passed:
        return names, records, ()
    kept = [
        (where, [cell for index, cell in enumerate(row) if index not in passed] if len(row) == len(header) else row)
        for where, row in records
    ]
    return names, kept, tuple(notes)


def _column_of(
    header: Sequence[str], columns: Mapping[str, str], path: Path, records: _Records
) -> tuple[dict[str, str], tuple[str, ...]]:
    """From field to column, of the fields that the table has; and a note on names that are written otherwise."""
    column_of = dict(columns)
    for field, column in columns.items():
        if column not in header:
            raise _missing_column(field, column, header, path, records)
    others = {}
    for field in FIELDS:
        free = [name for name in header if name not in column_of.values()]
        found = [] if field in columns else columns_for(field, free)
        # `Path` and `PATH` could each be meant
        if len(found) > 1:
            what = f"The columns {' and '.join(f'`{name}`' for name in found)} could each be `{field}`"
            raise DataError(what, file=f"{path}:1", key=field, do=f"Choose with --column {field}={found[0]}")
        if found:
            column_of[field] = found[0]
            if found[0] != field:
                others[field] = found[0]
    if "path" not in column_of:
        raise _missing_column("path", "path", header, path, records)
    read = ", ".join(f"`{column}` as {field}" for field, column in others.items())
    return column_of, (f"columns of {path.name} are read under other names: {read}",) if others else ()


def columns_for(field: str, names: Sequence[str]) -> list[str]:
    """The columns that can be meant by a field: of its name, else of its name in other letters, else of a known one."""
    if field in names:
        return [field]
    found = [name for name in names if name.casefold() == field]
    return found or [name for name in _PATHS if field == "path" and name in names][:1]


def _missing_column(field: str, column: str, header: Sequence[str], path: Path, records: _Records) -> DataError:
    what = f"The table has no column `{column}` for `{field}` (it has {', '.join(header)})"
    first = records[0][1] if records else []
    sounds = [name for name, cell in zip(header, first, strict=False) if without_ending(cell.strip()) != cell.strip()]
    near = difflib.get_close_matches(column.casefold(), [name.casefold() for name in header], n=1, cutoff=0.7)
    meant = sounds[:1] if field == "path" else [name for name in header if name.casefold() in near][:1]
    do = f"Name the column that holds it: --column {field}={shlex.quote(meant[0]) if meant else 'NAME'}"
    return DataError(what, file=f"{path}:1", key=field, do=do)


def _row(header: Sequence[str], cells: Sequence[str], where: str) -> TableRow:
    if len(cells) != len(header):
        what = f"The row has {len(cells)} cells, but the header has {len(header)}"
        raise DataError(what, file=where, do="Mend the row; quote a cell that holds the delimiter")
    return TableRow({name: cell.strip() for name, cell in zip(header, cells, strict=True)}, where)


def _utterance(
    table: SourceTable, row: TableRow, attributes: Mapping[str, AttributeValue], root: RootFolder
) -> DraftUtterance:
    place = table.cell(row, "path")
    if place is None:
        raise DataError("The row has no path", file=row.where, key="path", do="Fill the cell or remove the row")
    identifier = table.cell(row, "id") or Path(place).stem
    features = table.cell(row, "features")
    audio = _place(place, row, identifier, root, table)
    start, end = _nemo_times(row, identifier, audio) if table.is_nemo else (None, None)
    return DraftUtterance(
        id=identifier,
        audio=audio,
        start=_seconds(table.cell(row, "start"), row, "start", identifier) if start is None else start,
        end=_seconds(table.cell(row, "end"), row, "end", identifier) if end is None else end,
        speaker=table.cell(row, "speaker"),
        text=table.cell(row, "text"),
        attributes=attributes,
        group=table.cell(row, "group"),
        split=_split(table, row, identifier),
        features=None if features is None else _place(features, row, identifier, root, table),
    )


def _place(text: str, row: TableRow, utterance: str, root: RootFolder, table: SourceTable) -> Path:
    """The path of a cell; an error about an absolute one names the folder that holds all of them."""
    try:
        return root.locate(text, file=row.where, utterance=utterance)
    except DataError as error:
        if not text.startswith("/") or root.holds(text):
            raise
        common = common_folder(table.cell(each, "path") or "" for each in table.rows)
        do = f"Give a root that holds every sound: --root {shlex.quote(common or '/')} --table {_file_of(row.where)}"
        raise DataError(error.what, file=row.where, utterance=utterance, key="path", do=do) from error


def _file_of(where: str) -> str:
    return shlex.quote(_LINE.sub("", where))


def _nemo_times(row: TableRow, utterance: str, audio: Path) -> tuple[float | None, float | None]:
    """Start and end of an utterance by `offset` and `duration`, which are rounded; None for the edge of the sound."""
    # NeMo writes an offset of 0 for the start of the sound
    start = _seconds(row.cells.get("offset"), row, "offset", utterance) or None
    duration = _seconds(row.cells.get("duration"), row, "duration", utterance)
    if duration is None:
        return start, None
    end = (start or 0.0) + duration
    try:
        # a rounded end may lie past the sound, or leave out its last samples
        is_all = abs(inspect(audio, utterance=utterance, any_channels=True).seconds - end) <= _ROUNDED_S
    except DataError:  # raised again, with every other fault of the corpus, where the sound itself is read
        is_all = False
    return start, None if is_all else end


def _refuse_undeclared_features(table: SourceTable, options: PrepareOptions, path: Path) -> None:
    if options.features is None and "features" in table.column_of:
        what = "The table has a column `features`, but their hop is not declared"
        raise UsageError(what, file=path, key="--features-hop", do="Give the time between two frames in seconds")
    if options.features is not None and "features" not in table.column_of:
        what = "The hop of features is declared, but the table has no column `features`"
        raise UsageError(
            what, file=path, key="--features-hop", do="Add the column, or name it with --column features=…"
        )


def _seconds(cell: str | None, row: TableRow, field: str, utterance: str) -> float | None:
    if not cell:
        return None
    if not _DECIMAL.fullmatch(cell):
        what = f"`{field}` must be a number of seconds, but is `{cell}`"
        raise DataError(what, file=row.where, utterance=utterance, key=field, do="Write it like 1.25")
    return float(cell)


def _split(table: SourceTable, row: TableRow, utterance: str) -> Split | None:
    cell = table.cell(row, "split")
    if cell is not None and cell not in get_args(Split):
        what, do = f"`split` must be train, dev or test, but is `{cell}`", "Use one of these, or leave it empty"
        raise DataError(what, file=row.where, utterance=utterance, key="split", do=do)
    return cast(Split | None, cell)


def _attributes(table: SourceTable) -> list[dict[str, AttributeValue]]:
    """The attributes of each row, every column read as one type."""
    # over the whole column: a number in one row and a name in another must not become two types
    types = {name: column_type([row.cells[name] for row in table.rows]) for name in table.attribute_columns}
    return [{name: read(row.cells[name]) for name, read in types.items() if row.cells[name]} for row in table.rows]


def column_type(cells: Sequence[str]) -> Callable[[str], AttributeValue]:
    """The type of all cells that are not empty: `int`, `float` or `str`. `007` is a name, not a number."""
    known = [cell for cell in cells if cell]
    if all(_WHOLE.fullmatch(cell) for cell in known):
        return int
    if all(_DECIMAL.fullmatch(cell) and not _is_padded(cell) for cell in known):
        return float
    return str


def _is_padded(cell: str) -> bool:
    """Whether a number has leading zeros, which it would lose as a number."""
    digits = cell.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
