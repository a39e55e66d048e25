"""The labels of an utterance whose target is a text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Transcript:
    """The words of an utterance and, where a probe learns from it, their spelling.

    Attributes:
        words: In order, after normalisation; none for an utterance without speech.
        spellings: The units of each word; empty until an encoder, fitted on the training split, gave them.
    """

    words: tuple[str, ...]
    spellings: tuple[tuple[str, ...], ...] = ()

    @property
    def text(self) -> str:
        """The words with a space between them."""
        return " ".join(self.words)

    @property
    def units(self) -> tuple[str, ...]:
        """All units in order."""
        return tuple(unit for spelling in self.spellings for unit in spelling)
