"""The cells of ABX: which tokens are A, B and X, and the errors of their triples.

Tokens that share a context and a speaker (a phone, if the classes are speakers) are a block. A and B are of one block
and two classes, X is of the class of A: of the same block or, across speakers, of the block of another speaker with the
same context. At most so many tokens of a class are drawn from a block, seeded, and the same ones are A, B and X.

Axes: X tokens of a class that are X, T tokens of a block.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import Any, Literal

import numpy as np

from repbench.downstream.discrimination.tokens import Token
from repbench.downstream.metrics.abx import Distances, Integers, twice_errors
from repbench.downstream.metrics.dtw import TableRequest

On = Literal["phone", "speaker"]
Speakers = Literal["within", "across"]

Block = Mapping[str, tuple[int, ...]]
"""From each class, sorted, to the numbers of its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is discriminated, and what A, B and X share.

    Attributes:
        on: The classes: phones or speakers.
        speakers: Of phones, whether X is of the speaker of A and B or of another one.
        in_context: Whether A, B and X have the same neighbours.
        max_size_group: Tokens of a class that are drawn from a block at most; None: all.
        max_x_across: Across speakers, speakers of X for each class, context and speaker of A at most; None: all.
    """

    on: On
    speakers: Speakers
    in_context: bool
    max_size_group: int | None
    max_x_across: int | None

    @property
    def is_across(self) -> bool:
        """Whether X is of another speaker than A and B."""
        return self.on == "phone" and self.speakers == "across"

    def class_of(self, token: Token) -> str:
        """The class of a token."""
        return token.label if self.on == "phone" else token.speaker

    def group_of(self, token: Token) -> str:
        """What is averaged over after contexts."""
        return token.speaker if self.on == "phone" else token.label

    def context_of(self, token: Token) -> str:
        """What A, B and X share beside the group."""
        return token.context if self.in_context else ""


@dataclass(frozen=True, slots=True)
class FoundCell:
    """A cell with the names of its classes, and the first of its tokens X."""

    a: str
    b: str
    group: str
    context: str
    twice_errors: int
    triples: int
    first_x: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table of distances to compute, and its cells.

    Attributes:
        group: Of A and B.
        context: Of A, B and X.
        columns: The block of A and B.
        rows: The tokens X by class; None: the block itself, whose tokens are A and X in turn.
    """

    group: str
    context: str
    columns: Block
    rows: Block | None = None

    def request(self, places: Mapping[int, int]) -> TableRequest:
        """The table as the kernel takes it; `places` are the segments of tokens."""
        columns = _numbers(self.columns, places)
        return TableRequest(columns, None) if self.rows is None else TableRequest(_numbers(self.rows, places), columns)

    def cells(self, distances: Distances) -> Iterator[FoundCell]:
        """The cells of (X, T) distances."""
        is_self = self.rows is None
        rows = self.columns if self.rows is None else self.rows
        starts = dict(zip(self.columns, accumulate(map(len, self.columns.values()), initial=0), strict=False))
        firsts = np.array(list(starts.values()))
        at = 0
        for name, tokens in rows.items():
            own = distances[at : at + len(tokens)]  # (X, T) of one class of X
            at += len(tokens)
            of_a = len(self.columns[name]) - is_self
            if not of_a:
                continue  # a single token that would be both A and X
            begin = starts[name]
            totals = twice_errors(own, slice(begin, begin + len(self.columns[name])), firsts, is_self=is_self)
            for other, total in zip(self.columns, totals.tolist(), strict=True):
                if other != name:
                    triples = len(tokens) * of_a * len(self.columns[other])
                    yield FoundCell(name, other, self.group, self.context, total, triples, tokens[0])


def _numbers(block: Block, places: Mapping[int, int]) -> Integers:
    return np.array([places[token] for tokens in block.values() for token in tokens], dtype=np.int64)


Blocks = Mapping[tuple[str, str], Block]
"""From context and group to the block, sorted."""


def blocks_of(tokens: Sequence[Token], among: Iterable[int], condition: Condition, seed: int) -> Blocks:
    """The blocks that can have cells, with the tokens that are drawn from them.

    Args:
        tokens: All tokens.
        among: The numbers of those that may be drawn.
        condition: Which triples are made.
        seed: Of the draws.
    """
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for number in among:
        token = tokens[number]
        key = condition.context_of(token), condition.group_of(token)
        found.setdefault(key, {}).setdefault(condition.class_of(token), []).append(number)
    return {
        key: {
            name: _drawn(of_class, condition.max_size_group, seed, *key, name)
            for name, of_class in sorted(found[key].items())
        }
        for key in sorted(found)
        if condition.is_across or _has_cells(found[key])
    }


def _has_cells(block: Mapping[str, Sequence[int]]) -> bool:
    """Whether a block has tokens A, B and X."""
    return len(block) > 1 and any(len(of_class) > 1 for of_class in block.values())


def restricted(blocks: Blocks, usable: Collection[int]) -> Blocks:
    """The blocks with the tokens that are usable alone."""
    kept = {
        key: {name: tuple(each for each in of_class if each in usable) for name, of_class in block.items()}
        for key, block in blocks.items()
    }
    return {key: {name: of_class for name, of_class in block.items() if of_class} for key, block in kept.items()}


def tables_of(blocks: Blocks, condition: Condition, seed: int) -> list[Table]:
    """The tables of all cells, sorted by context and group; arguments as of `blocks_of`."""
    if condition.is_across:
        return list(_across(blocks, condition.max_x_across, seed))
    return [Table(group, context, block) for (context, group), block in blocks.items() if _has_cells(block)]


def _across(blocks: Blocks, max_x: int | None, seed: int) -> Iterator[Table]:
    speakers: dict[str, list[str]] = {}
    for context, speaker in blocks:
        speakers.setdefault(context, []).append(speaker)
    for (context, speaker), block in blocks.items():
        if len(block) < 2:
            continue
        rows: dict[str, dict[str, tuple[int, ...]]] = {}
        for name in block:
            others = [each for each in speakers[context] if each != speaker and name in blocks[context, each]]
            for other in _drawn(others, max_x, seed, context, speaker, name):
                rows.setdefault(other, {})[name] = blocks[context, other][name]
        for other in sorted(rows):
            yield Table(speaker, context, block, rows[other])


def _drawn(among: Sequence[Any], most: int | None, seed: int, *key: Hashable) -> tuple[Any, ...]:
    """At most so many of `among`, in their order; the draw depends on the seed and the key alone."""
    if most is None or len(among) <= most:
        return tuple(among)
    # A generator for each draw: tokens elsewhere in the corpus do not change it.
    places = Random(repr((seed, *key))).sample(range(len(among)), most)
    return tuple(among[place] for place in sorted(places))
