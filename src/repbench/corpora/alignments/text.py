"""The text of a file of alignments, in UTF-8 or UTF-16."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from repbench.corpora.textfiles import refuse_other_file
from repbench.errors import DataError

COMMA = re.compile(r"[+-]?\d+,\d+")
"""A number with a decimal comma."""

DECIMAL_POINTS = r"Write decimal points: `sed -E 's/([0-9]),([0-9])/\1.\2/g' OLD > NEW`"
"""The remedy for decimal commas, which are not read because `1,250` may also be a thousand and 250."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(content: bytes, path: Path, utterance: str | None = None) -> str:
    """The text of a file of alignments: UTF-8 with or without BOM, or UTF-16 with BOM or known by its NULs.

    Raises:
        DataError: It is another kind of file, or not valid in its encoding.
    """
    refuse_other_file(content[:256], path, utterance, expected="an alignment")
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

    Without a BOM, UTF-16 is recognised by the NUL next to the first character, which is ASCII in every
    format here. No text in UTF-8 holds one.
    """
    if content[:2] in _UTF_16:
        return "utf-16"
    # exactly one of the first two bytes: two NULs are no text
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
