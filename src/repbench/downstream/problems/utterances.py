"""Utterance classification: one class an utterance.

Axes: C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from repbench.downstream.problems.contract import (
    MOST,
    ClassProblem,
    LabelledUtterance,
    Prediction,
    Quality,
    TaskContext,
    is_count,
    made_up_class,
    refuse_unknown_fields,
)
from repbench.downstream.problems.scoring_grid import Integers

if TYPE_CHECKING:
    from torch import Tensor

_BELOW = float(MOST).__gt__


@dataclass(frozen=True, slots=True, kw_only=True)
class UtterancePrediction(Prediction):
    """The scores of the classes for one utterance.

    Attributes:
        reference: The reference class.
        scores: (C,) one score a class; the highest gives the estimated class (of equals, the first).
    """

    marker: ClassVar[str] = "scores"

    reference: int
    scores: tuple[float, ...]

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Self:
        """As the base class, in less time."""
        refuse_unknown_fields(line, _FIELDS)
        return cls(
            id=line["id"],
            speaker=line["speaker"],
            group=line["group"],
            reference=line["reference"],
            scores=tuple(line["scores"]),
        )

    @property
    def estimated(self) -> int:
        """The class with the highest score."""
        return self.scores.index(max(self.scores))

    @property
    def is_right(self) -> bool:
        """Whether the estimated class is the reference."""
        return self.estimated == self.reference

    def confused(self) -> tuple[tuple[int, int, int], ...]:
        """The reference and the estimated class, once."""
        return ((self.reference, self.estimated, 1),)


_FIELDS = frozenset({"id", "speaker", "group", "reference", "scores"})


class UtteranceClassification(ClassProblem):
    """A class for each utterance."""

    name = "utterance-classification"
    heads = (
        "linear",
        "mlp1",
        "mlp2",
        "gru",
        "project_mean",
        "attentive_mean",
        "statistics_mean",
        "conv",
        "blstm",
        "xvector",
    )
    fitted_heads = ("knn", "nearest", "logistic")
    prediction = UtterancePrediction
    labels_are = "a class name"
    needs = "utterances"
    needs_every_class = True

    def is_label(self, labels: object) -> bool:
        """Whether labels are one name."""
        return isinstance(labels, str)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """Another name."""
        return next(values)

    def stratum(self, labels: Any) -> str:
        """The class."""
        return str(labels)

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> Integers:
        """(1,) the class."""
        return np.array([context.index[example.labels]], dtype=np.int64)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> int:
        """The class."""
        return context.index[example.labels]

    def predict(self, example: LabelledUtterance, reference: int, scores: Tensor) -> UtterancePrediction:
        """The scores, (1, C), as they are."""
        return _prediction(example, reference, tuple(scores[0].tolist()))

    def counted(self, reference: int) -> tuple[Integers, Integers]:
        """The class, and the only row."""
        return np.array([reference]), np.array([0])  # (1,), (1,): the head gives one row an utterance

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> UtterancePrediction:
        """1 for the reference, 0 for the other classes."""
        reference = context.index[example.labels]
        return _prediction(example, reference, tuple(float(each == reference) for each in range(len(context.classes))))

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> UtterancePrediction:
        """Drawn scores, of which the estimated class has the highest."""
        count = len(context.classes)
        guess = Random(f"guess {number}")
        reference = number % count
        estimated = made_up_class(reference, quality, count, guess)
        # Uniform on [-1, 1], less 3 for all but the estimated class: no draw can change which is the highest.
        scores = tuple(guess.uniform(-1, 1) - 3 * (index != estimated) for index in range(count))
        return UtterancePrediction(
            id=who["id"], speaker=who["speaker"], group=who["group"], reference=reference, scores=scores
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: a class that does not exist, another number of scores than classes, and a score that is no number."""
        return (_fault_of(cast(UtterancePrediction, each), num_classes) for each in predictions)


UTTERANCES = UtteranceClassification()


def _prediction(example: LabelledUtterance, reference: int, scores: tuple[float, ...]) -> UtterancePrediction:
    utterance = example.utterance
    return UtterancePrediction(
        id=utterance.id, speaker=utterance.speaker, group=utterance.group, reference=reference, scores=scores
    )


def _fault_of(prediction: UtterancePrediction, num_classes: int) -> str | None:
    if not is_count(prediction.reference, most=num_classes - 1):
        return f"the reference {prediction.reference!r} is none of {num_classes} classes"
    if len(prediction.scores) != num_classes:
        return f"{len(prediction.scores)} scores for {num_classes} classes"
    # NaN fails `<`, and so does infinity; `type` keeps JSON's true out.
    if set(map(type, prediction.scores)) - {int, float} or not all(map(_BELOW, map(abs, prediction.scores))):
        return "a score is not a finite number"
    return None
