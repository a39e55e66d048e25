"""The contract of a downstream: a task with its labels, its classes and its metrics.

A task does not know its corpus: it reads the label off an utterance. A downstream plugin (entry-point group
`repbench.downstreams`) is a callable that takes the task's options as keywords and returns a `Downstream`; a class with
keyword-only options is the usual way. Its kind (frames, utterances, sequences, or a new one) is a problem: see
`repbench.downstream.problems`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from repbench.corpora.contract import Utterance
from repbench.downstream.problems import PROBLEMS, Problem, problem_named
from repbench.downstream.problems.contract import (
    SPLIT_POLICIES,
    LabelledUtterance,
    Labels,
    MeasuredByConfusion,
    Prediction,
    SplitPolicy,
    TaskContext,
    label_names,
)
from repbench.downstream.problems.frames import FrameDownstream, FramePrediction
from repbench.downstream.problems.sequences import SequencePrediction
from repbench.downstream.problems.training_free import (
    FrozenFeatures,
    Outcome,
    ReadSplit,
    SplitFrames,
    TrainingFreeProblem,
)
from repbench.downstream.problems.utterances import UtterancePrediction
from repbench.errors import PluginError, did_you_mean

__all__ = [
    "CONTRACT_VERSION",
    "Downstream",
    "DownstreamInfo",
    "FrameDownstream",
    "FramePrediction",
    "FrozenFeatures",
    "LabelSets",
    "LabelledUtterance",
    "Labels",
    "MeasuredByConfusion",
    "MeasuredByTallies",
    "Measurement",
    "MeasuresWithoutEach",
    "MetricInfo",
    "Outcome",
    "Prediction",
    "Problem",
    "ReadSplit",
    "SequencePrediction",
    "SplitFrames",
    "SplitPolicy",
    "TaskContext",
    "TrainingFreeProblem",
    "UtterancePrediction",
    "WeighsDraws",
    "label_names",
    "problem_of",
    "splits_read",
    "tallied",
]

CONTRACT_VERSION = 1

IntervalScale = Literal["linear", "logit"]

LabelSets = Mapping[str, tuple[str, ...]]
"""The label sets of a corpus, as in `Corpus.label_sets`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """Unit, direction and bounds of a metric.

    Attributes:
        unit: Of the value.
        higher_is_better: Whether a higher value is better.
        lower: Least value it can take; None: any.
        upper: Greatest value it can take; None: any.
        num_classes: The number of classes with which it is defined; None: any.
        interval: The scale on which an interval is even: `linear`, or `logit` for a rate that can be near 0
            (docs/design/0033-verification.md).
    """

    unit: str
    higher_is_better: bool
    lower: float | None = 0.0
    upper: float | None = 1.0
    num_classes: int | None = None
    interval: IntervalScale = "linear"

    def __post_init__(self) -> None:
        better: object = self.higher_is_better
        if not isinstance(better, bool):
            what = f"`higher_is_better` must be True or False, but is {better!r}"
            raise PluginError(what, key=f"MetricInfo of {self.unit}")
        if self.interval not in get_args(IntervalScale):
            what = f"`interval` must be {' or '.join(get_args(IntervalScale))}, but is {self.interval!r}"
            raise PluginError(what, key=f"MetricInfo of {self.unit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamInfo:
    """The declaration of a task.

    Attributes:
        name: Name of the task.
        problem: Its kind: the name of a problem in `repbench.downstream.problems.PROBLEMS`, or a `Problem` object.
        split: Split policy: "speaker-disjoint" (no speaker is in two of train, dev and test) or "within-speaker" (each
            speaker is in all three).
        default_head: Head used unless another is named.
        metrics: Every metric that is measured.
        primary_metric: The one that selects and ranks.
        contract: Version of this contract.
    """

    name: str
    problem: str | Problem
    split: SplitPolicy
    default_head: str
    metrics: Mapping[str, MetricInfo]
    primary_metric: str
    contract: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        if self.contract != CONTRACT_VERSION:
            raise PluginError(f"`contract` must be {CONTRACT_VERSION}, but is {self.contract}", key=self.name)
        if self.split not in SPLIT_POLICIES:
            what = f"`split` must be {' or '.join(SPLIT_POLICIES)}, but is `{self.split}`"
            raise PluginError(what, key=self.name, do=did_you_mean(self.split, SPLIT_POLICIES).strip())
        if self.primary_metric not in self.metrics:
            raise PluginError(f"`primary_metric` {self.primary_metric} is not among the task's metrics", key=self.name)
        # By identity: a name in `PROBLEMS` must mean one object.
        if isinstance(self.problem, Problem) and PROBLEMS.get(self.problem.name, self.problem) is not self.problem:
            what = f"`problem` has the name of another one, `{self.problem.name}`"
            raise PluginError(what, key=self.name, do="Give the problem another name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A metric's value and the counts it was divided from; None where it is undefined."""

    value: float | None
    counts: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Downstream(Protocol):
    """A task.

    One that measures by tallies, which a new task should, extends `MeasuredByTallies`. The metrics of a task with
    `measure` alone are computed from all predictions again for each speaker that is left out: the same values, later.

    A task of frames or utterances may have `primary_of(confusion)`, from counts (C, C), reference by estimated class,
    to its primary metric (None where it is undefined): selection on dev then builds no predictions.
    """

    info: DownstreamInfo

    def labels(self, utterance: Utterance) -> Any:
        """The labels of an utterance.

        Returns:
            Timed segments (frames), class names in order (sequences), a class name (utterances), or the labels of
            another problem; None where the task, by its documented rule, leaves the utterance out.

        Raises:
            Unlabelled: The utterance is in the task, but the corpus has no label for it.
        """
        ...

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """The sorted classes, known before any test label is seen; none for a problem without classes.

        Args:
            label_sets: Those that the corpus declares.
            train: Labels of the training utterances.
        """
        ...

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        """Every metric of `info.metrics` over the pooled predictions; a pure function, order does not matter."""
        ...


@runtime_checkable
class WeighsDraws(Protocol):
    """The method of a task of utterances or sequences that is trained on some utterances more often than on others."""

    def sampling_weights(self, labels: Sequence[Any]) -> Sequence[float] | None:
        """A positive weight for each training utterance, from the labels of all that are trained on.

        Each place of a batch is then drawn anew, with odds in proportion to the weights. Dev and test are not drawn.

        Returns:
            The weights; None where each utterance is drawn once before any is drawn again.
        """
        ...


@runtime_checkable
class MeasuresWithoutEach(Protocol):
    """The method of a task that measures the leaving out of each cluster faster than `measure_tallies` would.

    Intervals need the metrics without each speaker. A task whose items have to be sorted, or belong to two clusters as
    the trials of pairs do, can share the work between these.
    """

    def without_each(self, tallies: Sequence[Any], classes: Sequence[str]) -> Iterable[Mapping[str, Measurement]]:
        """For each tally in turn, `measure_tallies` of all others."""
        ...


class MeasuredByTallies(ABC):
    """The base of a task that reads each prediction once: it gets `measure` from its two methods.

    No Protocol: a class that extends one without an `__init__` would seem to take any option.
    """

    @abstractmethod
    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Any:
        """Counts or lists of the predictions, from which the metrics follow."""

    @abstractmethod
    def measure_tallies(self, tallies: Sequence[Any], classes: Sequence[str]) -> dict[str, Measurement]:
        """Every metric of `info.metrics` over the predictions of all tallies together."""

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        """The metrics of one tally of all predictions."""
        return self.measure_tallies([self.tally(predictions, classes)], classes)


def problem_of(task: Downstream) -> Problem:
    """The task's problem.

    Raises:
        PluginError: The task names one that there is not.
    """
    problem = task.info.problem
    return problem if isinstance(problem, Problem) else problem_named(problem)


def splits_read(task: Downstream) -> tuple[ReadSplit, ...] | None:
    """The splits that a task without training reads besides test; None for a task that trains a probe.

    Raises:
        PluginError: The task does not name them.
    """
    if problem_of(task).trained:
        return None
    reads: object = getattr(task, "reads", None)
    if not isinstance(reads, tuple) or not set(reads) <= {"train", "dev"}:
        what = f"`reads` must name the splits train and dev, one of them, or none, in a tuple, but is {reads!r}"
        raise PluginError(what, key=task.info.name, do="See repbench.downstream.problems.training_free")
    return reads


def tallied(task: Downstream) -> MeasuredByTallies:
    """The task, or an adapter for one that has `measure` alone: its tallies are the predictions themselves.

    A subclass that overrides `measure` alone is also one: the tallies that it inherits measure something else.
    """
    return task if _has_tallies(task) else _Measuring(task)  # type: ignore[return-value]


def _has_tallies(task: Downstream) -> bool:
    if not all(callable(getattr(task, name, None)) for name in ("tally", "measure_tallies")):
        return False
    # Places in the order of inheritance: a `measure` that is overridden below the class with the tallies decides.
    mro = type(task).__mro__
    tallies, measure = (
        next((place for place, each in enumerate(mro) if name in vars(each)), len(mro))
        for name in ("measure_tallies", "measure")
    )
    return tallies <= measure


class _Measuring(MeasuredByTallies):
    """The tallies of a task that has `measure` alone."""

    def __init__(self, task: Downstream) -> None:
        self._task = task

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Sequence[Prediction]:
        return predictions

    def measure_tallies(self, tallies: Sequence[Any], classes: Sequence[str]) -> dict[str, Measurement]:
        return self._task.measure([each for tally in tallies for each in tally], classes)
