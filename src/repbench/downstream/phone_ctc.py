"""Which phones are being said, in which order? Asked of speakers never heard in training, without telling when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repbench.corpora import contract as corpora
from repbench.downstream.contract import (
    DownstreamInfo,
    Labels,
    LabelSets,
    Measurement,
    MetricInfo,
    Prediction,
    SequencePrediction,
)
from repbench.downstream.metrics import edits
from repbench.downstream.phone import SILENCES, phone_set
from repbench.errors import Unlabelled


class PhoneCTC:
    """Recognition of the phones in order, silences left out; two equal phones that follow each other stay two.

    Nothing is asked of an utterance that holds no phone.

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

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        """The error rate of the pooled counts."""
        answers = [prediction for prediction in predictions if isinstance(prediction, SequencePrediction)]
        num_edits = sum(answer.edits for answer in answers)
        reference_length = sum(answer.reference_length for answer in answers)
        return {
            "phone_error_rate": Measurement(
                value=edits.error_rate(num_edits, reference_length),
                counts={"edits": num_edits, "reference_phones": reference_length},
            )
        }
