"""Controls: what the same probe makes of labels that say nothing, and of the same network untrained.

A score is read beside them. What a probe reaches on shuffled labels it owes to the labels' frequencies and to chance;
the rest is its selectivity. What it reaches on an untrained network it owes to the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from repbench.benchmark.data.dataset import LabelledUtterance, LabelledUtterances
from repbench.benchmark.data.seeded_shuffle import shuffled
from repbench.corpora.contract import Phone
from repbench.downstream.contract import label_names


def with_shuffled_labels(examples: LabelledUtterances, *, seed: int, salt: str) -> LabelledUtterances:
    """The same utterances with their labels dealt anew: as frequent as before, and true of nothing.

    A class of an utterance goes to another utterance; in a timed labelling each segment keeps its times and takes the
    label of another segment, anywhere in the split; so does each place of a sequence.

    Args:
        questions: Of a whole split or a part of it.
        seed: Of the shuffle.
        salt: What else it depends on (corpus, task and split).
    """
    labels = [label for example in examples for label in label_names(example.labels)]
    places = [f"{example.id} {number}" for example in examples for number in range(len(label_names(example.labels)))]
    order = {place: number for number, place in enumerate(places)}
    dealt = iter([labels[order[place]] for place in shuffled(places, seed, f"{salt} labels")])
    return tuple(_relabelled(example, dealt) for example in examples)


def _relabelled(example: LabelledUtterance, dealt: Iterator[str]) -> LabelledUtterance:
    if isinstance(example.labels, str):
        return replace(example, labels=next(dealt))
    if not example.is_timed:
        return replace(example, labels=tuple(next(dealt) for _ in example.labels))
    phones = tuple(Phone(phone.start_s, phone.end_s, next(dealt)) for phone in example.segments)
    return replace(example, labels=phones)
