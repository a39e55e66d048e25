"""Sequences: classes in order without their times, by connectionist temporal classification (CTC).

The blank is the class after the last. A path gives every frame a class or the blank; its sequence is the path with
repeats joined and blanks dropped.

Axes: R probes, N frames, U utterances, C classes, S classes of all sequences.

Reference:
    Graves et al., Connectionist Temporal Classification, ICML 2006.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np

from repbench.downstream.metrics.edits import collapse, count_edits
from repbench.downstream.problems.contract import (
    LabelledUtterance,
    Prediction,
    Problem,
    Quality,
    TaskContext,
    is_count,
    made_up_class,
    refuse_unknown_fields,
)
from repbench.downstream.problems.scoring_grid import Integers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SequencePrediction(Prediction):
    """The estimated classes of one utterance, in order.

    Attributes:
        reference: The reference classes.
        hypothesis: The estimated classes.
        edits: Fewest substitutions, deletions and insertions that turn one into the other.
    """

    marker: ClassVar[str] = "hypothesis"

    reference: tuple[int, ...]
    hypothesis: tuple[int, ...]
    edits: int

    @property
    def reference_length(self) -> int:
        """Number of reference classes."""
        return len(self.reference)

    def as_line(self) -> dict[str, Any]:
        """With the length of the reference."""
        return {
            "id": self.id,
            "speaker": self.speaker,
            "group": self.group,
            "reference": self.reference,
            "hypothesis": self.hypothesis,
            "edits": self.edits,
            "reference_length": self.reference_length,
        }

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Self:
        """As the base class; the length must be that of the reference."""
        refuse_unknown_fields(line, _FIELDS)
        if line["reference_length"] != len(line["reference"]):
            raise ValueError("`reference_length` is not the length of `reference`")
        return cls(
            id=line["id"],
            speaker=line["speaker"],
            group=line["group"],
            reference=tuple(line["reference"]),
            hypothesis=tuple(line["hypothesis"]),
            edits=line["edits"],
        )


_FIELDS = frozenset({"id", "speaker", "group", "reference", "hypothesis", "edits", "reference_length"})


class SequenceRecognition(Problem):
    """The classes of each utterance in order."""

    name = "sequence"
    heads = ("ctc", "project_ctc", "blstm_ctc")
    prediction = SequencePrediction
    labels_are = "class names in order"
    needs = "frames with a blank"
    counts_targets = True

    def is_label(self, labels: object) -> bool:
        """Whether labels are names."""
        return isinstance(labels, tuple) and all(type(each) is str for each in labels)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """As many other names."""
        return tuple(next(values) for _ in labels)

    def frames_needed(self, labels: Any) -> int:
        """One frame a class, and one for the blank between two equal classes."""
        return frames_needed(labels)

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> Integers:
        """The classes in order."""
        return np.array([context.index[name] for name in example.labels], dtype=np.int64)

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """CTC."""
        return sequence_losses(scores, targets, counts, num_targets)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> tuple[int, ...]:
        """The classes in order."""
        return tuple(context.index[name] for name in example.labels)

    def predict(self, example: LabelledUtterance, reference: tuple[int, ...], scores: Tensor) -> SequencePrediction:
        """The sequence of the likeliest path of (N, C + 1) scores."""
        return _prediction(example, reference, best_path(scores))

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> SequencePrediction:
        """The reference."""
        reference = self.reference(context, example, 0)
        return _prediction(example, reference, reference)

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> SequencePrediction:
        """All classes in turn, from another one on in each utterance."""
        count = len(context.classes)
        # A generator for the hypothesis alone: the reference must not depend on the quality.
        guess = Random(f"guess {number}")
        reference = tuple((number + place) % count for place in range(count))
        hypothesis = tuple(made_up_class(each, quality, count, guess) for each in reference)
        return SequencePrediction(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            reference=reference,
            hypothesis=hypothesis,
            edits=count_edits(reference, hypothesis),
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: classes that do not exist, and edits that are not those of the sequences."""
        return (_fault_of(cast(SequencePrediction, each), num_classes) for each in predictions)


SEQUENCES = SequenceRecognition()


def sequence_losses(scores: Tensor, targets: Tensor, counts: Tensor | None, num_targets: Tensor | None) -> Tensor:
    """(R,) the loss of each of R probes by CTC; arguments as `Problem.losses`."""
    import torch

    assert counts is not None
    assert num_targets is not None
    # One probe after the other: `ctc_loss` has no axis for R. R times () -> (R,)
    counts = counts.to(scores.device)
    return torch.stack([sequence_loss(each, counts, targets, num_targets) for each in scores])


def sequence_loss(scores: Tensor, counts: Tensor, classes: Tensor, num_classes: Tensor) -> Tensor:
    """The mean over utterances of their negative log-likelihood a class.

    Args:
        scores: (N, C + 1), the frames of all utterances in turn.
        counts: (U,) frames of each.
        classes: (S,) the classes of all sequences in turn.
        num_classes: (U,) of each; 0 where only blanks are right. All are on one device.

    Returns:
        A scalar; infinite where a sequence needs more frames than there are.
    """
    import torch
    from torch.nn import functional as F
    from torch.nn.utils.rnn import pad_sequence

    log_p = torch.log_softmax(scores, dim=-1)  # (N, C + 1); `ctc_loss` takes logarithms of probabilities
    padded = pad_sequence(list(torch.split(log_p, counts.tolist())))  # (N, C + 1) -> (longest, U, C + 1)
    # The blank is class C, the last, not torch's default 0. (longest, U, C + 1) with (S,) concatenated targets -> (U,)
    losses = F.ctc_loss(padded, classes, counts, num_classes, blank=scores.shape[-1] - 1, reduction="none")
    # (U,) -> a scalar: a class is the unit, so that long utterances weigh no more than short ones
    return (losses / num_classes.clamp_min(1)).mean()


def best_path(scores: Tensor) -> tuple[int, ...]:
    """The sequence of the likeliest path: the classes of (N, C + 1) scores, repeats joined and blanks dropped."""
    # (N, C + 1) -> (N,); blanks are dropped after repeats are joined, so a blank keeps two equal classes apart
    return tuple(collapse(scores.argmax(dim=-1).tolist(), {scores.shape[-1] - 1}))


def frames_needed(labels: Sequence[str]) -> int:
    """Fewest frames of a path with this sequence: one a class, and a blank between two equal ones."""
    # CTC joins repeats, so without a blank between them two equal classes would become one.
    return len(labels) + sum(one == other for one, other in pairwise(labels))


def _prediction(
    example: LabelledUtterance, reference: tuple[int, ...], hypothesis: tuple[int, ...]
) -> SequencePrediction:
    utterance = example.utterance
    return SequencePrediction(
        id=utterance.id,
        speaker=utterance.speaker,
        group=utterance.group,
        reference=reference,
        hypothesis=hypothesis,
        edits=count_edits(reference, hypothesis),
    )


def _fault_of(prediction: SequencePrediction, num_classes: int) -> str | None:
    if not all(is_count(each, most=num_classes - 1) for each in prediction.reference + prediction.hypothesis):
        return f"a class of the sequences is none of {num_classes}"
    edits = count_edits(prediction.reference, prediction.hypothesis)
    return None if prediction.edits == edits else f"{prediction.edits!r} edits where there are {edits}"
