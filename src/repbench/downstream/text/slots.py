"""Slots marked in a text: `fly to <city> new york </city> on <day> monday </day>`.

A slot is the words between two markers of one name. Names are letters, digits, `_`, `.` and `-`; slots do not overlap.
A marker is a word and one unit of the spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

_MARKER = re.compile(r"<(/?)([A-Za-z0-9_.-]+)>")

Slot = tuple[str, str]
"""Name and value, the words with a space between them."""


def marker_of(name: str, *, closing: bool = False) -> str:
    """The word that opens or closes a slot."""
    return f"<{'/' * closing}{name}>"


def is_marker(word: str) -> bool:
    """Whether a word opens or closes a slot."""
    return _MARKER.fullmatch(word) is not None


def unit_of_marker(word: str) -> str:
    """The unit of a marker: with spaces, which no unit of a word has, so that it is a word of its own."""
    return f" {word} "


def read_marked(text: str, rule: Callable[[str], tuple[str, ...]]) -> tuple[str, ...]:
    """The words of a text with marked slots: markers as they are, the words between them by `rule`.

    Raises:
        ValueError: A marker is not closed, closes another slot, or holds no word.
    """
    words: list[str] = []
    position, inside = 0, None
    for found in _MARKER.finditer(text):
        between = rule(text[position : found.start()])
        closing, name = found[1] == "/", found[2]
        if closing and name != inside:
            raise ValueError(f"`{found[0]}` closes {'no slot' if inside is None else f'`<{inside}>`'}")
        if not closing and inside is not None:
            raise ValueError(f"`{found[0]}` opens a slot inside of `<{inside}>`")
        if closing and not between:
            raise ValueError(f"the slot `<{name}>` holds no word")
        words += [*between, found[0]]
        position, inside = found.end(), None if closing else name
    if inside is not None:
        raise ValueError(f"`<{inside}>` is not closed")
    return (*words, *rule(text[position:]))


def marked_by_columns(words: Sequence[str], columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Words with markers around the value of each column, where the words first hold it.

    Args:
        words: Of the text.
        columns: From the name of a slot to the words of its value; no words: the text does not have the slot.

    Raises:
        ValueError: A value is not in the text, or overlaps another.
    """
    spans: dict[int, tuple[int, str]] = {}
    taken: set[int] = set()
    for name, value in columns.items():
        if not value:
            continue
        size = len(value)
        starts = [at for at in range(len(words) - size + 1) if tuple(words[at : at + size]) == tuple(value)]
        if not starts:
            raise ValueError(f"the text does not hold `{' '.join(value)}` of the column `{name}`")
        start = next((at for at in starts if taken.isdisjoint(range(at, at + size))), None)
        if start is None:
            raise ValueError(f"`{' '.join(value)}` of the column `{name}` overlaps another slot")
        spans[start] = start + size, name
        taken.update(range(start, start + size))
    marked: list[str] = []
    place = 0
    while place < len(words):
        if place in spans:
            end, name = spans[place]
            marked += [marker_of(name), *words[place:end], marker_of(name, closing=True)]
            place = end
        else:
            marked.append(words[place])
            place += 1
    return tuple(marked)


def slots_in(words: Sequence[str]) -> Iterator[Slot]:
    """The slots of a text, of a reference or a hypothesis.

    A marker that opens ends a slot that is open, which does not count; a marker that closes none does not count either.
    """
    inside: str | None = None
    value: list[str] = []
    for word in words:
        found = _MARKER.fullmatch(word)
        if found is None:
            value.append(word)
        elif found[1]:
            if inside is not None and inside == found[2]:
                yield inside, " ".join(value)
            inside = None
        else:
            inside, value = found[2], []


def plain_words(words: Sequence[str]) -> tuple[str, ...]:
    """The words without markers."""
    return tuple(word for word in words if not is_marker(word))
