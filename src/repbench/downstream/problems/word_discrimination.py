"""Word discrimination: the distances of all pairs of spoken words, without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, cast

from repbench.downstream.problems.contract import (
    MOST,
    LabelledUtterance,
    Prediction,
    Quality,
    TaskContext,
    is_count,
)
from repbench.downstream.problems.training_free import TrainingFreeProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class WordDistances(Prediction):
    """The distances of a word to those that were drawn before it.

    Attributes:
        reference: The word.
        place: Its place among the words that were drawn; None: it was not drawn.
        aligned_distances: To the words in the places before it, of aligned frames.
        mean_distances: To the same words, of mean frames.
    """

    marker: ClassVar[str] = "aligned_distances"

    reference: str
    place: int | None
    aligned_distances: tuple[float, ...]
    mean_distances: tuple[float, ...]


class WordDiscrimination(TrainingFreeProblem):
    """Whether two spoken words are the same word."""

    name = "word-discrimination"
    prediction = WordDistances
    labels_are = "a word"
    resampled = ("speaker", "group")
    # A pair has two speakers; without one, the distances of the others to its words are not looked up.
    crosses_units = True

    def is_label(self, labels: object) -> bool:
        """Whether labels are one word."""
        return isinstance(labels, str)

    def values(self, labels: Any) -> tuple[Any, ...]:
        """The word."""
        return (labels,)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """Another word."""
        return next(values)

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """Chance: the share of pairs that are of one word. There is no majority."""
        pairs = len(test) * (len(test) - 1)
        same = sum(count * (count - 1) for count in Counter(each.labels for each in test).values())
        return {"chance": same / pairs if pairs else None, "majority": None}

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> WordDistances:
        """The word, which was not drawn: distances are not those of one utterance."""
        utterance = example.utterance
        return WordDistances(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            reference=example.labels,
            place=None,
            aligned_distances=(),
            mean_distances=(),
        )

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> WordDistances:
        """One of three words, each by several speakers."""
        guess = Random(f"guess {number}")
        near = {"right": 0.1, "wrong": 0.9}
        distances = tuple(
            guess.random() if quality == "guess" else abs(near[quality] - (other % 3 != number % 3))
            for other in range(number)
        )
        return WordDistances(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            reference=f"w{number % 3}",
            place=number,
            aligned_distances=distances,
            mean_distances=distances,
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: a place that occurs twice, and distances that are none or of another number."""
        places = Counter(cast(WordDistances, each).place for each in predictions)
        return (_fault_of(cast(WordDistances, each), places) for each in predictions)


WORD_DISCRIMINATION = WordDiscrimination()


def _fault_of(prediction: WordDistances, places: Counter[int | None]) -> str | None:
    word: object = prediction.reference
    if not isinstance(word, str):
        return f"the word is {word!r}"
    if prediction.place is not None and not is_count(prediction.place):
        return f"the place is {prediction.place!r}"
    if prediction.place is not None and places[prediction.place] > 1:
        return f"the place {prediction.place} occurs {places[prediction.place]} times"
    for distances in (prediction.aligned_distances, prediction.mean_distances):
        if len(distances) != (prediction.place or 0):
            return f"{len(distances)} distances where there are {prediction.place or 0} words before"
        # NaN fails `<=`; `type` keeps JSON's true out.
        if not all(type(each) in (int, float) and 0 <= each <= MOST for each in distances):
            return "a distance is no number from 0 on"
    return None
