"""Recognition of pointers, web pages and archives in the place of a data file, by their first bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

_POINTER = "not the file that it points to"
_WHY = "Fetch the file again: what was saved in its place may give the reason"
_UNPACK = "Unpack it, and give the file inside"
_RIGHT_FILE = "Give the file that was meant"


class OtherFile(NamedTuple):
    """A kind of file (`a gzip file`) and the remedy."""

    name: str
    do: str


_BEGINNINGS = (
    (b"version https://git-lfs", OtherFile(f"a git-LFS pointer, {_POINTER}", "Run `git lfs pull` in its folder")),
    (b"/annex/objects/", OtherFile(f"a git-annex pointer, {_POINTER}", "Run `git annex get` in its folder")),
    (b"RIFF", OtherFile("a WAV file", _RIGHT_FILE)),
    (b"fLaC", OtherFile("a FLAC file", _RIGHT_FILE)),
    (b"OggS", OtherFile("an Ogg file", _RIGHT_FILE)),
    (b"ID3", OtherFile("an MP3 file", _RIGHT_FILE)),
    (b"\x89HDF", OtherFile("an HDF5 file", _RIGHT_FILE)),
    (b"\x93NUMPY", OtherFile("a NumPy array", _RIGHT_FILE)),
    (b"\x1f\x8b", OtherFile("a gzip file", _UNPACK)),
    (b"PK\x03\x04", OtherFile("a zip archive", _UNPACK)),
    (b"BZh", OtherFile("a bzip2 file", _UNPACK)),
    (b"\xfd7zXZ", OtherFile("an xz file", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", OtherFile("a Zstandard file", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", OtherFile("a 7z archive", _UNPACK)),
    (b"Rar!", OtherFile("a RAR archive", _UNPACK)),
    (
        b"ooBinaryFile",
        OtherFile("a binary TextGrid", "Save it in Praat with `Save as text file...`"),
    ),
    (b"%PDF", OtherFile("a PDF file", _RIGHT_FILE)),
    (b"<", OtherFile("an HTML or XML page", _WHY)),
    (b"{", OtherFile("a JSON file", _WHY)),
    (b"[", OtherFile("a JSON file", _WHY)),
)


_NO_TEXT = re.compile(
    rb"(\xef\xbb\xbf)?\s*"
    rb"(version https://git-lfs|/annex/objects/|ooBinaryFile|\x1f\x8b|PK\x03\x04|<!--|<(!doctype|html|head|body|\?xml)\b)",
    re.IGNORECASE,
)
"""The beginnings that no table, list or label file has. Text may begin with `ID3`, a bracket or a mark like `<eps>`."""


def not_text(head: bytes) -> OtherFile | None:
    """The kind of a file found in the place of a text; None where these first bytes may begin a text."""
    return other_file(head) if _NO_TEXT.match(head) else None


def other_file(head: bytes) -> OtherFile | None:
    """The kind of a file with these first bytes, among kinds that are often found in the place of another; else None.

    Args:
        head: The first bytes of the file, some 64 of them. A byte order mark and white space before them are passed
            over.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((other for beginning, other in _BEGINNINGS if start.startswith(beginning)), None)
