"""The one table of severities: what 1 to 5 mean for each kind of disturbance. docs/conditions.md shows it.

A change of a value changes what a score under it means; it needs a new `code_version` of the kind.
"""

from __future__ import annotations

from collections.abc import Mapping

Rows = tuple[Mapping[str, float], ...]


def _several(name: str, *values: float) -> Rows:
    return tuple({name: value} for value in values)


TABLE: Mapping[str, Rows] = {
    # All noises alike, so that kinds of noise compare at one signal-to-noise ratio.
    "noise": _several("snr", 20, 15, 10, 5, 0),
    # A quiet office, a living room, a lecture room, a hall, a church; the speaker farther away each time.
    "reverb": tuple(
        {"t60": t60, "distance": distance}
        for t60, distance in ((0.2, 1.0), (0.4, 1.5), (0.6, 2.0), (0.9, 2.5), (1.3, 3.0))
    ),
    # Wide-band telephony (G.722), two bands on the way to the narrow one (G.712, severity 3), and two narrower.
    "telephone": tuple(
        {"low": low, "high": high} for low, high in ((50, 7000), (200, 5000), (300, 3400), (400, 2800), (500, 2200))
    ),
    "rate": _several("hz", 12_000, 10_000, 8_000, 6_000, 4_000),
    # Its bit rate is fixed: codings in a row.
    "codec:gsm": _several("passes", 1, 2, 3, 4, 5),
    "codec:opus": _several("kbits", 24, 16, 12, 8, 6),
    "codec:mp3": _several("kbits", 48, 32, 24, 16, 8),
    "clip": _several("share", 0.01, 0.02, 0.05, 0.1, 0.2),
    "gain": _several("db", -6, -12, -20, -30, -40),
    "loss": _several("share", 0.02, 0.05, 0.1, 0.2, 0.3),
    "speed": _several("factor", 1.05, 1.1, 1.2, 1.35, 1.5),
    "tempo": _several("factor", 1.1, 1.2, 1.35, 1.5, 1.75),
    "silence": tuple({"before": seconds, "after": seconds} for seconds in (0.1, 0.25, 0.5, 1.0, 2.0)),
    # 5 ms are half of the hop of the front ends: no shift of theirs is farther from a whole number of frames.
    "shift": _several("ms", 1, 2, 3, 4, 5),
}
"""From a kind, or `KIND:VARIANT` where variants differ, to the values of severity 1 to 5."""


def values_of(kind: str, variant: str, severity: int) -> Mapping[str, float] | None:
    """The values of a severity from 1 to 5; None where the variant has no severities."""
    rows = TABLE.get(f"{kind}:{variant}", TABLE.get(kind))
    return None if rows is None else rows[severity - 1]
