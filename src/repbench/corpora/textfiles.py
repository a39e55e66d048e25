"""Text files in UTF-8, with or without BOM, and names in one Unicode form."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from repbench.errors import DataError
from repbench.other_files import OtherFile, not_text, other_file


def read_utf8(path: Path) -> str:
    """The text of a file without its BOM.

    Raises:
        DataError: The file is missing, not UTF-8, or a pointer, web page or archive in the place of the text.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError("The file is missing", file=path, do="Check its place") from error
    refuse_other_file(content[:64], path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = other_file(content[:64])
        if found is not None:
            raise _other(found, path, None, "text") from error
        what = f"The file is not valid UTF-8 (byte {error.start})"
        raise DataError(what, file=path, do="Save it as UTF-8") from error


def refuse_other_file(head: bytes, path: Path, utterance: str | None = None, *, expected: str = "text") -> None:
    """Refuse a pointer, web page or archive in the place of a text.

    Args:
        head: The first bytes of the file, some 64 of them.
        path: The file, for the error.
        utterance: The id, for the error.
        expected: The kind of file that was meant, for the error.

    Raises:
        DataError: Names the kind of the file and the remedy.
    """
    found = not_text(head)
    if found is not None:
        raise _other(found, path, utterance, expected)


def _other(found: OtherFile, path: Path, utterance: str | None, expected: str) -> DataError:
    what = f"This is {found.name}, where {expected} is expected"
    return DataError(what, file=path, utterance=utterance, do=found.do)


def nfc(name: str) -> str:
    """The name in Unicode's composed form, so that names compare equal whichever system wrote them."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, each after its number from 1; errors as `read_utf8`."""
    # `splitlines` would also split at form feeds and Unicode's separators, which editors do not count as lines
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")
