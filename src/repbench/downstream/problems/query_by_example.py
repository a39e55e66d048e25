"""Query by example: spoken queries that are searched for in spoken documents, without training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar, Literal, cast, get_args

from repbench.downstream.problems.contract import (
    MOST,
    LabelledUtterance,
    Prediction,
    Quality,
    TaskContext,
    is_count,
)
from repbench.downstream.problems.training_free import TrainingFreeProblem

Role = Literal["query", "document"]
"""What an utterance is in a search."""


@dataclass(frozen=True, slots=True)
class SearchLabels:
    """What an utterance is in a search.

    Attributes:
        role: Query or document.
        terms: The term of a query, as words joined by single spaces; the terms that a document is known to hold.
        words: The words of a document in order, in which terms are looked for; None where `terms` are all.
    """

    role: Role
    terms: tuple[str, ...]
    words: tuple[str, ...] | None = None

    def holds(self, term: str) -> bool:
        """Whether a document holds a term."""
        if self.words is None:
            return term in self.terms
        # Spaces at both ends keep the parts of words out: ART is not in PARTY.
        return f" {term} " in f" {' '.join(self.words)} "


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPrediction(Prediction):
    """The scores of a query, or a document.

    Attributes:
        reference: The term of a query; None for a document.
        document: The number of a document; None for a query.
        relevant: Of a query, the numbers of the documents that hold its term, sorted.
        scores: Of a query, one score a document, by its number.
    """

    marker: ClassVar[str] = "relevant"

    reference: str | None
    document: int | None
    relevant: tuple[int, ...]
    scores: tuple[float, ...]


class QueryByExample(TrainingFreeProblem):
    """In which documents a query occurs."""

    name = "query-by-example"
    prediction = SearchPrediction
    labels_are = "a role in the search, with terms"
    # A score has the speaker of the query and that of the document; without one, its documents are not looked up.
    crosses_units = True

    def is_label(self, labels: object) -> bool:
        """Whether labels are those of a search."""
        return isinstance(labels, SearchLabels)

    def values(self, labels: SearchLabels) -> tuple[str, ...]:
        """The term of a query."""
        return labels.terms if labels.role == "query" else ()

    def with_values(self, labels: SearchLabels, values: Iterator[Any]) -> SearchLabels:
        """Another term, for a query."""
        return replace(labels, terms=(next(values),)) if labels.role == "query" else labels

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> SearchPrediction:
        """The term, without documents: they are not those of one utterance."""
        utterance, labels = example.utterance, cast(SearchLabels, example.labels)
        return SearchPrediction(
            id=utterance.id,
            speaker=utterance.speaker,
            group=utterance.group,
            reference=labels.terms[0] if labels.role == "query" else None,
            document=None,
            relevant=(),
            scores=(),
        )

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> SearchPrediction:
        """A query in every fourth place, else a document, which holds the terms of some queries."""
        relevant: tuple[int, ...] = ()
        scores: tuple[float, ...] = ()
        if number % 4 == 0:
            relevant = tuple(each for each in range(60) if each % 4 and (each + number) % 5 == 1)
            guess = Random(f"guess {number}")
            found = {"right": 3.0, "wrong": -3.0}
            scores = tuple(
                guess.gauss(0, 1) if quality == "guess" else found[quality] * (1 if each in relevant else -1)
                for each in range(60)
            )
        return SearchPrediction(
            id=who["id"],
            speaker=who["speaker"],
            group=who["group"],
            reference=None if number % 4 else f"t{number % 5}",
            document=number if number % 4 else None,
            relevant=relevant,
            scores=scores,
        )

    def faults(self, predictions: Sequence[Prediction], num_classes: int) -> Iterator[str | None]:
        """Faults: documents of one number, and queries whose scores or documents cannot be."""
        numbers = Counter(cast(SearchPrediction, each).document for each in predictions)
        return (_fault_of(cast(SearchPrediction, each), numbers) for each in predictions)


QUERY_BY_EXAMPLE = QueryByExample()


def _fault_of(prediction: SearchPrediction, numbers: Counter[int | None]) -> str | None:
    if prediction.document is not None:
        if not is_count(prediction.document) or numbers[prediction.document] > 1:
            return f"the document {prediction.document!r} is none, or one of several of this number"
        return "a document has scores of its own" if prediction.relevant or prediction.scores else None
    if not isinstance(prediction.reference, str):
        return f"the term is {prediction.reference!r}"
    # NaN fails `<=`; `type` keeps JSON's true out.
    if not all(type(each) in (int, float) and abs(each) <= MOST for each in prediction.scores):
        return "a score is not a finite number"
    if not all(is_count(each, most=len(prediction.scores) - 1) for each in prediction.relevant):
        return "a relevant document has no score"
    return None


ROLES: tuple[Role, ...] = get_args(Role)
