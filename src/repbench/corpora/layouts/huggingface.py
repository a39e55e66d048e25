"""What `datasets` of Hugging Face keeps on disk: folders of `save_to_disk`, Parquet files, `audiofolder`.

Sound in Arrow and Parquet is read where it lies (`repbench.audio.table_files`), with pyarrow alone.

Reference: documentation of Hugging Face `datasets`, "Load", "Create an audio dataset", and `datasets.Audio`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from repbench.audio.table_files import cell_path
from repbench.corpora.alignments import align, align_read
from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.exported_facts import read_facts
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.audiofolder import metadata_files, prepare_audiofolder
from repbench.corpora.layouts.csv_table import refuse_unknown_fields
from repbench.corpora.layouts.file_search import files_under, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.rounded_ends import cut_at_sounds
from repbench.corpora.layouts.split_names import split_of_name, with_named_splits
from repbench.corpora.layouts.table_columns import TABLE_FIELDS, LabelColumns, SoundTable, read_labels, sound_column
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.safe_paths import RootFolder
from repbench.corpora.textfiles import read_utf8
from repbench.errors import DataError, quoted

_ENDINGS = (".parquet", ".arrow")
_DICT_FILE, _STATE_FILE, _INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"
_SAVE_AGAIN = "Write it again with `save_to_disk`"


class HuggingFaceData:
    """The layout `huggingface`: the root, or `--table`, a file or folder of tables under it.

    * A folder of `save_to_disk`, of one dataset or of a `DatasetDict`.
    * Parquet or Arrow files, at any depth.
    * `audiofolder`: `metadata.csv` or `metadata.jsonl` beside the sounds or above them.

    Columns hold the fields that they hold for `csv`, and `columns` names others; every further column of texts,
    numbers, flags or classes is an attribute. Lists and objects are left out and named in a note, but for the columns
    `phones` (lists of `start`, `end`, `label`) and `turns` (of `start`, `end`, `speaker`), in seconds. The sounds are
    the column that is declared as Audio, or the one that holds bytes: a sound file as a whole in each cell. A cell with
    a path and no bytes means that file, beside the table or under the root.

    The id is the column `id`, else the name of the sound without its ending where every sound has one of its own, else
    the name of the table and the row. Splits are the column `split`, else the parts of a `DatasetDict`, of folders and
    of files, where there are several.
    """

    has_alignments = True

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the tables; errors as `CorpusLayout.prepare`.

        Raises:
            DataError: There is no table, or it is broken, or a row is; names file and row.
            EnvironmentFault: pyarrow is not installed.
        """
        refuse_options("huggingface", options, reads=("alignments", "table", "columns"))
        refuse_unknown_fields(options.columns, TABLE_FIELDS)
        refuse_missing_root(root)
        source = root if options.table is None else options.table
        if metadata := metadata_files(source, options):
            return prepare_audiofolder(root, source, metadata, options)
        return _prepare_tables(root, source, options)


HUGGINGFACE = HuggingFaceData()


@dataclass(frozen=True, slots=True)
class _TableRows:
    """The rows of one table: its column of sounds, their presence and paths, and its labels."""

    table: SoundTable
    sounds: str
    cells: Sequence[tuple[bool, str | None]]
    labels: LabelColumns


def _prepare_tables(root: Path, source: Path, options: PrepareOptions) -> Draft:
    collector = FaultCollector(gather=options.gather_faults)
    folder = RootFolder(root, follow_links=options.follow_links)
    read = [_rows(table, options.columns) for table in _find_tables(source, options)]
    names = _ids(read)
    kinds = _attribute_kinds(read)
    utterances: list[DraftUtterance] = []
    parts: list[str | None] = []
    for rows, ids in zip(read, names, strict=True):
        for row, identifier in enumerate(ids):
            with collector.each():
                utterance = _utterance(rows, row, identifier, folder, kinds)
                utterances.append(utterance)
                parts.append(rows.table.split)
    utterances, notes_on_splits = with_named_splits(utterances, parts)
    utterances, notes_on_ends = cut_at_sounds(utterances)
    has_text = any("text" in rows.labels.fields for rows in read)
    draft = Draft(
        name=source.resolve().name.removesuffix(".parquet") or "huggingface",
        licence=_licence(read),
        root=root,
        utterances=utterances,
        notes=(*_notes(read), *notes_on_splits, *notes_on_ends, *(text_notes(utterances) if has_text else ())),
        faults=tuple(collector.faults),
    )
    facts = read_facts(source if source.is_dir() else source.parent)
    if facts is not None:
        draft = facts.of(draft)
    if options.alignments is not None:
        return align(draft, options.alignments, options)
    return draft if facts is not None else align_read(draft, options)


def _find_tables(source: Path, options: PrepareOptions) -> list[SoundTable]:
    """The tables of a file or folder, with their splits.

    Raises:
        DataError: There is none, or a folder of `save_to_disk` is incomplete.
    """
    if source.is_file():
        return [SoundTable(source)]
    if (source / _DICT_FILE).is_file():
        splits = _json(source / _DICT_FILE).get("splits")
        if not isinstance(splits, list) or not splits or not all(isinstance(name, str) for name in splits):
            raise DataError("`splits` must list the parts", file=source / _DICT_FILE, key="splits", do=_SAVE_AGAIN)
        inside = RootFolder(source, follow_links=options.follow_links)
        folders = {name: inside.join(name, file=source / _DICT_FILE) for name in splits}
        return [SoundTable(path, name) for name, folder in folders.items() for path in _saved(folder, options)]
    if (source / _STATE_FILE).is_file():
        return [SoundTable(path) for path in _saved(source, options)]
    files = files_under(source, options) if source.is_dir() else iter(())
    found = [path for path in files if path.suffix.lower() in _ENDINGS]
    if not found:
        what = "There is no folder of `save_to_disk`, no .parquet or .arrow and no metadata.csv or .jsonl"
        do = "Give the folder that holds them, or the file with --table FILE"
        raise DataError(what, file=source, do=do)
    return [SoundTable(path, _part(path, source)) for path in found]


def _saved(folder: Path, options: PrepareOptions) -> list[Path]:
    """The tables of a dataset that `save_to_disk` has written."""
    state_file = folder / _STATE_FILE
    state = _json(state_file)
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(isinstance(each, dict) for each in files):
        raise DataError("`_data_files` must list the tables", file=state_file, key="_data_files", do=_SAVE_AGAIN)
    if state.get("_indices_data_files"):
        what = "The dataset is a selection by `_indices_data_files`, which is not read"
        raise DataError(what, file=state_file, key="_indices_data_files", do=f"{_SAVE_AGAIN} of a newer `datasets`")
    inside = RootFolder(folder, follow_links=options.follow_links)
    return [inside.join(str(each.get("filename", "")), file=state_file) for each in files]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_utf8(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"This is not valid JSON: {error}", file=path, do=_SAVE_AGAIN) from error
    if not isinstance(content, dict):
        raise DataError("This is not a JSON object", file=path, do=_SAVE_AGAIN)
    return content


def _part(path: Path, source: Path) -> str | None:
    """The part of a corpus that a file belongs to: by its name, else by a folder above it."""
    places = [path.stem, *(folder.name for folder in path.parents if folder != source and source in folder.parents)]
    return next((name for name in places if split_of_name(name) is not None), None)


def _rows(table: SoundTable, columns: Mapping[str, str]) -> _TableRows:
    sounds = sound_column(table, columns)
    labels = read_labels(table, sounds, columns)
    opened = table.open()
    kind = opened.schema.field(sounds).type
    cells: Sequence[tuple[bool, str | None]]
    if _is_text(kind):
        cells = [(False, place) for place in opened.values(sounds)]
    else:
        cells = list(opened.sound_places(sounds))
    return _TableRows(table, sounds, cells, labels)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))


def _ids(read: Sequence[_TableRows]) -> list[list[str | None]]:
    """The id of each row, by the rule of the layout; None where the column of ids is empty."""
    stems = [None if place is None else Path(place).stem for rows in read for _, place in rows.cells]
    counts = Counter(stems)
    has_own = None not in counts and all(count == 1 for count in counts.values())
    ids: list[list[str | None]] = []
    for rows in read:
        width = len(str(max(0, len(rows.cells) - 1)))
        table = rows.table.path.stem if rows.table.split is None else f"{rows.table.split}-{rows.table.path.stem}"
        if "id" in rows.labels.fields:
            ids.append(list(rows.labels.fields["id"]))
        elif has_own:
            ids.append([Path(place or "").stem for _, place in rows.cells])
        else:
            ids.append([f"{table}-{row:0{width}d}" for row in range(len(rows.cells))])
    return ids


def _utterance(
    rows: _TableRows, row: int, identifier: str | None, folder: RootFolder, kinds: Mapping[str, type]
) -> DraftUtterance:
    where = rows.table.row(row)
    if identifier is None:
        raise DataError("The row has no id", file=where, key="id", do="Fill the cell, or take the row out")
    has_bytes, place = rows.cells[row]
    fields = {name: values[row] for name, values in rows.labels.fields.items()}
    split = fields.get("split")
    if split is not None and split not in get_args(Split):
        what, do = f"`split` must be train, dev or test, but is `{split}`", "Use one of these, or leave it empty"
        raise DataError(what, file=where, utterance=identifier, key="split", do=do)
    attributes = rows.labels.attributes_of(row, where)
    return DraftUtterance(
        id=identifier,
        audio=cell_path(rows.table.path.absolute(), rows.sounds, row)
        if has_bytes
        else _file(place, rows, where, identifier, folder),
        start=_seconds(fields.get("start"), "start", where, identifier),
        end=_seconds(fields.get("end"), "end", where, identifier),
        speaker=fields.get("speaker"),
        text=fields.get("text"),
        phones=rows.labels.phones_of(row, where),
        turns=rows.labels.turns_of(row, where),
        attributes={name: _as(value, kinds.get(name)) for name, value in attributes.items()},
        group=fields.get("group"),
        split=cast("Split | None", split),
        where=where,
    )


def _file(place: str | None, rows: _TableRows, where: str, utterance: str, folder: RootFolder) -> Path:
    """The sound file that a cell without bytes names: beside its table, or under the root."""
    if not place:
        what = f"The cell of `{rows.sounds}` holds neither a sound nor a path"
        raise DataError(what, file=where, utterance=utterance, key=rows.sounds, do="Fill the cell, or take the row out")
    beside = rows.table.path.parent / place
    if not place.startswith("/") and beside.is_file():
        return folder.join(folder.relative(beside, utterance=utterance), file=where, utterance=utterance)
    try:
        found = folder.locate(place, file=where, utterance=utterance)
    except DataError as error:
        do = f"Embed the sounds, with `save_to_disk`, or give a root that holds {quoted(place)}"
        raise DataError(error.what, file=where, utterance=utterance, key=rows.sounds, do=do) from error
    if not found.is_file():
        what = f"The cell has no bytes, and its path `{place}` is neither beside the table nor under the root"
        do = "Embed the sounds, with `save_to_disk`, or put the file there"
        raise DataError(what, file=where, utterance=utterance, key=rows.sounds, do=do)
    return found


def _seconds(value: str | None, field: str, where: str, utterance: str) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError as error:
        what = f"`{field}` must be a number of seconds, but is `{value}`"
        raise DataError(what, file=where, utterance=utterance, key=field, do="Write it like 1.25") from error


def _attribute_kinds(read: Iterable[_TableRows]) -> dict[str, type]:
    """The type of each attribute that differs between tables: a decimal, or a text where one of them has texts."""
    kinds: dict[str, type] = {}
    for rows in read:
        for name, values in rows.labels.attributes.items():
            for value in values:
                if value is not None:
                    kinds[name] = _wider(kinds.get(name, type(value)), type(value))
    return kinds


def _wider(one: type, other: type) -> type:
    return one if one is other else (str if str in (one, other) else float)


def _as(value: AttributeValue, kind: type | None) -> AttributeValue:
    if kind is None or type(value) is kind:
        return value
    return str(value) if kind is str else float(value)


def _licence(read: Iterable[_TableRows]) -> str:
    """The licence that `dataset_info.json` beside a table states, or `unknown`."""
    for rows in read:
        info = rows.table.path.parent / _INFO_FILE
        licence = _json(info).get("license") if info.is_file() else None
        if isinstance(licence, str) and licence:
            return licence
    return "unknown"


def _notes(read: Sequence[_TableRows]) -> Iterator[str]:
    skipped = sorted({name for rows in read for name in rows.labels.skipped})
    if skipped:
        yield f"columns of lists, objects or times are not read: {', '.join(skipped)}"
    renamed = sorted({name for rows in read for name in rows.labels.renamed})
    if renamed:
        yield f"columns are read under other names: {', '.join(renamed)}"
