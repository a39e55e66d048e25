"""The contract of a problem: everything that differs between kinds of tasks, in one object a kind.

A kind of task is a `Problem` in a separate file. The benchmark's code is the same for all kinds and calls the object
that `DownstreamInfo.problem` names or is. torch is imported inside the functions that compute with tensors, because
readers of records load none.

Longer than others: a contract is read as a whole.

Axes: R probes, N rows of scores (frames, or utterances where the head pools), C scores a row, U utterances, S targets.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, Self, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import AttributeValue, Phone, Utterance
from repbench.downstream.problems.scoring_grid import UNLABELLED, Integers
from repbench.errors import PluginError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor
SplitPolicy = Literal["speaker-disjoint", "within-speaker"]
SPLIT_POLICIES: tuple[SplitPolicy, ...] = ("speaker-disjoint", "within-speaker")

Labels = tuple[Phone, ...] | tuple[str, ...] | str
"""The labels of the built-in problems: timed segments (frames), class names in order (sequences), a class name
(utterances). Those of another problem may be anything that its `is_label` takes."""

Primary = Callable[[NDArray[np.int64]], float | None]
"""From a confusion matrix (C, C), reference by estimated class, to the primary metric."""

Rows = Literal["frames", "utterances", "frames with a blank", "utterances with an embedding"]
"""The rows of scores that a head gives."""

Batches = Literal["frames", "utterances"]
"""The examples of a training batch."""

Quality = Literal["right", "wrong", "guess"]
"""Of the predictions that the conformance suite makes up."""

ENCODER_FILES = r"^[A-Za-z0-9_-]+\.(model|txt|rttm)$"
"""Names of the files that a task adds to a record, such as those of an encoder: none of them leads out of the folder of
the record, or is another file of it."""

MOST = 2**53
"""Counts and scores beyond this occur in no run."""


def label_names(labels: Labels) -> tuple[str, ...]:
    """Every class name in the labels of a built-in problem, in order, repeats included."""
    if isinstance(labels, str):
        return (labels,)
    return tuple(each.label if isinstance(each, Phone) else each for each in labels)


@dataclass(frozen=True, slots=True)
class LabelledUtterance:
    """An utterance and its labels."""

    utterance: Utterance
    labels: Any

    @property
    def id(self) -> str:
        """The utterance's id."""
        return self.utterance.id


class FrameTimes(Protocol):
    """The times of an upstream's frames: frame k is centred on sample `first_center_samples + k * hop_samples`."""

    @property
    def sample_rate_hz(self) -> int:
        """Rate in which the other two are counted."""

    @property
    def hop_samples(self) -> int:
        """Samples between two centres."""

    @property
    def first_center_samples(self) -> int:
        """Sample of the first centre."""


class TaskInfo(Protocol):
    """The part of a task's declaration that problems read."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def primary_metric(self) -> str:
        """The metric that selects and ranks."""


class Task(Protocol):
    """A task as its problem sees it; `repbench.downstream.contract.Downstream` is the whole."""

    @property
    def info(self) -> TaskInfo:
        """Its declaration."""


class TargetStatistics(NamedTuple):
    """Mean and standard deviation by which the numbers that are learned are standardised, in the unit of the labels."""

    mean: float
    deviation: float


class Encoder(Protocol):
    """The targets of labels, as a function that follows from the labels of the training split.

    Attributes:
        files: From the name of each file that it is read from to its content; they are kept in the folder of a record,
            under names as `ENCODER_FILES`.
    """

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files that it is read from."""

    def encoded(self, labels: Any) -> Any:
        """The labels of a training utterance with their targets."""
        ...


@dataclass(frozen=True)
class TaskContext:
    """The task of a run with its classes and, where scores are read, the times of the frames.

    Attributes:
        task: The task.
        classes: Its C classes, sorted; empty for a problem without classes.
        times: Of the upstream's frames; None where nothing depends on them.
        target_statistics: Of the utterances that are trained on, while a probe is trained on numbers.
    """

    task: Task
    classes: tuple[str, ...]
    times: FrameTimes | None = None
    target_statistics: TargetStatistics | None = None

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """From a class name to its number."""
        return {label: number for number, label in enumerate(self.classes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The prediction for one utterance: the base of each problem's own.

    Attributes:
        id: The utterance.
        speaker: Its speaker, if known.
        group: Its chapter, session or video, if known.
        fold: The fold in which it was test; None where there are no folds. `as_line` and `of_line` leave it out, as it
            is not of the kind: who writes and reads lines adds it.
        attributes: Attributes of the utterance that a run keeps for groups, as pairs of name and value by name; left
            out of lines as `fold` is.
        marker: The field of a line of `predictions.jsonl` that only this kind of prediction has.
    """

    marker: ClassVar[str]

    id: str
    speaker: str | None
    group: str | None
    fold: str | None = None
    attributes: tuple[tuple[str, AttributeValue], ...] = ()

    def as_line(self) -> dict[str, Any]:
        """The fields of its line of `predictions.jsonl`."""
        return {name: getattr(self, name) for name in _fields_of(type(self))}

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Self:
        """The prediction of a line.

        Raises:
            ValueError, KeyError, TypeError: The line has other fields, or values of another form.
        """
        refuse_unknown_fields(line, _fields_of(cls))
        return cls(**{name: _frozen(line[name]) for name in _fields_of(cls)})

    def truth(self) -> dict[str, Any]:
        """The fields that follow from the corpus and not from the model: a leaderboard's references keep their digest.

        By default speaker, group, and the fields `reference` and `reference_length` of the line.
        """
        line = self.as_line()
        return {name: line[name] for name in ("speaker", "group", "reference", "reference_length") if name in line}

    @property
    def is_right(self) -> bool | None:
        """Whether the one class that it predicts is the reference; None where it is not one class."""
        return None

    def aligned(self) -> Sequence[tuple[str | None, str | None]] | None:
        """The words of the reference with those in their places, None for a missing one; None without words."""
        return None

    def scored_trials(self) -> Sequence[tuple[int, float]] | None:
        """The target (1 or 0) and the score of each trial, for a DET curve; None for a kind that has no trials."""
        return None

    def confused(self) -> tuple[tuple[int, int, int], ...] | None:
        """(reference class, estimated class, count) for a confusion figure; None for a kind that has no figure."""
        return None


_OF_NO_KIND = frozenset({"fold", "attributes"})
"""Fields of a prediction that its kind neither writes nor reads."""


def _fields_of(kind: type[Prediction]) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(kind) if each.name not in _OF_NO_KIND)


def _frozen(value: Any) -> Any:
    """Lists of JSON as tuples, to any depth."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def refuse_unknown_fields(line: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a line with more fields than its kind of prediction has, with a ValueError."""
    if unknown := set(line).difference(known):
        raise ValueError(f"unknown field `{min(unknown)}`")


def speakers_outside(predictions: Sequence[Prediction], ids: Collection[str]) -> frozenset[str]:
    """The speakers of predictions who have an utterance that is not among `ids`."""
    return frozenset(each.speaker for each in predictions if each.id not in ids and each.speaker is not None)


def is_count(value: object, most: int = MOST) -> bool:
    """Whether a value read from JSON is a whole number from 0 to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


class Problem(ABC):
    """A kind of task.

    Attributes:
        name: As `DownstreamInfo.problem` and the settings `tasks.NAME` spell it.
        heads: Names of the built-in heads that fit and are trained, the simplest first.
        fitted_heads: Names of the built-in heads that fit and are computed without steps; where there are none, no head
            of a plugin that is fitted fits either. Their targets are one class an utterance.
        prediction: Class of its predictions.
        labels_are: The form of its labels, for an error: "a class name".
        needs: The rows of scores that a head has to give: one a frame, (N, C); one an utterance, (U, C); one a frame
            with the score of a blank after those of the classes, (N, C + 1); or one an utterance that begins with its
            embedding, (U, E + C).
        trained: Whether a probe is trained; otherwise see `training_free`.
        batches: The examples of a training batch: single labelled frames, or whole utterances.
        counts_targets: Whether utterances have different numbers of targets, so that a batch also holds these numbers.
        min_classes: Fewest classes that can be trained on.
        needs_every_class: Whether a subset of the training utterances that lost a class is refused.
        splits: Split policies that make sense.
        resampled: Units that intervals resample, by preference: attributes of a prediction.
        crosses_units: Whether a prediction depends on other units than its own, as the trials of a speaker do on other
            speakers: intervals then leave a unit out by `without`.
        task_methods: Methods of its tasks in addition to those of `Downstream`.
        chunk_frames: Frames of a training example at most, where batches are of utterances and each frame has as many
            targets as any other: longer utterances are cut into chunks. None: they are never cut.
        decisions: Settings of `predict` from which the best on dev is chosen once a probe is trained; the first are
            those of the object itself.
    """

    name: str
    heads: tuple[str, ...]
    prediction: type[Prediction]
    labels_are: str
    needs: Rows
    trained: bool = True
    fitted_heads: tuple[str, ...] = ()
    batches: Batches = "utterances"
    counts_targets: bool = False
    min_classes: int = 2
    needs_every_class: bool = False
    splits: tuple[SplitPolicy, ...] = SPLIT_POLICIES
    resampled: tuple[str, ...] = ("speaker", "group")
    crosses_units: bool = False
    task_methods: tuple[str, ...] = ()
    chunk_frames: int | None = None
    decisions: tuple[Mapping[str, float], ...] = ()

    def __init_subclass__(cls) -> None:
        _refuse_unknown_choices(cls)

    @property
    def pools(self) -> bool:
        """Whether there is one row of scores an utterance rather than one a frame."""
        return self.needs in ("utterances", "utterances with an embedding")

    @property
    def standardises_targets(self) -> bool:
        """Whether targets are numbers that are standardised for training."""
        return type(self).target_statistics is not Problem.target_statistics

    def why_not_one_vector(self, task: Task) -> str | None:
        """The reason why one vector an utterance does not suffice for a task, after its name; None: it suffices.

        By default it does where a probe is trained whose head gives a row of scores an utterance.
        """
        return None if self.pools and self.trained else "needs frames over time"

    # labels

    @abstractmethod
    def is_label(self, labels: object) -> bool:
        """Whether labels that a task gives have the form that `labels_are` states."""

    def names(self, labels: Any) -> tuple[str, ...]:
        """The class names in the labels, in order, repeats included; none for a problem without classes."""
        return label_names(labels)

    def values(self, labels: Any) -> tuple[Any, ...]:
        """The values that the control with shuffled labels permutes over a split: the class names."""
        return self.names(labels)

    @abstractmethod
    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """The labels with the next of other `values` in place of each of their own."""

    def stratum(self, labels: Any) -> str:
        """The class by which subsets of utterances are stratified; "" where classes vary within an utterance."""
        return ""

    def scored_classes(self, example: LabelledUtterance, index: Mapping[str, int]) -> Integers:
        """(M,) the reference class of each scored item; `UNLABELLED` for one that has no label or none of `index`."""
        return np.array([index.get(name, UNLABELLED) for name in self.names(example.labels)], dtype=np.int64)

    def is_scored(self, example: LabelledUtterance) -> bool:
        """Whether any item of the utterance can be scored."""
        names = self.names(example.labels)
        if type(self).scored_classes is Problem.scored_classes:
            return bool(names)
        return bool((self.scored_classes(example, dict.fromkeys(names, 0)) != UNLABELLED).any())

    def encoder(self, task: Task, train: Sequence[Any]) -> Encoder | None:
        """What gives the labels of training utterances their targets; None where they have them.

        Args:
            task: The task.
            train: Labels of the training utterances, and of no other.
        """
        return None

    def refuse_splits(  # noqa: B027 - most have nothing to refuse
        self,
        task: Task,
        train: Sequence[LabelledUtterance],
        dev: Sequence[LabelledUtterance],
        test: Sequence[LabelledUtterance],
    ) -> None:
        """Raise a DataError for a division by which nothing could be measured, before anything is computed."""

    def warnings(self, classes: Sequence[str], test: Iterable[Any]) -> tuple[str, ...]:
        """Facts about the labels of test that a reader of the score needs, in words."""
        return ()

    # training

    def outputs(self, num_classes: int) -> int:
        """C, the scores of a row, without the blank that heads for sequences add."""
        return num_classes

    def frames_needed(self, labels: Any) -> int:
        """Fewest frames with which an utterance can be trained on."""
        return 0

    def target_statistics(self, labels: Iterable[Any]) -> TargetStatistics | None:
        """The statistics of the labels that a probe is trained on, where targets are numbers; None: they are classes.

        A probe keeps them, and its scores are brought into the unit of the labels by them before they are predictions.
        """
        return None

    @abstractmethod
    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> NDArray[Any]:
        """(S,) targets of an utterance; one a frame (`UNLABELLED` where there is none) if batches are of frames."""

    def num_targets(self, targets: NDArray[Any]) -> int:
        """The number of targets that can be trained on."""
        return len(targets)

    @abstractmethod
    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """The mean loss of each of R probes on a batch.

        Args:
            scores: (R, N, C), or (R, U, C) where the head pools.
            targets: (S,) of the frames, or of the utterances one after the other.
            counts: (U,) frames of each utterance; None for a batch of frames.
            num_targets: (U,) targets of each utterance, where they differ.

        Returns:
            (R,).
        """

    def total_loss(self, scores: Tensor, targets: Tensor, counts: Tensor, num_targets: Tensor) -> tuple[Tensor, int]:
        """The loss of a fine-tuning step as a sum, and its number of terms: the mean loss of U utterances times U.

        Args:
            scores: (N, C) of the frames of U utterances, or (U, C) where the head pools.
            targets: (S,) of all utterances, one after the other; `UNLABELLED` among them counts for nothing.
            counts: (U,) frames of each utterance, on the CPU.
            num_targets: (U,) targets of each utterance.
        """
        given = num_targets if self.counts_targets else None
        # (N, C) -> (1, N, C): the network is a single probe; (1,) -> a scalar
        return self.losses(scores[None], targets, counts, given)[0] * len(counts), len(counts)

    # predictions

    @abstractmethod
    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> Any:
        """The part of a prediction that does not depend on the scores, for an utterance with `num_rows` rows of scores.

        It is computed once for the probes that score the same utterance.
        """

    @abstractmethod
    def predict(self, example: LabelledUtterance, reference: Any, scores: Tensor) -> Prediction:
        """The prediction of (rows, C) scores, on the CPU, with the utterance's `reference`."""

    def completed(
        self,
        context: TaskContext,
        predictions: Sequence[Prediction],
        examples: Sequence[LabelledUtterance],
        *,
        is_test: bool,
    ) -> Sequence[Prediction]:
        """The predictions of a whole split, where they depend on one another; by default those of `predict`.

        Args:
            context: The task and its classes.
            predictions: What `predict` gave for each utterance.
            examples: The utterances.
            is_test: Whether they are scored; else they select.
        """
        return predictions

    def primary_of(self, task: Task) -> Primary | None:
        """The task's primary metric as a function of a confusion matrix: selection on dev then builds no predictions.

        None where there is none; else `counted` must be there.
        """
        return None

    def counted(self, reference: Any) -> tuple[Integers, Integers]:
        """(M,) reference classes of an utterance, and (M,) the row of its scores that is taken for each."""
        raise NotImplementedError

    def decided(self, chosen: Mapping[str, float]) -> Problem:
        """The problem with the settings of `predict` that were chosen: one of `decisions` with further keys."""
        return self

    def files(self, predictions: Sequence[Prediction]) -> Mapping[str, bytes]:
        """The predictions of test in a form for other programs: files of a record, named as `ENCODER_FILES`."""
        return {}

    @abstractmethod
    def perfect(self, context: TaskContext, example: LabelledUtterance) -> Prediction:
        """The prediction that is right everywhere, without an upstream."""

    def perfect_of(self, context: TaskContext, test: Sequence[LabelledUtterance]) -> Sequence[Prediction]:
        """Those of a test split that are right everywhere: `perfect` of each, where none depends on others."""
        return [self.perfect(context, example) for example in test]

    @abstractmethod
    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> Prediction:
        """A prediction for the conformance suite.

        Args:
            context: The task and its classes.
            number: Of the utterance. The reference depends on it alone; over 2 C utterances each class occurs.
            quality: Right everywhere, wrong everywhere, or drawn.
            who: Id, speaker and group.
        """

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Why no run writes a prediction, or None, for each in turn; all are of this problem's kind."""
        return iter([None] * len(predictions))

    def units_of(self, prediction: Prediction, unit: str) -> tuple[str, ...]:
        """The names of the units that a prediction is of; several where `crosses_units`, as the speakers of a mixture.

        Args:
            prediction: Whose attribute of the unit is known.
            unit: One of `resampled`.
        """
        return (getattr(prediction, unit),)

    def without(self, predictions: Sequence[Prediction], unit: str, name: str) -> Sequence[Prediction]:
        """The predictions as they are without one speaker, or another unit; called where `crosses_units`.

        Args:
            predictions: Of all units.
            unit: One of `resampled`.
            name: Of the one that is left out: with its own predictions, and with all that others owe to it.
        """
        return [each for each in predictions if name not in self.units_of(each, unit)]

    def among(self, predictions: Sequence[Prediction], ids: Collection[str]) -> Sequence[Prediction]:
        """The predictions of some utterances, as they are without all others: those that a group is measured by.

        By default those with these ids. Where a prediction holds items with several utterances, such as trials, those
        items are left out that have an utterance, or the speaker of one, that is not among them.

        Args:
            predictions: Of all utterances.
            ids: Of the utterances that stay.
        """
        return [each for each in predictions if each.id in ids]

    # baselines

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """Chance and majority in the primary metric; None where it is no accuracy.

        Chance draws classes with equal odds. Majority predicts the class most frequent in training, the first of equals
        (None where nothing was trained on). An error rate has neither: no length of a drawn sequence is given, and
        the empty one scores 1 on any corpus.
        """
        if context.task.info.primary_metric != "accuracy" or not context.classes:
            return {"chance": None, "majority": None}
        known, scored = self._class_counts(context, train), self._class_counts(context, test)
        # `argmax` takes the first of equals: classes are sorted by their names.
        majority = float(scored[known.argmax()] / scored.sum()) if known.any() else None
        return {"chance": 1 / len(context.classes), "majority": majority}

    def _class_counts(self, context: TaskContext, examples: Iterable[LabelledUtterance]) -> Integers:
        """(C,) how often each class is the reference."""
        counts = np.zeros(len(context.classes), dtype=np.int64)
        for example in examples:
            references = self.scored_classes(example, context.index)
            # (M,) -> (C,); negative numbers, as `UNLABELLED` is, would be refused by `bincount`
            counts += np.bincount(references[references != UNLABELLED], minlength=len(context.classes))
        return counts


def _refuse_unknown_choices(problem: type[Problem]) -> None:
    """Refuse a declaration with a word that nothing compares with, which would count as the other choice."""
    choices = {"needs": get_args(Rows), "batches": get_args(Batches), "splits": SPLIT_POLICIES}
    for name, known in choices.items():
        given = getattr(problem, name, known)
        for value in given if isinstance(given, tuple) else (given,):
            if value not in known:
                what = f"`{name}` must be {' or '.join(known)}, but is `{value}`"
                raise PluginError(what, key=problem.__qualname__, do=did_you_mean(value, known).strip())


def made_up_class(reference: int, quality: Quality, num_classes: int, guess: Random) -> int:
    """The class that a made-up prediction has in place of `reference`."""
    if quality == "guess":
        return guess.randrange(num_classes)
    return reference if quality == "right" else (reference + 1) % num_classes


@runtime_checkable
class MeasuredByConfusion(Protocol):
    """The method of a task whose primary metric needs a confusion matrix alone: selection on dev is then faster."""

    def primary_of(self, confusion: NDArray[np.int64]) -> float | None:
        """The primary metric of counts (C, C), reference by estimated class; None where it is undefined."""
        ...


class ClassProblem(Problem):
    """A problem whose rows of scores give one class each: the base of frames and utterances."""

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy."""
        from torch.nn import functional as F

        num_probes, num_rows, _ = scores.shape
        # (R, N, C) -> (N, R, C) -> (N R, C): no copy, as this is how the product of many probes left them
        rows = scores.transpose(0, 1).flatten(0, 1)
        # (N,) -> (N R,): each target R times in a row, as the rows above
        losses = F.cross_entropy(rows, targets.repeat_interleave(num_probes), reduction="none")
        return losses.view(num_rows, num_probes).mean(dim=0)  # (N R,) -> (N, R) -> (R,)

    def total_loss(self, scores: Tensor, targets: Tensor, counts: Tensor, num_targets: Tensor) -> tuple[Tensor, int]:
        """Cross-entropy summed over the labelled rows, and their number."""
        from torch.nn import functional as F

        # A fine-tuning batch holds whole utterances, unlabelled frames included; a batch of `losses` has none.
        total = F.cross_entropy(scores, targets, ignore_index=UNLABELLED, reduction="sum")
        return total, int((targets != UNLABELLED).sum())

    def primary_of(self, task: Task) -> Primary | None:
        """The task's own `primary_of`, if it has one."""
        return task.primary_of if isinstance(task, MeasuredByConfusion) else None
