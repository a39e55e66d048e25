"""Errors of diarization: who speaks when, with several speakers at once.

Conventions: a segment is (start, end, speaker) in whole microseconds, `end` not included; those of a speaker do not
overlap. Times are integers, so that sums of them are exact and do not depend on their order. All of the recording is
scored, without a collar around the turns, and where several speakers speak at once each counts. Names of reference and
estimated speakers mean nothing to each other: they are paired one to one. Durations are summed over recordings and
divided once; speakers are paired within each recording.

Metrics:
    diarization error rate (DER): (missed + false alarm + confusion) / duration of the reference's turns, with the
        pairs of speakers that share the most time. At an instant with R reference and E estimated speakers, C of the
        estimated ones paired with a reference one that speaks, max(R - E, 0) are missed, max(E - R, 0) are false alarm
        and min(R, E) - C are confusion. From 0, may exceed 1; lower is better.
    Jaccard error rate (JER): the mean over all reference speakers of 1 - (shared time) / (time in which the speaker or
        its pair speaks), with the pairs whose sum of errors is least; 1 for a speaker without a pair. From 0 to 1;
        lower is better.

Both are undefined (None) where the references have no turn.

References:
    NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, for DER; Ryant et al., The Second
    DIHARD Diarization Challenge, 2019, for JER.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Segment = tuple[int, int, int]
"""Start and end in microseconds, and the number of the speaker."""

MICROSECONDS = 1_000_000
"""Of a second."""


class Durations(NamedTuple):
    """The parts of the diarization error, in microseconds of speakers: two that speak at once count twice.

    Attributes:
        scored: Duration of all turns of the reference.
        missed: Speech of reference speakers beyond the number of those that are estimated.
        false_alarm: Speech of estimated speakers beyond the number of those of the reference.
        confusion: Speech that is given to another speaker.
    """

    scored: int
    missed: int
    false_alarm: int
    confusion: int


class Overlap(NamedTuple):
    """A reference speaker and its pair: microseconds in which both speak, and in which either does."""

    shared: int
    either: int


def diarization_durations(reference: Sequence[Segment], estimated: Sequence[Segment]) -> Durations:
    """The parts of the diarization error of one recording.

    Args:
        reference: The true segments.
        estimated: Those of a model. Cut both to the scored part of the recording first.

    Raises:
        ValueError: A segment ends where it starts or before, or those of a speaker overlap.
    """
    # Imported here, because scipy.optimize takes a fifth of the start of every run, of whatever task.
    from scipy.optimize import linear_sum_assignment

    spoken, found, together = _shared_time(reference, estimated)
    # (R, E): the pairs that share the most time; the total does not depend on which of equal pairings is taken
    rows, columns = linear_sum_assignment(together, maximize=True)
    correct = int(together[rows, columns].sum())
    scored, total = int(spoken.sum()), int(found.sum())
    # The time in which min(R, E) speakers speak follows from a sweep over all bounds.
    both = _least_at_once(reference, estimated)
    return Durations(scored, scored - both, total - both, both - correct)


def jaccard_overlaps(reference: Sequence[Segment], estimated: Sequence[Segment]) -> tuple[Overlap, ...]:
    """For each reference speaker, in the order of their numbers, the time that it shares with its pair.

    Errors and arguments as `diarization_durations`.
    """
    from scipy.optimize import linear_sum_assignment

    spoken, found, together = _shared_time(reference, estimated)
    either = spoken[:, None] + found[None, :] - together  # (R, 1) + (1, E) - (R, E)
    rows, columns = linear_sum_assignment(1 - together / np.maximum(either, 1))
    pairs = {int(row): int(column) for row, column in zip(rows, columns, strict=True)}
    overlaps = []
    for row, duration in enumerate(spoken.tolist()):
        column = pairs.get(row)
        # A pair without shared time is an error of 1, as no pair is: the two are not told apart.
        if column is None or not together[row, column]:
            overlaps.append(Overlap(0, duration))
        else:
            overlaps.append(Overlap(int(together[row, column]), int(either[row, column])))
    return tuple(overlaps)


def diarization_error_rate(durations: Iterable[Durations]) -> float | None:
    """DER of the pooled durations; None where the references have no turn."""
    total = summed(durations)
    return (total.missed + total.false_alarm + total.confusion) / total.scored if total.scored else None


def summed(durations: Iterable[Durations]) -> Durations:
    """The sum of each part; zeros of no recording."""
    return Durations(*map(sum, zip((0, 0, 0, 0), *durations, strict=True)))


def jaccard_error_rate(overlaps: Iterable[Overlap]) -> float | None:
    """JER over all reference speakers; None where there are none."""
    errors = [1 - each.shared / each.either for each in overlaps]
    # fsum: the result does not depend on the order of the speakers
    return math.fsum(errors) / len(errors) if errors else None


def cut(segments: Iterable[Segment], start: int, end: int) -> list[Segment]:
    """The parts of segments that lie from `start` to `end`, in microseconds."""
    inside = ((max(first, start), min(last, end), speaker) for first, last, speaker in segments)
    return [(first, last, speaker) for first, last, speaker in inside if first < last]


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The segments in order, those of one speaker that touch or overlap as one."""
    found: list[Segment] = []
    # by speaker, then by time: neighbours of the list are neighbours in time
    for start, end, speaker in sorted(segments, key=lambda each: (each[2], each[0], each[1])):
        if found and found[-1][2] == speaker and start <= found[-1][1]:
            first, last, _ = found.pop()
            start, end = first, max(last, end)
        found.append((start, end, speaker))
    return sorted(found)


def microseconds(seconds: float) -> int:
    """Seconds as whole microseconds."""
    return round(seconds * MICROSECONDS)


def _shared_time(
    reference: Sequence[Segment], estimated: Sequence[Segment]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(R,) and (E,) the time of each speaker, in the order of their numbers; (R, E) the time that two share."""
    of_reference, of_estimate = _by_speaker(reference), _by_speaker(estimated)
    together = np.zeros((len(of_reference), len(of_estimate)), dtype=np.int64)
    for row, spoken in enumerate(of_reference):
        for column, found in enumerate(of_estimate):
            together[row, column] = _intersection(spoken, found)
    return _lengths(of_reference), _lengths(of_estimate), together


def _lengths(of_speakers: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.array([(each[:, 1] - each[:, 0]).sum() for each in of_speakers], dtype=np.int64)


def _by_speaker(segments: Sequence[Segment]) -> list[NDArray[np.int64]]:
    """(S, 2) the sorted starts and ends of each speaker, in the order of their numbers."""
    found = []
    for speaker in sorted({each[2] for each in segments}):
        own = np.array(sorted(each[:2] for each in segments if each[2] == speaker), dtype=np.int64)
        bounds = own.ravel()  # (S, 2) -> (2 S,): start, end, start, …
        if (own[:, 0] >= own[:, 1]).any() or (np.diff(bounds) < 0).any():
            raise ValueError(f"segments of speaker {speaker} are empty, end before they start, or overlap")
        found.append(own)
    return found


def _intersection(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """The time that two lists (S, 2) and (T, 2) of disjoint segments share."""
    starts = np.maximum(one[:, None, 0], other[None, :, 0])  # (S, 1) and (1, T) -> (S, T)
    ends = np.minimum(one[:, None, 1], other[None, :, 1])
    return int(np.maximum(ends - starts, 0).sum())


def _least_at_once(reference: Sequence[Segment], estimated: Sequence[Segment]) -> int:
    """The integral over time of the smaller of the two numbers of speakers that speak at once."""
    steps: dict[int, list[int]] = {}
    for side, segments in enumerate((reference, estimated)):
        for start, end, _ in segments:
            steps.setdefault(start, [0, 0])[side] += 1
            steps.setdefault(end, [0, 0])[side] -= 1
    times = sorted(steps)
    # (T, 2) the numbers of speakers from each bound on
    at_once = np.cumsum([steps[time] for time in times], axis=0) if times else np.zeros((0, 2), dtype=np.int64)
    lengths = np.diff(np.array(times, dtype=np.int64))
    return int((at_once[:-1].min(axis=1) * lengths).sum()) if len(times) > 1 else 0
