"""Metrics that tasks with one class an utterance share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

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


def utterance_predictions(predictions: Sequence[Prediction]) -> list[UtterancePrediction]:
    """The predictions, typed as those of utterances."""
    return [cast(UtterancePrediction, each) for each in predictions]
