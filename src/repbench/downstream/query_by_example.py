"""The task `query-by-example`: in which documents a spoken term occurs, by subsequence DTW.

Axes: Q queries, D documents, F frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
from repbench.downstream.discrimination.options import one_of
from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES
from repbench.downstream.metrics.retrieval import most_term_weighted_value, term_weighted_value
from repbench.downstream.metrics.subsequence import search
from repbench.downstream.problems.query_by_example import ROLES, SearchLabels, SearchPrediction
from repbench.downstream.text.normalisation import upper_letters_v1
from repbench.errors import DataError, Unlabelled

if TYPE_CHECKING:
    from torch import Tensor

LEAST_FRAMES = 5
"""A query with fewer frames scores 0 in every document, as in SUPERB."""

THRESHOLD = 2.0
"""Standard deviations above the mean score of a query from which on SUPERB calls a document found."""

DECIMALS = 4
"""Of scores in predictions, from which the metrics are computed; SUPERB's files have as many."""

_LEAST_DEVIATION = 1e-9

DISTANCES = ("cosine_exp", "angular", "euclidean")

Floats = NDArray[np.float64]


class QueryByExample(MeasuredByTallies):
    """Spoken term detection by example, with the recipe of SUPERB.

    Frames are standardised over all queries and documents; the distances of each frame of a query are scaled to [0, 1]
    in each document; the score is the negative cost of subsequence DTW, standardised over the documents of a query.

    Metrics: `mtwv` (primary), the term-weighted value at the best threshold of all; `atwv`, that at two standard
    deviations. Costs are those of QUESST 2014: a prior of 0.0008, 1 for a false alarm, 100 for a miss.

    Args:
        role: The attribute that is `query` or `document`; utterances of another role are left out.
        term: The attribute with the term of a query; by default its text.
        terms: The attribute with the terms of a document, separated by `;`; by default they are looked for in its text.
        distance: Of frames: cosine_exp, angular or euclidean.
    """

    reads: tuple[ReadSplit, ...] = ()

    info = DownstreamInfo(
        name="query-by-example",
        problem="query-by-example",
        split="speaker-disjoint",
        default_head="none",
        metrics={
            "mtwv": MetricInfo(unit="term-weighted value", higher_is_better=True),
            "atwv": MetricInfo(unit="term-weighted value", higher_is_better=True, lower=None),
        },
        primary_metric="mtwv",
    )

    def __init__(
        self,
        *,
        role: str | None = None,
        term: str | None = None,
        terms: str | None = None,
        distance: str = "cosine_exp",
    ) -> None:
        self._role = attributes_to_read(role, ("role",))
        self._term = attributes_to_read(term, ("text",))
        self._terms = attributes_to_read(terms)
        self._distance = FRAME_DISTANCES[one_of("distance", distance, DISTANCES)]

    def labels(self, utterance: Utterance) -> SearchLabels | None:
        """Whether it is a query or a document, with its terms; None for another role.

        Raises:
            Unlabelled: It has no role, no term or no text.
        """
        role = class_name(attribute_of(utterance, self._role, option="task.role")[1])
        if role not in ROLES:
            return None
        if role == "query":
            words = upper_letters_v1(class_name(attribute_of(utterance, self._term, option="task.term")[1]))
            if not words:
                raise Unlabelled("its term has no words", utterance=utterance.id)
            return SearchLabels("query", (" ".join(words),))
        if self._terms:
            listed = class_name(attribute_of(utterance, self._terms, option="task.terms")[1]).split(";")
            return SearchLabels("document", tuple(" ".join(upper_letters_v1(each)) for each in listed))
        if utterance.text is None:
            raise Unlabelled("no text", utterance=utterance.id, do="Name its terms with --set task.terms=ATTRIBUTE")
        return SearchLabels("document", (), upper_letters_v1(utterance.text))

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """None: predictions name terms."""
        return ()

    def outcome(self, features: FrozenFeatures) -> Outcome:
        """The scores of all queries in all documents.

        Raises:
            DataError: There is no query or no document, or no term of a query occurs in some documents and not in all.
            EnvironmentFault: The frames do not fit the memory.
        """
        examples = features.test.examples
        labels: list[SearchLabels] = [each.labels for each in examples]
        queries, documents = (
            np.array([number for number, each in enumerate(labels) if each.role == role], dtype=np.int64)
            for role in ROLES
        )
        relevant = {
            int(query): tuple(
                place for place, number in enumerate(documents) if labels[number].holds(labels[query].terms[0])
            )
            for query in queries
        }
        if not any(0 < len(each) < len(documents) for each in relevant.values()):
            what = f"No term of {len(queries)} queries occurs in some of {len(documents)} documents and not in others"
            raise DataError(what, key="task.role", do="Give queries and documents with --set task.role=ATTRIBUTE")
        scores = self._scores(features, queries, documents)
        row_of = {int(query): row for row, query in enumerate(queries)}
        place_of = {int(number): place for place, number in enumerate(documents)}
        return Outcome(
            predictions=[
                SearchPrediction(
                    id=each.id,
                    speaker=each.utterance.speaker,
                    group=each.utterance.group,
                    reference=labels[number].terms[0] if number in row_of else None,
                    document=place_of.get(number),
                    relevant=relevant.get(number, ()),
                    scores=tuple(scores[row_of[number]].tolist()) if number in row_of else (),
                )
                for number, each in enumerate(examples)
            ]
        )

    def _scores(self, features: FrozenFeatures, queries: Any, documents: Any) -> Floats:
        """(Q, D) standardised scores."""
        memory_bytes = features.memory_bytes
        chosen = self._distance
        distance = replace(chosen, prepare=lambda frames: chosen.prepare(standardised(frames)))
        frames = [each.clone() for each in features.test.each()]
        segments = segments_of(frames, distance, pooling="dtw", device=features.device, memory_bytes=memory_bytes)
        costs = search(segments, queries, documents, distance.between, alignment_bytes(segments, memory_bytes))
        scores = -costs.astype(np.float64)
        scores[segments.lengths[queries] < LEAST_FRAMES] = 0
        deviations = np.maximum(scores.std(axis=1, keepdims=True), _LEAST_DEVIATION)
        standard: Floats = np.round((scores - scores.mean(axis=1, keepdims=True)) / deviations, DECIMALS)
        return standard

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Sequence[Prediction]:
        """The predictions: a score needs its document."""
        return predictions

    def measure_tallies(
        self, tallies: Sequence[Sequence[Prediction]], classes: Sequence[str]
    ) -> dict[str, Measurement]:
        """Both metrics over the queries and documents of all."""
        given = [each for tally in tallies for each in tally if isinstance(each, SearchPrediction)]
        documents = sorted(each.document for each in given if each.document is not None)
        queries = sorted((each for each in given if each.document is None), key=lambda each: each.id)
        scores = [np.array(each.scores, dtype=np.float64)[documents] for each in queries]
        occurs = [np.isin(documents, each.relevant) for each in queries]
        most = most_term_weighted_value(scores, occurs)
        counts = {
            "queries": sum(bool(each.any() and not each.all()) for each in occurs),
            "documents": len(documents),
            "occurrences": sum(int(each.sum()) for each in occurs),
        }
        actual = term_weighted_value([each > THRESHOLD for each in scores], occurs)
        return {
            "mtwv": Measurement(value=None if most is None else most[0], counts=counts),
            "atwv": Measurement(value=actual, counts=counts),
        }


def standardised(frames: Tensor) -> Tensor:
    """(F, D) frames with mean 0 and deviation 1 in each dimension."""
    deviations = frames.std(dim=0).clamp_min(_LEAST_DEVIATION)
    return (frames - frames.mean(dim=0)) / deviations
