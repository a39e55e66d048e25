"""Voices of espeak-ng, drawn from the corpus seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from repbench.corpora.synthetic.conditions import generator_for

VOICE_NAME_FORMAT = "s{:03d}"
"""A speaker's id, and the name of the voice file in English."""

ENGLISH = "en"

_LANGUAGE_LINES = {
    ENGLISH: ("language en-us", "phonemes en-us", "dictrules 3 6"),
    "de": ("language de", "tunes s4 c1 q4 e1"),
    "es": ("language es", "dictrules 1", "tunes s6 c6 q6 e6"),
}
"""What espeak-ng's own voices of these languages say of pronunciation and melody."""

_NUM_FORMANTS = 9  # espeak-ng's formants 0 to 8; 0 is a low-frequency addition, 1 to 3 make the vowels


class Voice(NamedTuple):
    """The voice of one speaker.

    Attributes:
        definition: The text of the espeak-ng voice file.
        words_per_minute: Mean speaking rate.
    """

    definition: str
    words_per_minute: float


def voice_name(speaker: str, language: str) -> str:
    """The name of the voice file of a speaker in a language."""
    return speaker if language == ENGLISH else f"{speaker}-{language}"


def draw_voice(speaker: str, spread: float, language: str = ENGLISH) -> Voice:
    """The voice of `speaker`, a function of the corpus seed, the speaker's id and `spread` alone.

    The length of the vocal tract and the pitch go together, as they do among people; the rest is independent.

    Args:
        speaker: Its id.
        spread: Factor on every deviation from the average voice; less makes the speakers harder to tell apart.
        language: The language spoken; the voice is the same in each.
    """
    # The order of the draws is part of the corpus, in the lines of the file below too.
    draws = generator_for("voice", speaker)
    size = float(np.clip(draws.normal(), -1.8, 1.8)) * spread
    # a longer vocal tract (`size` above 0) lowers the pitch here and the formants in `_formants`
    pitch_hz = 125.0 * 2.0 ** (-0.35 * size + 0.22 * spread * draws.normal())
    pitch_range = 1.38 + 0.10 * spread * float(np.clip(draws.normal(), -2.0, 2.0))
    lines = [
        f"name {voice_name(speaker, language)}",
        *_LANGUAGE_LINES[language],
        f"pitch {pitch_hz:.0f} {pitch_hz * pitch_range:.0f}",
        f"flutter {_around(draws, 4, 2.0 * spread, 0, 9)}",
        f"roughness {_around(draws, 2, 1.2 * spread, 0, 5)}",
        f"voicing {_around(draws, 100, 18 * spread, 60, 150)}",
        f"consonants {_around(draws, 100, 15 * spread, 60, 140)} {_around(draws, 100, 15 * spread, 60, 140)}",
        *_formants(draws, size, spread),
        *_breath(draws, spread),
    ]
    return Voice("\n".join(lines) + "\n", 205.0 + 14.0 * spread * float(np.clip(draws.normal(), -2.0, 2.0)))


def _formants(draws: np.random.Generator, size: float, spread: float) -> list[str]:
    scale = 103.0 * (1.0 - 0.065 * size)
    return [
        f"formant {number} {scale + 2.0 * spread * draws.normal():.0f} "
        f"{_around(draws, 100, 14 * spread, 60, 150)} {_around(draws, 105, 12 * spread, 70, 150)}"
        for number in range(_NUM_FORMANTS)
    ]


def _breath(draws: np.random.Generator, spread: float) -> list[str]:
    amount = max(0.0, 1.0 + 2.0 * spread * draws.normal())
    levels = " ".join(f"{amount * weight:.0f}" for weight in (0, 1, 2, 2, 2, 2, 2, 1))
    return [f"breath {levels}", "breathw 150 150 200 200 400 400 600 600"] if amount >= 0.5 else []


def _around(draws: np.random.Generator, mean: float, deviation: float, lowest: int, highest: int) -> int:
    return int(np.clip(round(mean + deviation * draws.normal()), lowest, highest))
