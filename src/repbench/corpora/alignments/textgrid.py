"""Praat's TextGrid.

A TextGrid is read as Praat reads it: quoted strings, free-standing numbers and flags such as `<exists>` count,
everything else is decoration. So its long and its short form are one. The chronological form lists the intervals of all
tiers in order of time, each after the number of its tier.

Reference: Praat's manual, "TextGrid file formats".
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from repbench.corpora.alignments.intervals import Alignment, Extent, validate_alignment
from repbench.corpora.alignments.text import DECIMAL_POINTS, read_text
from repbench.corpora.contract import Phone
from repbench.corpora.textfiles import nfc
from repbench.errors import DataError


class TierInterval(NamedTuple):
    """One interval of a tier: `text` from `start_s` to `end_s` seconds, found in line `line` of its file."""

    start_s: float
    end_s: float
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Tier:
    """An interval tier of a TextGrid; times in seconds."""

    name: str
    start_s: float
    end_s: float
    intervals: tuple[TierInterval, ...]


@dataclass(frozen=True, slots=True)
class TextGrid:
    """A TextGrid; times in seconds. Of the tiers of points only the names are kept."""

    path: Path
    start_s: float
    end_s: float
    tiers: tuple[Tier, ...]
    point_tiers: tuple[str, ...] = ()


PHONE_TIER = re.compile(r"(.* - )?phones?", re.IGNORECASE)
"""Tiers of phones as the Montreal Forced Aligner, P2FA, FAVE, EasyAlign and Charsiu call them."""

OTHER_PHONE_TIER = re.compile(
    r"(.* - )?(MAU|phonemes?|phonetics?|PhonAlign|phon|segments?|segs?)",
    re.IGNORECASE,
)
"""Tiers of phones elsewhere: WebMAUS `MAU`, EMU `Phonetic`, SPPAS `PhonAlign`, hand labels `segments`, `phoneme`.

They count only where no tier is called `phones`: some files have a second tier `segments` with stretches of speech.
"""

_CHRONOLOGICAL = "Praat chronological TextGrid text file"


def read_textgrid(path: Path, *, utterance: str | None = None) -> TextGrid:
    """Read a TextGrid in long, short or chronological form, in UTF-8 or UTF-16 (each with or without BOM).

    Raises:
        DataError: The file is missing or not a TextGrid; names its line.
    """
    tokens = _Tokens(read_text(path, utterance, kind="TextGrid"), path, utterance)
    kind = tokens.string()
    if kind == _CHRONOLOGICAL:
        return _read_chronological(tokens, path)
    if kind not in ("ooTextFile", "ooTextFile short") or tokens.string() != "TextGrid":
        raise tokens.fault("The file is not a TextGrid")
    start_s, end_s = tokens.number(), tokens.number()
    # `<absent>`: a TextGrid without tiers
    tiers = [_read_tier(tokens) for _ in range(tokens.count())] if tokens.flag() == "<exists>" else []
    tokens.end()
    return _grid(path, start_s, end_s, tiers)


def phone_tier(grid: TextGrid, *, name: str | None = None, utterance: str | None = None) -> Tier:
    """The tier of phones.

    Args:
        grid: The TextGrid.
        name: Name of the tier, whose case counts only where two tiers differ in nothing else; None for the one tier
            that `PHONE_TIER` knows, or else the one that `OTHER_PHONE_TIER` knows.
        utterance: The id that an error names.

    Raises:
        DataError: There is none, or more than one; the message lists the tiers.
    """
    if name is not None:
        return _named_tier(grid, name, utterance)
    found: list[Tier] = []
    for known in (PHONE_TIER, OTHER_PHONE_TIER):
        found = found or [tier for tier in grid.tiers if known.fullmatch(tier.name.strip())]
    if len(found) == 1:
        return found[0]
    how_many = "no tier of phones" if not found else f"{len(found)} tiers of phones"
    raise _tier_fault(grid, how_many, "Name the tier with --tier NAME", utterance)


def _named_tier(grid: TextGrid, name: str, utterance: str | None) -> Tier:
    wanted = nfc(name).strip()
    # NFC on both sides: a name typed in a terminal and one in a file may be composed differently
    exact = [tier for tier in grid.tiers if nfc(tier.name).strip() == wanted]
    found = exact or [tier for tier in grid.tiers if nfc(tier.name).strip().casefold() == wanted.casefold()]
    if len(found) == 1:
        return found[0]
    if not found and name in grid.point_tiers:
        what, do = f"tier `{name}` of points, which have no duration", "Name a tier of intervals with --tier"
    elif not found:
        what, do = f"no tier `{name}`", "Give the name as it is written there, or move the file out of the folder"
    else:
        what, do = f"{len(found)} tiers `{name}`", "Rename one of them"
    raise _tier_fault(grid, what, do, utterance)


def _tier_fault(grid: TextGrid, what: str, do: str, utterance: str | None) -> DataError:
    names = ", ".join(f"`{tier.name}`" for tier in grid.tiers) or "none"
    whole = f"The TextGrid has {what} (its interval tiers: {names})"
    return DataError(whole, file=grid.path, utterance=utterance, do=do)


def read_phones(path: Path, duration_s: float, *, utterance: str | None = None) -> tuple[Phone, ...]:
    """The phones of a TextGrid, after it has been compared with a sound of `duration_s` seconds.

    The TextGrid and its phone tier must start at 0 and be as long as the sound to within `LENGTH_TOLERANCE_S`: labels
    made for another rate or stride are refused here, even where all of them would fit.

    Raises:
        DataError: The file is not a TextGrid, has no one phone tier, is not as long as the sound (names both lengths),
            or its intervals contradict each other (names the line).
    """
    return validate_alignment(read_alignment(path, utterance), duration_s, utterance=utterance)


def read_alignment(
    path: Path, utterance: str | None, sample_rate_hz: int | None = None, *, tier: str | None = None
) -> Alignment:
    """The phone tier of a TextGrid; errors as `read_textgrid` and `phone_tier`. The rate plays no part."""
    grid = read_textgrid(path, utterance=utterance)
    found = phone_tier(grid, name=tier, utterance=utterance)
    return Alignment(
        file=path,
        phones=[Phone(interval.start_s, interval.end_s, interval.text) for interval in found.intervals],
        lines=[interval.line for interval in found.intervals],
        extents=(Extent("TextGrid", grid.start_s, grid.end_s), Extent("phone tier", found.start_s, found.end_s)),
        tier=found.name,
    )


def _grid(path: Path, start_s: float, end_s: float, tiers: Sequence[Tier | str]) -> TextGrid:
    """A TextGrid of interval tiers and names of tiers of points."""
    intervals = tuple(tier for tier in tiers if isinstance(tier, Tier))
    return TextGrid(path, start_s, end_s, intervals, tuple(tier for tier in tiers if isinstance(tier, str)))


def _read_chronological(tokens: _Tokens, path: Path) -> TextGrid:
    """A TextGrid in chronological form: the tiers, then every interval and point after the number of its tier."""
    start_s, end_s = tokens.number(), tokens.number()
    heads = [(_tier_kind(tokens), tokens.string(), tokens.number(), tokens.number()) for _ in range(tokens.count())]
    intervals: list[list[TierInterval]] = [[] for _ in heads]
    while tokens.more:
        number = tokens.count()
        if not 1 <= number <= len(heads):
            raise tokens.fault(f"There is no tier {number} among {len(heads)}")
        if heads[number - 1][0] == "IntervalTier":
            intervals[number - 1].append(_read_interval(tokens))
        else:
            # a point: its time and its mark
            tokens.number(), tokens.string()
    tiers = [
        Tier(name, start, end, tuple(found)) if kind == "IntervalTier" else name
        for (kind, name, start, end), found in zip(heads, intervals, strict=True)
    ]
    return _grid(path, start_s, end_s, tiers)


def _read_tier(tokens: _Tokens) -> Tier | str:
    """The next tier; of a tier of points its name."""
    kind, name = _tier_kind(tokens), tokens.string()
    start_s, end_s = tokens.number(), tokens.number()
    if kind == "TextTier":
        for _ in range(tokens.count()):
            # a point: its time and its mark
            tokens.number(), tokens.string()
        return name
    return Tier(name, start_s, end_s, tuple(_read_interval(tokens) for _ in range(tokens.count())))


def _tier_kind(tokens: _Tokens) -> str:
    kind = tokens.string()
    if kind not in ("IntervalTier", "TextTier"):
        raise tokens.fault(f"The class of a tier is `{kind}`, but must be `IntervalTier` or `TextTier`")
    return kind


def _read_interval(tokens: _Tokens) -> TierInterval:
    start_s, end_s, text = tokens.number(), tokens.number(), tokens.string()
    return TierInterval(start_s, end_s, text.strip(), tokens.line)


# A number counts only between blanks, so that the 1 of `intervals [1]:` and the 2 of `item2` do not. `!` begins a
# comment, a doubled quote in a string is one quote, and text that no group matches is decoration.
_TOKEN = re.compile(
    r"""
      (?P<string>"(?:[^"]|"")*")
    | (?P<flag><[^>\s]*>)
    | (?P<number>(?<!\S)[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf(?:inity)?)(?!\S))
    | (?P<comma>(?<!\S)[+-]?\d+,\d+(?!\S))
    | (?<!\S)![^\n]*
    | "                                  # opens a string that never ends
    | [^\s"<]+ | <
    """,
    re.VERBOSE | re.IGNORECASE,
)


class _Tokens:
    """The strings, numbers and flags of a TextGrid, one after the other."""

    def __init__(self, text: str, path: Path, utterance: str | None) -> None:
        matches = [match for match in _TOKEN.finditer(text) if match.lastgroup or match[0] == '"']
        # Decimal commas are decoration too; the first is kept to explain the numbers that are missing (see `fault`).
        self._matches = [match for match in matches if match.lastgroup != "comma"]
        self._comma = next((match for match in matches if match.lastgroup == "comma"), None)
        # offsets, for `bisect`; Praat's files end lines with "\n", "\r\n" or "\r"
        self._newlines = [match.start() for match in re.finditer(r"\n|\r(?!\n)", text)]
        self._next = 0
        self._path = path
        self._utterance = utterance

    @property
    def line(self) -> int:
        """The line, from 1, of the token taken last."""
        if not self._matches:
            return 1
        return self._line_of(self._matches[min(max(self._next, 1), len(self._matches)) - 1])

    def _line_of(self, match: re.Match[str]) -> int:
        return bisect.bisect_left(self._newlines, match.start()) + 1

    @property
    def more(self) -> bool:
        """Whether a token is left."""
        return self._next < len(self._matches)

    def fault(self, what: str) -> DataError:
        """A fault at the token taken last; decimal commas, which make every number another, are named instead."""
        if self._comma is not None:
            line = self._line_of(self._comma)
            whole = f"The TextGrid has decimal commas, such as `{self._comma[0]}` (line {line})"
            return DataError(whole, file=self._path, utterance=self._utterance, do=DECIMAL_POINTS)
        return DataError(f"{what} (line {self.line})", file=self._path, utterance=self._utterance, do="Mend the file")

    def string(self) -> str:
        return self._take("string")[1:-1].replace('""', '"')

    def number(self) -> float:
        value = float(self._take("number"))
        if not math.isfinite(value):
            raise self.fault("A time is not a finite number")
        return value

    def count(self) -> int:
        value = self.number()
        if value < 0 or value != int(value):
            raise self.fault(f"A number of things must be whole and not negative, but is {value:g}")
        return int(value)

    def flag(self) -> str:
        return self._take("flag")

    def end(self) -> None:
        if self.more:
            self._next += 1
            raise self.fault("The TextGrid goes on after its last tier")

    def _take(self, kind: str) -> str:
        if self._next == len(self._matches):
            raise self.fault(f"The TextGrid ends where a {kind} is expected")
        match = self._matches[self._next]
        self._next += 1
        if match.lastgroup != kind:
            raise self.fault(f"A {kind} is expected here, but there is `{match[0][:40]}`")
        return match[0]
