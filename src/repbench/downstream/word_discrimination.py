"""The task `word-discrimination`: whether two spoken words are the same, by the distance of their frames.

Axes: P pairs of words, W words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import numpy as np

from repbench.corpora.contract import Utterance
from repbench.downstream.attribute_values import attribute_of, attributes_to_read, class_name
from repbench.downstream.contract import (
    DownstreamInfo,
    FrozenFeatures,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Outcome,
    Prediction,
    ReadSplit,
)
from repbench.downstream.discrimination.alignment import alignment_bytes, segments_of
from repbench.downstream.discrimination.options import at_least, one_of
from repbench.downstream.metrics.dtw import Distances, TableRequest, tables
from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES
from repbench.downstream.metrics.retrieval import average_precision
from repbench.downstream.problems.word_discrimination import WordDistances
from repbench.errors import DataError, Unlabelled

DISTANCES = ("angular", "cosine", "euclidean", "kl", "identical")

DIGITS = 6
"""Significant digits of a distance in predictions, from which the metrics are computed."""

_PRECISION = MetricInfo(unit="mean precision", higher_is_better=True)


class WordDiscrimination(MeasuredByTallies):
    """The same-different task: pairs of words are ranked by distance, pairs of one word should come first.

    Metrics: `average_precision` (primary) of aligned frames, `mean_average_precision` of the mean frame of each word;
    and both of speakers, where a pair of one word counts only if its speakers differ: `cross_speaker_precision` and
    `mean_cross_speaker_precision`.

    Args:
        attribute: The attribute with the word, or one of the fields `text`, `speaker`, `group`.
        max_words: Utterances that are drawn at most, seeded; null: all.
        distance: Of frames: angular, cosine (the same), euclidean, kl or identical.
    """

    reads: tuple[ReadSplit, ...] = ()

    info = DownstreamInfo(
        name="word-discrimination",
        problem="word-discrimination",
        split="speaker-disjoint",
        default_head="none",
        metrics={
            "average_precision": _PRECISION,
            "cross_speaker_precision": _PRECISION,
            "mean_average_precision": _PRECISION,
            "mean_cross_speaker_precision": _PRECISION,
        },
        primary_metric="average_precision",
    )

    def __init__(self, *, attribute: str | None = None, max_words: int | None = 500, distance: str = "angular") -> None:
        self._attributes = attributes_to_read(attribute, ("word",))
        self._max_words = at_least("max_words", max_words, 2)
        self._distance = FRAME_DISTANCES[one_of("distance", distance, DISTANCES)]

    def labels(self, utterance: Utterance) -> str:
        """The word.

        Raises:
            Unlabelled: The utterance has none.
        """
        name, value = attribute_of(utterance, self._attributes)
        word = class_name(value)
        if not word:
            raise Unlabelled(f"the attribute {name} is empty", utterance=utterance.id)
        return word

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """None: predictions name words."""
        return ()

    def outcome(self, features: FrozenFeatures) -> Outcome:
        """The distances of all pairs of words that are drawn.

        Raises:
            DataError: No word occurs twice among them.
            EnvironmentFault: Their frames do not fit the memory.
        """
        examples = features.test.examples
        places = _drawn(len(examples), self._max_words, features.seed)
        words = Counter(examples[number].labels for number in places)
        if max(words.values(), default=0) < 2:
            what = f"No word occurs twice among the {len(places)} utterances that are compared"
            raise DataError(what, key="task.attribute", do="Name the attribute of the word, or raise task.max_words")
        frames = [own.clone() for number, own in enumerate(features.test.each()) if number in places]
        distances = [self._table(features, frames, pooling) for pooling in ("dtw", "mean")]
        predictions = []
        for number, example in enumerate(examples):
            place = places.get(number)
            aligned, mean = (
                ((), ()) if place is None else tuple(tuple(rounded(table[place, :place])) for table in distances)
            )
            predictions.append(
                WordDistances(
                    id=example.id,
                    speaker=example.utterance.speaker,
                    group=example.utterance.group,
                    reference=example.labels,
                    place=place,
                    aligned_distances=aligned,
                    mean_distances=mean,
                )
            )
        return Outcome(predictions=predictions)

    def _table(self, features: FrozenFeatures, frames: Sequence[Any], pooling: Any) -> Distances:
        memory_bytes = features.memory_bytes
        segments = segments_of(
            frames, self._distance, pooling=pooling, device=features.device, memory_bytes=memory_bytes
        )
        request = TableRequest(np.arange(len(frames)), None)
        (table,) = tables(segments, [request], self._distance.between, alignment_bytes(segments, memory_bytes))
        return table

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Sequence[Prediction]:
        """The predictions: a pair needs both."""
        return predictions

    def measure_tallies(
        self, tallies: Sequence[Sequence[Prediction]], classes: Sequence[str]
    ) -> dict[str, Measurement]:
        """The four metrics over the pairs of all."""
        given = [each for tally in tallies for each in tally if isinstance(each, WordDistances)]
        drawn = sorted((each for each in given if each.place is not None), key=lambda each: each.place or 0)
        words = np.unique([each.reference for each in drawn], return_inverse=True)[1].reshape(-1)
        # An unknown speaker is a speaker of its own: nothing shows that two of them are one.
        names = [each.id if each.speaker is None else f" {each.speaker}" for each in drawn]
        speakers = np.unique(names, return_inverse=True)[1].reshape(-1)
        later, earlier = np.tril_indices(len(drawn), k=-1)  # (P,) and (P,)
        is_same = words[later] == words[earlier]
        # Pairs of one word by one speaker are neither right nor wrong there.
        counts = ~is_same | (speakers[later] != speakers[earlier])
        measured = {}
        for prefix, field in (("", "aligned_distances"), ("mean_", "mean_distances")):
            scores = -_distances(drawn, field)[later, earlier]
            of_pairs = {"pairs": len(scores), "same_word": int(is_same.sum())}
            across = {"pairs": int(counts.sum()), "same_word": int(is_same[counts].sum())}
            measured[f"{prefix}average_precision"] = Measurement(
                value=average_precision(scores, is_same), counts=of_pairs
            )
            measured[f"{prefix}cross_speaker_precision"] = Measurement(
                value=average_precision(scores[counts], is_same[counts]), counts=across
            )
        return measured


def rounded(distances: Iterable[float]) -> list[float]:
    """Distances to as many digits as predictions keep."""
    return [float(f"{each:.{DIGITS}g}") for each in distances]


def _drawn(count: int, most: int | None, seed: int) -> dict[int, int]:
    """From the number of each utterance that is drawn, in order, to its place among them."""
    if most is None or count <= most:
        return {number: number for number in range(count)}
    chosen = sorted(Random(repr((seed, "words"))).sample(range(count), most))
    return {number: place for place, number in enumerate(chosen)}


def _distances(drawn: Sequence[WordDistances], field: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(W, W) the distances of each word to those before it; 0 elsewhere."""
    places = np.array([each.place for each in drawn], dtype=np.int64)
    table = np.zeros((len(drawn), len(drawn)))
    for number, each in enumerate(drawn):
        # Words that were left out, as those of a speaker are for an interval, leave gaps among the places.
        table[number, :number] = np.array(getattr(each, field), dtype=np.float64)[places[:number]]
    return table
