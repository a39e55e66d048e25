"""Regression of one number an utterance.

A head gives one score. Probes learn targets that are standardised with the mean and deviation of their own training
labels, so that the learning rate means the same for years as for a scale of 1 to 5. A probe keeps both numbers, and its
estimates are in the unit of the labels (docs/design/0027-tasks-on-attributes.md).

Axes: R probes, U utterances.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from repbench.downstream.problems.contract import (
    MOST,
    LabelledUtterance,
    Prediction,
    Problem,
    Quality,
    TargetStatistics,
    TaskContext,
)
from repbench.downstream.problems.scoring_grid import Integers
from repbench.downstream.problems.utterances import UTTERANCES

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class ValuePrediction(Prediction):
    """The estimate of a number for one utterance, in the unit of the reference.

    Attributes:
        reference: The number of the corpus.
        estimated: The number that is predicted.
    """

    marker: ClassVar[str] = "estimated"

    reference: float
    estimated: float


class UtteranceRegression(Problem):
    """A number for each utterance."""

    name = "utterance-regression"
    heads = UTTERANCES.heads
    prediction = ValuePrediction
    labels_are = "a finite number"
    needs = "utterances"
    min_classes = 0

    def is_label(self, labels: object) -> bool:
        """Whether it is a finite number, and no truth value."""
        return _is_number(labels)

    def names(self, labels: Any) -> tuple[str, ...]:
        """None: there are no classes."""
        return ()

    def values(self, labels: Any) -> tuple[Any, ...]:
        """The number."""
        return (labels,)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """Another number."""
        return next(values)

    def scored_classes(self, example: LabelledUtterance, index: Mapping[str, int]) -> Integers:
        """(0,): no item has a class."""
        return np.empty(0, dtype=np.int64)

    def is_scored(self, example: LabelledUtterance) -> bool:
        """Always."""
        return True

    def outputs(self, num_classes: int) -> int:
        """One score."""
        return 1

    def target_statistics(self, labels: Iterable[Any]) -> TargetStatistics:
        """Mean and standard deviation of the labels; a deviation of 1 where all are equal."""
        numbers = np.fromiter(labels, dtype=np.float64)
        return TargetStatistics(float(numbers.mean()), float(numbers.std()) or 1.0)

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> NDArray[np.float32]:
        """(1,) the number, standardised where the context has the statistics of training."""
        statistics = context.target_statistics or TargetStatistics(0.0, 1.0)
        return np.array([(example.labels - statistics.mean) / statistics.deviation], dtype=np.float32)

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """Mean squared error of the standardised numbers."""
        return (scores[..., 0] - targets).square().mean(dim=1)  # (R, U, 1) -> (R, U) -> (R,)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> float:
        """The number."""
        return float(example.labels)

    def predict(self, example: LabelledUtterance, reference: float, scores: Tensor) -> ValuePrediction:
        """The only score, (1, 1), which the probe has brought into the unit of the labels."""
        return _prediction(example, reference, float(scores[0, 0]))

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> ValuePrediction:
        """The reference."""
        return _prediction(example, float(example.labels), float(example.labels))

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> ValuePrediction:
        """The numbers 0 to 6 in turn; wrong ones are their opposites, drawn ones are up to 3 away."""
        reference = float(number % 7)
        estimated = {
            "right": reference,
            "wrong": -reference,
            "guess": reference + Random(f"guess {number}").uniform(-3, 3),
        }[quality]
        return ValuePrediction(
            id=who["id"], speaker=who["speaker"], group=who["group"], reference=reference, estimated=estimated
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: a reference or an estimate that is no finite number."""
        return (_fault_of(cast(ValuePrediction, each)) for each in predictions)

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """As `majority` the primary metric of the mean of training for every utterance; no chance.

        A number has no equal odds to be drawn by. The concordance of a constant is 0, and its correlation undefined.
        """
        measure = getattr(context.task, "measure", None)
        if not train or measure is None:
            return {"chance": None, "majority": None}
        mean = math.fsum(example.labels for example in train) / len(train)
        constant = [_prediction(example, float(example.labels), mean) for example in test]
        return {"chance": None, "majority": measure(constant, context.classes)[context.task.info.primary_metric].value}


REGRESSION = UtteranceRegression()


def _prediction(example: LabelledUtterance, reference: float, estimated: float) -> ValuePrediction:
    utterance = example.utterance
    return ValuePrediction(
        id=utterance.id, speaker=utterance.speaker, group=utterance.group, reference=reference, estimated=estimated
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def _fault_of(prediction: ValuePrediction) -> str | None:
    for name, value in (("reference", prediction.reference), ("estimate", prediction.estimated)):
        if not _is_number(value):
            return f"the {name} {value!r} is no finite number"
    return None
