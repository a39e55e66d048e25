"""Groups of utterances by an attribute: its values, or bands of its numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from repbench.corpora.contract import AttributeValue
from repbench.errors import UsageError

UNKNOWN_GROUP = "unknown"
"""The group of utterances without the attribute."""

LEAST_SPEAKERS = 5
"""Fewest speakers of a group that is shown: the numbers of fewer say more of these persons than of a group, and a
Student's t of fewer than 4 degrees of freedom makes an interval of little use."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """An attribute, and where its numbers are cut.

    Attributes:
        attribute: Name of the attribute.
        edges: Ascending; a band holds its lower edge and not its upper one. None: each value is a group.
    """

    attribute: str
    edges: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Grouping:
        """The grouping of `gender`, `age:16` or `age:16,30`.

        Raises:
            UsageError: There is no name, or the edges are no ascending numbers.
        """
        name, colon, after = text.partition(":")
        if not name.strip():
            raise UsageError(f"`{text}` names no attribute", key="--by", do="Give a name such as gender, or age:16,30")
        if not colon:
            return cls(name.strip())
        try:
            edges = tuple(float(each) for each in after.split(","))
        except ValueError:
            edges = ()
        is_ascending = all(low < high for low, high in itertools.pairwise(edges))
        if not edges or not all(map(math.isfinite, edges)) or not is_ascending:
            what = f"The edges of `{text}` must be ascending numbers, but are `{after}`"
            raise UsageError(what, key="--by", do=f"Give edges such as {name.strip()}:16,30, or {name.strip()} alone")
        return cls(name.strip(), edges)

    @property
    def text(self) -> str:
        """As `parse` reads it."""
        return self.attribute + (f":{','.join(f'{edge:g}' for edge in self.edges)}" if self.edges else "")

    def group_of(self, value: AttributeValue | None) -> str:
        """The name of the group of a value: as text, or of its band; `unknown` for None and where a band needs a
        number."""
        if value is None:
            return UNKNOWN_GROUP
        if not self.edges:
            return f"{value:g}" if isinstance(value, float) else str(value)
        number = _number(value)
        return UNKNOWN_GROUP if number is None else self.bands[sum(number >= edge for edge in self.edges)]

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands in ascending order; none without edges."""
        name, edges = self.attribute, [f"{edge:g}" for edge in self.edges]
        if not edges:
            return ()
        between = [f"{low} ≤ {name} < {high}" for low, high in itertools.pairwise(edges)]
        return (f"{name} < {edges[0]}", *between, f"{name} ≥ {edges[-1]}")

    def order(self, group: str) -> tuple[bool, int, str]:
        """Sort key of a group: bands ascending, other groups by name, `unknown` last."""
        bands = self.bands
        return group == UNKNOWN_GROUP, bands.index(group) if group in bands else 0, group


def groupings_of(texts: tuple[str, ...]) -> tuple[Grouping, ...]:
    """The groupings of the values of `--by`, each once.

    Raises:
        UsageError: As `Grouping.parse`.
    """
    return tuple(dict.fromkeys(Grouping.parse(text) for text in texts))


def _number(value: AttributeValue) -> float | None:
    # Layouts that know no types give numbers as text.
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
