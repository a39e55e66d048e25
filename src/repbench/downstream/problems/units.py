"""Discrete units of test utterances against their phones: what a task on units predicts, line by line.

Axes: F frames, P phones, K units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import Phone
from repbench.downstream.metrics.boundaries import BoundaryCounts, count_found
from repbench.downstream.problems.contract import (
    MOST,
    LabelledUtterance,
    Prediction,
    Quality,
    TaskContext,
    is_count,
    label_names,
    made_up_class,
    speakers_outside,
)
from repbench.downstream.problems.scoring_grid import UNLABELLED, labels_at
from repbench.downstream.problems.training_free import TrainingFreeProblem

TOLERANCE_S = 0.02
"""Half of the window around a boundary of phones in which a change of the unit finds it."""

_SAME_S = 1e-4
"""An end and a start that are nearer to each other are one boundary: alignments are rounded."""

_MADE_UP_FRAMES = 120
_MADE_UP_RUN = 6
"""Of a made-up prediction, of a frame every 10 ms: its frames, and how many in a row have one phone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitsPrediction(Prediction):
    """The units of one utterance, as counts.

    Attributes:
        seconds: Duration of the utterance.
        joint: (phone, unit, frames), sorted, no zero counts: of the frames whose centre is in a phone.
        symbols: (unit, frames, runs of equal units), sorted, of all frames.
        boundaries: Boundaries of phones, changes of the unit between the first and the last phone, and boundaries that
            a change finds.
        abx: (phone of A and X, phone of B, twice the errors, triples) of the cells within the speaker whose first X
            lies in the utterance, sorted; None in predictions that were made before they were kept.
    """

    marker: ClassVar[str] = "symbols"

    seconds: float
    joint: tuple[tuple[int, int, int], ...]
    symbols: tuple[tuple[int, int, int], ...]
    boundaries: tuple[int, int, int]
    abx: tuple[tuple[int, int, int, int], ...] | None = None

    def as_line(self) -> dict[str, Any]:
        """As the base class; an older line has no `abx`, and stays as it is."""
        line = super(UnitsPrediction, self).as_line()
        if self.abx is None:
            del line["abx"]
        return line

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Self:
        """As the base class; counts of phones and units have three numbers, cells of ABX four."""
        made = super(UnitsPrediction, cls).of_line({"abx": None, **line})
        if any(len(each) != 3 for each in (*made.joint, *made.symbols, made.boundaries)):
            raise ValueError("a cell of `joint` or `symbols`, or `boundaries`, does not have three numbers")
        if any(len(each) != 4 for each in made.abx or ()):
            raise ValueError("a cell of `abx` does not have four numbers")
        return made

    def truth(self) -> dict[str, Any]:
        """Speaker, group, duration and the number of boundaries of phones."""
        return {
            "speaker": self.speaker,
            "group": self.group,
            "seconds": self.seconds,
            "reference_boundaries": self.boundaries[0],
        }


class UnitQuality(TrainingFreeProblem):
    """Units of frames, compared with phones and their boundaries."""

    name = "unit-quality"
    prediction = UnitsPrediction
    labels_are = "timed segments of Phone"

    def is_label(self, labels: object) -> bool:
        """Whether labels are segments."""
        return isinstance(labels, tuple) and all(isinstance(each, Phone) for each in labels)

    def names(self, labels: Any) -> tuple[str, ...]:
        """The phones."""
        return label_names(labels)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """Each segment keeps its times."""
        return tuple(Phone(phone.start_s, phone.end_s, next(values)) for phone in labels)

    def compared(
        self,
        context: TaskContext,
        example: LabelledUtterance,
        units: NDArray[np.int64],
        abx: Sequence[tuple[int, int, int, int]] = (),
    ) -> UnitsPrediction:
        """The prediction of an utterance.

        Args:
            context: The task, its classes and the times of the frames.
            example: The utterance with its phones.
            units: (F,) the unit of each frame.
            abx: The cells of ABX whose first X lies in it.
        """
        times = context.times
        assert times is not None
        # Frame k is centred on first + k hop: (F,) samples -> (F,) seconds
        centres = (times.first_center_samples + times.hop_samples * np.arange(len(units))) / times.sample_rate_hz
        phones = labels_at(centres, example.labels, context.index)
        changes = np.flatnonzero(np.diff(units))  # (F - 1,) -> the frames after which the unit is another
        between = (centres[changes] + centres[changes + 1]) / 2 if len(changes) else np.empty(0)
        found = count_found(phone_boundaries(example.labels), _within(between, example.labels), TOLERANCE_S)
        runs = Counter(units[np.concatenate([[0], changes + 1])].tolist()) if len(units) else Counter[int]()
        labelled = phones != UNLABELLED
        cells = Counter(zip(phones[labelled].tolist(), units[labelled].tolist(), strict=True))
        frames = Counter(units.tolist())
        return _prediction(
            example,
            joint=tuple((*pair, count) for pair, count in sorted(cells.items())),
            symbols=tuple((unit, count, runs[unit]) for unit, count in sorted(frames.items())),
            boundaries=(found.reference, found.estimated, found.found),
            abx=tuple(sorted(abx)),
        )

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> UnitsPrediction:
        """A unit for each phone, in runs as long as the phones, every 10 ms, and no error of ABX."""
        path = [index for phone in example.labels for index in [context.index[phone.label]] * _frames_of(phone)]
        count = len(context.classes) if example.utterance.speaker is not None else 0
        cells = tuple((phone, (phone + 1) % count, 0, 1) for phone in sorted(set(path)) if count > 1)
        return _prediction(example, **_counts_of(path, path, len(phone_boundaries(example.labels))), abx=cells)

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> UnitsPrediction:
        """A path of drawn phones; the units are the phones, others with every frame, or some of them drawn anew."""
        count = len(context.classes)
        drawn, guess = Random(number), Random(f"guess {number}")
        runs = [number % count, *(drawn.randrange(count) for _ in range(_MADE_UP_FRAMES // _MADE_UP_RUN - 1))]
        path = [index for index in runs for _ in range(_MADE_UP_RUN)]
        if quality == "wrong":
            # Twice as many units as phones, a new one with every frame: as many bits as can be, and no boundary.
            units = [(number + frame) % (2 * count) for frame in range(len(path))]
        else:
            units = [
                index
                for phone in runs
                for index in [made_up_class(phone, quality, count, guess)] * _MADE_UP_RUN
            ]  # fmt: skip
        boundaries = sum(one != other for one, other in pairwise(path))
        triples = 4 + number % 3
        errors = {"right": 0, "wrong": 2 * triples, "guess": guess.randrange(2 * triples + 1)}[quality]
        return UnitsPrediction(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            seconds=len(path) / 100,
            **_counts_of(path, units, boundaries, none_found=quality == "wrong"),
            abx=((number % count, (number + 1) % count, errors, triples),) if count > 1 else (),
        )

    def among(self, predictions: Sequence[Prediction], ids: Collection[str]) -> Sequence[Prediction]:
        """Those of these utterances, with the cells of ABX of speakers who have no other: tokens are of several."""
        outside = speakers_outside(predictions, ids)
        found = cast(Sequence[UnitsPrediction], [each for each in predictions if each.id in ids])
        return [replace(each, abx=()) if each.abx and each.speaker in outside else each for each in found]

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: phones that do not exist, and values that are no counts or contradict each other."""
        return (_fault_of(cast(UnitsPrediction, each), num_classes) for each in predictions)


UNITS = UnitQuality()


def phone_boundaries(phones: Sequence[Phone]) -> list[float]:
    """The times, in seconds, between the first start and the last end at which a phone starts or ends, each once."""
    edges = sorted(time for phone in phones for time in (phone.start_s, phone.end_s))
    inner: list[float] = []
    for time in edges:
        if time - edges[0] > _SAME_S and edges[-1] - time > _SAME_S and (not inner or time - inner[-1] > _SAME_S):
            inner.append(time)
    return inner


def boundary_counts(prediction: UnitsPrediction) -> BoundaryCounts:
    """The boundaries of a prediction."""
    return BoundaryCounts(*prediction.boundaries)


def _within(times: NDArray[np.float64], phones: Sequence[Phone]) -> NDArray[np.float64]:
    """The times from the first start to the last end: nothing is known of what is outside."""
    if not phones:
        return times[:0]
    first, last = min(each.start_s for each in phones), max(each.end_s for each in phones)
    return times[(times >= first) & (times <= last)]


def _frames_of(phone: Phone) -> int:
    return max(1, round((phone.end_s - phone.start_s) * 100))


def _counts_of(
    path: Sequence[int], units: Sequence[int], boundaries: int, *, none_found: bool = False
) -> dict[str, Any]:
    """The fields of a prediction of units for a path of phones, every change of which is found or is not."""
    runs = Counter(units[:1])
    runs.update(other for one, other in pairwise(units) if one != other)
    changes = sum(one != other for one, other in pairwise(units))
    return {
        "joint": tuple((*pair, count) for pair, count in sorted(Counter(zip(path, units, strict=True)).items())),
        "symbols": tuple((unit, count, runs[unit]) for unit, count in sorted(Counter(units).items())),
        "boundaries": (boundaries, changes, 0 if none_found else min(boundaries, changes)),
    }


def _prediction(example: LabelledUtterance, **fields: Any) -> UnitsPrediction:
    utterance = example.utterance
    return UnitsPrediction(
        id=utterance.id, speaker=utterance.speaker, group=utterance.group, seconds=utterance.seconds, **fields
    )


def _fault_of(prediction: UnitsPrediction, num_classes: int) -> str | None:
    seconds: object = prediction.seconds
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < MOST:
        return f"{seconds!r} seconds"
    counts = [*(number for cell in (*prediction.joint, *prediction.symbols) for number in cell), *prediction.boundaries]
    if not all(map(is_count, counts)):
        return "a value is no count"
    if any(phone >= num_classes for phone, _, _ in prediction.joint):
        return f"a phone is none of {num_classes} classes"
    frames, labelled = Counter[int](), Counter[int]()
    for unit, count, runs in prediction.symbols:
        frames[unit] += count
        if not 1 <= runs <= count:
            return f"{runs} runs of {count} frames of the unit {unit}"
    for _, unit, count in prediction.joint:
        labelled[unit] += count
    if any(labelled[unit] > frames[unit] for unit in labelled):
        return "more frames of a unit are in phones than there are"
    reference, estimated, found = prediction.boundaries
    if found > min(reference, estimated):
        return f"{found} of {reference} boundaries are found by {estimated}"
    return _fault_of_cells(prediction, num_classes)


def _fault_of_cells(prediction: UnitsPrediction, num_classes: int) -> str | None:
    cells = prediction.abx or ()
    if cells and prediction.speaker is None:
        return "cells of ABX without a speaker"
    for a, b, twice_errors, triples in cells:
        if not all(map(is_count, (a, b, twice_errors, triples))) or a == b or max(a, b) >= num_classes:
            return f"the cell {[a, b, twice_errors, triples]} of ABX is none of {num_classes} classes"
        if twice_errors > 2 * triples or not triples:
            return f"a cell of ABX has {twice_errors} half errors in {triples} triples"
    return None
