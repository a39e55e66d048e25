"""The grid of instants at which frame tasks are scored, and the frame whose scores are taken at each.

The instants are (j + ½) · 10 ms and depend on the utterance alone, so every upstream is scored at the same instants,
whatever its hop. The nearest frame is found in whole samples; labels are looked up in seconds, as corpora give them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Phone

INSTANTS_PER_SECOND = 100
UNLABELLED = -1

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def num_instants(num_samples: int, sample_rate_hz: int) -> int:
    """The number of instants (j + ½) · 10 ms before the end of the utterance."""
    # (2j + 1) / 200 < n / r  <=>  j < (200 n - r) / (2 r); the count of such j is the ceiling, -(-a // b) in integers.
    return max(0, -(-(2 * INSTANTS_PER_SECOND * num_samples - sample_rate_hz) // (2 * sample_rate_hz)))


def instants_s(count: int) -> Floats:
    """The first `count` instants, in seconds."""
    return (2 * np.arange(count) + 1) / (2 * INSTANTS_PER_SECOND)


def is_first_labelled(count: int, phones: Sequence[Phone]) -> bool:
    """Whether one of the first `count` instants is within the first phone, and so has its label in `labels_at`.

    False does not say that it has none: the next instant after the start is tried, no other.
    """
    start_s, end_s, _ = phones[0]
    number = math.ceil(start_s * INSTANTS_PER_SECOND - 0.5) if 0 <= start_s < count else 0
    time_s = (2 * number + 1) / (2 * INSTANTS_PER_SECOND)
    is_before_next = len(phones) == 1 or time_s < phones[1].start_s
    return number < count and start_s <= time_s < end_s and is_before_next


def nearest_frames(count: int, num_frames: int, *, sample_rate_hz: int, hop: int, first_center: int) -> Integers:
    """(count,) the frame whose centre is nearest to each instant; the earlier of two equally near.

    Args:
        count: Number of instants.
        num_frames: Frames of the utterance; an instant outside of them takes the first or last.
        sample_rate_hz: Rate in which `hop` and `first_center` are counted.
        hop: Samples between two centres.
        first_center: Sample of the first centre.
    """
    # The instant is at x = (p - first) / hop frames with p = (2j + 1) r / 200; the nearest is ceil(x - ½), the earlier
    # of two. x - ½ = ((2j + 1) r - 200 first - 100 hop) / (200 hop): exact in integers, where floats would decide ties
    # by their rounding.
    odd = 2 * np.arange(count, dtype=np.int64) + 1
    numerator = odd * sample_rate_hz - 2 * INSTANTS_PER_SECOND * first_center - INSTANTS_PER_SECOND * hop
    frames = -(-numerator // (2 * INSTANTS_PER_SECOND * hop))
    return np.clip(frames, 0, num_frames - 1)


def labels_at(times_s: Floats, phones: Sequence[Phone], index: Mapping[str, int]) -> Integers:
    """The class at each time; `UNLABELLED` in gaps, past the end, and for labels outside of `index`.

    Args:
        times_s: Seconds from the start of the utterance.
        phones: In order and without overlap.
        index: From label to class.
    """
    if not phones:
        return np.full(len(times_s), UNLABELLED, dtype=np.int64)
    starts = np.array([phone.start_s for phone in phones])
    ends = np.array([phone.end_s for phone in phones])
    classes = np.array([index.get(phone.label, UNLABELLED) for phone in phones], dtype=np.int64)
    # The last segment that starts at or before each time, -1 before the first: intervals are [start, end).
    position = np.searchsorted(starts, times_s, side="right") - 1
    inside = (position >= 0) & (times_s < ends[position])
    # -1 indexes the last segment here, which `inside` discards.
    return np.where(inside, classes[position], UNLABELLED)
