"""The task `phone-ctc`: the phones in order, without their times, of speakers that are not in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from repbench.corpora import contract as corpora
from repbench.downstream.contract import (
    DownstreamInfo,
    Labels,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
    SequencePrediction,
)
from repbench.downstream.metrics import edits
from repbench.downstream.phone import SILENCES, phone_set
from repbench.errors import Unlabelled


class PhoneCTC(MeasuredByTallies):
    """Recognition of the phones in order, silences left out; two equal phones that follow each other stay two.

    An utterance without a phone is left out.

    Metrics: `phone_error_rate` (primary), edits per reference phone, summed over utterances and divided once.
    """

    info = DownstreamInfo(
        name="phone-ctc",
        problem="sequence",
        split="speaker-disjoint",
        default_head="project_ctc",
        metrics={"phone_error_rate": MetricInfo(unit="edits per phone", higher_is_better=False, upper=None)},
        primary_metric="phone_error_rate",
    )

    def labels(self, utterance: corpora.Utterance) -> Labels | None:
        """The phones of the utterance's alignment, in order."""
        if utterance.phones is None:
            raise Unlabelled("no phone alignment", utterance=utterance.id, do="Give --alignments to `corpus prepare`")
        return tuple(phone.label for phone in utterance.phones if phone.label not in SILENCES) or None

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """The corpus's phone set without its silences."""
        return tuple(label for label in phone_set(label_sets) if label not in SILENCES)

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> tuple[int, int]:
        """The edits and the reference length, summed."""
        sequences = cast(Sequence[SequencePrediction], predictions)
        return sum(each.edits for each in sequences), sum(each.reference_length for each in sequences)

    def measure_tallies(self, tallies: Sequence[tuple[int, int]], classes: Sequence[str]) -> dict[str, Measurement]:
        """The error rate of the pooled counts."""
        num_edits, reference_length = (sum(tally[place] for tally in tallies) for place in (0, 1))
        return {
            "phone_error_rate": Measurement(
                value=edits.error_rate(num_edits, reference_length),
                counts={"edits": num_edits, "reference_phones": reference_length},
            )
        }
