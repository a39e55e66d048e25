"""The task `sentiment`: positive or negative, of speakers that are not in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from repbench.corpora.contract import AttributeValue, Utterance
from repbench.downstream.attribute import AttributeTask
from repbench.downstream.attribute import ClassTally as SentimentTally
from repbench.downstream.attribute_values import EVERY_VALUE, attributes_to_read, is_number, meant
from repbench.downstream.contract import DownstreamInfo, Labels, LabelSets
from repbench.downstream.utterances import AUC, METRICS
from repbench.errors import DataError, UsageError

__all__ = ["Sentiment", "SentimentTally"]

Sign = Literal["positive", "negative"]

ATTRIBUTES = ("sentiment", "valence", "emotion")
"""Attributes looked for, in this order, where none is named."""

POSITIVE = ("positive", "pos", "happy", "happiness", "joy")
NEGATIVE = ("negative", "neg", "angry", "anger", "sad", "sadness", "fear", "fearful", "disgust")
UNASKED = ("neutral", "neu", "calm", "surprise", "surprised")
"""Words that carry neither sign: such an utterance is left out."""


class Sentiment(AttributeTask):
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
        metrics={**METRICS, "auc": AUC},
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
        _refuse_other_types(midpoint, positive=positive, negative=negative, unasked=unasked)
        super().__init__(attributes_to_read(attribute, ATTRIBUTES), EVERY_VALUE)
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
                if self._signs.setdefault(meant(word), sign) != sign:
                    raise UsageError(
                        f"`{word}` is given two meanings",
                        key="task",
                        do="Name it once among task.positive, task.negative, task.unasked",
                    )

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """Negative and positive."""
        return ("negative", "positive")

    def class_of(self, value: AttributeValue, name: str, utterance: Utterance) -> Sign | None:
        """The sign, "positive" or "negative"; None where the utterance is left out."""
        key = meant(value)
        if key in self._signs:
            return self._signs[key]
        middle = utterance.scales.get(name) if self._midpoint is None else self._midpoint
        # After the look-up: a number that the user named is a code, whatever the scale.
        if isinstance(key, float) and middle is not None:
            return "positive" if key > middle else "negative" if key < middle else None
        lists = "--set 'task.positive=[…]', 'task.negative=[…]' or 'task.unasked=[…]'"
        if isinstance(key, str) or any(isinstance(each, float) for each in self._signs):
            what = f"`{value}` of the attribute `{name}` is neither positive, negative nor unasked"
            raise DataError(what, utterance=utterance.id, do=f"Name it with {lists}")
        raise DataError(
            f"`{value}` of the attribute `{name}` may be the code of a class: the corpus declares no scale",
            utterance=utterance.id,
            do=f"Name each code with {lists}; if the numbers are a scale, give its middle with --set task.midpoint=0",
        )


def _refuse_other_types(midpoint: object, **words: object) -> None:
    if midpoint is not None and not is_number(midpoint):
        raise UsageError(f"`task.midpoint` must be a number, but is {midpoint!r}", key="task.midpoint")
    for name, value in words.items():
        if (
            isinstance(value, str)
            or not isinstance(value, Sequence)
            or not all(isinstance(each, str) or is_number(each) for each in value)
        ):
            raise UsageError(
                f"`task.{name}` must be a list of words and numbers, but is {value!r}",
                key=f"task.{name}",
                do=f"Write --set 'task.{name}=[happy, joy]' or --set 'task.{name}=[1, 3]'",
            )
