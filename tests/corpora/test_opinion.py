"""Classes of opinion at their borders."""

from __future__ import annotations

import pytest

from repbench.corpora.layouts.sentiment_scales import (
    seven_classes,
    seven_classes_rounded,
    strongest_emotion,
    three_classes,
    two_classes,
)


@pytest.mark.parametrize(
    ("sentiment", "two", "three", "seven", "rounded"),
    [
        (-3.0, "negative", "negative", "-3", "-3"),
        (-2.6, "negative", "negative", "-3", "-3"),
        (-2.5, "negative", "negative", "-3", "-3"),
        (-2.0, "negative", "negative", "-2", "-2"),
        (-1.4, "negative", "negative", "-2", "-1"),
        (-1.0, "negative", "negative", "-1", "-1"),
        (-0.6, "negative", "negative", "-1", "-1"),  # cut off, as Mockingjay's release does, it would be 0
        (-0.5, "negative", "negative", "-1", "-1"),
        (-0.2, "negative", "negative", "-1", "0"),
        (-0.0, "non-negative", "neutral", "0", "0"),
        (0.0, "non-negative", "neutral", "0", "0"),
        (0.2, "non-negative", "positive", "+1", "0"),
        (0.5, "non-negative", "positive", "+1", "+1"),
        (1.0, "non-negative", "positive", "+1", "+1"),
        (1.4, "non-negative", "positive", "+2", "+1"),
        (2.0, "non-negative", "positive", "+2", "+2"),
        (2.4, "non-negative", "positive", "+3", "+2"),
        (2.8, "non-negative", "positive", "+3", "+3"),  # cut off it would be +2
        (3.0, "non-negative", "positive", "+3", "+3"),
    ],
)
def test_classes_at_their_borders(sentiment: float, two: str, three: str, seven: str, rounded: str) -> None:
    assert two_classes(sentiment) == two
    assert three_classes(sentiment) == three
    assert seven_classes(sentiment) == seven
    assert seven_classes_rounded(sentiment) == rounded


def test_the_strongest_emotion_is_the_first_of_equals_and_none_of_zeros() -> None:
    assert strongest_emotion({"happy": 0.3, "sad": 0.7, "fear": 0.1}) == "sad"
    assert strongest_emotion({"happy": 0.0, "sad": 0.7, "fear": 0.7}) == "sad"
    assert strongest_emotion({"happy": 0.0, "sad": 0.0, "fear": 0.0}) is None
