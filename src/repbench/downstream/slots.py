"""The task `slots`: the words of an utterance and the slots in them (slot filling), in one sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from repbench.corpora.contract import Utterance
from repbench.downstream.asr import SpeltTask, text_predictions
from repbench.downstream.contract import DownstreamInfo, Measurement, MetricInfo, Prediction
from repbench.downstream.metrics import edits, words
from repbench.downstream.text import Transcript, marked_by_columns, read_marked, slots_in
from repbench.errors import DataError, Unlabelled, UsageError


@dataclass(frozen=True, slots=True)
class SlotTally:
    """Sums over utterances.

    Attributes:
        type_f1: Of the F1 of the names of slots.
        num_utterances: Number of utterances.
        value_edits: Edits of the values of reference slots, in characters.
        value_characters: Their length.
    """

    type_f1: Fraction
    num_utterances: int
    value_edits: int
    value_characters: int


class Slots(SpeltTask):
    """Slot filling: the words of a sentence with markers around those of a slot.

    The labels are in an attribute, as `fly to <city> new york </city>`; or, with `columns`, each attribute of that name
    is the value of a slot, and is marked where the transcript first holds it.

    Options:
        attribute: The attribute with the marked sentence.
        columns: Attributes with the value of one slot each, in place of `attribute`; empty or `none`: no such slot.
        units: `characters`, or `subwords` of a sentencepiece model that is trained on the text of train.
        vocabulary_size: Sub-words at most (1000).
        text: The rule that normalises the words: `upper-letters-v1` or `none`.

    Metrics: `slot_type_f1` (primary), the mean over utterances; `slot_value_character_error_rate`.
    """

    info = DownstreamInfo(
        name="slots",
        problem="text",
        split="speaker-disjoint",
        default_head="blstm_ctc",
        metrics={
            "slot_type_f1": MetricInfo(unit="proportion", higher_is_better=True),
            "slot_value_character_error_rate": MetricInfo(
                unit="edits per character", higher_is_better=False, upper=None
            ),
        },
        primary_metric="slot_type_f1",
    )

    def __init__(
        self,
        *,
        attribute: str = "slots",
        columns: Sequence[str] = (),
        units: str = "characters",
        vocabulary_size: int | None = None,
        text: str = "upper-letters-v1",
    ) -> None:
        super().__init__(units=units, vocabulary_size=vocabulary_size, text=text, markers=True)
        if not isinstance(attribute, str):
            raise UsageError(f"`attribute` must be a name, but is {attribute!r}", key="task.attribute")
        if isinstance(columns, str) or not all(isinstance(each, str) for each in columns):
            what = f"`columns` must be a list of names, but is {columns!r}"
            raise UsageError(what, key="task.columns", do="--set 'task.columns=[size, item]'")
        self._attribute, self._columns = attribute, tuple(columns)

    def labels(self, utterance: Utterance) -> Transcript:
        """The words of the utterance with the markers of its slots."""
        try:
            return Transcript(self._by_columns(utterance) if self._columns else self._marked(utterance))
        except ValueError as error:
            do = "Correct the label; docs/tasks.md has the form"
            raise DataError(f"The slots cannot be read: {error}", utterance=utterance.id, do=do) from error

    def _marked(self, utterance: Utterance) -> tuple[str, ...]:
        if self._attribute not in utterance.attributes:
            raise Unlabelled(
                f"no attribute {self._attribute}",
                utterance=utterance.id,
                do="Name the attribute with --set task.attribute=NAME, or columns with --set 'task.columns=[NAME, …]'",
            )
        return read_marked(str(utterance.attributes[self._attribute]), self.rule)

    def _by_columns(self, utterance: Utterance) -> tuple[str, ...]:
        missing = [name for name in self._columns if name not in utterance.attributes]
        if utterance.text is None or len(missing) == len(self._columns):
            what = "no text" if utterance.text is None else f"no attribute {' or '.join(missing)}"
            raise Unlabelled(what, utterance=utterance.id, do="Give the corpus a text column and one a slot")
        values = {name: self.rule(str(utterance.attributes.get(name, ""))) for name in self._columns}
        return marked_by_columns(
            self.rule(utterance.text),
            {name: () if " ".join(value).lower() == "none" else value for name, value in values.items()},
        )

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> SlotTally:
        """Sums over the utterances."""
        pairs = [
            (list(slots_in(each.reference_words)), list(slots_in(each.hypothesis_words)))
            for each in text_predictions(predictions)
        ]
        counted = [words.slot_value_edits(*pair) for pair in pairs]
        return SlotTally(
            type_f1=sum((words.slot_type_f1(*pair) for pair in pairs), Fraction(0)),
            num_utterances=len(pairs),
            value_edits=sum(num_edits for num_edits, _ in counted),
            value_characters=sum(length for _, length in counted),
        )

    def measure_tallies(self, tallies: Sequence[SlotTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The mean F1 of slot names, and the pooled error rate of slot values."""
        num_utterances = sum(each.num_utterances for each in tallies)
        total = sum((each.type_f1 for each in tallies), Fraction(0))
        num_edits, length = sum(each.value_edits for each in tallies), sum(each.value_characters for each in tallies)
        return {
            "slot_type_f1": Measurement(
                value=float(total / num_utterances) if num_utterances else None, counts={"utterances": num_utterances}
            ),
            "slot_value_character_error_rate": Measurement(
                value=edits.error_rate(num_edits, length), counts={"edits": num_edits, "reference_characters": length}
            ),
        }
