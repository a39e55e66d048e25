"""Turns: who speaks when in a recording of several speakers. Times are seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from repbench.corpora.alignments import LENGTH_TOLERANCE_S
from repbench.corpora.contract import Turn
from repbench.corpora.safe_paths import is_encodable
from repbench.corpora.textfiles import nfc
from repbench.errors import DataError

ROUNDING_S = 2 * LENGTH_TOLERANCE_S
"""By how much a turn may end past its sound, in seconds; the rest is cut. An RTTM file has start and duration, often
with two decimals each, so that the end is off by the rounding of both."""


def turn_fault(turn: Turn, duration_s: float) -> str | None:
    """Why a turn is none of a sound of `duration_s` seconds, in words; None where it is one."""
    if not turn.speaker or not is_encodable(turn.speaker):
        return f"A turn has no name of a speaker, or one that is not valid Unicode: {turn.speaker!r}"
    if not (math.isfinite(turn.start_s) and math.isfinite(turn.end_s)) or not 0 <= turn.start_s < turn.end_s:
        return f"A turn of {turn.speaker} must end after it starts, at 0 or later, but is {_times(turn)}"
    if turn.end_s > duration_s:
        return f"A turn of {turn.speaker} is {_times(turn)}, but the sound ends at {duration_s:g} s"
    return None


def joined_turns(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """The turns in the order of their starts, those of a speaker that touch or overlap as one."""
    found: list[Turn] = []
    # by speaker, then by time: neighbours of the list are neighbours in time
    for turn in sorted(turns, key=lambda each: (each.speaker, each.start_s, each.end_s)):
        if found and found[-1].speaker == turn.speaker and turn.start_s <= found[-1].end_s:
            before = found.pop()
            turn = Turn(before.start_s, max(before.end_s, turn.end_s), turn.speaker)
        found.append(turn)
    return tuple(sorted(found))


def checked_turns(
    turns: Iterable[Turn], duration_s: float, *, utterance: str | None = None, file: str | Path | None = None
) -> tuple[Turn, ...]:
    """Turns as a manifest has them: compared with the sound, cut at its end by at most `ROUNDING_S`, joined, sorted.

    Raises:
        DataError: A turn is empty or reversed, starts before the sound, or ends later than `ROUNDING_S` after it; names
            the turn.
    """
    found = []
    for given in turns:
        turn = Turn(float(given.start_s), float(given.end_s), nfc(given.speaker) if given.speaker else "")
        if duration_s < turn.end_s <= duration_s + ROUNDING_S:
            if turn.start_s >= duration_s:
                continue  # the rounding of a turn, and nothing else, is in the sound
            turn = Turn(turn.start_s, duration_s, turn.speaker)
        if (what := turn_fault(turn, duration_s)) is not None:
            do = "Correct the file of turns; its times are seconds, and in an RTTM the second is a duration"
            raise DataError(what, utterance=utterance, file=file, key="turns", do=do)
        found.append(turn)
    return joined_turns(found)


def _times(turn: Turn) -> str:
    return f"from {turn.start_s:g} to {turn.end_s:g} s"
