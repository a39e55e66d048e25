"""What a downstream is: a question with a measure.

A task does not know its corpus: it reads what is true of an utterance and says what is asked of it. A downstream plugin
(entry-point group `repbench.downstreams`) is a callable that takes the task's options as keywords and returns a
`Downstream`; a class with keyword-only options is the usual way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Phone, Utterance
from repbench.errors import PluginError

CONTRACT_VERSION = 1

Problem = Literal["frame-classification", "utterance-classification", "sequence"]
SplitPolicy = Literal["speaker-disjoint", "within-speaker"]

LabelSets = Mapping[str, tuple[str, ...]]
"""The label sets of a corpus, as in `Corpus.label_sets`."""

Labels = tuple[Phone, ...] | tuple[str, ...] | str
"""What is true: timed segments for a frame task, class names in order for a sequence, one for an utterance task."""


def label_names(labels: Labels) -> tuple[str, ...]:
    """Every class name in the labels, in order, repeats included."""
    if isinstance(labels, str):
        return (labels,)
    return tuple(each.label if isinstance(each, Phone) else each for each in labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """What a metric's number means.

    Attributes:
        unit: Of the value.
        higher_is_better: Which way is up.
        lower: Least value it can take; None: any.
        upper: Greatest value it can take; None: any.
    """

    unit: str
    higher_is_better: bool
    lower: float | None = 0.0
    upper: float | None = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DownstreamInfo:
    """What a task declares of itself.

    Attributes:
        name: Name of the task.
        problem: The shape of the question.
        split: Which speakers may stand on both sides of a split.
        default_head: Head used unless another is asked for.
        metrics: Every metric `measure` returns.
        primary_metric: The one that selects and ranks.
        contract: Version of this contract.
    """

    name: str
    problem: Problem
    split: SplitPolicy
    default_head: str
    metrics: Mapping[str, MetricInfo]
    primary_metric: str
    contract: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        if self.contract != CONTRACT_VERSION:
            raise PluginError(f"`contract` must be {CONTRACT_VERSION}, but is {self.contract}", key=self.name)
        if self.primary_metric not in self.metrics:
            raise PluginError(f"`primary_metric` {self.primary_metric} is not among the task's metrics", key=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePrediction:
    """What was answered at the scored instants of one utterance.

    Attributes:
        id: The utterance.
        speaker: Who speaks.
        group: Its chapter, session or video.
        confusion: (reference class, estimated class, instants), sorted, no zero counts.
        edits: Edits between the collapsed sequences.
        reference_length: Length of the collapsed reference.
    """

    id: str
    speaker: str | None
    group: str | None
    confusion: tuple[tuple[int, int, int], ...]
    edits: int
    reference_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UtterancePrediction:
    """What was answered for one utterance.

    Attributes:
        id: The utterance.
        speaker: Who speaks.
        group: Its chapter, session or video.
        reference: The true class.
        scores: One score a class; the highest is the answer (ties to the first).
    """

    id: str
    speaker: str | None
    group: str | None
    reference: int
    scores: tuple[float, ...]

    @property
    def estimated(self) -> int:
        """The class with the highest score."""
        return self.scores.index(max(self.scores))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePrediction:
    """What was answered for one utterance, in order.

    Attributes:
        id: The utterance.
        speaker: Who speaks.
        group: Its chapter, session or video.
        reference: The true classes.
        hypothesis: The estimated classes.
        edits: Fewest substitutions, deletions and insertions that turn one into the other.
    """

    id: str
    speaker: str | None
    group: str | None
    reference: tuple[int, ...]
    hypothesis: tuple[int, ...]
    edits: int

    @property
    def reference_length(self) -> int:
        """How many classes are true."""
        return len(self.reference)


Prediction = FramePrediction | UtterancePrediction | SequencePrediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A metric's value and the counts it was divided from; None where it is undefined."""

    value: float | None
    counts: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Downstream(Protocol):
    """A question with a measure."""

    info: DownstreamInfo

    def labels(self, utterance: Utterance) -> Labels | None:
        """What is true of the utterance.

        Returns:
            Timed segments (frame tasks), class names in order (sequences) or a class name (utterance tasks); None where
            the task, by its own documented rule, asks nothing of such an utterance.

        Raises:
            Unlabelled: The task asks, but the corpus does not know.
        """
        ...

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """The sorted classes to choose from, known before any test label is seen.

        Args:
            label_sets: What the corpus declares.
            train: Labels of the training utterances.
        """
        ...

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        """Every metric of `info.metrics` over the pooled predictions; a pure function, order does not matter."""
        ...


@runtime_checkable
class FrameDownstream(Downstream, Protocol):
    """A task that is asked at instants."""

    def collapse(self, path: Sequence[int], classes: Sequence[str]) -> list[int]:
        """A path of classes over time as a sequence of events, by which edits are counted."""
        ...


@runtime_checkable
class MeasuredByConfusion(Downstream, Protocol):
    """A task whose primary metric needs only how often each class was taken for each: probes are then selected fast."""

    def primary_of(self, confusion: NDArray[np.int64]) -> float | None:
        """The primary metric of counts (C, C), reference by estimated class, as `measure` gives it for the predictions.

        None where it is undefined.
        """
        ...


@runtime_checkable
class MeasuredByTallies(Downstream, Protocol):
    """A task that needs to look at each prediction once: its numbers without each speaker in turn are then fast."""

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Any:
        """All that `measure` needs of the predictions, in whatever form suits the task."""
        ...

    def measure_tallies(self, tallies: Sequence[Any], classes: Sequence[str]) -> dict[str, Measurement]:
        """What `measure` gives of the predictions of all tallies together."""
        ...
