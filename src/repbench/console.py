"""Progress and tables on a terminal, with rich."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from repbench.errors import Terminated, printable
from repbench.progress import Advance

_WIDE = 200
"""Columns of a table that goes to a file or a pipe: no line is wrapped."""


class _Console(Console):
    """A console that ends the process when the reader of its output is gone, also from within a plugin's code."""

    def on_broken_pipe(self) -> NoReturn:
        """End the process as SIGPIPE would."""
        raise Terminated(128 + signal.SIGPIPE)


class ConsoleReporter:
    """Progress on stderr: bars on a terminal, one line for each finished stage elsewhere."""

    def __init__(self) -> None:
        self._console = _Console(stderr=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """A stage of the work; nothing is shown if it is never advanced."""
        if self._console.is_terminal:
            with self._bar(title) as advance:
                yield advance
        else:
            with self._line(title) as advance:
                yield advance

    def say(self, line: str) -> None:
        """Print one line to stderr."""
        self._console.print(printable(line), markup=False, highlight=False, emoji=False, soft_wrap=True)

    @contextmanager
    def _bar(self, title: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(escape(printable(title)), total=None, visible=False)
            yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)

    @contextmanager
    def _line(self, title: str) -> Iterator[Advance]:
        counts = [0]
        started = time.monotonic()

        def advance(done: int, total: int) -> None:
            counts[0] = done

        yield advance
        if counts[0]:
            self.say(f"{title}: {counts[0]} in {time.monotonic() - started:.1f} s")


def print_table(table: Table) -> None:
    """Print a table to stdout, as wide as the terminal, or without a limit where there is none."""
    console = _Console()
    if not console.is_terminal:
        # Rich assumes 80 columns where there is no terminal, and would wrap ids and paths.
        console = _Console(width=_WIDE)
    console.print(table)
