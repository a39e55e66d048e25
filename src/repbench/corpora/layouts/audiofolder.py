"""`audiofolder` of Hugging Face: sounds, and beside or above them a table `metadata.csv` or `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, PrepareOptions
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csv_table import SourceTable, TableRow, described, read_table
from repbench.corpora.layouts.file_search import files_under
from repbench.corpora.layouts.rounded_ends import cut_at_sounds
from repbench.corpora.layouts.split_names import split_of_name, with_named_splits
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.safe_paths import RootFolder
from repbench.errors import DataError

_METADATA = ("metadata.csv", "metadata.jsonl")
_SAVED = ("dataset_dict.json", "state.json")


def metadata_files(source: Path, options: PrepareOptions) -> list[Path]:
    """The tables of an audiofolder: the given file, or those of a folder; empty where it is none."""
    if source.is_file():
        return [source] if source.suffix.lower() in (".csv", ".jsonl") else []
    if not source.is_dir() or any((source / name).is_file() for name in _SAVED):
        return []
    return [path for path in files_under(source, options) if path.name in _METADATA]


def prepare_audiofolder(root: Path, source: Path, metadata: Sequence[Path], options: PrepareOptions) -> Draft:
    """Describe the sounds that the tables name, each by its path from the folder of its table.

    Raises:
        DataError: As the layout `csv`, or two tables name their fields by different columns.
    """
    collector = FaultCollector(gather=options.gather_faults)
    inside = RootFolder(root, follow_links=options.follow_links)
    tables = []
    for path in metadata:
        folder = path.parent.absolute()
        prefix = "" if folder == root.absolute() else inside.relative(folder) + "/"
        tables.append(_from_root(read_table(path, options.columns, collector), prefix))
    table = _merged(tables, metadata)
    utterances = described(table, inside, collector)
    parts = [_part(each.audio, root.absolute()) for each in utterances]
    utterances, notes_on_splits = with_named_splits(utterances, parts)
    utterances, notes_on_ends = cut_at_sounds(utterances)
    draft = Draft(
        name=root.resolve().name or "audiofolder",
        licence="unknown",
        root=root,
        utterances=utterances,
        notes=(
            *table.notes,
            *notes_on_splits,
            *notes_on_ends,
            *(text_notes(utterances) if "text" in table.column_of else ()),
        ),
        faults=tuple(collector.faults),
    )
    return draft if options.alignments is None else align(draft, options.alignments, options)


def _from_root(table: SourceTable, prefix: str) -> SourceTable:
    """The table with the paths of its sounds from the root."""
    column = table.column_of["path"]

    def moved(row: TableRow) -> TableRow:
        place = row.cells[column]
        return row if not place or place.startswith("/") else row._replace(cells=row.cells | {column: prefix + place})

    return replace(table, rows=tuple(map(moved, table.rows)))


def _merged(tables: Sequence[SourceTable], files: Sequence[Path]) -> SourceTable:
    """One table of all rows, so that a column has one type in the whole corpus; missing cells are empty."""
    first = tables[0]
    for table, file in zip(tables, files, strict=True):
        for field, column in table.column_of.items():
            if first.column_of.get(field, column) != column:
                what = f"`{field}` is the column `{column}` here, but `{first.column_of[field]}` in {files[0]}"
                raise DataError(what, file=file, key=field, do="Give the column one name in all tables")
    column_of = {field: column for table in tables for field, column in table.column_of.items()}
    attributes = tuple(dict.fromkeys(name for table in tables for name in table.attribute_columns))
    nothing = dict.fromkeys([*column_of.values(), *attributes], "")
    rows = tuple(row._replace(cells=nothing | row.cells) for table in tables for row in table.rows)
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return SourceTable(rows, column_of, attributes, notes, first.is_nemo)


def _part(sound: Path, root: Path) -> str | None:
    """The name of the folder below the root that states a split, if there is one above the sound."""
    folders = sound.parent.relative_to(root).parts if sound.is_relative_to(root) else ()
    return next((name for name in folders if split_of_name(name) is not None), None)
