"""The options of tasks that compare segments, checked before data is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from repbench.errors import UsageError, did_you_mean

Word = TypeVar("Word", bound=str)


def one_of(name: str, given: Word, known: Sequence[str]) -> Word:
    """The value of the option `task.NAME`, which must be one of the known words.

    Raises:
        UsageError: It is none of them.
    """
    if given not in known:
        what = f"`task.{name}` must be {' or '.join(known)}, but is {given!r}"
        raise UsageError(what, key=f"task.{name}", do=did_you_mean(given, known).strip() or None)
    return given


def at_least(name: str, given: int | None, least: int) -> int | None:
    """The value of the option `task.NAME`, which must be a whole number from `least` on, or None.

    Raises:
        UsageError: It is neither.
    """
    if given is not None and (not isinstance(given, int) or isinstance(given, bool) or given < least):
        what = f"`task.{name}` must be a whole number of at least {least}, or null for no limit, but is {given!r}"
        raise UsageError(what, key=f"task.{name}")
    return given
