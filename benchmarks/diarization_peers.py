"""Errors of diarization beside those of other scorers on drawn segments.

    pip install pyannote.metrics spy-der && python benchmarks/diarization_peers.py [--pairs 40]

Prints the largest differences: of the parts of DER, in seconds, from pyannote.metrics; of DER from spyder; of JER from
pyannote.metrics, which pairs speakers by the time they share and not by the least sum of errors, so that its JER is
never lower.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from repbench.downstream.metrics.diarization import (
    MICROSECONDS,
    Segment,
    diarization_durations,
    diarization_error_rate,
    jaccard_error_rate,
    jaccard_overlaps,
    joined,
    microseconds,
)

SECONDS = 30.0


def drawn(random: np.random.Generator, number: int) -> tuple[list[Segment], list[Segment]]:
    """Turns of up to three speakers to the millisecond, and others: independent, or the same ones moved."""

    def side(count: int) -> list[Segment]:
        found = []
        for speaker in range(count):
            start = float(random.uniform(0, 3))
            while (end := start + float(random.uniform(0.2, 4))) <= SECONDS:
                found.append((microseconds(round(start, 3)), microseconds(round(end, 3)), speaker))
                start = end + float(random.uniform(0.05, 5))
        return sorted(found)

    reference = side(int(random.integers(1, 4)))
    if number % 2:
        return reference, side(int(random.integers(1, 5)))
    order = random.permutation(3)
    shifts = random.integers(-300, 300, size=(len(reference), 2)) * 1000
    moved = [
        (max(start + int(first), 0), min(end + int(last), microseconds(SECONDS)), int(order[speaker]))
        for (start, end, speaker), (first, last) in zip(reference, shifts, strict=True)
    ]
    return reference, joined(each for each in moved if each[0] < each[1])


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    core, metrics = (importlib.import_module(name) for name in ("pyannote.core", "pyannote.metrics.diarization"))
    spyder = importlib.import_module("spyder")
    random = np.random.default_rng(arguments.seed)
    parts = der = jer = 0.0
    scored = core.Timeline([core.Segment(0, SECONDS)])
    for number in range(arguments.pairs):
        told, found = drawn(random, number)
        own = diarization_durations(told, found)
        sides = _annotation(core, told), _annotation(core, found)
        theirs = metrics.DiarizationErrorRate()(*sides, uem=scored, detailed=True)
        names = ("total", "missed detection", "false alarm", "confusion")
        parts = max(parts, *(abs(mine / MICROSECONDS - theirs[name]) for mine, name in zip(own, names, strict=True)))
        other = spyder.DER(_listed(told), _listed(found)).der
        der = max(der, abs((diarization_error_rate([own]) or 0.0) - other))
        higher = metrics.JaccardErrorRate()(*sides, uem=scored) - (
            jaccard_error_rate(jaccard_overlaps(told, found)) or 0
        )
        if higher < -1e-12:
            raise SystemExit(f"pair {number}: the JER of pyannote.metrics is lower by {-higher:g}")
        jer = max(jer, higher)
    print(f"parts of DER: {parts:.2g} s; DER: {der:.2g}; JER of pyannote.metrics higher by up to {jer:.3f}")


def _annotation(core: Any, segments: Sequence[Segment]) -> Any:
    annotation = core.Annotation()
    for number, (start, end, speaker) in enumerate(segments):
        annotation[core.Segment(start / MICROSECONDS, end / MICROSECONDS), number] = str(speaker)
    return annotation


def _listed(segments: Sequence[Segment]) -> list[tuple[str, float, float]]:
    return [(str(speaker), start / MICROSECONDS, end / MICROSECONDS) for start, end, speaker in segments]


if __name__ == "__main__":
    main()
