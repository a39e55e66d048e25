"""Problems without training: the task computes its predictions from frozen features, without probe or optimiser.

Its task has the method `outcome`, from the features of one layer to the predictions of the test utterances, and the
attribute `reads`, which names the splits that it reads besides test: train for a codebook or a covariance, dev for a
threshold. A task that reads test alone scores the official test split of a corpus or, where there is none, all of it.

Axes: F frames of an utterance, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

from repbench.downstream.problems.contract import (
    LabelledUtterance,
    Prediction,
    Problem,
    Task,
    TaskContext,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ReadSplit = Literal["train", "dev"]
"""A split that a task without training may read besides test."""


class SplitFrames(Protocol):
    """The frames of one layer of the labelled utterances of a split."""

    @property
    def examples(self) -> Sequence[LabelledUtterance]:
        """The utterances with their labels."""

    def of(self, number: int) -> Tensor:
        """(F, D) float32 on the CPU, the frames of `examples[number]`; not to be written to."""
        ...

    def each(self) -> Iterator[Tensor]:
        """As `of`, of all utterances in turn, in the order of `examples`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenFeatures:
    """What a task without training measures.

    Attributes:
        context: The task, its classes and the times of the frames.
        train: The training split or the share of it that the label fraction keeps; None unless the task reads it.
        dev: The dev split, likewise.
        test: The test split.
        seed: Of whatever the task draws.
        device: Where the task computes.
        memory_bytes: That the task may take for its own tables.
    """

    context: TaskContext
    train: SplitFrames | None
    dev: SplitFrames | None
    test: SplitFrames
    seed: int
    device: torch.device
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a task without training found.

    Attributes:
        predictions: One for each utterance of test, in their order.
        files: From the name of each file that belongs to the record, as `ENCODER_FILES`, to its content.
        chosen: What was chosen on dev, by name.
        dev_value: The primary metric on dev of what was chosen; None where nothing was.
    """

    predictions: Sequence[Prediction]
    files: Mapping[str, bytes] = field(default_factory=dict)
    chosen: Mapping[str, float | int] = field(default_factory=dict)
    dev_value: float | None = None


class TrainingFreeTask(Task, Protocol):
    """The members of a task without training in addition to those of `Downstream`."""

    @property
    def reads(self) -> tuple[ReadSplit, ...]:
        """The splits that it reads besides test."""

    def outcome(self, features: FrozenFeatures) -> Outcome:
        """The predictions of the test utterances."""
        ...


class TrainingFreeProblem(Problem):
    """A problem without training: the base of those whose tasks have `outcome`.

    Attributes:
        reads_labels_of_train: Whether the labels of train enter the outcome, where train is read. If not, the control
            with shuffled labels shuffles those of test.
    """

    reads_labels_of_train = True

    trained = False
    heads = ("none",)
    needs = "utterances"
    min_classes = 0
    task_methods = ("outcome",)

    def names(self, labels: Any) -> tuple[str, ...]:
        """None: such a problem need not have classes."""
        return ()

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> NoReturn:
        """Not called: there is no probe."""
        raise _no_probe(self)

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> NoReturn:
        """Not called: there is no probe."""
        raise _no_probe(self)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> NoReturn:
        """Not called: there are no scores of a probe."""
        raise _no_probe(self)

    def predict(self, example: LabelledUtterance, reference: Any, scores: Tensor) -> NoReturn:
        """Not called: there are no scores of a probe."""
        raise _no_probe(self)

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """None, unless a problem has some."""
        return {"chance": None, "majority": None}


def _no_probe(problem: Problem) -> TypeError:
    return TypeError(f"a task of {problem.name} trains no probe")
