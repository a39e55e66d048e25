"""Tables in JSON: an object a line, like `metadata.jsonl` of Hugging Face and manifests of NeMo, or a list of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from repbench.errors import DataError

ENDINGS = (".jsonl", ".ndjson", ".json")

_LHOTSE = frozenset({"supervisions", "sources", "recording"})
_ONE_A_LINE = 'Write one object a line, like {"path": "a.wav", "speaker": "s1"}'


def is_json(path: Path, text: str) -> bool:
    """Whether a table is in JSON, by its ending or because it begins like an object."""
    return path.suffix.lower() in ENDINGS or text.lstrip().startswith("{")


def read_json_table(text: str, path: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The names of all columns, and for each row its file and line and its cells as text; missing cells are empty.

    Args:
        text: The text of the file.
        path: The file, for errors.

    Raises:
        DataError: It is neither, a key occurs twice in an object, or a value is a list or an object.
    """
    rows = list(_objects(text, path))
    # every key of every object, in the order of its first occurrence: objects may leave keys out
    header = list(dict.fromkeys(name for _, row in rows for name in row))
    return header, [(where, [row.get(name, "") for name in header]) for where, row in rows]


def _objects(text: str, path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    if re.match(r"\s*\[", text):
        for number, item in enumerate(_decoded(text, str(path)), start=1):
            where = f"{path}: item {number}"
            yield where, _cells(item, where)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, _cells(_decoded(line, where), where)


def _decoded(text: str, where: str) -> Any:
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"This is not valid JSON: {reason}", file=where, do=_ONE_A_LINE) from error


def _cells(item: Any, where: str) -> dict[str, str]:
    if not isinstance(item, dict):
        raise DataError("The row is not a JSON object", file=where, do=_ONE_A_LINE)
    return {name.strip(): _cell(name, value, item, where) for name, value in item.items()}


def _cell(name: str, value: Any, item: dict[str, Any], where: str) -> str:
    if isinstance(value, (list, dict)):
        kind = "a list" if isinstance(value, list) else "an object"
        do = "Give each of its values a separate column, or leave it out"
        if not _LHOTSE.isdisjoint(item):
            do = "Is it of lhotse? `repbench corpus prepare lhotse` reads it"
        raise DataError(f"`{name}` holds {kind}, but a table holds text and numbers", file=where, key=name, do=do)
    if value is None:
        return ""
    # `true` as in JSON, not Python's `True`
    return str(value).lower() if isinstance(value, bool) else str(value)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: A key occurs twice.
    """
    # `dict` keeps the last of equal keys without an error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return fields


def refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which are no JSON.

    Raises:
        ValueError: Always.
    """
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=unique_keys, parse_int=str, parse_float=str, parse_constant=refuse_constant
)
"""Numbers stay the text they were written as: a column of them is read as one type, as in any table."""
