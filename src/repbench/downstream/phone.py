"""The task `phone`: the phone every 10 ms, of speakers that are not in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np

from repbench.corpora import contract as corpora
from repbench.downstream.contract import (
    DownstreamInfo,
    FramePrediction,
    Labels,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.metrics import classification, edits
from repbench.errors import DataError, Unlabelled

SILENCES = frozenset({corpora.SILENCE, "SIL", "sp", "pau", "epi", "h#", "#", "_"})
"""Labels that stand for silence in the phone sets in use; a corpus whose silences are folded has `sil` alone."""


@dataclass(frozen=True, slots=True)
class PhoneTally:
    """The counts of some predictions."""

    confusion: classification.Confusion
    edits: int
    reference_length: int


class Phone(MeasuredByTallies):
    """Frame classification of phones.

    Metrics: `accuracy` over all labelled instants (primary); `macro_f1`; `accuracy_nonsilence` over the instants whose
    reference is no silence; `phone_error_rate` of the phones in order, repeats joined and silences dropped.
    """

    info = DownstreamInfo(
        name="phone",
        problem="frame-classification",
        split="speaker-disjoint",
        default_head="linear",
        metrics={
            "accuracy": MetricInfo(unit="proportion of instants", higher_is_better=True),
            "macro_f1": MetricInfo(unit="proportion", higher_is_better=True),
            "accuracy_nonsilence": MetricInfo(unit="proportion of instants", higher_is_better=True),
            "phone_error_rate": MetricInfo(unit="edits per phone", higher_is_better=False, upper=None),
        },
        primary_metric="accuracy",
    )

    def labels(self, utterance: corpora.Utterance) -> Labels:
        """The utterance's alignment."""
        if utterance.phones is None:
            raise Unlabelled("no phone alignment", utterance=utterance.id, do="Give --alignments to `corpus prepare`")
        return utterance.phones

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """The corpus's phone set."""
        return phone_set(label_sets)

    def collapse(self, path: Sequence[int], classes: Sequence[str]) -> list[int]:
        """The phones in order, without silences."""
        return edits.collapse(path, _silent_classes(classes))

    def primary_of(self, confusion: classification.Confusion) -> float | None:
        """Accuracy."""
        return classification.accuracy(confusion)

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> PhoneTally:
        """The pooled counts."""
        frames = cast(Sequence[FramePrediction], predictions)
        return PhoneTally(
            confusion=classification.confusion_of(
                chain.from_iterable(prediction.confusion for prediction in frames), len(classes)
            ),
            edits=sum(prediction.edits for prediction in frames),
            reference_length=sum(prediction.reference_length for prediction in frames),
        )

    def measure_tallies(self, tallies: Sequence[PhoneTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The four metrics over the counts of all."""
        confusion = classification.summed([tally.confusion for tally in tallies], len(classes))
        # A copy: the matrix itself is still measured. Rows of silent references are emptied: (C, C)
        spoken = confusion.copy()
        spoken[list(_silent_classes(classes))] = 0
        num_edits = sum(tally.edits for tally in tallies)
        reference_length = sum(tally.reference_length for tally in tallies)
        return {
            "accuracy": Measurement(value=classification.accuracy(confusion), counts=_counts(confusion)),
            "macro_f1": Measurement(value=classification.macro_f1(confusion)),
            "accuracy_nonsilence": Measurement(value=classification.accuracy(spoken), counts=_counts(spoken)),
            "phone_error_rate": Measurement(
                value=edits.error_rate(num_edits, reference_length),
                counts={"edits": num_edits, "reference_phones": reference_length},
            ),
        }


def phone_set(label_sets: LabelSets) -> tuple[str, ...]:
    """The phones of a corpus, sorted.

    Raises:
        DataError: It has none.
    """
    if not label_sets.get("phones"):
        raise DataError(
            "The corpus has no phone alignments",
            key="phones",
            do="Give --alignments to `repbench corpus prepare`, or choose another task",
        )
    return tuple(sorted(label_sets["phones"]))


def _silent_classes(classes: Sequence[str]) -> set[int]:
    return {index for index, label in enumerate(classes) if label in SILENCES}


def _counts(confusion: classification.Confusion) -> dict[str, int]:
    return {"correct": int(np.trace(confusion)), "total": int(confusion.sum())}
