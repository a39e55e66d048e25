"""Errors of diarization: values of other scorers on the same segments, brute force, and properties."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

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
    summed,
)

SECOND = 1_000_000


def seconds(*segments: tuple[float, float, int]) -> list[Segment]:
    return [(microseconds(start), microseconds(end), speaker) for start, end, speaker in segments]


REFERENCE = seconds((0, 4, 0), (3, 7.5, 1), (9, 12, 0), (11, 11.75, 2))
ESTIMATED = seconds((0.5, 4.25, 7), (3.5, 7, 3), (7, 8, 7), (9, 10, 3), (10, 12.5, 7))


def drawn(seed: int, *, shift: bool) -> tuple[list[Segment], list[Segment]]:
    """Turns of up to three speakers in 30 s, on a grid of 10 ms, and others: independent, or the same ones moved."""
    random = np.random.default_rng(seed)

    def side(count: int) -> list[Segment]:
        found = []
        for speaker in range(count):
            start = int(random.integers(0, 300))
            while (end := start + int(random.integers(20, 400))) <= 3000:
                found.append((start * 10_000, end * 10_000, speaker))
                start = end + int(random.integers(5, 500))
        return sorted(found)

    reference = side(int(random.integers(1, 4)))
    if not shift:
        return reference, side(int(random.integers(1, 4)))
    places = random.permutation(3)
    moved = [
        (max(start + int(random.integers(-20, 20)) * 10_000, 0), end + int(random.integers(-20, 20)) * 10_000, speaker)
        for start, end, speaker in reference
    ]
    return reference, joined((start, end, int(places[speaker])) for start, end, speaker in moved if start < end)


def frames(segments: list[Segment]) -> dict[int, np.ndarray]:
    """Whether each speaker speaks in each 10 ms of 40 s."""
    active: dict[int, np.ndarray] = {}
    for start, end, speaker in segments:
        active.setdefault(speaker, np.zeros(4000, dtype=bool))[start // 10_000 : end // 10_000] = True
    return active


def counted(reference: list[Segment], estimated: list[Segment]) -> tuple[int, int, int, int, float]:
    """The same by frames and by trying every pairing: the parts of DER in frames, and JER."""
    told, found = list(frames(reference).values()), list(frames(estimated).values())
    size = max(len(told), len(found))
    told += [np.zeros(4000, dtype=bool)] * (size - len(told))
    found += [np.zeros(4000, dtype=bool)] * (size - len(found))
    num_told, num_found = np.sum(told, axis=0), np.sum(found, axis=0)
    best, least = 0, np.inf
    num_speakers = len(frames(reference))
    for order in permutations(range(size)):
        both = [told[row] & found[column] for row, column in enumerate(order)]
        best = max(best, int(np.sum(both)))
        either = [told[row] | found[column] for row, column in enumerate(order)]
        least = min(least, sum(1 - both[row].sum() / either[row].sum() for row in range(num_speakers)))
    return (
        int(num_told.sum()),
        int(np.maximum(num_told - num_found, 0).sum()),
        int(np.maximum(num_found - num_told, 0).sum()),
        int(np.minimum(num_told, num_found).sum()) - best,
        least / num_speakers,
    )


def test_a_case_by_hand() -> None:
    # Speaker 0 with 7, 1 with 3; 2 has no pair.
    # 0-.5 missed, 3-3.5 missed, 4-4.25 false alarm, 7-7.5 confusion, 7.5-8 false alarm, 9-10 confusion,
    # 11-11.75 missed, 12-12.5 false alarm.
    durations = diarization_durations(REFERENCE, ESTIMATED)
    assert durations == Durations(12_250_000, 1_750_000, 1_250_000, 1_500_000)
    assert diarization_error_rate([durations]) == 4.5 / 12.25
    overlaps = jaccard_overlaps(REFERENCE, ESTIMATED)
    assert overlaps == (Overlap(5_500_000, 8_750_000), Overlap(3_500_000, 5_500_000), Overlap(0, 750_000))
    assert jaccard_error_rate(overlaps) == pytest.approx((3.25 / 8.75 + 2 / 5.5 + 1) / 3, abs=1e-15)


def test_values_of_other_scorers() -> None:
    """The parts of DER by pyannote.metrics 4.2.0 (collar 0, overlaps scored, scored from 0 to 13 s)."""
    durations = diarization_durations(REFERENCE, ESTIMATED)
    assert np.array(durations) / SECOND == pytest.approx(PYANNOTE, abs=1e-12)


PYANNOTE = (12.25, 1.75, 1.25, 1.5)


@pytest.mark.parametrize("shift", [True, False], ids=["moved", "independent"])
@pytest.mark.parametrize("seed", range(12))
def test_every_pairing_and_frame_gives_the_same(seed: int, shift: bool) -> None:
    reference, estimated = drawn(seed, shift=shift)
    *parts, jer = counted(reference, estimated)
    assert [each // 10_000 for each in diarization_durations(reference, estimated)] == parts
    assert jaccard_error_rate(jaccard_overlaps(reference, estimated)) == pytest.approx(jer, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_names_order_and_swapped_sides(seed: int) -> None:
    reference, estimated = drawn(seed, shift=True)
    renamed = [(start, end, 9 - speaker) for start, end, speaker in estimated[::-1]]
    durations = diarization_durations(reference, estimated)
    assert diarization_durations(reference[::-1], renamed) == durations
    assert sorted(jaccard_overlaps(reference, renamed)) == sorted(jaccard_overlaps(reference, estimated))
    scored, missed, false_alarm, confusion = diarization_durations(estimated, reference)
    assert (missed, false_alarm, confusion) == (durations.false_alarm, durations.missed, durations.confusion)
    assert scored == durations.scored - durations.missed + durations.false_alarm


def test_perfect_silent_and_empty() -> None:
    perfect = diarization_durations(REFERENCE, [(start, end, speaker + 5) for start, end, speaker in REFERENCE])
    assert perfect == Durations(12_250_000, 0, 0, 0)
    assert diarization_durations(REFERENCE, []) == Durations(12_250_000, 12_250_000, 0, 0)
    assert diarization_durations([], ESTIMATED) == Durations(0, 0, 11_750_000, 0)
    assert diarization_durations([], []) == Durations(0, 0, 0, 0)
    # as dscore: without any estimated speaker each error is 1, and without a reference none counts
    assert jaccard_error_rate(jaccard_overlaps(REFERENCE, [])) == 1.0
    assert jaccard_overlaps([], ESTIMATED) == ()
    # a pair that shares nothing is none, so that the numbers do not depend on which of equal pairings is taken
    assert jaccard_overlaps(seconds((0, 1, 0)), seconds((2, 5, 0))) == (Overlap(0, SECOND),)
    assert diarization_error_rate([]) is None
    assert diarization_error_rate([Durations(0, 0, 5, 0)]) is None
    assert jaccard_error_rate([]) is None


def test_durations_are_pooled_before_they_are_divided() -> None:
    parts = [Durations(10, 1, 0, 0), Durations(1, 1, 0, 0)]
    assert summed(parts) == Durations(11, 2, 0, 0)
    assert summed([]) == Durations(0, 0, 0, 0)
    assert diarization_error_rate(parts) == 2 / 11


@pytest.mark.parametrize("segments", [[(0, 0, 0)], [(5, 4, 0)], [(0, 5, 0), (4, 6, 0)]])
def test_what_is_no_segment_is_refused(segments: list[Segment]) -> None:
    with pytest.raises(ValueError, match="segments of speaker 0"):
        diarization_durations(segments, [])


def test_cut_and_joined() -> None:
    assert cut([(0, 5, 0), (5, 9, 1), (9, 12, 0)], 2, 9) == [(2, 5, 0), (5, 9, 1)]
    assert joined([(5, 9, 0), (0, 5, 0), (1, 2, 1), (3, 4, 0)]) == [(0, 9, 0), (1, 2, 1)]
