"""Progress reports of long work, independent of where they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


class Reporter(Protocol):
    """A receiver of progress reports."""

    def stage(self, title: str) -> AbstractContextManager[Advance]:
        """A stage of the work; yields a function that is called with (done, total)."""
        ...

    def say(self, line: str) -> None:
        """Report a line of text."""
        ...


class Silence:
    """A reporter that reports nothing."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """A stage without reports."""
        yield lambda done, total: None

    def say(self, line: str) -> None:
        """Do nothing."""


def duration_text(seconds: float) -> str:
    """A time in its two largest units: `1 h 5 min`, `3 min 20 s` or `12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
