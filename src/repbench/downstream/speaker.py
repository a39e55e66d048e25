"""The task `speaker`: the speaker among those of training, in chapters or sessions that are not in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    Labels,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    Prediction,
)
from repbench.downstream.metrics import classification
from repbench.downstream.utterances import METRICS, confusion_of, measure_confusion
from repbench.errors import Unlabelled


class Speaker(MeasuredByTallies):
    """Speaker identification among the speakers of the training split.

    Metrics: `accuracy` (primary), `macro_f1`.
    """

    info = DownstreamInfo(
        name="speaker",
        problem="utterance-classification",
        split="within-speaker",
        default_head="mlp1",
        metrics=METRICS,
        primary_metric="accuracy",
    )

    def labels(self, utterance: Utterance) -> Labels:
        """The utterance's speaker."""
        if utterance.speaker is None:
            raise Unlabelled("no speaker", utterance=utterance.id, do="Give the corpus a speaker column")
        return utterance.speaker

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """The speakers of training."""
        return tuple(sorted({label for label in train if isinstance(label, str)}))

    def primary_of(self, confusion: classification.Confusion) -> float | None:
        """Accuracy."""
        return classification.accuracy(confusion)

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> classification.Confusion:
        """The confusion matrix."""
        return confusion_of(predictions, len(classes))

    def measure_tallies(
        self, tallies: Sequence[classification.Confusion], classes: Sequence[str]
    ) -> dict[str, Measurement]:
        """Accuracy and macro-F1 of the summed matrices."""
        return measure_confusion(classification.summed(tallies, len(classes)))
