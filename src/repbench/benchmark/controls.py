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
from repbench.downstream.contract import label_names


def with_shuffled_labels(questions: Questions, *, seed: int, salt: str) -> Questions:
    """The same utterances with their labels dealt anew: as frequent as before, and true of nothing.

    A class of an utterance goes to another utterance; in a timed labelling each segment keeps its times and takes the
    label of another segment, anywhere in the split; so does each place of a sequence.

    Args:
        questions: Of a whole split or a part of it.
        seed: Of the shuffle.
        salt: What else it depends on (corpus, task and split).
    """
    labels = [label for question in questions for label in label_names(question.labels)]
    places = [
        f"{question.id} {number}" for question in questions for number in range(len(label_names(question.labels)))
    ]
    order = {place: number for number, place in enumerate(places)}
    dealt = iter([labels[order[place]] for place in shuffled(places, seed, f"{salt} labels")])
    return tuple(_relabelled(question, dealt) for question in questions)


def _relabelled(question: Question, dealt: Iterator[str]) -> Question:
    if isinstance(question.labels, str):
        return replace(question, labels=next(dealt))
    if not question.is_timed:
        return replace(question, labels=tuple(next(dealt) for _ in question.labels))
    phones = tuple(Phone(phone.start_s, phone.end_s, next(dealt)) for phone in question.segments)
    return replace(question, labels=phones)
