"""The task `asr`: the words of speakers that are not in training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast, get_args

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.metrics import edits
from repbench.downstream.problems.texts import TextPrediction
from repbench.downstream.text import Characters, TextEncoder, Transcript, rule_named, train_subwords
from repbench.errors import DataError, Unlabelled, UsageError

Units = Literal["characters", "subwords"]

VOCABULARY_SIZE = 1000
"""Sub-words at most, where none are given: a usual number for a hundred hours of English."""

TextTally = tuple[int, int, int, int]
"""Edits and reference length in words, then both in characters."""


class SpeltTask(MeasuredByTallies):
    """The base of tasks whose targets are texts: the units that words are spelt in.

    Args:
        units: `characters`, or `subwords` of a sentencepiece model that is trained on the text of train.
        vocabulary_size: Sub-words at most; None: `VOCABULARY_SIZE`.
        text: Name of the rule that normalises transcripts; see `repbench.downstream.text.normalisation`.
        markers: Whether words such as `<city>` are one unit.

    Raises:
        UsageError: An option has a value that it cannot have.
    """

    def __init__(self, *, units: str, vocabulary_size: int | None, text: str, markers: bool = False) -> None:
        if units not in get_args(Units):
            what = f"`units` must be {' or '.join(get_args(Units))}, but is {units!r}"
            raise UsageError(what, key="task.units", do=f"Choose one of {', '.join(get_args(Units))}")
        if vocabulary_size is not None and units == "characters":
            what = "Characters are as many as the texts of train hold: `vocabulary_size` is of sub-words"
            raise UsageError(what, key="task.vocabulary_size", do="Leave it out, or set task.units=subwords")
        size: object = VOCABULARY_SIZE if vocabulary_size is None else vocabulary_size
        if type(size) is not int or size < 2:
            what = f"`vocabulary_size` must be a whole number from 2 on, but is {size!r}"
            raise UsageError(what, key="task.vocabulary_size", do="Give a number such as 200")
        self.rule = rule_named(text)
        self._units, self._size, self._text, self._markers = units, size, text, markers
        self._last: tuple[bytes, TextEncoder] | None = None

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """The units of the encoder of these training texts."""
        return self.encoder(tuple(train)).units

    def encoder(self, train: Sequence[Transcript]) -> TextEncoder:
        """The spelling of words, fitted on training texts.

        Raises:
            DataError: There are no words, or more characters than sub-words.
            UsageError: sentencepiece is needed, and not installed.
        """
        texts = sorted(each.words for each in train)
        if not any(texts):
            what = f"The training split has no word, by the rule `{self._text}`"
            raise DataError(what, key="task.text", do="Give the corpus transcripts, or another rule")
        if self._units == "characters":
            return Characters(texts, markers=self._markers)
        # `classes` and `encoder` are called on the same texts one after the other, and training takes seconds.
        digest = hashlib.sha256(repr(texts).encode("utf-8", "surrogatepass")).digest()
        if self._last is None or self._last[0] != digest:
            self._last = digest, train_subwords(texts, self._size, markers=self._markers)
        return self._last[1]


def text_predictions(predictions: Sequence[Prediction]) -> list[TextPrediction]:
    """The predictions, typed as those of texts."""
    return [cast(TextPrediction, each) for each in predictions]


class ASR(SpeltTask):
    """Recognition of speech: the words of the transcript, decoded greedily, without a language model.

    Options:
        units: `characters`, or `subwords` of a sentencepiece model that is trained on the text of train.
        vocabulary_size: Sub-words at most (1000).
        text: The rule that normalises transcripts: `upper-letters-v1` or `none`.

    An utterance without words is scored: what is recognised in it is an error.

    Metrics: `word_error_rate` (primary), `character_error_rate`.
    """

    info = DownstreamInfo(
        name="asr",
        problem="text",
        split="speaker-disjoint",
        default_head="blstm_ctc",
        metrics={
            "word_error_rate": MetricInfo(unit="edits per word", higher_is_better=False, upper=None),
            "character_error_rate": MetricInfo(unit="edits per character", higher_is_better=False, upper=None),
        },
        primary_metric="word_error_rate",
    )

    def __init__(
        self, *, units: str = "characters", vocabulary_size: int | None = None, text: str = "upper-letters-v1"
    ) -> None:
        super().__init__(units=units, vocabulary_size=vocabulary_size, text=text)

    def labels(self, utterance: Utterance) -> Transcript:
        """The words of the utterance's transcript."""
        if utterance.text is None:
            raise Unlabelled("no text", utterance=utterance.id, do="Give the corpus transcripts, or a text column")
        return Transcript(self.rule(utterance.text))

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> TextTally:
        """Edits and reference lengths, summed."""
        texts = text_predictions(predictions)
        return (
            sum(each.word_edits for each in texts),
            sum(len(each.reference_words) for each in texts),
            sum(each.character_edits for each in texts),
            sum(len(each.reference) for each in texts),
        )

    def measure_tallies(self, tallies: Sequence[TextTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The error rates of the pooled counts."""
        word_edits, words, character_edits, characters = (sum(tally[place] for tally in tallies) for place in range(4))
        return {
            "word_error_rate": Measurement(
                value=edits.error_rate(word_edits, words), counts={"edits": word_edits, "reference_words": words}
            ),
            "character_error_rate": Measurement(
                value=edits.error_rate(character_edits, characters),
                counts={"edits": character_edits, "reference_characters": characters},
            ),
        }
