"""Frame classification: a class every 10 ms, on a grid of instants that depends on the utterance alone.

Axes: F frames, M scored instants, C classes.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Phone
from repbench.downstream.metrics.edits import count_edits
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
from repbench.downstream.problems.scoring_grid import (
    UNLABELLED,
    Integers,
    instants_s,
    is_first_labelled,
    labels_at,
    nearest_frames,
    num_instants,
)
from repbench.errors import plugin_faults

if TYPE_CHECKING:
    from torch import Tensor


_MADE_UP_INSTANTS = 120
_MADE_UP_RUN = 6
"""Of a made-up prediction: its instants, and how many in a row have one class."""


class FrameDownstream(Protocol):
    """The method that frame tasks have in addition to those of `Downstream`."""

    def collapse(self, path: Sequence[int], classes: Sequence[str]) -> list[int]:
        """The sequence of events in a path of classes over time; edits are counted between such sequences."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FramePrediction(Prediction):
    """The prediction at the scored instants of one utterance.

    Attributes:
        confusion: (reference class, estimated class, instants), sorted, no zero counts.
        edits: Edits between the collapsed sequences.
        reference_length: Length of the collapsed reference.
    """

    marker: ClassVar[str] = "confusion"

    confusion: tuple[tuple[int, int, int], ...]
    edits: int
    reference_length: int

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Self:
        """As the base class; all cells are checked together."""
        refuse_unknown_fields(line, _FIELDS)
        confusion = tuple(map(tuple, line["confusion"]))
        if set(map(len, confusion)) - {3}:
            raise ValueError("a cell of `confusion` is not a reference, an estimate and a count")
        return cls(
            id=line["id"],
            speaker=line["speaker"],
            group=line["group"],
            confusion=confusion,
            edits=line["edits"],
            reference_length=line["reference_length"],
        )

    def truth(self) -> dict[str, Any]:
        """Also how many instants each class has."""
        instants: Counter[int] = Counter()
        for reference, _, count in self.confusion:
            instants[reference] += count
        return {
            "speaker": self.speaker,
            "group": self.group,
            "reference_length": self.reference_length,
            "instants": sorted(instants.items()),
        }

    def confused(self) -> tuple[tuple[int, int, int], ...]:
        """Its confusion."""
        return self.confusion


_FIELDS = frozenset({"id", "speaker", "group", "confusion", "edits", "reference_length"})


@dataclass(frozen=True)
class FrameReference:
    """The reference class at each instant of an utterance, and the frame whose scores are taken there.

    Attributes:
        context: The task and its classes.
        classes: (M,) reference classes; `UNLABELLED` in gaps.
        nearest: (M,) frame whose centre is nearest.
    """

    context: TaskContext
    classes: Integers
    nearest: Integers

    @functools.cached_property
    def is_labelled(self) -> NDArray[np.bool_]:
        """(M,) whether an instant is scored."""
        is_labelled: NDArray[np.bool_] = self.classes != UNLABELLED
        return is_labelled

    @functools.cached_property
    def events(self) -> list[int]:
        """The events of the reference."""
        return events_of(self.context, self.classes, self.is_labelled)


class FrameClassification(ClassProblem):
    """A class at each instant of a grid."""

    name = "frame-classification"
    heads = ("linear", "mlp1", "mlp2", "concat9", "conv", "blstm")
    prediction = FramePrediction
    labels_are = "timed segments of Phone"
    needs = "frames"
    batches = "frames"
    task_methods = ("collapse",)

    def is_label(self, labels: object) -> bool:
        """Whether labels are segments."""
        return isinstance(labels, tuple) and all(isinstance(each, Phone) for each in labels)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """Each segment keeps its times."""
        return tuple(Phone(phone.start_s, phone.end_s, next(values)) for phone in labels)

    def scored_classes(self, example: LabelledUtterance, index: Mapping[str, int]) -> Integers:
        """(M,) at the instants."""
        # At the utterance's own rate: the grid must not depend on the rate of the upstream.
        count = num_instants(example.utterance.num_samples, example.utterance.sample_rate_hz)
        return labels_at(instants_s(count), example.labels, index)

    def is_scored(self, example: LabelledUtterance) -> bool:
        """Whether any instant is labelled: most often one of the first segment is."""
        labels, utterance = example.labels, example.utterance
        if labels and type(self).scored_classes is FrameClassification.scored_classes:
            count = num_instants(utterance.num_samples, utterance.sample_rate_hz)
            if is_first_labelled(count, labels):
                return True
        return super().is_scored(example)

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> Integers:
        """(F,) the class at each frame's centre."""
        times = context.times
        assert times is not None
        # Frame k is centred on first + k hop: (F,) samples -> (F,) seconds
        centres = times.first_center_samples + times.hop_samples * np.arange(num_frames)
        return labels_at(centres / times.sample_rate_hz, example.labels, context.index)

    def num_targets(self, targets: NDArray[Any]) -> int:
        """The labelled frames."""
        return int((targets != UNLABELLED).sum())

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> FrameReference:
        """The reference classes at the instants, for an utterance of `num_rows` frames."""
        times = context.times
        assert times is not None
        classes = self.scored_classes(example, context.index)
        nearest = nearest_frames(
            len(classes),
            num_rows,
            sample_rate_hz=times.sample_rate_hz,
            hop=times.hop_samples,
            first_center=times.first_center_samples,
        )
        return FrameReference(context, classes, nearest)

    def predict(self, example: LabelledUtterance, reference: FrameReference, scores: Tensor) -> FramePrediction:
        """The class with the highest score of the nearest frame, at each instant."""
        estimated = scores.argmax(dim=-1).numpy()[reference.nearest]  # (F, C) -> (M,)
        return _prediction(reference.context, example, reference.classes, reference.events, estimated)

    def counted(self, reference: FrameReference) -> tuple[Integers, Integers]:
        """The classes and nearest frames of the labelled instants."""
        # (M,) -> (labelled,), both alike
        return reference.classes[reference.is_labelled], reference.nearest[reference.is_labelled]

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> FramePrediction:
        """The reference at each instant."""
        classes = self.scored_classes(example, context.index)
        return _prediction(context, example, classes, events_of(context, classes, classes != UNLABELLED), classes)

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> FramePrediction:
        """A path of drawn classes."""
        count = len(context.classes)
        # Two generators: the reference depends on the number alone, whatever the quality draws.
        drawn, guess = Random(number), Random(f"guess {number}")
        runs = _MADE_UP_INSTANTS // _MADE_UP_RUN
        reference = [index for _ in range(runs) for index in [drawn.randrange(count)] * _MADE_UP_RUN]
        # The first run is not drawn, so that over C utterances each class occurs.
        reference[:_MADE_UP_RUN] = [number % count] * _MADE_UP_RUN
        estimated = [made_up_class(index, quality, count, guess) for index in reference]
        cells = Counter(zip(reference, estimated, strict=True))
        task = cast(FrameDownstream, context.task)
        events, found = task.collapse(reference, context.classes), task.collapse(estimated, context.classes)
        return FramePrediction(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            confusion=tuple((*pair, instants) for pair, instants in sorted(cells.items())),
            edits=count_edits(events, found),
            reference_length=len(events),
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: classes that do not exist, and values that are no counts."""
        frames = [cast(FramePrediction, each) for each in predictions]
        cells_hold = _cells_hold(frames, num_classes)
        for each in frames:
            fault = None if cells_hold else _fault_of_cells(each, num_classes)
            if fault is None and not (is_count(each.edits) and is_count(each.reference_length)):
                fault = f"{each.edits!r} edits of {each.reference_length!r}"
            yield fault


FRAMES = FrameClassification()


def _prediction(
    context: TaskContext, example: LabelledUtterance, reference: Integers, events: list[int], estimated: Integers
) -> FramePrediction:
    """The prediction of (M,) estimated classes."""
    utterance, num_classes = example.utterance, len(context.classes)
    is_labelled = reference != UNLABELLED
    # (M,) and (M,) -> one number r C + e a pair, sorted; `divmod` by C gives (r, e) back, sorted as well.
    cells, counts = np.unique((reference * num_classes + estimated)[is_labelled], return_counts=True)
    pairs = zip(*np.divmod(cells, num_classes), counts, strict=True)
    return FramePrediction(
        id=utterance.id,
        speaker=utterance.speaker,
        group=utterance.group,
        confusion=tuple((int(true), int(found), int(count)) for true, found, count in pairs),
        edits=count_edits(events, events_of(context, estimated, is_labelled)),
        reference_length=len(events),
    )


def events_of(context: TaskContext, path: NDArray[Any], is_labelled: NDArray[np.bool_]) -> list[int]:
    """The events of a path of classes over instants (M,), where they are labelled; a gap in the labels parts them."""
    collapse = cast(FrameDownstream, context.task).collapse
    # Starts of runs of labelled and of unlabelled instants; `diff` of booleans is true where two neighbours differ.
    bounds = [0, *(np.flatnonzero(np.diff(is_labelled)) + 1).tolist(), len(path)]
    events: list[int] = []
    with plugin_faults(context.task.info.name):
        for start, end in pairwise(bounds):
            # `start < end` fails for an utterance without instants alone, where the bounds are [0, 0].
            if start < end and is_labelled[start]:
                events += collapse(path[start:end].tolist(), context.classes)
    return events


def _cells_hold(predictions: Sequence[FramePrediction], num_classes: int) -> bool:
    """Whether every cell of all predictions is possible: one pass over tens of thousands of numbers."""
    numbers = list(chain.from_iterable(chain.from_iterable(each.confusion for each in predictions)))
    # `type`, not isinstance: JSON's true would pass as the integer 1.
    if set(map(type, numbers)) - {int}:
        return False
    return _all_within({*numbers[0::3], *numbers[1::3]}, num_classes - 1) and _all_within(set(numbers[2::3]))


def _fault_of_cells(prediction: FramePrediction, num_classes: int) -> str | None:
    for reference, estimated, instants in prediction.confusion:
        if not all(is_count(each, most=num_classes - 1) for each in (reference, estimated)):
            return f"the confusion of {reference!r} with {estimated!r} is not of {num_classes} classes"
        if not is_count(instants):
            return f"{instants!r} instants"
    return None


def _all_within(values: Collection[int], most: int = MOST) -> bool:
    return not values or (min(values) >= 0 and max(values) <= most)
