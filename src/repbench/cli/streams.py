"""The standard streams as repbench finds them: closed, of a small character set, or with nobody reading any more."""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from collections.abc import Iterable
from typing import Literal, TextIO

BROKEN_PIPE = 141
"""Exit code of a command whose reader is gone (`repbench list | head -1`): what a shell gives for SIGPIPE."""

_ALIKE = {
    "\N{EN DASH}": "-", "\N{EM DASH}": "-", "\N{MINUS SIGN}": "-", "\N{NON-BREAKING HYPHEN}": "-",
    "\N{HORIZONTAL ELLIPSIS}": "...", "\N{NO-BREAK SPACE}": " ", "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": ".", "\N{ALMOST EQUAL TO}": "~", "\N{PLUS-MINUS SIGN}": "+-", "\N{RIGHTWARDS ARROW}": "->",
    "\N{UPWARDS ARROW}": "^", "\N{DOWNWARDS ARROW}": "v", "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LESS-THAN OR EQUAL TO}": "<=", "\N{GREATER-THAN OR EQUAL TO}": ">=",
}  # fmt: skip
"""Replacements for characters of our tables that the output cannot show; any other is escaped."""

_HANDLER = "repbench.alike"
_ASCII = "repbench_ascii"
_NOT_A_CHOICE = {"strict", "surrogateescape", "backslashreplace"}
"""What Python does with such characters where the user did not say (PYTHONIOENCODING=latin-1:xmlcharrefreplace)."""


def fit_streams() -> None:
    """Make the standard streams take whatever is written to them.

    A stream that is closed (`>&-`) becomes one to nowhere: whoever closed it wants no output, and no file that is
    opened later may get its number. What the encoding of a stream lacks is written in other characters.
    """
    _fill_closed_descriptors()
    sys.stdin = _open_if_none(sys.stdin, 0, "r")
    sys.stdout = _open_if_none(sys.stdout, 1, "w")
    sys.stderr = _open_if_none(sys.stderr, 2, "w")
    codecs.register_error(_HANDLER, _written_alike)
    codecs.register(_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = _ASCII if codecs.lookup(stream.encoding).name == "ascii" else stream.encoding
            errors = _HANDLER if stream.errors in _NOT_A_CHOICE else stream.errors
            stream.reconfigure(encoding=encoding, errors=errors)


def _ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII under another name: typer takes a stream of that name for a mistake, and writes UTF-8 to it."""
    if name != _ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        name=name,
        encode=known.encode,
        decode=known.decode,
        incrementalencoder=known.incrementalencoder,
        incrementaldecoder=known.incrementaldecoder,
        streamreader=known.streamreader,
        streamwriter=known.streamwriter,
    )


def reader_is_gone() -> bool:
    """Whether a standard output has lost its reader. A broken pipe to a process of our own is another fault."""
    return any(_is_broken(descriptor) for descriptor in (1, 2))


def let_go() -> None:
    """Lead outputs that take nothing more to nowhere, so that the interpreter does not complain at its end."""
    # Python flushes stdout at exit and would print an error for it.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if descriptor == 1 or _is_broken(descriptor):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _is_broken(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are reported with any mask
    faults = select.POLLERR | select.POLLHUP
    return any(event & faults for _, event in poll.poll(0))


def _fill_closed_descriptors() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def _open_if_none(stream: TextIO | None, descriptor: int, mode: Literal["r", "w"]) -> TextIO:
    return open(descriptor, mode, encoding="utf-8", closefd=False) if stream is None else stream


def _written_alike(error: UnicodeError) -> tuple[str, int]:
    """An error handler of encoding: the nearest characters that every encoding has, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_alike(error.object[error.start : error.end])), error.end


def _alike(text: Iterable[str]) -> Iterable[str]:
    for each in text:
        if "\udc80" <= each <= "\udcff":  # how Python keeps a byte of a file's name that it could not decode
            yield f"\\x{ord(each) - 0xDC00:02x}"
        else:
            yield _ALIKE.get(each) or each.encode("ascii", "backslashreplace").decode("ascii")
