"""Numbers and intervals as text, the same in every table."""

from __future__ import annotations

from repbench.benchmark.scoring.statistics import Interval

UNDEFINED = "–"


def number(value: float | None) -> str:
    """Three decimals; a dash where a measure is undefined."""
    return UNDEFINED if value is None else f"{value:.3f}"


def interval(value: Interval | None) -> str:
    """Both ends; empty where there is none."""
    return "" if value is None else f"{value.low:.3f}–{value.high:.3f}"
