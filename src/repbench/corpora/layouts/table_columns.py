"""The columns of Arrow and Parquet tables as fields of utterances: names of classes, labels, intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from repbench.audio.table_files import TableFile, open_table
from repbench.corpora.contract import AttributeValue, Phone, Turn
from repbench.corpora.layouts.csv_table import FIELDS, columns_for
from repbench.errors import DataError

TABLE_FIELDS = tuple(field for field in FIELDS if field not in ("alignment", "features"))
"""The fields that a column can hold."""

PHONES, TURNS, ATTRIBUTES = "phones", "turns", "repbench_attributes"
"""Columns that `repbench corpus export` writes beside those of `csv`: lists of intervals, and attributes as JSON."""

_DATASETS_KEY = b"huggingface"


@dataclass(frozen=True, slots=True)
class SoundTable:
    """One table of utterances.

    Attributes:
        path: The file.
        split: Name of its split, by its folder or file; None where it has none.
    """

    path: Path
    split: str | None = None

    def open(self) -> TableFile:
        """The open table; errors as `open_table`."""
        return open_table(self.path)

    def row(self, number: int) -> str:
        """A row, for errors; rows count from 0."""
        return f"{self.path}: row {number}"


def declared_features(table: TableFile, path: Path) -> dict[str, Any]:
    """The features that `datasets` declares in the metadata of a table, by column; empty where it declares none.

    Raises:
        DataError: They are not the JSON that `datasets` writes.
    """
    content = (table.schema.metadata or {}).get(_DATASETS_KEY)
    if content is None:
        return {}
    try:
        features = json.loads(content)["info"]["features"]
        if not isinstance(features, dict):
            raise TypeError("`features` must be an object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"The features that the table declares cannot be read: {error}"
        raise DataError(what, file=path, key="huggingface", do="Write the table again with `datasets`") from error
    return features


def sound_column(table: SoundTable, columns: Mapping[str, str]) -> str:
    """The column of sounds: the named one, the one declared as Audio, or the one that holds bytes and paths.

    Raises:
        DataError: There is none, or more than one; lists the columns.
    """
    opened = table.open()
    listed = ", ".join(opened.columns)
    if "path" in columns:
        if columns["path"] not in opened.columns:
            what = f"The table has no column `{columns['path']}` for `path` (it has {listed})"
            raise DataError(what, file=table.path, key="path", do="Name the one of sounds with --column path=NAME")
        return columns["path"]
    features = declared_features(opened, table.path)
    found = [name for name in opened.columns if _is_audio(features.get(name))]
    found = found or [name for name in opened.columns if _holds_bytes(opened.schema.field(name).type)]
    found = found or columns_for("path", opened.columns) or [name for name in opened.columns if name == "audio"]
    if len(found) == 1:
        return found[0]
    what = "no column of sounds" if not found else f"{len(found)} columns of sounds, {', '.join(found)}"
    raise DataError(
        f"The table has {what} (its columns are {listed})",
        file=table.path,
        key="path",
        do=f"Name it with --column path={found[0] if found else 'NAME'}",
    )


def _is_audio(feature: Any) -> bool:
    return isinstance(feature, dict) and feature.get("_type") == "Audio"


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return "bytes" in {field.name for field in kind}
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(value) or pa.types.is_large_binary(value))


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """The columns of one table but that of its sounds, read.

    Attributes:
        fields: From each field of an utterance that the table has to the values of its column.
        attributes: From each other column of texts and numbers to its values.
        phones: The lists of the column `phones`; None where there is none.
        turns: The lists of the column `turns`; None where there is none.
        skipped: Columns that hold something else.
        renamed: Columns that are read as a field of another name: `Text as text`.
    """

    fields: Mapping[str, Sequence[str | None]]
    attributes: Mapping[str, Sequence[AttributeValue | None]]
    phones: Sequence[Any] | None
    turns: Sequence[Any] | None
    others: Sequence[Any] | None
    skipped: tuple[str, ...]
    renamed: tuple[str, ...]

    def attributes_of(self, row: int, where: str) -> dict[str, AttributeValue]:
        """The attributes of a row.

        Raises:
            DataError: The cell of `repbench_attributes` is not a JSON object.
        """
        found = {name: value for name, values in self.attributes.items() if (value := values[row]) is not None}
        if self.others is None or self.others[row] is None:
            return found
        try:
            others = json.loads(self.others[row])
        except (ValueError, TypeError, RecursionError):
            others = None
        if not isinstance(others, dict):
            what = f"`{ATTRIBUTES}` must be a JSON object, but is {str(self.others[row])[:60]!r}"
            raise DataError(what, file=where, key=ATTRIBUTES, do="Export the corpus again")
        return found | others

    def phones_of(self, row: int, where: str) -> tuple[Phone, ...] | None:
        """The phones of a row; None where it has none. Errors as `intervals`."""
        found = None if self.phones is None else self.phones[row]
        return None if found is None else tuple(Phone(*each) for each in intervals(found, "label", where, PHONES))

    def turns_of(self, row: int, where: str) -> tuple[Turn, ...] | None:
        """The turns of a row; None where it has none. Errors as `intervals`."""
        found = None if self.turns is None else self.turns[row]
        return None if found is None else tuple(Turn(*each) for each in intervals(found, "speaker", where, TURNS))


def read_labels(table: SoundTable, sounds: str, columns: Mapping[str, str]) -> LabelColumns:
    """Read the columns of a table but that of its sounds.

    Classes become their names, and flags `true` and `false`. NaN and empty texts are unknown, but for an empty `text`.

    Raises:
        DataError: A column that is named is missing, or a class has no name; names table and column.
    """
    opened = table.open()
    column_of, renamed = _fields(table, opened.columns, sounds, columns)
    features = declared_features(opened, table.path)
    fields, attributes, skipped = {}, {}, []
    for name in opened.columns:
        field = next((each for each, column in column_of.items() if column == name), None)
        if name == sounds or name in (PHONES, TURNS, ATTRIBUTES):
            continue
        if not _is_label(opened.schema.field(name).type):
            skipped.append(name)
            continue
        values = _named_classes(opened.values(name), features.get(name), table, name)
        if field is not None:
            fields[field] = [_text(value, keep_empty=field == "text") for value in values]
        else:
            attributes[name] = [_known(value) for value in values]
    special = {name: opened.values(name) if name in opened.columns else None for name in (PHONES, TURNS, ATTRIBUTES)}
    return LabelColumns(
        fields=fields,
        attributes=attributes,
        phones=special[PHONES],
        turns=special[TURNS],
        others=special[ATTRIBUTES],
        skipped=tuple(skipped),
        renamed=tuple(renamed),
    )


def _fields(
    table: SoundTable, names: Sequence[str], sounds: str, columns: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    column_of, renamed = {}, []
    for field in TABLE_FIELDS:
        if field == "path":
            continue
        if field in columns and columns[field] not in names:
            what = f"The table has no column `{columns[field]}` for `{field}` (it has {', '.join(names)})"
            raise DataError(what, file=table.path, key=field, do=f"Name the one that holds it: --column {field}=NAME")
        free = [name for name in names if name not in (*columns.values(), sounds)]
        found = [columns[field]] if field in columns else columns_for(field, free)
        if len(found) > 1:
            what = f"The columns {' and '.join(f'`{name}`' for name in found)} could each be `{field}`"
            raise DataError(what, file=table.path, key=field, do=f"Choose with --column {field}={found[0]}")
        if found:
            column_of[field] = found[0]
            if found[0] != field:
                renamed.append(f"`{found[0]}` as {field}")
    return column_of, renamed


def _is_label(kind: Any) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        pa.types.is_null,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_boolean,
        pa.types.is_string,
        pa.types.is_large_string,
    )
    return any(test(value) for test in tests)


def _named_classes(values: list[Any], feature: Any, table: SoundTable, name: str) -> list[Any]:
    if not (isinstance(feature, dict) and feature.get("_type") == "ClassLabel"):
        return values
    names = feature.get("names")
    if not isinstance(names, list):
        return values
    for row, value in enumerate(values):
        # -1 is how `datasets` writes a class that is not known, as in the test split of a challenge
        if value is not None and not -1 <= value < len(names):
            what = f"The class {value} of `{name}` has no name: the table declares {len(names)}"
            raise DataError(what, file=table.row(row), key=name, do="Write the table again with `datasets`")
    return [None if value is None or value < 0 else str(names[value]) for value in values]


def _known(value: Any) -> AttributeValue | None:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    known: AttributeValue = value
    return known


def _text(value: Any, *, keep_empty: bool) -> str | None:
    if keep_empty and value == "":
        return ""
    known = _known(value)
    return None if known is None else str(known)


def intervals(found: Any, label: str, where: str, column: str) -> Iterator[tuple[float, float, str]]:
    """The intervals of a cell: a list of `start`, `end` and a label.

    Raises:
        DataError: The cell is something else; names file and row.
    """
    for index, each in enumerate(found if isinstance(found, list) else [found], start=1):
        item = each if isinstance(each, dict) else {}
        start, end, text = item.get("start"), item.get("end"), item.get(label)
        if type(start) not in (int, float) or type(end) not in (int, float) or not isinstance(text, str):
            what = f"`{column}` must be a list of start, end and {label}, but its item {index} is {str(each)[:60]}"
            raise DataError(what, file=where, key=column, do="Write times in seconds and the label as a text")
        yield float(cast(float, start)), float(cast(float, end)), text
