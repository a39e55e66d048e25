"""Labelled segments of which no utterance can be made: each named with its reason, and counted by kind.

Corpora that are read out of videos have some: a segment that its authors took back, a video that has vanished from the
web. One such segment is no reason to refuse the rest, and none may vanish without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from repbench.errors import DataError

MOST_SHARE = 0.5
"""Of which share at most no utterance can be made: beyond it the labels or the folder are taken for the wrong ones."""

_NAMED_IN_ERROR = 10


class Kind(Enum):
    """Why no utterance can be made of a segment, in the words that follow their number, and what helps."""

    EMPTY = ("with an interval of length 0", "Are these the labels as distributed?")
    TIMES = ("with times that cannot be", "Times in seconds? Correct the labels")
    SCALE = ("with labels outside of their scale", "Correct the labels")
    TWICE = ("with the interval of an earlier one", "Are these the labels as distributed?")
    SILENT = (
        "without sound",
        "Put the sounds there, or write the labels without those videos (docs/corpora/mosi.md)",
    )
    BEHIND = ("that end behind their sound", "Times in seconds? Are they the sounds of these videos?")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One segment of which no utterance can be made.

    Attributes:
        id: As the utterance would be called.
        kind: What is wrong, for counting.
        reason: What is wrong with this one.
    """

    id: str
    kind: Kind
    reason: str


def notes_of(left_out: Sequence[LeftOut], num_listed: int) -> Iterator[str]:
    """A note for each kind: its number, every segment and its reason."""
    for kind, members in _by_kind(left_out).items():
        named = "; ".join(f"{each.id} ({each.reason})" for each in members)
        yield f"Left out of {num_listed} labelled segments: {len(members)} {kind.value[0]}: {named}"


def refuse_most(left_out: Sequence[LeftOut], num_listed: int, file: Path) -> None:
    """Refuse labels of which more than `MOST_SHARE` cannot be used, all kinds of faults at once.

    Raises:
        DataError: Counts every kind and names the first segments of each.
    """
    if len(left_out) <= MOST_SHARE * num_listed:
        return
    kinds = _by_kind(left_out)
    counted = "; ".join(f"{len(members)} {kind.value[0]}, {_first(members)}" for kind, members in kinds.items())
    commonest = max(kinds, key=lambda kind: len(kinds[kind]))
    what = f"{len(left_out)} of {num_listed} labelled segments cannot be used: {counted}"
    raise DataError(what, file=file, utterance=kinds[commonest][0].id, do=commonest.value[1])


def _by_kind(left_out: Sequence[LeftOut]) -> dict[Kind, list[LeftOut]]:
    kinds: dict[Kind, list[LeftOut]] = {}
    for each in left_out:
        kinds.setdefault(each.kind, []).append(each)
    return kinds


def _first(members: Sequence[LeftOut]) -> str:
    """The first of them with its reason, and the ids of some more."""
    more = ", ".join(each.id for each in members[1:_NAMED_IN_ERROR])
    rest = ", …" if len(members) > _NAMED_IN_ERROR else ""
    return f"{members[0].id} ({members[0].reason})" + (f", {more}{rest}" if more else "")
