"""When a frame task is asked, and which frame answers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from repbench.corpora.contract import Phone
from repbench.downstream.problems.scoring_grid import UNLABELLED, instants_s, labels_at, nearest_frames, num_instants


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100])
@pytest.mark.parametrize("num_samples", [0, 1, 79, 80, 81, 15999, 16000, 22113])
def test_every_instant_lies_before_the_end_and_none_is_missing(rate: int, num_samples: int) -> None:
    count = num_instants(num_samples, rate)
    duration = Fraction(num_samples, rate)
    assert all(Fraction(2 * j + 1, 200) < duration for j in range(max(0, count - 2), count))
    assert Fraction(2 * count + 1, 200) >= duration


@pytest.mark.parametrize(("hop", "first"), [(160, 0), (160, 200), (200, 0), (320, 200), (441, 7), (1600, 800)])
def test_the_nearest_frame_is_the_nearest_and_of_two_the_earlier(hop: int, first: int) -> None:
    rate, num_frames, count = 16000, 40, 130
    found = nearest_frames(count, num_frames, sample_rate_hz=rate, hop=hop, first_center=first)
    for j, frame in enumerate(found):
        instant = Fraction((2 * j + 1) * rate, 200)
        distances = [abs(first + k * hop - instant) for k in range(num_frames)]
        assert frame == distances.index(min(distances))


def test_instants_lie_in_the_middle_of_ten_milliseconds_each() -> None:
    assert instants_s(3).tolist() == [0.005, 0.015, 0.025]


def test_no_class_has_the_number_of_what_is_unlabelled() -> None:
    assert UNLABELLED < 0


def test_labels_are_half_open_and_gaps_are_unlabelled() -> None:
    phones = (Phone(0.0, 0.1, "AA"), Phone(0.1, 0.2, "IY"), Phone(0.3, 0.4, "xx"))
    times = np.array([0.0, 0.0999, 0.1, 0.2, 0.29, 0.3, 0.5, -0.1])
    found = labels_at(times, phones, {"AA": 0, "IY": 1})
    assert found.tolist() == [0, 0, 1, *[UNLABELLED] * 5]


def test_an_utterance_without_phones_is_unlabelled_throughout() -> None:
    assert labels_at(instants_s(3), (), {"AA": 0}).tolist() == [UNLABELLED] * 3
