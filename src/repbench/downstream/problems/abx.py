"""ABX: triples of tokens from labelled stretches of the test utterances, without training.

A cell of triples depends on the speaker of A and B and on that of X. It stands in the line of the utterance of its
first X, so each cell is written once, and without a speaker all its cells go, whichever side they are on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar, Self, cast

from repbench.downstream.discrimination.cells import On
from repbench.downstream.discrimination.tokens import Token
from repbench.downstream.metrics.abx import Cell, validate
from repbench.downstream.problems.contract import (
    LabelledUtterance,
    Prediction,
    Quality,
    TaskContext,
    is_count,
    refuse_unknown_fields,
    speakers_outside,
)
from repbench.downstream.problems.training_free import TrainingFreeProblem


@dataclass(frozen=True, slots=True)
class TokenLabels:
    """The tokens of an utterance.

    Attributes:
        on: Whether their classes are phones or speakers.
        tokens: In the order of the corpus.
    """

    on: On
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AbxPrediction(Prediction):
    """The cells whose first X lies in one utterance.

    Attributes:
        on: Whether the classes are phones or speakers.
        cells: With counts; sorted.
        left_out: Tokens of the utterance in which no frame is centred.
    """

    marker: ClassVar[str] = "cells"

    on: On
    cells: tuple[Cell, ...]
    left_out: int

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Self:
        """As the base class, with the fields of cells."""
        refuse_unknown_fields(line, _FIELDS)
        return cls(
            id=line["id"],
            speaker=line["speaker"],
            group=line["group"],
            on=line["on"],
            cells=tuple(Cell(*cell) for cell in line["cells"]),
            left_out=line["left_out"],
        )

    def without(self, speaker: str) -> Self:
        """The prediction without the cells whose A and B, or B, are of a speaker."""
        kept = tuple(cell for cell in self.cells if (cell.group if self.on == "phone" else cell.b) != speaker)
        return self if len(kept) == len(self.cells) else replace(self, cells=kept)


_FIELDS = frozenset({"id", "speaker", "group", "on", "cells", "left_out"})


class Abx(TrainingFreeProblem):
    """Whether X is nearer to A of its class than to B of another."""

    name = "abx"
    prediction = AbxPrediction
    labels_are = "tokens, each with times, a phone, a context and a speaker"
    # A cell of one group can have speakers of several: there is nothing but the speaker to leave out.
    resampled = ("speaker",)
    crosses_units = True

    def is_label(self, labels: object) -> bool:
        """Whether labels are tokens."""
        return isinstance(labels, TokenLabels)

    def values(self, labels: TokenLabels) -> tuple[str, ...]:
        """The class of each token."""
        return tuple(each.label if labels.on == "phone" else each.speaker for each in labels.tokens)

    def with_values(self, labels: TokenLabels, values: Iterator[Any]) -> TokenLabels:
        """The tokens with other classes; their times and contexts stay."""
        field = "label" if labels.on == "phone" else "speaker"
        return replace(labels, tokens=tuple(replace(each, **{field: next(values)}) for each in labels.tokens))

    def baselines(
        self, context: TaskContext, train: Sequence[LabelledUtterance], test: Sequence[LabelledUtterance]
    ) -> dict[str, float | None]:
        """Chance: a random order of distances has half of the triples wrong. There is no majority."""
        return {"chance": 0.5, "majority": None}

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> AbxPrediction:
        """A cell without errors for each class of the utterance."""
        utterance, labels = example.utterance, cast(TokenLabels, example.labels)
        group = labels.tokens[0].speaker if labels.on == "phone" else labels.tokens[0].label
        return AbxPrediction(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            on=labels.on,
            cells=tuple(Cell(each, "", group, "", 0, 1) for each in sorted(set(self.values(labels)))),
            left_out=0,
        )

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> AbxPrediction:
        """Two cells of phones within the speaker."""
        triples = 4 + number % 3
        errors = {"right": 0, "wrong": 2 * triples, "guess": Random(f"guess {number}").randrange(2 * triples + 1)}
        classes = [f"p{(number + step) % 5}" for step in range(3)]
        return AbxPrediction(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            on="phone",
            cells=tuple(Cell(classes[0], b, who["speaker"], "", errors[quality], triples) for b in sorted(classes[1:])),
            left_out=number % 2,
        )

    def without(self, predictions: Sequence[Prediction], unit: str, name: str) -> Sequence[Prediction]:
        """Without the utterances of a speaker, and without the cells of others that need it."""
        return [cast(AbxPrediction, each).without(name) for each in super().without(predictions, unit, name)]

    def among(self, predictions: Sequence[Prediction], ids: Collection[str]) -> Sequence[Prediction]:
        """The cells of which all speakers have nothing but these utterances: tokens are named by their speakers."""
        found: Sequence[Prediction] = [each for each in predictions if each.id in ids]
        for speaker in sorted(speakers_outside(predictions, ids)):
            found = self.without(found, "speaker", speaker)
        return found

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: cells that are none, and counts that are not possible."""
        return (_fault_of(cast(AbxPrediction, each)) for each in predictions)


ABX = Abx()


def _fault_of(prediction: AbxPrediction) -> str | None:
    if prediction.on not in ("phone", "speaker"):
        return f"`on` is {prediction.on!r}"
    if not is_count(prediction.left_out):
        return f"`left_out` is {prediction.left_out!r}"
    for cell in prediction.cells:
        if not all(isinstance(each, str) for each in cell[:4]) or not all(map(is_count, cell[4:])):
            return f"the cell {list(cell)} is none"
        if cell.a == cell.b:
            return f"the cell {list(cell)} has one class"
    try:
        validate(prediction.cells)
    except ValueError as error:
        return str(error)
    return None
