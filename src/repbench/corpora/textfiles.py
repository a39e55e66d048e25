"""Text that comes from files and names: UTF-8 with or without BOM, and one Unicode form for names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from repbench.errors import DataError
from repbench.other_files import OtherFile, other_file


def read_utf8(path: Path) -> str:
    """The text of a file without its BOM.

    Raises:
        DataError: The file is missing, not UTF-8, or a pointer, web page or archive in the place of the text.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError("The file is missing", file=path, do="Check its place") from error
    found = other_file(content[:64])
    if found is not None and _NO_TEXT_OF_OURS.match(content):
        raise _other(found, path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if found is not None:
            raise _other(found, path) from error
        what = f"The file is not valid UTF-8 (byte {error.start})"
        raise DataError(what, file=path, do="Save it as UTF-8") from error


_NO_TEXT_OF_OURS = re.compile(
    rb"(\xef\xbb\xbf)?\s*(version https://git-lfs|/annex/objects/|<!--|<(!doctype|html|head|body|\?xml)\b)",
    re.IGNORECASE,
)
"""How a pointer or web page begins, and no table, list or label file. Text may begin with `ID3` or a bracket."""


def _other(found: OtherFile, path: Path) -> DataError:
    return DataError(f"This is {found.name}, where text is expected", file=path, do=found.do)


def nfc(name: str) -> str:
    """The name in Unicode's composed form, so that it is one name whichever system wrote it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, each after its number from 1; errors as `read_utf8`."""
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")
