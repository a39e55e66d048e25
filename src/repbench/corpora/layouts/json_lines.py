"""Files of JSON, an object a line, plain or packed by gzip: the manifests of lhotse."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from repbench.corpora.layouts.json_table import refuse_constant, unique_keys
from repbench.corpora.textfiles import refuse_other_file
from repbench.errors import DataError

MAX_LINE_BYTES = 1 << 26
"""A longer line is refused: one of an hour with all its phones has some megabytes."""

_GZIP = b"\x1f\x8b"
_AGAIN = "Write the file again, with lhotse or with `repbench corpus export`"


class JsonLine(NamedTuple):
    """An object, and its file and line: `cuts.jsonl.gz:12`."""

    fields: dict[str, Any]
    where: str


def json_lines(path: Path) -> Iterator[JsonLine]:
    """The objects of a file, blank lines passed over; what it holds and not its name tells whether it is packed.

    Raises:
        DataError: The file is missing, cut short or no gzip, or a line is no JSON object; names file and line.
    """
    number = 0
    try:
        with path.open("rb") as plain:
            head = plain.read(64)
            plain.seek(0)
            is_packed = head.startswith(_GZIP)
            if not is_packed:
                refuse_other_file(head, path, expected="a manifest of lhotse")
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=plain)) if is_packed else plain
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    what = f"The line has more than {MAX_LINE_BYTES} bytes"
                    raise DataError(what, file=f"{path}:{number}", do="Write one object a line")
                if line.strip():
                    yield JsonLine(_decoded(line, f"{path}:{number}"), f"{path}:{number}")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError("The file is missing", file=path, do="Check its place") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = f"The gzip file is cut short or broken after line {number}: {error}"
        raise DataError(what, file=path, do=_AGAIN) from error


def _decoded(line: bytes, where: str) -> dict[str, Any]:
    try:
        fields = _DECODER.decode(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DataError(f"This is not valid JSON: {reason}", file=where, do=_AGAIN) from error
    if not isinstance(fields, dict):
        raise DataError("The line is not a JSON object", file=where, do=_AGAIN)
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=refuse_constant)
