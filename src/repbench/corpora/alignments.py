"""Phone alignments: reading Praat's TextGrid, and holding an alignment against the sound it speaks of.

A TextGrid is read as Praat reads it: quoted strings, free-standing numbers and flags such as `<exists>` count,
everything else is decoration. So its long and its short form are one.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from repbench.audio.sound import inspect, sample_range
from repbench.corpora.contract import Draft, DraftUtterance, Phone
from repbench.corpora.phones import fold_map
from repbench.corpora.textfiles import nfc
from repbench.errors import DataError

LENGTH_TOLERANCE_S = 0.010
"""By how much an alignment and its sound may differ in length, in seconds: one frame of scoring."""

ROUNDING_S = 1e-6
"""Overlap that comes from writing times as decimal text, in seconds; taken away without a word."""


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
    grid = read_textgrid(path, utterance=utterance)
    tier = phone_tier(grid, utterance=utterance)
    for what, start_s, end_s in (("TextGrid", grid.start_s, grid.end_s), ("phone tier", tier.start_s, tier.end_s)):
        _refuse_other_length(what, start_s, end_s, duration_s, path, utterance)
    phones = [Phone(interval.start_s, interval.end_s, interval.text) for interval in tier.intervals]
    lines = [interval.line for interval in tier.intervals]
    return validate_phones(phones, duration_s, utterance=utterance, file=path, lines=lines)


def validate_phones(
    phones: Sequence[Phone],
    duration_s: float,
    *,
    utterance: str | None = None,
    file: str | Path | None = None,
    lines: Sequence[int] | None = None,
) -> tuple[Phone, ...]:
    """Refuse an alignment that contradicts itself or its sound, and clip what rounding let stick out of it.

    Gaps are allowed: they carry no label. An end at most `LENGTH_TOLERANCE_S` past the sound is clipped to its end.

    Args:
        phones: In order of time; seconds from the start of the utterance.
        duration_s: Length of the utterance.
        utterance: The id that an error names.
        file: The file that an error names.
        lines: For each phone the line of `file` it stands in.

    Raises:
        DataError: A time is not finite or negative, an interval ends where or before it starts, starts before the one
            in front of it has ended, or ends past the sound; names the interval and its line.
    """
    checked: list[Phone] = []
    previous_end = 0.0
    for index, (start_s, end_s, label) in enumerate(phones):
        fault = _fault_of(start_s, end_s, previous_end, duration_s)
        if fault is not None:
            where = f" (line {lines[index]})" if lines is not None else ""
            do = "Times in seconds? Check that they are in order and of this sound"
            raise DataError(f"Interval {index + 1}{where} {fault}", file=file, utterance=utterance, do=do)
        start_s, end_s = max(start_s, previous_end), min(end_s, duration_s)
        if start_s < end_s:
            checked.append(Phone(float(start_s), float(end_s), label))
            previous_end = end_s
    return tuple(checked)


def find_textgrids(folder: Path) -> dict[str, Path]:
    """Every TextGrid anywhere under `folder`, by the stem of its name.

    Raises:
        DataError: There is no such folder, no TextGrid in it, or two with the same stem.
    """
    if not folder.is_dir():
        raise DataError("The folder of alignments does not exist", file=folder, do="Give a folder of TextGrids")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() != ".textgrid" or path.name.startswith("."):
            continue
        name = nfc(path.stem)
        if name in found:
            what = f"Two alignments are named `{name}`: {found[name]} and {path}"
            raise DataError(what, file=folder, utterance=name, do="Remove one of them")
        found[name] = path
    if not found:
        raise DataError("The folder of alignments holds no TextGrid", file=folder, do="Give a folder of TextGrids")
    return found


def align(draft: Draft, textgrids: Mapping[str, Path]) -> Draft:
    """Give each utterance the phones of its TextGrid; those without one keep None and are counted in a note.

    Args:
        draft: Without phones; the header of each sound is read, to compare lengths.
        textgrids: From the id of an utterance to its TextGrid; those of other utterances are read over.

    Raises:
        DataError: As `read_phones`; or no utterance has a TextGrid.
    """
    by_name = {nfc(name): path for name, path in textgrids.items()}
    aligned = tuple(_aligned(utterance, by_name.get(nfc(utterance.id))) for utterance in draft.utterances)
    num_without = sum(utterance.phones is None for utterance in aligned)
    if aligned and num_without == len(aligned):
        what = f"None of the {len(aligned)} utterances has an alignment, e.g. `{aligned[0].id}.TextGrid`"
        raise DataError(what, utterance=aligned[0].id, do="Name each TextGrid after the id of its utterance")
    phone_map, phone_set = fold_map(phone.label for utterance in aligned for phone in utterance.phones or ())
    notes = (f"{num_without} of {len(aligned)} utterances have no alignment",) if num_without else ()
    return replace(draft, utterances=aligned, phone_map=phone_map, phone_set=phone_set, notes=(*draft.notes, *notes))


def _aligned(utterance: DraftUtterance, textgrid: Path | None) -> DraftUtterance:
    if textgrid is None:
        return utterance
    info = inspect(utterance.audio, utterance=utterance.id)
    first, last = sample_range(info, utterance.start, utterance.end, path=utterance.audio, utterance=utterance.id)
    phones = read_phones(textgrid, (last - first) / info.sample_rate_hz, utterance=utterance.id)
    return replace(utterance, phones=phones)


def _fault_of(start_s: float, end_s: float, previous_end: float, duration_s: float) -> str | None:
    """What is wrong with an interval; None if nothing is."""
    span = f"from {start_s:g} to {end_s:g} s"
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        return f"has a time that is not a number ({span})"
    if start_s < 0:
        return f"starts before the sound ({span})"
    if end_s <= start_s:
        return f"ends where or before it starts ({span})"
    if start_s < previous_end - ROUNDING_S:
        return f"starts before the one in front of it has ended ({span}, after {previous_end:g} s)"
    if end_s > duration_s + LENGTH_TOLERANCE_S + ROUNDING_S:
        return f"ends at {end_s:g} s, but the sound lasts {duration_s:g} s"
    return None


def _refuse_other_length(
    what: str, start_s: float, end_s: float, duration_s: float, path: Path, utterance: str | None
) -> None:
    tolerance = LENGTH_TOLERANCE_S + ROUNDING_S
    if abs(start_s) <= tolerance and abs(end_s - duration_s) <= tolerance:
        return
    raise DataError(
        f"The {what} runs from {start_s:g} to {end_s:g} s, but the sound lasts {duration_s:g} s",
        file=path,
        utterance=utterance,
        do="Times in seconds? Check that the alignment was made for this sound",
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
