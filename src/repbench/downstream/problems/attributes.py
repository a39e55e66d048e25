"""Several classes an utterance: one of each attribute, as the slots of an intent.

The classes of all attributes are one sorted list of `ATTRIBUTE=VALUE`, in which the classes of an attribute follow each
other. A head gives one score for each of them: its last layer is a linear output for each attribute, side by side. The
loss is the sum over attributes of the cross-entropy within each.

Axes: R probes, U utterances, C classes of all attributes, K attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np

from repbench.downstream.problems.contract import (
    LabelledUtterance,
    Prediction,
    Problem,
    Quality,
    TaskContext,
    is_count,
    made_up_class,
)
from repbench.downstream.problems.scoring_grid import Integers
from repbench.downstream.problems.utterances import UTTERANCES

if TYPE_CHECKING:
    from torch import Tensor

SEPARATOR = "="
"""Between an attribute and its value in the name of a class."""


class ClassBlock(NamedTuple):
    """The classes of an attribute: their first number, and the number after their last."""

    attribute: str
    first: int
    end: int


def class_blocks(classes: Sequence[str]) -> tuple[ClassBlock, ...]:
    """The K blocks of sorted classes, in their order."""
    blocks, first = [], 0
    # Names that begin with the same `ATTRIBUTE=` follow each other in any sorted list.
    for attribute, names in groupby(classes, key=lambda name: name.partition(SEPARATOR)[0]):
        end = first + len(list(names))
        blocks.append(ClassBlock(attribute, first, end))
        first = end
    return tuple(blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributesPrediction(Prediction):
    """The estimated class of each attribute of one utterance.

    Attributes:
        reference: (K,) reference classes, numbered among the classes of all attributes.
        estimated_classes: (K,) the class of each attribute with the highest score; of equals, the first.
    """

    marker: ClassVar[str] = "estimated_classes"

    reference: tuple[int, ...]
    estimated_classes: tuple[int, ...]

    @property
    def is_right(self) -> bool:
        """Whether all attributes are right."""
        return self.estimated_classes == self.reference

    def confused(self) -> tuple[tuple[int, int, int], ...]:
        """The reference and the estimated class of each attribute, once."""
        return tuple((*pair, 1) for pair in zip(self.reference, self.estimated_classes, strict=True))


class MultiAttributeClassification(Problem):
    """A class of each of several attributes for each utterance."""

    name = "multi-attribute"
    heads = UTTERANCES.heads
    prediction = AttributesPrediction
    labels_are = "a tuple of class names ATTRIBUTE=VALUE, sorted, one of each attribute"
    needs = "utterances"

    def is_label(self, labels: object) -> bool:
        """Whether labels are sorted names, one of each attribute."""
        if not isinstance(labels, tuple) or not labels or not all(isinstance(each, str) for each in labels):
            return False
        attributes = [name.partition(SEPARATOR)[0] for name in labels if SEPARATOR in name]
        return len(set(attributes)) == len(labels) and list(labels) == sorted(labels)

    def values(self, labels: Any) -> tuple[Any, ...]:
        """The classes of all attributes as one value: shuffled, they stay together."""
        return (labels,)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """Those of another utterance."""
        return next(values)

    def stratum(self, labels: Any) -> str:
        """The classes of all attributes."""
        return "\0".join(labels)

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> Integers:
        """(2 K,) of each attribute the reference class, and the number after its last class."""
        blocks = class_blocks(context.classes)
        return np.array(
            [
                number
                for name, block in zip(example.labels, blocks, strict=True)
                for number in (context.index[name], block.end)
            ],
            dtype=np.int64,
        )

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """The cross-entropies of all attributes, summed."""
        import torch
        from torch.nn import functional as F

        num_probes, num_utterances, _ = scores.shape
        # (2 K U,) -> (U, K, 2) -> (U, K) references, and (K,) ends, which are the same for every utterance
        pairs = targets.view(num_utterances, -1, 2)
        references, ends = pairs[..., 0], pairs[0, :, 1].tolist()
        total = torch.zeros(num_probes, dtype=scores.dtype, device=scores.device)
        for number, (first, end) in enumerate(zip([0, *ends], ends, strict=False)):
            # (R, U, C) -> (R U, classes of the attribute); (U,) -> (R U,)
            rows = scores[..., first:end].flatten(0, 1)
            wanted = (references[:, number] - first).repeat(num_probes)
            each = F.cross_entropy(rows, wanted, reduction="none")
            total = total + each.view(num_probes, num_utterances).mean(dim=1)  # (R U,) -> (R, U) -> (R,)
        return total

    def reference(
        self, context: TaskContext, example: LabelledUtterance, num_rows: int
    ) -> tuple[tuple[int, ...], tuple[ClassBlock, ...]]:
        """The reference class of each attribute, and their blocks."""
        return tuple(context.index[name] for name in example.labels), class_blocks(context.classes)

    def predict(
        self, example: LabelledUtterance, reference: tuple[tuple[int, ...], tuple[ClassBlock, ...]], scores: Tensor
    ) -> AttributesPrediction:
        """The best class of each attribute of (1, C) scores."""
        wanted, blocks = reference
        row = scores[0].tolist()
        estimated = tuple(max(range(each.first, each.end), key=row.__getitem__) for each in blocks)
        return _prediction(example, wanted, estimated)

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> AttributesPrediction:
        """The reference."""
        wanted, _ = self.reference(context, example, 1)
        return _prediction(example, wanted, wanted)

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> AttributesPrediction:
        """Of each attribute the classes in turn."""
        guess = Random(f"guess {number}")
        pairs = []
        for _, first, end in class_blocks(context.classes):
            wanted = number % (end - first)
            pairs.append((first + wanted, first + made_up_class(wanted, quality, end - first, guess)))
        reference, estimated = zip(*pairs, strict=True)
        return AttributesPrediction(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            reference=reference,
            estimated_classes=estimated,
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: a class that does not exist, and other numbers of attributes than those of the first prediction."""
        given = cast(Sequence[AttributesPrediction], predictions)
        return (_fault_of(each, len(given[0].reference), num_classes) for each in given)

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """Chance and majority in the share of utterances whose attributes are all right, if that is the primary metric.

        Chance draws the class of each attribute with equal odds. Majority predicts the combination of classes that is
        most frequent in training, the first of equals.
        """
        if context.task.info.primary_metric != "accuracy" or not context.classes:
            return {"chance": None, "majority": None}
        chance = prod(1 / (block.end - block.first) for block in class_blocks(context.classes))
        if not train:
            return {"chance": chance, "majority": None}
        known = Counter(example.labels for example in train)
        likely = min(known, key=lambda labels: (-known[labels], labels))
        return {"chance": chance, "majority": sum(example.labels == likely for example in test) / len(test)}


ATTRIBUTES = MultiAttributeClassification()


def _prediction(
    example: LabelledUtterance, reference: tuple[int, ...], estimated: tuple[int, ...]
) -> AttributesPrediction:
    utterance = example.utterance
    return AttributesPrediction(
        id=utterance.id,
        speaker=utterance.speaker,
        group=utterance.group,
        reference=reference,
        estimated_classes=estimated,
    )


def _fault_of(prediction: AttributesPrediction, num_attributes: int, num_classes: int) -> str | None:
    for name, numbers in (("reference", prediction.reference), ("estimate", prediction.estimated_classes)):
        if len(numbers) != num_attributes:
            return f"the {name} has {len(numbers)} attributes, not {num_attributes}"
        for number in numbers:
            if not is_count(number, most=num_classes - 1):
                return f"the {name} {number!r} is none of {num_classes} classes"
    return None
