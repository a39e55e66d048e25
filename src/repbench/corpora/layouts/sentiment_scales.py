"""Classes of sentiment and emotion from numbers, by the rules of publications.

Conventions: sentiment is in [-3, 3], from strongly negative to strongly positive; the intensity of an emotion is in
[0, 3]. Both are means over annotators and so rarely whole. Classes of whole numbers are named by number and sign: "-3"
… "0" … "+3".

`two_classes`, `three_classes` and `seven_classes` are S3PRL's for CMU-MOSEI (`downstream/mosei`). The released code of
Mockingjay calls its seven classes rounded but cuts the decimals off (2.8 → 2, -0.6 → 0), which makes the neutral class
two units wide; `seven_classes_rounded` rounds to the nearest, and so differs from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def two_classes(sentiment: float) -> str:
    """Below zero or not: "negative", "non-negative"."""
    return "negative" if sentiment < 0 else "non-negative"


def three_classes(sentiment: float) -> str:
    """The sign: "negative", "neutral" (exactly zero), "positive"."""
    return "negative" if sentiment < 0 else "positive" if sentiment > 0 else "neutral"


def seven_classes(sentiment: float) -> str:
    """The next whole number away from zero: -0.2 → "-1", 0 → "0", 1 → "+1", 1.2 → "+2"."""
    return _signed(math.floor(sentiment) if sentiment < 0 else math.ceil(sentiment))


def seven_classes_rounded(sentiment: float) -> str:
    """The nearest whole number, halves away from zero: 0.4 → "0", -0.5 → "-1", 2.8 → "+3"."""
    # `round` would take halves to the even number: 0.5 to 0 and 1.5 to 2
    return _signed(int(math.copysign(math.floor(abs(sentiment) + 0.5), sentiment)))


def strongest_emotion(intensities: Mapping[str, float]) -> str | None:
    """The emotion of the greatest intensity, the first of equals; None where all are zero.

    S3PRL names the first emotion ("happy") where all are zero; here such an utterance has none.
    """
    strongest = max(intensities, key=lambda name: intensities[name])
    return strongest if intensities[strongest] > 0 else None


def _signed(number: int) -> str:
    return f"{number:+d}" if number else "0"
