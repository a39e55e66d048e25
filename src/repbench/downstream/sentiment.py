"""The task `sentiment`: positive or negative, of speakers that are not in training."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from repbench.corpora.contract import AttributeValue, Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    Labels,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.metrics import classification
from repbench.downstream.utterances import METRICS, confusion_of, measure_confusion, utterance_predictions
from repbench.errors import DataError, Unlabelled, UsageError

Sign = Literal["positive", "negative"]

ATTRIBUTES = ("sentiment", "valence", "emotion")
"""Attributes looked for, in this order, where none is named."""

POSITIVE = ("positive", "pos", "happy", "happiness", "joy")
NEGATIVE = ("negative", "neg", "angry", "anger", "sad", "sadness", "fear", "fearful", "disgust")
UNASKED = ("neutral", "neu", "calm", "surprise", "surprised")
"""Words that carry neither sign: such an utterance is left out."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class SentimentTally:
    """The counts of some predictions, and the margins that rank them."""

    confusion: classification.Confusion
    positive: list[bool]
    margins: list[float]


class Sentiment(MeasuredByTallies):
    """Binary sentiment from any attribute of the corpus.

    A word or number is looked up, without regard to case, among `positive`, `negative` and `unasked`. A number in none
    of them is positive above the middle of its scale, negative below, and left out in the middle. The corpus declares
    the scale (`Utterance.scales`), or `midpoint` gives its middle. Without a scale a number may be the code of a class,
    and like a word in none of the lists it is an error that names it.

    Metrics: `accuracy` (primary), `macro_f1`, `auc` of the positive class.

    Args:
        attribute: The attribute to read; None: the first of `sentiment`, `valence`, `emotion` that an utterance has.
        positive: Words and numbers of the positive class.
        negative: Words and numbers of the negative class.
        unasked: Words and numbers whose utterances are left out.
        midpoint: The middle of the scale of other numbers; None: as the corpus declares.
    """

    info = DownstreamInfo(
        name="sentiment",
        problem="utterance-classification",
        split="speaker-disjoint",
        default_head="mlp1",
        metrics={**METRICS, "auc": MetricInfo(unit="area under the ROC curve", higher_is_better=True)},
        primary_metric="accuracy",
    )

    def __init__(
        self,
        *,
        attribute: str | None = None,
        positive: Sequence[AttributeValue] = POSITIVE,
        negative: Sequence[AttributeValue] = NEGATIVE,
        unasked: Sequence[AttributeValue] = UNASKED,
        midpoint: float | None = None,
    ) -> None:
        _refuse_other_types(attribute, midpoint, positive=positive, negative=negative, unasked=unasked)
        self._attributes = ATTRIBUTES if attribute is None else (attribute,)
        self._midpoint = midpoint
        self._signs: dict[str | float, Sign | None] = {}
        named: list[tuple[Sequence[AttributeValue], Sign | None]] = [
            (positive, "positive"),
            (negative, "negative"),
            (unasked, None),
        ]
        for words, sign in named:
            for word in words:
                # `setdefault` returns the sign of an earlier list if the word is in two; None, left out, is one too.
                if self._signs.setdefault(_meant(word), sign) != sign:
                    raise UsageError(
                        f"`{word}` is given two meanings",
                        key="task",
                        do="Name it once among task.positive, task.negative, task.unasked",
                    )

    def labels(self, utterance: Utterance) -> Labels | None:
        """The sign, "positive" or "negative"; None where the utterance is left out."""
        name = next((name for name in self._attributes if name in utterance.attributes), None)
        if name is None:
            raise Unlabelled(
                f"no attribute {' or '.join(self._attributes)}",
                utterance=utterance.id,
                do="Name the attribute with --set task.attribute=NAME",
            )
        return self._sign(utterance.attributes[name], name, utterance)

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """Negative and positive."""
        return ("negative", "positive")

    def primary_of(self, confusion: classification.Confusion) -> float | None:
        """Accuracy."""
        return classification.accuracy(confusion)

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> SentimentTally:
        """The confusion matrix, and the margin of the positive class for each utterance."""
        given, positive = utterance_predictions(predictions), classes.index("positive")
        return SentimentTally(
            confusion=confusion_of(predictions, len(classes)),
            positive=[each.reference == positive for each in given],
            margins=[each.scores[positive] - each.scores[1 - positive] for each in given],
        )

    def measure_tallies(self, tallies: Sequence[SentimentTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """Accuracy, macro-F1 and the area under the curve of the positive class's margin."""
        area = classification.auc(
            [each for tally in tallies for each in tally.positive],
            [each for tally in tallies for each in tally.margins],
        )
        confusion = classification.summed([tally.confusion for tally in tallies], len(classes))
        return {**measure_confusion(confusion), "auc": Measurement(value=area)}

    def _sign(self, value: AttributeValue, name: str, utterance: Utterance) -> Sign | None:
        meant = _meant(value)
        if meant in self._signs:
            return self._signs[meant]
        middle = utterance.scales.get(name) if self._midpoint is None else self._midpoint
        # After the look-up: a number that the user named is a code, whatever the scale.
        if isinstance(meant, float) and middle is not None:
            return "positive" if meant > middle else "negative" if meant < middle else None
        lists = "--set 'task.positive=[…]', 'task.negative=[…]' or 'task.unasked=[…]'"
        if isinstance(meant, str) or any(isinstance(each, float) for each in self._signs):
            what = f"`{value}` of the attribute `{name}` is neither positive, negative nor unasked"
            raise DataError(what, utterance=utterance.id, do=f"Name it with {lists}")
        raise DataError(
            f"`{value}` of the attribute `{name}` may be the code of a class: the corpus declares no scale",
            utterance=utterance.id,
            do=f"Name each code with {lists}; if the numbers are a scale, give its middle with --set task.midpoint=0",
        )


def _meant(value: AttributeValue) -> str | float:
    """The form in which a value is looked up: a number, also of one that is written as a word, or a word."""
    if isinstance(value, str):
        word = value.strip().casefold()
        return float(word) if _NUMBER.fullmatch(word) else word  # not by `float` alone, which reads "nan" and "inf"
    return float(value)


def _refuse_other_types(attribute: object, midpoint: object, **words: object) -> None:
    if attribute is not None and not isinstance(attribute, str):
        raise UsageError(f"`task.attribute` must be a name, but is {attribute!r}", key="task.attribute")
    if midpoint is not None and not _is_number(midpoint):
        raise UsageError(f"`task.midpoint` must be a number, but is {midpoint!r}", key="task.midpoint")
    for name, value in words.items():
        if (
            isinstance(value, str)
            or not isinstance(value, Sequence)
            or not all(isinstance(each, str) or _is_number(each) for each in value)
        ):
            raise UsageError(
                f"`task.{name}` must be a list of words and numbers, but is {value!r}",
                key=f"task.{name}",
                do=f"Write --set 'task.{name}=[happy, joy]' or --set 'task.{name}=[1, 3]'",
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
