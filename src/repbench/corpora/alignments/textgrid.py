"""Praat's TextGrid.

A TextGrid is read as Praat reads it: quoted strings, free-standing numbers and flags such as `<exists>` count,
everything else is decoration. So its long and its short form are one.
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from repbench.corpora.alignments.intervals import Alignment, Extent, hold
from repbench.corpora.contract import Phone
from repbench.errors import DataError


class Interval(NamedTuple):
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
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class TextGrid:
    """A TextGrid; times in seconds. Tiers of points are read over."""

    path: Path
    start_s: float
    end_s: float
    tiers: tuple[Tier, ...]


def read_textgrid(path: Path, *, utterance: str | None = None) -> TextGrid:
    """Read a TextGrid in long or short form, UTF-8 (with or without BOM) or UTF-16 (with BOM).

    Raises:
        DataError: The file is missing or not a TextGrid; names its line.
    """
    tokens = _Tokens(_text_of(path, utterance), path, utterance)
    if tokens.string() not in ("ooTextFile", "ooTextFile short") or tokens.string() != "TextGrid":
        raise tokens.fault("The file is not a TextGrid")
    start_s, end_s = tokens.number(), tokens.number()
    tiers = [_read_tier(tokens) for _ in range(tokens.count())] if tokens.flag() == "<exists>" else []
    tokens.end()
    return TextGrid(path, start_s, end_s, tuple(tier for tier in tiers if tier is not None))


def phone_tier(grid: TextGrid, *, utterance: str | None = None) -> Tier:
    """The tier of phones: the one named `phones`, `phone` or `… - phones`, in small or capital letters.

    Raises:
        DataError: There is none, or more than one; the message lists the tiers.
    """
    found = [tier for tier in grid.tiers if re.fullmatch(r"(.* - )?phones?", tier.name.strip(), re.IGNORECASE)]
    if len(found) == 1:
        return found[0]
    how_many = "no tier" if not found else f"{len(found)} tiers"
    names = ", ".join(f"`{tier.name}`" for tier in grid.tiers) or "none"
    raise DataError(
        f"The TextGrid has {how_many} of phones (its interval tiers: {names})",
        file=grid.path,
        utterance=utterance,
        do="Name one tier `phones`",
    )


def read_phones(path: Path, duration_s: float, *, utterance: str | None = None) -> tuple[Phone, ...]:
    """The phones of a TextGrid, after it has been held against a sound of `duration_s` seconds.

    The TextGrid and its phone tier must start at 0 and be as long as the sound to within `LENGTH_TOLERANCE_S`: labels
    made for another rate or stride are refused here, even where all of them would fit.

    Raises:
        DataError: The file is not a TextGrid, has no one phone tier, is not as long as the sound (names both lengths),
            or its intervals contradict each other (names the line).
    """
    return hold(read_alignment(path, utterance), duration_s, utterance=utterance)


def read_alignment(path: Path, utterance: str | None, sample_rate_hz: int | None = None) -> Alignment:
    """The phone tier of a TextGrid; errors as `read_textgrid` and `phone_tier`. The rate plays no part."""
    grid = read_textgrid(path, utterance=utterance)
    tier = phone_tier(grid, utterance=utterance)
    return Alignment(
        file=path,
        phones=[Phone(interval.start_s, interval.end_s, interval.text) for interval in tier.intervals],
        lines=[interval.line for interval in tier.intervals],
        extents=(Extent("TextGrid", grid.start_s, grid.end_s), Extent("phone tier", tier.start_s, tier.end_s)),
    )


def _text_of(path: Path, utterance: str | None) -> str:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        do = "Put it back, or prepare without it"
        raise DataError("The TextGrid is missing", file=path, utterance=utterance, do=do) from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        what = f"The TextGrid is not valid {encoding.upper().removesuffix('-SIG')} (byte {error.start})"
        raise DataError(what, file=path, utterance=utterance, do="Save it as UTF-8") from error


def _read_tier(tokens: _Tokens) -> Tier | None:
    """The next tier; None for a tier of points."""
    kind, name = tokens.string(), tokens.string()
    start_s, end_s = tokens.number(), tokens.number()
    if kind == "TextTier":
        for _ in range(tokens.count()):
            tokens.number(), tokens.string()
        return None
    if kind != "IntervalTier":
        raise tokens.fault(f"The class of a tier is `{kind}`, but must be `IntervalTier` or `TextTier`")
    return Tier(name, start_s, end_s, tuple(_read_interval(tokens) for _ in range(tokens.count())))


def _read_interval(tokens: _Tokens) -> Interval:
    start_s, end_s, text = tokens.number(), tokens.number(), tokens.string()
    return Interval(start_s, end_s, text.strip(), tokens.line)


_TOKEN = re.compile(
    r"""
      (?P<string>"(?:[^"]|"")*")
    | (?P<flag><[^>\s]*>)
    | (?P<number>(?<!\S)[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf(?:inity)?)(?!\S))
    | (?<!\S)![^\n]*
    | "                                  # opens a string that never ends
    | [^\s"<]+ | <
    """,
    re.VERBOSE | re.IGNORECASE,
)


class _Tokens:
    """The strings, numbers and flags of a TextGrid, one after the other."""

    def __init__(self, text: str, path: Path, utterance: str | None) -> None:
        self._matches = [match for match in _TOKEN.finditer(text) if match.lastgroup or match[0] == '"']
        self._newlines = [match.start() for match in re.finditer(r"\n|\r(?!\n)", text)]
        self._next = 0
        self._path = path
        self._utterance = utterance

    @property
    def line(self) -> int:
        """The line, from 1, of the token taken last."""
        if not self._matches:
            return 1
        match = self._matches[min(max(self._next, 1), len(self._matches)) - 1]
        return bisect.bisect_left(self._newlines, match.start()) + 1

    def fault(self, what: str) -> DataError:
        """A fault at the token taken last."""
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
        if self._next < len(self._matches):
            self._next += 1
            raise self.fault("The TextGrid goes on after its last tier")

    def _take(self, kind: str) -> str:
        if self._next == len(self._matches):
            raise self.fault(f"The TextGrid ends where a {kind} should stand")
        match = self._matches[self._next]
        self._next += 1
        if match.lastgroup != kind:
            raise self.fault(f"A {kind} should stand here, but there is `{match[0][:40]}`")
        return match[0]
