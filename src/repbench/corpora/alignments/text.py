"""The text of a file of alignments: its encoding, and what may stand there instead of it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from repbench.errors import DataError

_OTHER_FILES = (
    (b"version https://git-lfs", "a git-LFS pointer, not the file it stands for", "Run `git lfs pull` where it lies"),
    (b"/annex/objects/", "a git-annex pointer, not the file it stands for", "Run `git annex get` where it lies"),
    (b"ooBinaryFile", "a binary TextGrid, which is not read", "Save it in Praat with `Save as text file...`"),
    (b"\x1f\x8b", "a gzip file", "Unpack it"),
    (b"PK\x03\x04", "a zip archive", "Unpack it"),
)
"""First bytes of what is found in the place of an alignment, what that is, and what to do."""

_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")
"""How a web page begins, in small letters; a mark such as `<eps>` begins with `<` too."""

COMMA = re.compile(r"[+-]?\d+,\d+")
"""A number with a decimal comma."""

DECIMAL_POINTS = r"Write decimal points: `sed -E 's/([0-9]),([0-9])/\1.\2/g' OLD > NEW`"
"""What to do about decimal commas. They are not read: `1,250` may be a thousand and 250 as well."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def refuse_other_file(head: bytes, path: Path, utterance: str | None = None) -> None:
    """Refuse what is no alignment by its first bytes.

    Args:
        head: The first bytes of the file, some 64 of them.
        path: The file, for the error.
        utterance: The id, for the error.

    Raises:
        DataError: It is a pointer, a page or a file of another kind; says which, and what to do.
    """
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if start[:16].lower().startswith(_PAGES):
        do = "Download the file itself, not the page that shows it"
        raise DataError("The file is an HTML or XML page, not an alignment", file=path, utterance=utterance, do=do)
    for signature, kind, do in _OTHER_FILES:
        if start.startswith(signature):
            raise DataError(f"The file is {kind}", file=path, utterance=utterance, do=do)


def decode(content: bytes, path: Path, utterance: str | None = None) -> str:
    """The text of a file of alignments: UTF-8 with or without BOM, or UTF-16 with BOM or known by its NULs.

    Raises:
        DataError: It is another kind of file, or not valid in its encoding.
    """
    refuse_other_file(content[:256], path, utterance)
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        what = f"The file of alignments is not valid {encoding.upper().removesuffix('-SIG')} (byte {error.start})"
        do = "Save it as UTF-8" + (", for example with `iconv -f latin1 -t utf-8 OLD > NEW`" if "8" in encoding else "")
        raise DataError(what, file=path, utterance=utterance, do=do) from error
    if "\0" in text:
        what = f"The file of alignments is not text: it holds a NUL (character {text.index(chr(0))})"
        raise DataError(what, file=path, utterance=utterance, do="Save it as UTF-8 text")
    return text


def encoding_of(content: bytes) -> str:
    """The encoding of a text by its first bytes: `utf-16`, `utf-16-le`, `utf-16-be` or `utf-8-sig`.

    Without a BOM, UTF-16 shows by the NUL beside the first character, which is ASCII in every format here. No text in
    UTF-8 holds one.
    """
    if content[:2] in _UTF_16:
        return "utf-16"
    if len(content) >= 2 and (content[0] == 0) != (content[1] == 0):
        return "utf-16-le" if content[1] == 0 else "utf-16-be"
    return "utf-8-sig"


def read_text(path: Path, utterance: str | None = None, *, kind: str = "file of alignments") -> str:
    """The text of a file; errors as `decode`, or the file is missing."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        do = "Put it back, or prepare without it"
        raise DataError(f"The {kind} is missing", file=path, utterance=utterance, do=do) from error
    return decode(content, path, utterance)


def text_lines(path: Path, utterance: str | None = None) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their ends, each after its number from 1; errors as `read_text`."""
    for number, line in enumerate(read_text(path, utterance).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")
