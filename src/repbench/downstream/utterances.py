"""Metrics that tasks with one class an utterance share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from repbench.downstream.contract import Measurement, MetricInfo, Prediction, UtterancePrediction
from repbench.downstream.metrics import classification

METRICS = {
    "accuracy": MetricInfo(unit="proportion of utterances", higher_is_better=True),
    "macro_f1": MetricInfo(unit="proportion", higher_is_better=True),
}


BALANCED_ACCURACY = MetricInfo(unit="mean recall of the classes", higher_is_better=True)
AUC = MetricInfo(unit="area under the ROC curve", higher_is_better=True)


def confusion_of(predictions: Sequence[Prediction], num_classes: int) -> classification.Confusion:
    """(C, C) counts of the estimated classes by their references."""
    pairs = ((each.reference, each.estimated, 1) for each in utterance_predictions(predictions))
    return classification.confusion_of(pairs, num_classes)


def measure_classes(predictions: Sequence[Prediction], num_classes: int) -> dict[str, Measurement]:
    """Accuracy and macro-F1 of the classes with the highest scores."""
    return measure_confusion(confusion_of(predictions, num_classes))


def measure_confusion(confusion: classification.Confusion) -> dict[str, Measurement]:
    """Accuracy and macro-F1."""
    counts = {"correct": int(np.trace(confusion)), "total": int(confusion.sum())}
    return {
        "accuracy": Measurement(value=classification.accuracy(confusion), counts=counts),
        "macro_f1": Measurement(value=classification.macro_f1(confusion)),
    }


def counts_of(predictions: Sequence[Prediction], num_classes: int) -> classification.ClassCounts:
    """Counts of the classes that occur, as references and as estimates."""
    own = utterance_predictions(predictions)
    return classification.class_counts([each.reference for each in own], [each.estimated for each in own], num_classes)


def measure_margins(margins: NDArray[np.int64]) -> dict[str, Measurement]:
    """Accuracy and macro-F1 of counts (3, C), as `summed_counts` gives them."""
    correct, total, _ = margins.sum(axis=1)
    return {
        "accuracy": Measurement(
            value=classification.accuracy_of(margins), counts={"correct": int(correct), "total": int(total)}
        ),
        "macro_f1": Measurement(value=classification.macro_f1_of(margins)),
    }


def utterance_predictions(predictions: Sequence[Prediction]) -> list[UtterancePrediction]:
    """The predictions, typed as those of utterances."""
    return [cast(UtterancePrediction, each) for each in predictions]
