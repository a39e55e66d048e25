"""The content of one synthetic utterance: its words, its labels, its language and its prosody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from repbench.corpora.synthetic.voices import ENGLISH


class Prosody(NamedTuple):
    """How an utterance is spoken, beside what speaker and chance give it.

    Attributes:
        rate: Factor on the speaking rate.
        pitch_shift: Added to espeak-ng's pitch, of 0 to 100.
        pitch_range: espeak-ng's range of pitch, of 0 to 100; None for the voice's own.
        gain_db: Level above that of the session, in dB.
    """

    rate: float = 1.0
    pitch_shift: int = 0
    pitch_range: int | None = None
    gain_db: float = 0.0


class SpokenTurn(NamedTuple):
    """A turn of one of several voices.

    Attributes:
        voice: Name of the voice.
        spoken: The text that is synthesised.
        gap_seconds: From the end of all turns before to its start; below 0 it overlaps them.
        gain_db: Level of the voice, in dB.
    """

    voice: str
    spoken: str
    gap_seconds: float
    gain_db: float


class Content(NamedTuple):
    """What an utterance says.

    Attributes:
        text: Its transcript.
        spoken: The text that is synthesised, with the marks that give it its melody.
        attributes: Its labels.
        language: Language of the text.
        prosody: Its prosody.
        turns: The turns of a mixture of voices, which has neither text nor prosody of its own; none of one voice.
    """

    text: str
    spoken: str
    attributes: Mapping[str, str]
    language: str = ENGLISH
    prosody: Prosody = Prosody()
    turns: tuple[SpokenTurn, ...] = ()


class ContentSource(Protocol):
    """The contents of one split, in the order in which its speakers speak."""

    def draw(self, speaker: str, number: int) -> Content:
        """The content of utterance `number` of a speaker, counted from 0 over all its sessions."""
        ...
