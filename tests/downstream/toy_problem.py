"""A fourth kind of task in one file: a number for each utterance, by regression. Its task counts a phone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    LabelledUtterance,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
    Problem,
    TaskContext,
)
from repbench.downstream.problems.contract import Quality
from repbench.errors import Unlabelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate(Prediction):
    """A number and its estimate."""

    marker: ClassVar[str] = "estimate"

    reference: float
    estimate: float


class Regression(Problem):
    """One number an utterance: no classes, one score, the squared error as loss."""

    name = "regression"
    heads = ("linear", "mlp1", "mlp2", "project_mean")
    prediction = Estimate
    labels_are = "a number"
    needs = "utterances"
    min_classes = 0

    def is_label(self, labels: object) -> bool:
        return isinstance(labels, int | float)

    def names(self, labels: Any) -> tuple[str, ...]:
        return ()

    def values(self, labels: Any) -> tuple[Any, ...]:
        return (labels,)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        return next(values)

    def outputs(self, num_classes: int) -> int:
        return 1

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> Any:
        return np.array([example.labels], dtype=np.float32)

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        # (R, U, 1) -> (R, U) -> (R,)
        return (scores[..., 0] - targets).square().mean(dim=1)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> float:
        return float(example.labels)

    def predict(self, example: LabelledUtterance, reference: float, scores: Tensor) -> Estimate:
        return self._estimate(example, float(scores[0, 0]))

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> Estimate:
        return self._estimate(example, float(example.labels))

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> Estimate:
        error = {"right": 0.0, "wrong": 9.0, "guess": Random(number).uniform(-3, 3)}[quality]
        reference = float(number % 7)
        return Estimate(
            id=who["id"], speaker=who["speaker"], group=who["group"], reference=reference, estimate=reference + error
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        for each in predictions:
            estimate = cast(Estimate, each).estimate
            yield None if isinstance(estimate, float) else f"the estimate {estimate!r} is no number"

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """The error of the median of training."""
        middle = median(each.labels for each in train)
        return {"chance": None, "majority": sum(abs(each.labels - middle) for each in test) / len(test)}

    def _estimate(self, example: LabelledUtterance, value: float) -> Estimate:
        utterance = example.utterance
        return Estimate(
            id=utterance.id, speaker=utterance.speaker, group=utterance.group,
            reference=float(example.labels), estimate=value,
        )  # fmt: skip


class PhoneCount(MeasuredByTallies):
    """How often a phone occurs in an utterance, by its mean absolute error."""

    info = DownstreamInfo(
        name="phone-count",
        problem=Regression(),
        split="speaker-disjoint",
        default_head="mlp1",
        metrics={"mean_error": MetricInfo(unit="phones", higher_is_better=False, upper=None)},
        primary_metric="mean_error",
    )

    def labels(self, utterance: Utterance) -> int:
        if utterance.phones is None:
            raise Unlabelled("no phone alignment", utterance=utterance.id)
        return sum(phone.label == "AA" for phone in utterance.phones)

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        return ()

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> list[float]:
        return [abs(each.estimate - each.reference) for each in cast(Sequence[Estimate], predictions)]

    def measure_tallies(self, tallies: Sequence[list[float]], classes: Sequence[str]) -> dict[str, Measurement]:
        errors = [error for tally in tallies for error in tally]
        value = sum(errors) / len(errors) if errors else None
        return {"mean_error": Measurement(value=value, counts={"utterances": len(errors)})}


downstreams = {"phone-count": PhoneCount}
