"""The one table of severities: what 1 to 5 mean for each kind of disturbance. docs/conditions.md shows it.

A change of a value changes what a score under it means; it needs a new `code_version` of the kind.
"""

from __future__ import annotations

from collections.abc import Mapping

Rows = tuple[Mapping[str, float], ...]


def _one(name: str, *values: float) -> Rows:
    return tuple({name: value} for value in values)


TABLE: Mapping[str, Rows] = {
    # All noises alike, so that kinds of noise compare at one signal-to-noise ratio.
    "noise": _one("snr", 20, 15, 10, 5, 0),
    "gain": _one("db", -6, -12, -20, -30, -40),
    "speed": _one("factor", 1.05, 1.1, 1.2, 1.35, 1.5),
}
"""From a kind, or `KIND:VARIANT` where variants differ, to the values of severity 1 to 5."""


def values_of(kind: str, variant: str, severity: int) -> Mapping[str, float] | None:
    """The values of a severity from 1 to 5; None where the variant has no severities."""
    rows = TABLE.get(f"{kind}:{variant}", TABLE.get(kind))
    return None if rows is None else rows[severity - 1]
