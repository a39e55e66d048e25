"""Official splits by the names that files, folders and parts of corpora have elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from repbench.corpora.contract import DraftUtterance, Split

_NAMES: tuple[tuple[Split, str], ...] = (
    ("train", "train|training"),
    ("dev", "validation|valid|val|dev"),
    ("test", "test|testing|eval|evaluation"),
)


def split_of_name(name: str) -> Split | None:
    """The split that a name states between signs that are no letters: `train.clean.100`, `cuts_dev-other`.

    The first such word counts; None where there is none.

    Example:
        >>> split_of_name("validation-00000-of-00002"), split_of_name("contest")
        ('dev', None)
    """
    for word in re.findall(r"[a-z]+", name.lower()):
        for split, words in _NAMES:
            if re.fullmatch(words, word):
                return split
    return None


def with_named_splits(
    utterances: Sequence[DraftUtterance], names: Sequence[str | None]
) -> tuple[list[DraftUtterance], tuple[str, ...]]:
    """The utterances with the splits that the names of their parts state, and notes on them.

    A column of splits goes before. A corpus whose only part is called train is not divided: that is how libraries call
    a corpus without a division.

    Args:
        utterances: The utterances.
        names: Of each its part; None where it has none.
    """
    known = {name: split_of_name(name) for name in names if name is not None}
    if any(each.split is not None for each in utterances) or not known:
        return list(utterances), ()
    if set(known.values()) == {"train"} and None not in names:
        return list(utterances), (f"{_listed(known)} is the only part of the corpus and is taken for all of it",)
    others = [name for name, split in known.items() if split is None]
    notes = (f"{_listed(others)} belong to no official split",) if others else ()
    placed = [
        replace(each, split=None if name is None else known[name]) for each, name in zip(utterances, names, strict=True)
    ]
    return placed, notes


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))
