"""Shuffles and groups that depend on names alone: not on their order, the machine or a library's version."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def grouped(items: Iterable[Item], key: Callable[[Item], str]) -> dict[str, list[Item]]:
    """The items of each key, keys sorted."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(sorted(groups.items()))


def shuffled(names: Iterable[str], seed: int, salt: str) -> list[str]:
    """The names in the order of a digest of seed, salt and name."""
    # Adding or removing a name leaves the order of the others, which a draw of a permutation would change.
    return sorted(names, key=lambda name: digest(f"{seed}\0{salt}\0{name}"))


def uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    # 13 hexadecimal digits are 52 bits: integer and quotient by a power of two are exact in a double, and below 1.
    return int(digest(text)[:13], 16) / 16**13


def digest(text: str) -> str:
    """SHA-256 of the text."""
    # A file name that is not UTF-8 decodes to lone surrogates, which the plain codec refuses.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
