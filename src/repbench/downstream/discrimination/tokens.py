"""Tokens: stretches of utterances with a class, a context and a speaker, and the frames that lie in them.

Axes: F frames, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from repbench.corpora.contract import Phone

EDGE = "#"
"""The neighbour of a phone at the edge of an utterance, or beside a gap in its alignment."""

_ROUNDING_FRAMES = 1e-6
"""How far a centre may be outside of a token in frames and count as its border: times in seconds are rounded."""

_GAP_SECONDS = 1e-3
"""The longest gap between two phones that are neighbours."""


@dataclass(frozen=True, slots=True)
class Token:
    """A stretch of an utterance.

    Attributes:
        start_s: Where it starts, in seconds.
        end_s: Where it ends, in seconds.
        label: Its phone.
        context: Its neighbours, as `PREVIOUS-NEXT`.
        speaker: Its speaker.
        is_closed: Whether a frame whose centre is at `end_s` belongs to it, as in item files; without that it belongs
            to what follows.
    """

    start_s: float
    end_s: float
    label: str
    context: str
    speaker: str
    is_closed: bool = False

    def frames(self, *, sample_rate_hz: int, hop: int, first_center: int) -> range:
        """The frames whose centres lie in it, of an utterance that has enough of them; none where none does.

        Args:
            sample_rate_hz: Rate in which `hop` and `first_center` are counted.
            hop: Samples between two centres.
            first_center: Sample of the first centre.
        """
        first, last = ((seconds * sample_rate_hz - first_center) / hop for seconds in (self.start_s, self.end_s))
        begin = math.ceil(first - _ROUNDING_FRAMES)
        if self.is_closed:
            end = math.floor(last + _ROUNDING_FRAMES) + 1
        else:
            end = math.ceil(last - _ROUNDING_FRAMES)
        return range(max(0, begin), max(0, begin, end))


def tokens_of(phones: Sequence[Phone], speaker: str, left_out: frozenset[str]) -> tuple[Token, ...]:
    """The tokens of an alignment.

    Args:
        phones: In order, without overlap.
        speaker: Of all.
        left_out: Labels that are no token: silences. They are context all the same.
    """
    tokens = []
    for number, phone in enumerate(phones):
        if phone.label in left_out:
            continue
        previous, following = (_neighbour(phones, number, step) for step in (-1, 1))
        tokens.append(Token(phone.start_s, phone.end_s, phone.label, f"{previous}-{following}", speaker))
    return tuple(tokens)


def _neighbour(phones: Sequence[Phone], number: int, step: int) -> str:
    other = number + step
    if not 0 <= other < len(phones):
        return EDGE
    earlier, later = sorted((number, other))
    has_gap = phones[later].start_s - phones[earlier].end_s > _GAP_SECONDS
    return EDGE if has_gap else phones[other].label
