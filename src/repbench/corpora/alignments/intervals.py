"""An alignment as its file states it, and its comparison with the sound. Times are seconds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from repbench.corpora.contract import Phone
from repbench.errors import DataError

LENGTH_TOLERANCE_S = 0.010
"""By how much an alignment may end past its sound, in seconds: one frame of scoring. The rest is cut."""

WINDOW_S = 0.025
"""By how much less than its sound a row of analysis frames may last, in seconds: the window of one frame.

Kaldi, HTK, ESPS and Charsiu place only frames that are inside the sound as a whole, so that N samples at 16 kHz have
floor((N - 400) / 160) + 1 frames of 10 ms, which end 240 to 399 samples before the sound does.
"""

END_GAP_S = 0.5
"""By how much intervals may end before their sound, in seconds, and at most half of it: a gap that carries no label.

Hand labels stop after the last phone, some 0.3 s before the end of the recording. Labels of another rate end
as early in a short sound, so that an end beyond `WINDOW_S` must not fit one (`fault_of_rate`). A row of frames has no
gap at its end and is held to `WINDOW_S`.
"""

ROUNDING_S = 1e-6
"""Overlap that comes from writing times as decimal text, in seconds; removed without a note."""

_SLACK_S = 1e-6
_NEARLY = 0.02
_RATES = ((1.25, "12.5 ms frames read as 10 ms"), (0.8, "10 ms frames read as 12.5 ms"), (2.0, "half the rate"))


class Extent(NamedTuple):
    """A part of an alignment that must be as long as the sound: `what`, from `start_s` to `end_s`.

    It may start at any time in the sound (P2FA starts at 12.5 ms, half a window, and FAVE at 20 ms), end `short_s`
    seconds before the sound does, and `LENGTH_TOLERANCE_S` after it.
    """

    what: str
    start_s: float
    end_s: float
    short_s: float = END_GAP_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """The phones of one utterance as a file states them, not yet compared with the sound.

    Attributes:
        file: Their file.
        phones: In the order of the file; seconds from the start of the utterance.
        lines: The line of each phone in `file`; None where `file` names the row of all.
        extents: Parts of the file that state a length. Without any, phones without a gap from 0 on are taken to
            cover the whole sound.
        short_s: The most by which such phones may end before the sound, in seconds.
        rounding_s: Overlap that comes from the way in which the format writes times, in seconds.
        tier: The tier of a TextGrid that holds them.
        num_states: Number of states that were joined into phones; 0 where the file holds phones.
    """

    file: Path
    phones: Sequence[Phone]
    lines: Sequence[int] | None
    extents: tuple[Extent, ...] = ()
    short_s: float = END_GAP_S
    rounding_s: float = ROUNDING_S
    tier: str | None = None
    num_states: int = 0

    @property
    def numbers(self) -> Sequence[int]:
        """The line of each phone, or its place in the row that holds all of them, from 1 on."""
        return range(1, len(self.phones) + 1) if self.lines is None else self.lines

    @property
    def has_gap(self) -> bool:
        """Whether some of the time up to the last phone carries no label."""
        ends = itertools.chain((0.0,), (phone.end_s for phone in self.phones))
        # each start against the end in front of it, the first against 0; `ends` has one more, the end of the last
        return any(phone.start_s > end_s + self.rounding_s for phone, end_s in zip(self.phones, ends, strict=False))

    @property
    def claims(self) -> tuple[Extent, ...]:
        """The parts that must be as long as the sound: `extents`, or all phones where they have no gap."""
        if self.extents or not self.phones or self.has_gap:
            return self.extents
        return (Extent("alignment, which has no gap,", 0.0, self.phones[-1].end_s, self.short_s),)


def validate_alignment(alignment: Alignment, duration_s: float, *, utterance: str | None = None) -> tuple[Phone, ...]:
    """The phones of one alignment, after it has been compared with a sound of `duration_s` seconds.

    Raises:
        DataError: As `validate_alignment_but_rate`, or the alignment ends where labels of another rate would.
    """
    phones = validate_alignment_but_rate(alignment, duration_s, utterance=utterance)
    fault = fault_of_rate(alignment, duration_s, utterance=utterance)
    if fault is not None:
        raise fault
    return phones


def validate_alignment_but_rate(
    alignment: Alignment, duration_s: float, *, utterance: str | None = None
) -> tuple[Phone, ...]:
    """The phones of one of many alignments; the caller judges `fault_of_rate` over all of them.

    Raises:
        DataError: The alignment is not as long as the sound (names both lengths), or its intervals contradict each
            other or the sound (names the line).
    """
    # Lengths before intervals: for labels of another rate, the message then names the rate and not a line.
    for extent in alignment.extents:
        refuse_other_length(extent, duration_s, alignment.file, utterance)
    phones = validate_phones(
        alignment.phones,
        duration_s,
        utterance=utterance,
        file=alignment.file,
        lines=alignment.lines,
        rounding_s=alignment.rounding_s,
    )
    if phones and not alignment.extents:
        for extent in alignment.claims:
            refuse_other_length(extent, duration_s, alignment.file, utterance)
    return phones


def ends_early(alignment: Alignment, duration_s: float) -> bool:
    """Whether what claims to be as long as the sound ends more than a window before it does."""
    return any(duration_s - extent.end_s > WINDOW_S + _SLACK_S for extent in alignment.claims)


def fault_of_rate(alignment: Alignment, duration_s: float, *, utterance: str | None = None) -> DataError | None:
    """The fault of an alignment that ends early, where labels made for another rate or hop would end; None without one.

    A single alignment may end there by chance: of ends spread over half a second, one in twenty does.
    """
    if not ends_early(alignment, duration_s):
        return None
    for extent in alignment.claims:
        if any(-LENGTH_TOLERANCE_S <= duration_s - factor * extent.end_s <= WINDOW_S for factor, _ in _RATES):
            return _other_length(extent, duration_s, alignment.file, utterance)
    return None


def validate_phones(
    phones: Sequence[Phone],
    duration_s: float,
    *,
    utterance: str | None = None,
    file: str | Path | None = None,
    lines: Sequence[int] | None = None,
    rounding_s: float = ROUNDING_S,
) -> tuple[Phone, ...]:
    """Refuse an alignment that contradicts itself or its sound, and clip ends that rounding put past the sound.

    Gaps are allowed: they carry no label. An end at most `LENGTH_TOLERANCE_S` past the sound is clipped to its end.

    Args:
        phones: In order of time; seconds from the start of the utterance.
        duration_s: Length of the utterance.
        utterance: The id that an error names.
        file: The file that an error names.
        lines: For each phone its line in `file`.
        rounding_s: Overlap that is removed without a note, in seconds.

    Raises:
        DataError: A time is not finite or negative, an interval ends where or before it starts, starts before the
            previous one has ended, or ends past the sound; names the interval and its line.
    """
    checked: list[Phone] = []
    previous_end = 0.0
    limit_s = duration_s + LENGTH_TOLERANCE_S + _SLACK_S
    for index, phone in enumerate(phones):
        start_s, end_s, label = phone
        # `not … <=`, because every comparison with NaN is False: a time that is no number fails here
        if not 0 <= start_s < end_s <= limit_s or start_s < previous_end - rounding_s:
            fault = _fault_of(start_s, end_s, previous_end, duration_s)
            where = f" (line {lines[index]})" if lines is not None else ""
            do = "Times in seconds? Check that they are in order and of this sound"
            raise DataError(f"Interval {index + 1}{where} {fault}", file=file, utterance=utterance, do=do)
        # within the tolerances here: take overlap from the later interval, and cut what is past the sound
        start_s, end_s = max(start_s, previous_end), min(end_s, duration_s)
        # an interval that lay in the overlap or past the sound as a whole is dropped
        if start_s < end_s:
            # the same object where nothing changed: a corpus that is prepared holds millions of them
            is_unchanged = type(start_s) is float and start_s is phone[0] and type(end_s) is float and end_s is phone[1]
            same = is_unchanged and type(phone) is Phone
            checked.append(phone if same else Phone(float(start_s), float(end_s), label))
            previous_end = end_s
    return tuple(checked)


def refuse_other_length(extent: Extent, duration_s: float, path: Path, utterance: str | None) -> None:
    """Refuse an extent that is not inside the sound or ends long before it.

    Raises:
        DataError: Names both lengths, and the likely cause.
    """
    early_s = duration_s - extent.end_s
    # at most half of a short sound, or any alignment would fit it
    short_s = max(WINDOW_S, min(extent.short_s, duration_s / 2))
    starts_inside = -LENGTH_TOLERANCE_S - _SLACK_S <= extent.start_s <= extent.end_s
    if not (starts_inside and -LENGTH_TOLERANCE_S - _SLACK_S <= early_s <= short_s + _SLACK_S):
        raise _other_length(extent, duration_s, path, utterance)


def _other_length(extent: Extent, duration_s: float, path: Path, utterance: str | None) -> DataError:
    fits = [f" {name}?" for factor, name in _RATES if abs(extent.end_s * factor / duration_s - 1) < _NEARLY]
    if extent.start_s > WINDOW_S and abs(extent.end_s - extent.start_s - duration_s) < WINDOW_S:
        fits = [" Times from the start of a longer recording?"]
    way_out = "; if it was, label the rest of it as `sil`" if extent.end_s < duration_s else ""
    return DataError(
        f"The {extent.what} runs from {extent.start_s:g} to {extent.end_s:g} s, but the sound lasts {duration_s:g} s",
        file=path,
        utterance=utterance,
        do=f"Times in seconds?{''.join(fits[:1])} Check that the alignment was made for this sound{way_out}",
    )


def _fault_of(start_s: float, end_s: float, previous_end: float, duration_s: float) -> str:
    """The fault of an interval that is known to have one."""
    span = f"from {start_s:g} to {end_s:g} s"
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        return f"has a time that is not a number ({span})"
    if start_s < 0:
        return f"starts before the sound ({span})"
    if end_s <= start_s:
        return f"ends where or before it starts ({span})"
    if end_s > duration_s + LENGTH_TOLERANCE_S + _SLACK_S:
        return f"ends at {end_s:g} s, but the sound lasts {duration_s:g} s"
    return f"starts before the one in front of it has ended ({span}, after {previous_end:g} s)"
