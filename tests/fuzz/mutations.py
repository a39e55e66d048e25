"""How an input is changed: bytes, lines, numbers in text, and the values of a JSON tree.

Every change is drawn from one `random.Random`, so that the same seed and input give the same bytes on every machine.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

MOST_BYTES = 1 << 22
"""What is longer after a change is cut."""

_WHOLE_NUMBERS = (
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
_NUMBERS = (
    b"0", b"-0", b"-1", b"1e400", b"-1e400", b"nan", b"inf", b"-inf", b"1e-400", b"0x10", b"1_000", b"1,5", b"9" * 30,
    b"9" * 5000, b"\xd9\xa1", b"1e9", b"99999999999", b"0.1", b"",
)  # fmt: skip
_PIECES = (
    b"\0", b"\n", b"\r\n", b"\t", b'"', b"'", b"\\", b",", b"{", b"}", b"[" * 3000, b"(" * 3000, b'{"a":' * 3000, b"<",
    b"&a", b"*a", b"!!python/object:os.system", b"---\n", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80", b"e\xcc\x81", b"../", b"/etc/passwd", b"version https://git-lfs.github.com/spec/v1\n",
    b"<!DOCTYPE html>",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, 1e308, 2**53, 2**64, 10**400, "", "x", "é", "\ud800", "../x", "nan", [], {}, [[]],
    {"": None}, [1, 2], "9" * 30,
)  # fmt: skip

Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]


def mutated(seed: bytes, draw: random.Random, others: Sequence[bytes], *, is_json: bool = False) -> bytes:
    """One to four changes of an input.

    Args:
        seed: The input.
        draw: Of the changes.
        others: Inputs of the same reader, of which pieces may be taken.
        is_json: Whether the input is JSON, or lines of it: then its values are changed half of the time.
    """
    content = seed
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if is_json and draw.random() < 0.5:
            content = _change_json(content, draw)
        else:
            content = draw.choice(_CHANGES)(content, draw, others)
    return content[:MOST_BYTES]


def _place(content: bytes, draw: random.Random) -> int:
    """A byte of the content; those of its head, where formats keep their lengths, are drawn more often."""
    most = len(content) if draw.random() < 0.5 else min(len(content), 128)
    return draw.randrange(most + 1)


def _flip_bit(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    place = _place(content, draw)
    if place >= len(content):
        return content
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def _set_byte(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    place = _place(content, draw)
    return content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]


def _set_number(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    width = draw.choice((2, 4, 8))
    number = draw.choice(_WHOLE_NUMBERS) & (1 << 8 * width) - 1
    place = _place(content, draw)
    return content[:place] + number.to_bytes(width, draw.choice(("little", "big"))) + content[place + width :]


def _cut(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    return content[: _place(content, draw)]


def _remove(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    place = _place(content, draw)
    return content[:place] + content[place + draw.choice((1, 2, 4, 8, 100)) :]


def _repeat(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    place = _place(content, draw)
    piece = content[place : place + draw.choice((1, 4, 64, 1024))]
    return content[:place] + piece * draw.choice((2, 3, 50)) + content[place:]


def _insert(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    place = _place(content, draw)
    return content[:place] + draw.choice(_PIECES) + content[place:]


def _splice(content: bytes, draw: random.Random, others: Sequence[bytes]) -> bytes:
    other = draw.choice(others)
    return content[: _place(content, draw)] + other[_place(other, draw) :]


def _change_line(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    lines = content.split(b"\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    how = draw.choice(("swap", "double", "remove", "empty"))
    if how == "swap":
        lines[one], lines[other] = lines[other], lines[one]
    elif how == "double":
        lines.insert(other, lines[one])
    elif how == "remove":
        del lines[one]
    else:
        lines[one] = b""
    return b"\n".join(lines)


def _change_word(content: bytes, draw: random.Random, _: Sequence[bytes]) -> bytes:
    """Another number, or nothing, in the place of one of the words of a line."""
    lines = content.split(b"\n")
    number = draw.randrange(len(lines))
    words = lines[number].split(b" ")
    words[draw.randrange(len(words))] = draw.choice(_NUMBERS)
    lines[number] = b" ".join(words)
    return b"\n".join(lines)


_CHANGES: tuple[Change, ...] = (
    _flip_bit, _set_byte, _set_number, _set_number, _cut, _remove, _repeat, _insert, _splice, _change_line,
    _change_word,
)  # fmt: skip


def _change_json(content: bytes, draw: random.Random) -> bytes:
    """Another value in one place of a JSON tree; of a file of several lines, in one of them."""
    try:
        return _with_other_value(content, draw)
    except ValueError:
        lines = content.split(b"\n")
        number = draw.randrange(len(lines))
        try:
            lines[number] = _with_other_value(lines[number], draw)
        except ValueError:
            return _flip_bit(content, draw, ())
        return b"\n".join(lines)


def _with_other_value(content: bytes, draw: random.Random) -> bytes:
    try:
        tree = json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    places = list(_places(tree))
    if not places:
        return json.dumps(draw.choice(_VALUES)).encode()
    holder, key = draw.choice(places)
    how = draw.random()
    if how < 0.15:
        del holder[key]
    elif how < 0.3 and isinstance(holder, dict):
        holder[draw.choice(("x", "", str(key) + "_"))] = holder.pop(key)
    elif how < 0.6 and isinstance(holder[key], (int, float)):
        changes: tuple[Callable[[Any], Any], ...] = (
            lambda number: number + 1, lambda number: number * 2, lambda number: -number, lambda number: 0,
            lambda number: number * 1.000001 if abs(number) < 1e300 else 0.5,
        )  # fmt: skip
        holder[key] = draw.choice(changes)(holder[key])
    else:
        holder[key] = draw.choice(_VALUES)
    return json.dumps(tree).encode()


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every value of a tree, as the list or dict that holds it and its key there."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]
