"""Progress and tables with rich: bars on a terminal, lines in a log."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from repbench.errors import Terminated, printable
from repbench.progress import Advance, duration_text

_WIDE = 200
"""Columns of a table that goes to a file or a pipe: no line is wrapped."""


class _Console(Console):
    """A console that ends the process when the reader of its output is gone, also from within a plugin's code."""

    def on_broken_pipe(self) -> NoReturn:
        """End the process as SIGPIPE would."""
        raise Terminated(128 + signal.SIGPIPE)


@dataclass(slots=True, eq=False)
class OpenStage:
    """A stage of the work that has not ended.

    Attributes:
        title: As the reporter got it.
        started: Time at its beginning, in seconds of the reporter's clock.
        done: Units of work done.
        total: All units; 0 where they are not known.
        first_done: Units done at the first report: what a resumed training or a store brings is not work of this stage.
        first_time: Time of that report; None before it.
    """

    title: str
    started: float
    done: int = 0
    total: int = 0
    first_done: int = 0
    first_time: float | None = None

    def advance(self, done: int, total: int, now: float) -> None:
        """Take a report of progress."""
        if self.first_time is None:
            # The first units of a stage that begins at 0 are its own work, and are timed from its beginning.
            self.first_done, self.first_time = (done, now) if done > 1 else (0, self.started)
        self.done, self.total = done, total

    def line(self, now: float) -> str:
        """Its state in one line, with the time left where that can be told from the units done so far."""
        worked = duration_text(now - self.started)
        if not self.done:
            return f"{self.title}: at work for {worked}"
        if not self.total:
            return f"{self.title}: {self.done:,} after {worked}"
        line = f"{self.title}: {self.done:,} of {self.total:,} after {worked}"
        return line if (left := self._seconds_left(now)) is None else f"{line}, about {duration_text(left)} left"

    def _seconds_left(self, now: float) -> float | None:
        """Time for the rest at the mean speed so far; None before there is one."""
        if self.first_time is None or self.done <= self.first_done:
            return None
        return (now - self.first_time) * (self.total - self.done) / (self.done - self.first_done)


class ConsoleReporter:
    """Progress on stderr: bars on a terminal; elsewhere lines, one a minute of each long stage and one at its end.

    A thread writes the lines of stages that are at work, so that a stage which cannot count is not silent either.

    Args:
        first_seconds: Time after which a stage gets its first line.
        every_seconds: Least time between two such lines.
    """

    def __init__(self, *, first_seconds: float = 20.0, every_seconds: float = 60.0) -> None:
        self._console = _Console(stderr=True)
        self._first_seconds, self._every_seconds = first_seconds, every_seconds
        self._lock = threading.Lock()
        self._open: list[OpenStage] = []
        self._bars: Progress | None = None

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """A stage of the work, perhaps within another one.

        On a terminal nothing is shown if it is never advanced.
        """
        if self._console.is_terminal:
            with self._bar(title) as advance:
                yield advance
        else:
            with self._lines(title) as advance:
                yield advance

    def say(self, line: str) -> None:
        """Print one line to stderr."""
        self._console.print(printable(line), markup=False, highlight=False, emoji=False, soft_wrap=True)

    @contextmanager
    def _bar(self, title: str) -> Iterator[Advance]:
        if self._bars is not None:  # the terminal has one block of bars: that of the outer stage takes this one in
            bars = self._bars
            task = bars.add_task(escape(printable(title)), total=None, visible=False)
            try:
                yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)
            finally:
                bars.remove_task(task)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            self._bars = progress
            task = progress.add_task(escape(printable(title)), total=None, visible=False)
            try:
                yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)
            finally:
                self._bars = None

    @contextmanager
    def _lines(self, title: str) -> Iterator[Advance]:
        stage = OpenStage(title, time.monotonic())
        with self._among_open(stage) as is_within:
            yield lambda done, total: stage.advance(done, total, time.monotonic())
            seconds = time.monotonic() - stage.started
        # Short stages within another one, such as the reading of each chunk, are no news.
        if stage.done and (not is_within or seconds >= self._first_seconds):
            self.say(f"{title}: {stage.done} in {seconds:.1f} s")

    @contextmanager
    def _among_open(self, stage: OpenStage) -> Iterator[bool]:
        """Keep a stage among those that get lines; yields whether it is within another one."""
        with self._lock:
            is_within = bool(self._open)
            self._open.append(stage)
        if is_within:
            try:
                yield True
            finally:
                with self._lock:
                    self._open.remove(stage)
            return
        ended = threading.Event()
        writer = threading.Thread(target=self._write_lines, args=(ended,), name="repbench-progress", daemon=True)
        writer.start()
        try:
            yield False
        finally:
            with self._lock:
                self._open.remove(stage)
            ended.set()
            writer.join()

    def _write_lines(self, ended: threading.Event) -> None:
        """Write a line of the innermost long stage, again and again until the outermost has ended."""
        wait = self._first_seconds
        while not ended.wait(wait):
            now = time.monotonic()
            with self._lock:
                long = [stage for stage in self._open if now - stage.started >= self._first_seconds]
                line = long[-1].line(now) if long else None
            if line is None:
                continue  # the outermost began within the last tick of the clock
            # Where nobody reads stderr, `Terminated` ends this thread, and the next line of the main one the process.
            self.say(line)
            wait = self._every_seconds


def print_table(table: Table) -> None:
    """Print a table to stdout, as wide as the terminal, or without a limit where there is none."""
    console = _Console()
    if not console.is_terminal:
        # Rich assumes 80 columns where there is no terminal, and would wrap ids and paths.
        console = _Console(width=_WIDE)
    console.print(table)
