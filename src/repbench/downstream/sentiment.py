"""Is the speaker's message or mood positive or negative? Asked of speakers never heard in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from repbench.corpora.contract import AttributeValue, Utterance
from repbench.downstream.contract import DownstreamInfo, Labels, LabelSets, Measurement, MetricInfo, Prediction
from repbench.downstream.metrics import classification
from repbench.downstream.utterances import METRICS, confusion_of, measure_confusion, utterance_predictions
from repbench.errors import DataError, Unlabelled, UsageError

Sign = Literal["positive", "negative"]

ATTRIBUTES = ("sentiment", "valence", "emotion")
"""Attributes looked for, in this order, where none is named."""

POSITIVE = ("positive", "pos", "happy", "happiness", "joy")
NEGATIVE = ("negative", "neg", "angry", "anger", "sad", "sadness", "fear", "fearful", "disgust")
UNASKED = ("neutral", "neu", "calm", "surprise", "surprised")
"""Words that carry neither sign: nothing is asked of such an utterance."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of some predictions, and what ranks them."""

    confusion: classification.Confusion
    positive: list[bool]
    margins: list[float]


class Sentiment:
    """Binary sentiment from any attribute of the corpus.

    A number is positive above zero, negative below, and not asked at zero. A word is looked up, without regard to
    case, among `positive`, `negative` and `unasked`; a word in none of them is an error that names it.

    Metrics: `accuracy` (primary), `macro_f1`, `auc` of the positive class.

    Args:
        attribute: The attribute to read; None: the first of `sentiment`, `valence`, `emotion` that an utterance has.
        positive: Words of the positive class.
        negative: Words of the negative class.
        unasked: Words of which nothing is asked.
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
        positive: Sequence[str] = POSITIVE,
        negative: Sequence[str] = NEGATIVE,
        unasked: Sequence[str] = UNASKED,
    ) -> None:
        _refuse_other_types(attribute, positive=positive, negative=negative, unasked=unasked)
        self._attributes = ATTRIBUTES if attribute is None else (attribute,)
        self._signs: dict[str, Sign | None] = {}
        named: list[tuple[Sequence[str], Sign | None]] = [
            (positive, "positive"),
            (negative, "negative"),
            (unasked, None),
        ]
        for words, sign in named:
            for word in words:
                if self._signs.setdefault(word.casefold(), sign) != sign:
                    raise UsageError(
                        f"`{word}` is given two meanings",
                        key="task",
                        do="Name it once among task.positive, task.negative, task.unasked",
                    )

    def labels(self, utterance: Utterance) -> Labels | None:
        """The sign of what is said: "positive" or "negative"; None where nothing is asked."""
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

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        """Accuracy, macro-F1 and the area under the curve of the positive class's margin."""
        return self.measure_tallies([self.tally(predictions, classes)], classes)

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Tally:
        """The confusion matrix, and the margin of the positive class for each utterance."""
        answers, positive = utterance_predictions(predictions), classes.index("positive")
        return Tally(
            confusion=confusion_of(predictions, len(classes)),
            positive=[answer.reference == positive for answer in answers],
            margins=[answer.scores[positive] - answer.scores[1 - positive] for answer in answers],
        )

    def measure_tallies(self, tallies: Sequence[Tally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The three metrics over all."""
        area = classification.auc(
            [each for tally in tallies for each in tally.positive],
            [each for tally in tallies for each in tally.margins],
        )
        confusion = classification.summed([tally.confusion for tally in tallies], len(classes))
        return {**measure_confusion(confusion), "auc": Measurement(value=area)}

    def _sign(self, value: AttributeValue, name: str, utterance: Utterance) -> Sign | None:
        if not isinstance(value, str):
            return "positive" if value > 0 else "negative" if value < 0 else None
        try:
            return self._signs[value.strip().casefold()]
        except KeyError:
            raise DataError(
                f"`{value}` of the attribute `{name}` is neither positive, negative nor unasked",
                utterance=utterance.id,
                do="Name it with --set task.positive=[…], task.negative=[…] or task.unasked=[…]",
            ) from None


def _refuse_other_types(attribute: object, **words: object) -> None:
    if attribute is not None and not isinstance(attribute, str):
        raise UsageError(f"`task.attribute` must be a name, but is {attribute!r}", key="task.attribute")
    for name, value in words.items():
        if (
            isinstance(value, str)
            or not isinstance(value, Sequence)
            or not all(isinstance(each, str) for each in value)
        ):
            raise UsageError(
                f"`task.{name}` must be a list of words, but is {value!r}",
                key=f"task.{name}",
                do=f"Write --set 'task.{name}=[happy, joy]'",
            )
