"""Text that comes from files and names: UTF-8 with or without BOM, and one Unicode form for names."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from repbench.errors import DataError


def read_utf8(path: Path) -> str:
    """The text of a file without its BOM.

    Raises:
        DataError: The file is missing or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError("The file is missing", file=path, do="Check its place") from error
    except UnicodeDecodeError as error:
        what = f"The file is not valid UTF-8 (byte {error.start})"
        raise DataError(what, file=path, do="Save it as UTF-8") from error


def nfc(name: str) -> str:
    """The name in Unicode's composed form, so that it is one name whichever system wrote it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, each after its number from 1; errors as `read_utf8`."""
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")
