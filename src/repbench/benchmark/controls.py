"""Controls: what the same probe makes of labels that say nothing, and of the same network untrained.

A score is read beside them. What a probe reaches on shuffled labels it owes to the labels' frequencies and to chance;
the rest is its selectivity. What it reaches on an untrained network it owes to the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from repbench.benchmark.plan import Question, Questions
from repbench.benchmark.shuffling import shuffled
from repbench.corpora.contract import Phone


def with_shuffled_labels(questions: Questions, *, seed: int, salt: str) -> Questions:
    """The same utterances with their labels dealt anew: as frequent as before, and true of nothing.

    A class of an utterance goes to another utterance; in a timed labelling each segment keeps its times and takes the
    label of another segment, anywhere in the split.

    Args:
        questions: Of a whole split or a part of it.
        seed: Of the shuffle.
        salt: What else it depends on (corpus, task and split).
    """
    places = [f"{question.id} {number}" for question in questions for number in range(_num_labels(question))]
    labels = [label for question in questions for label in _labels(question)]
    order = {place: number for number, place in enumerate(places)}
    dealt = iter([labels[order[place]] for place in shuffled(places, seed, f"{salt} labels")])
    return tuple(_relabelled(question, dealt) for question in questions)


def _num_labels(question: Question) -> int:
    return 1 if isinstance(question.labels, str) else len(question.labels)


def _labels(question: Question) -> list[str]:
    return [question.labels] if isinstance(question.labels, str) else [phone.label for phone in question.labels]


def _relabelled(question: Question, dealt: Iterator[str]) -> Question:
    if isinstance(question.labels, str):
        return replace(question, labels=next(dealt))
    phones = tuple(Phone(phone.start_s, phone.end_s, next(dealt)) for phone in question.labels)
    return replace(question, labels=phones)
