"""Diarization and Jaccard error rate of two RTTM files, to compare with another scorer on the same files.

    python benchmarks/diarization_scores.py REF.rttm SYS.rttm [--uem START END]

Prints, over all recordings of the reference, DER and JER in per cent from exact segments, and JER from frames of 10 ms,
which is how dscore computes it. Without --uem a recording is scored from its first to its last turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repbench.corpora.contract import Turn
from repbench.corpora.rttm import read_rttm
from repbench.downstream.metrics.diarization import (
    Durations,
    Overlap,
    Segment,
    cut,
    diarization_durations,
    diarization_error_rate,
    jaccard_error_rate,
    jaccard_overlaps,
    joined,
    microseconds,
)

FRAME = 10_000
"""Microseconds of a frame of dscore."""


def segments_of(turns: Sequence[Turn], start: int, end: int) -> list[Segment]:
    """Turns in microseconds, within the scored part."""
    names = sorted({turn.speaker for turn in turns})
    found = [(microseconds(turn.start_s), microseconds(turn.end_s), names.index(turn.speaker)) for turn in turns]
    return cut(joined(found), start, end)


def on_frames(segments: Sequence[Segment], start: int, end: int) -> list[Segment]:
    """The segments as the frames whose start lies in them, from the start of the scored part on."""
    starts = np.arange(start, end, FRAME)
    found = []
    for first, last, speaker in segments:
        inside = starts[(first <= starts) & (starts < last)]
        if len(inside):
            found.append((int(inside[0]), int(inside[-1]) + FRAME, speaker))
    return joined(found)


def main() -> None:
    """Score the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("system", type=Path)
    parser.add_argument("--uem", nargs=2, type=float, metavar=("START", "END"))
    arguments = parser.parse_args()
    reference, system = read_rttm(arguments.reference), read_rttm(arguments.system)
    durations: list[Durations] = []
    exact: list[Overlap] = []
    framed: list[Overlap] = []
    for name, turns in sorted(reference.items()):
        found = system.get(name, [])
        times = [time for turn in (*turns, *found) for time in turn[:2]]
        start, end = map(microseconds, arguments.uem or (min(times), max(times)))
        told, estimated = segments_of(turns, start, end), segments_of(found, start, end)
        durations.append(diarization_durations(told, estimated))
        exact += jaccard_overlaps(told, estimated)
        framed += jaccard_overlaps(on_frames(told, start, end), on_frames(estimated, start, end))
    for label, value in (
        ("DER", diarization_error_rate(durations)),
        ("JER", jaccard_error_rate(exact)),
        ("JER, frames of 10 ms", jaccard_error_rate(framed)),
    ):
        print(f"{label}: {'undefined' if value is None else f'{100 * value:.5f}'}")


if __name__ == "__main__":
    main()
