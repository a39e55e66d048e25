"""Sentences whose words carry the sentiment, and whose frames belong to one split each.

A frame is a sentence with slots. A neutral slot (`person`, `thing`, `place`) carries no sentiment; the others
(`quality`, `deed`, `outcome`) are filled with words of one polarity. The words are shared by all splits, so that they
can be learned; each frame belongs to one split, so that no sentence of one split occurs in another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from repbench.corpora.contract import Split

Polarity = Literal["positive", "negative"]

SENTIMENTS: tuple[Polarity, ...] = ("negative", "positive")

NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "person": (
        "the teacher", "the doctor", "my brother", "our neighbour", "the captain", "the young boy", "the judge",
        "the author", "a visitor", "the guide", "her father", "my cousin", "the tall woman", "the baker", "the nurse",
        "the pilot", "the farmer", "your uncle", "the whole group", "the engineer",
    ),
    "thing": (
        "house", "garden", "journey", "book", "kitchen", "coffee", "picture", "village", "machine", "boat",
        "television", "road", "chair", "answer", "song", "voice", "shop", "soup", "letter", "concert", "bridge",
        "jacket", "hotel", "meeting",
    ),
    "place": (
        "by the river", "in the city", "at the beach", "near the church", "on the mountain", "behind the school",
        "in our street", "after the show", "before noon", "in the usual way", "at the airport", "under the oak tree",
    ),
}  # fmt: skip

CHARGED: Mapping[Polarity, Mapping[str, tuple[str, ...]]] = {
    "positive": {
        "quality": (
            "happy", "lovely", "bright", "gentle", "brilliant", "charming", "cheerful", "delightful", "fresh",
            "friendly", "generous", "glorious", "joyful", "pleasant", "splendid", "sweet", "warm", "wonderful",
            "healthy",
        ),
        "deed": (
            "loved", "enjoyed", "praised", "admired", "treasured", "welcomed", "cherished", "adored", "improved",
            "honoured",
        ),
        "outcome": (
            "joy", "pleasure", "success", "beauty", "hope", "victory", "comfort", "harmony", "courage",
            "laughter",
        ),
    },
    "negative": {
        "quality": (
            "bitter", "boring", "broken", "cruel", "dirty", "dreadful", "foul", "gloomy", "greedy", "grim",
            "harsh", "horrible", "nasty", "painful", "poor", "rotten", "stupid", "terrible", "vicious",
        ),
        "deed": (
            "hated", "feared", "blamed", "loathed", "ruined", "despised", "spoiled", "damaged", "refused",
            "betrayed",
        ),
        "outcome": (
            "failure", "misery", "trouble", "rubbish", "disaster", "shame", "anger", "waste", "horror",
            "sorrow",
        ),
    },
}  # fmt: skip

FRAMES: Mapping[Split, tuple[str, ...]] = {
    "train": (
        "{person} said the {quality} {thing} was {quality}.",
        "{person} {deed} the {thing} {place}.",
        "They told us of the {outcome} {place}.",
        "Nobody knew how {quality} the {thing} would be.",
        "This {quality} {thing} brought {outcome} to {person}.",
        "We thought {person} {deed} that {quality} {thing}.",
        "The {thing} {place} looked {quality} to me.",
        "There was much {outcome} over the {quality} {thing}.",
        "{person} had a {quality} {thing} once.",
        "For years {person} spoke with {outcome}.",
        "Yesterday they {deed} another {quality} {thing}.",
        "Your {thing} is full of {outcome}, and so {quality}.",
    ),
    "dev": (
        "It was a {quality} {thing} {place}.",
        "I heard that {person} {deed} our {quality} {thing}.",
        "Each {quality} {thing} ended in {outcome}.",
        "Both the {thing} and {person} seemed {quality}.",
    ),
    "test": (
        "{person} gave me a {quality} and {quality} {thing}.",
        "Last week {person} {deed} the {quality} {thing}.",
        "The {quality} {thing} left us in {outcome}.",
        "How {quality} {person} was {place}!",
        "All they found {place} was {outcome}.",
        "She {deed} the {thing} with all its {outcome}.",
    ),
}

_SLOT = re.compile(r"\{(\w+)\}")


class Sentence(NamedTuple):
    """A sentence and the sentiment of its words."""

    text: str
    sentiment: Polarity


class SentencePool:
    """Draws the sentences of one split, none of them twice.

    Args:
        split: The split whose frames are used.
        generator: The source of all draws.
    """

    def __init__(self, split: Split, generator: np.random.Generator) -> None:
        self._split = split
        self._generator = generator
        self._taken: set[str] = set()

    def draw(self, sentiment: Polarity) -> Sentence:
        """A sentence of `sentiment` that this pool has not given before."""
        while True:
            # drawn again until it is new: the frames and words give many more sentences than the largest corpus has
            text = draw_sentence(self._split, sentiment, self._generator)
            if text not in self._taken:
                self._taken.add(text)
                return Sentence(text, sentiment)


def draw_sentence(split: Split, sentiment: Polarity, generator: np.random.Generator) -> str:
    """A sentence of a frame of `split`, with words of `sentiment`."""
    frames = FRAMES[split]
    frame = frames[int(generator.integers(len(frames)))]
    return _fill(frame, {**NEUTRAL, **CHARGED[sentiment]}, generator)


def normalised(sentence: str) -> str:
    """The words of a sentence in small letters, without the marks between them."""
    return " ".join(re.sub(r"[.,!?]", " ", sentence).lower().split())


def _fill(frame: str, words: Mapping[str, Sequence[str]], generator: np.random.Generator) -> str:
    used: set[str] = set()

    def word(slot: re.Match[str]) -> str:
        # no word twice in a sentence: two slots of one kind differ
        choices = [choice for choice in words[slot[1]] if choice not in used]
        chosen = choices[int(generator.integers(len(choices)))]
        used.add(chosen)
        return chosen

    text = _SLOT.sub(word, frame)
    return text[0].upper() + text[1:]
