"""How long work reports how far it has come, without knowing who looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


class Reporter(Protocol):
    """Someone who looks on."""

    def stage(self, title: str) -> AbstractContextManager[Advance]:
        """A stage of the work; what it gives is called with (done, total) as the work goes on."""
        ...

    def say(self, line: str) -> None:
        """Something worth a line of its own."""
        ...


class Silence:
    """Nobody looks on."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Advance]:
        """A stage that tells nobody."""
        yield lambda done, total: None

    def say(self, line: str) -> None:
        """Nothing."""
