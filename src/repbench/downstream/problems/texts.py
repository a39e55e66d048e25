"""Texts: the words of each utterance, by connectionist temporal classification over the units that spell them.

Targets are units (characters, sub-words, markers of slots), whose spelling an encoder of the task has from the training
split alone. Predictions hold words, so that they are measured without the encoder.

Axes: R probes, N frames, U utterances, C classes (units), S units of all utterances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np

from repbench.downstream.metrics.edits import aligned, count_edits
from repbench.downstream.problems.contract import (
    Encoder,
    LabelledUtterance,
    Prediction,
    Problem,
    Quality,
    Task,
    TaskContext,
)
from repbench.downstream.problems.scoring_grid import Integers
from repbench.downstream.problems.sequences import best_path, frames_needed, sequence_losses
from repbench.downstream.text import Transcript, joined

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPrediction(Prediction):
    """The estimated words of one utterance.

    Attributes:
        reference: The reference words, with a space between them.
        hypothesis: The estimated words, likewise.
        word_edits: Fewest substitutions, deletions and insertions of words that turn one into the other.
        character_edits: The same of characters, the spaces between words among them.
    """

    marker: ClassVar[str] = "word_edits"

    reference: str
    hypothesis: str
    word_edits: int
    character_edits: int

    @property
    def reference_words(self) -> list[str]:
        """The words of the reference."""
        return self.reference.split()

    @property
    def hypothesis_words(self) -> list[str]:
        """The words of the hypothesis."""
        return self.hypothesis.split()

    def aligned(self) -> list[tuple[str | None, str | None]]:
        """The words of both texts in an alignment with the fewest edits."""
        return aligned(self.reference_words, self.hypothesis_words)


class EncodesText(Protocol):
    """The method that a task of this problem has in addition."""

    def encoder(self, train: Sequence[Transcript]) -> Encoder:
        """The spelling of words, fitted on the labels of the training split; a pure function, order does not matter."""
        ...


class TextRecognition(Problem):
    """The words of each utterance.

    An utterance without words is scored, as each word that is estimated for it is an insertion, and trains blanks.
    """

    name = "text"
    heads = ("ctc", "project_ctc", "blstm_ctc")
    prediction = TextPrediction
    labels_are = "a Transcript"
    needs = "frames with a blank"
    counts_targets = True
    task_methods = ("encoder",)

    def is_label(self, labels: object) -> bool:
        """Whether labels are a `Transcript`."""
        return isinstance(labels, Transcript)

    def names(self, labels: Any) -> tuple[str, ...]:
        """The units of a transcript that an encoder spelt; none of another."""
        return cast(Transcript, labels).units

    def values(self, labels: Any) -> tuple[Any, ...]:
        """The words with their spellings: the control with shuffled labels permutes words."""
        words, spellings = labels.words, labels.spellings
        return tuple(zip(words, spellings or ((),) * len(words), strict=True))

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        """As many other words, with their spellings."""
        dealt = [next(values) for _ in labels.words]
        spellings = tuple(spelling for _, spelling in dealt) if labels.spellings else ()
        return Transcript(tuple(word for word, _ in dealt), spellings)

    def encoder(self, task: Task, train: Sequence[Any]) -> Encoder | None:
        """The task's own."""
        return cast(EncodesText, task).encoder(train)

    def warnings(self, classes: Sequence[str], test: Iterable[Any]) -> tuple[str, ...]:
        """Characters that no training text has, and utterances without words, both counted."""
        known, unknown, num_unknown, num_words, num_empty, num_all = set("".join(classes)), Counter[str](), 0, 0, 0, 0
        for labels in test:
            strange = [[each for each in word if each not in known] for word in labels.words]
            unknown.update(each for some in strange for each in some)
            num_unknown += sum(map(bool, strange))
            num_words += len(labels.words)
            num_empty += not labels.words
            num_all += 1
        found = []
        if unknown:
            shown = ", ".join(sorted(unknown)[:10]) + (" …" if len(unknown) > 10 else "")
            found.append(
                f"{num_unknown} of {num_words} test words hold characters that no training text has ({shown}): "
                "they stay in the references, and each is an error"
            )
        if num_empty:
            found.append(
                f"{num_empty} of {num_all} test utterances have no words: they are scored, and every word recognised "
                "in them is an error"
            )
        return tuple(found)

    def is_scored(self, example: LabelledUtterance) -> bool:
        """Every utterance with a transcript is, also one without words."""
        return True

    def frames_needed(self, labels: Any) -> int:
        """One frame a unit, and one for the blank between two equal units."""
        return frames_needed(labels.units)

    def targets(self, context: TaskContext, example: LabelledUtterance, num_frames: int) -> Integers:
        """The units in order."""
        return np.array([context.index[unit] for unit in example.labels.units], dtype=np.int64)

    def losses(
        self, scores: Tensor, targets: Tensor, counts: Tensor | None = None, num_targets: Tensor | None = None
    ) -> Tensor:
        """CTC."""
        return sequence_losses(scores, targets, counts, num_targets)

    def reference(self, context: TaskContext, example: LabelledUtterance, num_rows: int) -> tuple[str, tuple[str, ...]]:
        """The words, and the names of the units, by which scores are read."""
        return example.labels.text, context.classes

    def predict(
        self, example: LabelledUtterance, reference: tuple[str, tuple[str, ...]], scores: Tensor
    ) -> TextPrediction:
        """The words that the likeliest path of (N, C + 1) scores spells (greedy decoding)."""
        text, units = reference
        words = joined(units[number] for number in best_path(scores))
        return _prediction_of(example, text, " ".join(words))

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> TextPrediction:
        """The reference."""
        return _prediction_of(example, example.labels.text, example.labels.text)

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> TextPrediction:
        """One word or slot of each unit in turn."""
        texts = _made_up_texts(context.classes)
        place = number % len(texts)
        # A generator for the hypothesis alone: the reference must not depend on the quality.
        guess = Random(f"guess {number}").randrange(len(texts))
        hypothesis = texts[{"right": place, "wrong": (place + 1) % len(texts), "guess": guess}[quality]]
        return prediction_of_texts(texts[place], hypothesis, **who)

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: texts that are no words with single spaces, and edits that are not those of the texts."""
        return (_fault_of(cast(TextPrediction, each)) for each in predictions)


TEXTS = TextRecognition()


def prediction_of_texts(
    reference: str, hypothesis: str, *, id: str, speaker: str | None = None, group: str | None = None
) -> TextPrediction:
    """The prediction of two texts, with their edits."""
    return TextPrediction(
        id=id,
        speaker=speaker,
        group=group,
        reference=reference,
        hypothesis=hypothesis,
        word_edits=count_edits(reference.split(), hypothesis.split()),
        character_edits=count_edits(reference, hypothesis),
    )


def _prediction_of(example: LabelledUtterance, reference: str, hypothesis: str) -> TextPrediction:
    utterance = example.utterance
    return prediction_of_texts(reference, hypothesis, id=utterance.id, speaker=utterance.speaker, group=utterance.group)


def _made_up_texts(classes: Sequence[str]) -> list[str]:
    """A text of each unit: the word that it spells alone or, of one that opens a slot, the slot around a word."""
    words = ["".join(joined([unit])) for unit in classes]
    plain = [word for word in words if word and not (word.startswith("<") and word.endswith(">"))]
    opening = [word for word in words if word not in plain and word and not word.startswith("</")]
    slots = [f"{word} {plain[0]} </{word[1:]}" for word in opening] if plain else []
    # A slot, then a word: what is wrong for a slot is no slot, if there is one alone.
    return [*slots, *plain]


def _fault_of(prediction: TextPrediction) -> str | None:
    for text in (prediction.reference, prediction.hypothesis):
        if not isinstance(text, str) or text != " ".join(text.split()):
            return "a text must be words with one space between them"
    found = prediction_of_texts(prediction.reference, prediction.hypothesis, id=prediction.id)
    for name in ("word_edits", "character_edits"):
        given, right = getattr(prediction, name), getattr(found, name)
        if type(given) is not int or given != right:
            return f"`{name}` is {given!r} where there are {right}"
    return None
