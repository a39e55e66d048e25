"""The task `speaker`: the speaker among those of training, in chapters or sessions that are not in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

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
from repbench.downstream.utterances import METRICS, counts_of, measure_margins
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

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> classification.ClassCounts:
        """Counts of the speakers that occur."""
        return counts_of(predictions, len(classes))

    def measure_tallies(
        self, tallies: Sequence[classification.ClassCounts], classes: Sequence[str]
    ) -> dict[str, Measurement]:
        """Accuracy and macro-F1 of all counts together."""
        return measure_margins(classification.summed_counts(tallies, len(classes)))

    def without_each(
        self, tallies: Sequence[classification.ClassCounts], classes: Sequence[str]
    ) -> Iterator[dict[str, Measurement]]:
        """`measure_tallies` without each tally in turn; all are added once."""
        whole = classification.summed_counts(tallies, len(classes))
        for each in tallies:
            others = whole.copy()
            others[:, each.classes] -= each.counts
            yield measure_margins(others)
