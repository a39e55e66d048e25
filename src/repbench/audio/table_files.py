"""Tables of Arrow and Parquet whose cells are whole sound files, as `datasets` writes them.

`TABLE/COLUMN/ROW` is the path of the sound in one cell, its row counted from 0. No file system has anything below a
file, so that such a path can mean nothing else; it goes through manifests, checks and worker processes as any other.
The bytes of the cell are decoded from memory and never written to a file.

An Arrow table is mapped into memory, so that a cell costs its own bytes. Parquet is packed in row groups, and a cell
costs its row group; the last ones stay in memory, up to `CACHE_BYTES` in a process. Sounds that are read in the order
of their table are therefore unpacked once.

Reference: the Apache Arrow columnar format, "IPC", and the Apache Parquet format.
"""

from __future__ import annotations

import bisect
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from repbench.errors import DataError, EnvironmentFault

MAX_UNPACKED_BYTES = 1 << 30
"""The most bytes that a column of one row group, or all labels of a table, may declare to unpack to."""

CACHE_BYTES = 1 << 28
"""Bytes of unpacked row groups that stay in memory; one row group stays, however large it is."""

INSTALL = "Run: pip install 'repbench[arrow]'"

_MOST_OPEN = 64
_PARQUET, _ARROW_FILE, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
_END_OF_STREAM = _ARROW_STREAM + bytes(4)
_AGAIN = "Fetch or write the table again"

_T = TypeVar("_T")


class CellPlace(NamedTuple):
    """The place of a sound in a table; `row` counts from 0."""

    table: Path
    column: str
    row: int


def cell_path(table: Path, column: str, row: int) -> Path:
    """The path of the sound in a cell."""
    return table / column / str(row)


def place_of_cell(path: Path) -> CellPlace | None:
    """The cell that a path means; None for a path that has no file above it, or does not end in a number."""
    table = next((each for each in path.parents if os.path.isfile(each)), None)  # noqa: PTH113 - as `is_there`
    if table is None:
        return None
    # a column may have a slash in its name, a row has none
    column, _, row = path.relative_to(table).as_posix().rpartition("/")
    return CellPlace(table, column, int(row)) if column and row.isdecimal() and len(row) < 16 else None


def read_cell(place: CellPlace, *, utterance: str | None = None) -> bytes:
    """The bytes of the sound file in a cell.

    Raises:
        DataError: The table is broken, has no such column or row, or the cell is empty; names table, row and column.
        EnvironmentFault: pyarrow is not installed, or the table may not be read.
    """
    table, column, row = place
    where = f"{table}: row {row}"
    opened = open_table(table)
    if column not in opened.columns:
        what = f"The table has no column `{column}` (it has {', '.join(opened.columns)})"
        raise DataError(what, file=where, utterance=utterance, key=column, do="Prepare the corpus again")
    if row >= opened.num_rows:
        what = f"The table has {opened.num_rows} rows, but row {row} is read (rows count from 0)"
        raise DataError(what, file=where, utterance=utterance, key=column, do="Prepare the corpus again")
    value = opened.cell(column, row)
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes) or not content:
        what = f"The cell of `{column}` holds no sound"
        do = "Write the table again with the bytes of every sound, or take the row out"
        raise DataError(what, file=where, utterance=utterance, key=column, do=do)
    return content


class TableFile(Protocol):
    """An open table.

    Attributes:
        num_rows: Number of its rows.
        schema: Its `pyarrow.Schema`, with the metadata that `datasets` writes.
        columns: Names of its columns.
    """

    num_rows: int
    schema: Any
    columns: Sequence[str]

    def cell(self, column: str, row: int) -> Any:
        """The value of one cell."""
        ...

    def values(self, column: str) -> list[Any]:
        """The values of a whole column: for labels, not for sounds.

        Raises:
            DataError: They would unpack to more than `MAX_UNPACKED_BYTES`.
        """
        ...

    def sound_places(self, column: str) -> Iterator[tuple[bool, str | None]]:
        """For each row whether its cell of a column of sounds has bytes, and its path; no sound is copied."""
        ...


def open_table(path: Path) -> TableFile:
    """A table, opened once in each process as long as the file stays the same.

    Raises:
        DataError: The file is missing, is no table, is cut short or broken.
        EnvironmentFault: pyarrow is not installed, or the file may not be read.
    """
    with _opened.lock:
        return _opened.table(path)


class _ArrowTable:
    """A table of Arrow's, as a stream (`datasets`) or with a footer, mapped into memory."""

    def __init__(self, path: Path, head: bytes) -> None:
        pa = _import_pyarrow()
        if not head.startswith(_ARROW_FILE) and not _ends_whole(path):
            raise DataError("The Arrow table is cut short: it has no mark of its end", file=path, do=_AGAIN)
        source = pa.memory_map(os.fspath(path))
        if head.startswith(_ARROW_FILE):
            reader = pa.ipc.open_file(source)
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        else:
            reader = pa.ipc.open_stream(source)
            self._batches = list(reader)
        for batch in self._batches:
            # offsets of a broken file may lie outside of it: a look there would end the process
            batch.validate(full=True)
        self.schema = reader.schema
        self.columns: Sequence[str] = self.schema.names
        self._ends = list(itertools.accumulate(batch.num_rows for batch in self._batches))
        self.num_rows = self._ends[-1] if self._ends else 0

    def cell(self, column: str, row: int) -> Any:
        number = bisect.bisect_right(self._ends, row)
        first = self._ends[number] - self._batches[number].num_rows
        return self._column(number, column)[row - first].as_py()

    def values(self, column: str) -> list[Any]:
        return [value for number in range(len(self._batches)) for value in _listed(self._column(number, column))]

    def sound_places(self, column: str) -> Iterator[tuple[bool, str | None]]:
        for number in range(len(self._batches)):
            yield from _sound_places(self._column(number, column))

    def _column(self, number: int, column: str) -> Any:
        return self._batches[number].column(self.columns.index(column))


class _ParquetTable:
    """A table of Parquet, whose row groups are unpacked as they are needed."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._path = path
        with parquet.ParquetFile(path, memory_map=True) as plain:
            leaves = [plain.schema.column(index) for index in range(len(plain.schema))]
        # Equal cells are stored once and stay so in memory; else a few kilobytes could unpack to any size.
        texts = [each.path for each in leaves if each.physical_type == "BYTE_ARRAY"]
        self._file = parquet.ParquetFile(path, memory_map=True, read_dictionary=texts)
        metadata = self._file.metadata
        self.schema = self._file.schema_arrow
        self.columns: Sequence[str] = self.schema.names
        self.num_rows: int = metadata.num_rows
        self._ends = list(itertools.accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)))

    def cell(self, column: str, row: int) -> Any:
        with _opened.lock:
            number = bisect.bisect_right(self._ends, row)
            group = _opened.group((self._path, column, number), lambda: self._group(number, column))
        first = self._ends[number - 1] if number else 0
        return group[row - first].as_py()

    def values(self, column: str) -> list[Any]:
        return [value for number in range(len(self._ends)) for value in _listed(self._group(number, column))]

    def sound_places(self, column: str) -> Iterator[tuple[bool, str | None]]:
        for number in range(len(self._ends)):
            if self._has_no_null(number, column):
                yield from ((True, path) for _, path in _sound_places(self._group(number, f"{column}.path")))
            else:
                yield from _sound_places(self._group(number, column))

    def _has_no_null(self, number: int, column: str) -> bool:
        """Whether statistics state that every cell of a row group has bytes, so that they need not be unpacked."""
        leaves = {name: statistics for name, statistics, _ in self._leaves(number, column)}
        statistics = leaves.get(f"{column}.bytes")
        if statistics is None or not statistics.has_null_count or f"{column}.path" not in leaves:
            return False
        return bool(statistics.null_count == 0)

    def _leaves(self, number: int, column: str) -> Iterator[tuple[str, Any, int]]:
        group = self._file.metadata.row_group(number)
        for index in range(group.num_columns):
            leaf = group.column(index)
            if leaf.path_in_schema == column or leaf.path_in_schema.startswith(f"{column}."):
                yield leaf.path_in_schema, leaf.statistics, leaf.total_uncompressed_size

    def _group(self, number: int, column: str) -> Any:
        """A column of a row group as one array."""
        size = sum(size for _, _, size in self._leaves(number, column))
        if not 0 <= size <= MAX_UNPACKED_BYTES:
            what = (
                f"`{column}` of row group {number} unpacks to {size} bytes, but at most {MAX_UNPACKED_BYTES} are read"
            )
            raise DataError(what, file=self._path, key=column, do="Write the table with smaller row groups")
        return _explained(lambda: self._read(number, column), self._path)

    def _read(self, number: int, column: str) -> Any:
        table = self._file.read_row_group(number, columns=[column], use_threads=False)
        table.validate(full=True)
        return table.column(0).combine_chunks()


def _sound_places(cells: Any) -> Iterator[tuple[bool, str | None]]:
    """Presence of bytes and path of the cells of one array: a struct of both, or bytes alone."""
    pa = _import_pyarrow()
    if not pa.types.is_struct(cells.type):
        yield from ((valid, None) for valid in cells.is_valid().to_pylist())
        return
    # flattened, so that a cell that is null as a whole has neither
    fields = dict(zip((field.name for field in cells.type), cells.flatten(), strict=True))
    has_bytes = fields["bytes"].is_valid().to_pylist() if "bytes" in fields else [False] * len(cells)
    paths = _listed(fields["path"]) if "path" in fields else [None] * len(cells)
    yield from zip(has_bytes, paths, strict=True)


def _listed(cells: Any) -> list[Any]:
    """The values of an array, equal ones of a dictionary as one object."""
    pa = _import_pyarrow()
    if not pa.types.is_dictionary(cells.type):
        values: list[Any] = cells.to_pylist()
        return values
    known = cells.dictionary.to_pylist()
    return [None if index is None else known[index] for index in cells.indices.to_pylist()]


class _Opened:
    """The tables and row groups that a process has open."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._tables: OrderedDict[Path, tuple[tuple[int, int, int], TableFile]] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, str, int], Any] = OrderedDict()

    def table(self, path: Path) -> TableFile:
        stat = _stat_of(path)
        now = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._tables.pop(path, None)
        if known is None or known[0] != now:
            # of the file as it was before
            self._groups = OrderedDict((key, group) for key, group in self._groups.items() if key[0] != path)
            known = (now, _explained(lambda: _open(path), path))
        self._tables[path] = known
        while len(self._tables) > _MOST_OPEN:
            self._tables.popitem(last=False)
        return known[1]

    def group(self, key: tuple[Path, str, int], load: Callable[[], Any]) -> Any:
        if key not in self._groups:
            self._groups[key] = load()
            while len(self._groups) > 1 and sum(each.nbytes for each in self._groups.values()) > CACHE_BYTES:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]


_opened = _Opened()


def _forget() -> None:
    """Start anew in a forked process: another thread of the parent may have held the lock."""
    global _opened
    _opened = _Opened()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _open(path: Path) -> TableFile:
    _import_pyarrow()
    with path.open("rb") as stream:
        head = stream.read(8)
    if head.startswith(_PARQUET):
        return _ParquetTable(path)
    if head.startswith((_ARROW_FILE, _ARROW_STREAM)):
        return _ArrowTable(path, head)
    raise DataError("The file is neither a Parquet nor an Arrow table", file=path, do=_AGAIN)


def _explained(action: Callable[[], _T], path: Path) -> _T:
    """The result of an action of pyarrow, whose errors name the table."""
    pa = _import_pyarrow()
    try:
        return action()
    except PermissionError as error:
        raise EnvironmentFault("The table may not be read", file=path, do="Check its permissions") from error
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        raise DataError(f"The table is broken: {reason}", file=path, do=_AGAIN) from error


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - len(_END_OF_STREAM)))
        return stream.read() == _END_OF_STREAM


def _stat_of(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise DataError("The table is missing", file=path, do="Put it back, or prepare the corpus again") from error
    except PermissionError as error:
        raise EnvironmentFault("The table may not be read", file=path, do="Check its permissions") from error
    except OSError as error:  # a name that no disk can hold
        raise DataError(f"The table cannot be opened: {error.strerror}", file=path, do=_AGAIN) from error


def _import_pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise EnvironmentFault(
            "Parquet and Arrow tables are read with pyarrow, which is missing", do=INSTALL
        ) from error
    return pyarrow
