"""The end of a process, without taking apart what it has."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """For the block that a program ends with: the process ends after it as Python ends it, and at once.

    Threads are waited for, exit handlers called, streams written. Only the objects and modules are not taken apart one
    by one, which takes .7 s for those of torch, and half a second in a forked process, where each is a page to copy.
    """
    try:
        yield
    except SystemExit as end:
        if isinstance(end.code, int | None):  # not a text for stderr, which Python writes
            _register(end.code or 0)
        raise
    _register(0)


def _register(code: int) -> None:
    # The last to be registered is the first to be called, when threads have ended.
    atexit.register(_end, code & 0xFF)


def _end(code: int) -> None:
    """Call the other exit handlers, write what waits in the streams, and end the process."""
    atexit.unregister(_end)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return  # there is none, or nobody reads: Python knows what to do, and the code
    os._exit(code)
