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
