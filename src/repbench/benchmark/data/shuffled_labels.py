"""The control with shuffled labels.

The score of a probe on shuffled labels is due to the labels' frequencies and to chance; the rest of its score on the
given labels is its selectivity. (The other control, the untrained network, shows what is due to the architecture.)
"""

from __future__ import annotations

from dataclasses import replace

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.data.seeded_shuffle import shuffled
from repbench.downstream.contract import Problem


def with_shuffled_labels(examples: LabelledUtterances, *, problem: Problem, seed: int, salt: str) -> LabelledUtterances:
    """The same utterances with their labels permuted: each value as frequent as before, in other places.

    A class of an utterance goes to another utterance; in a timed labelling each segment keeps its times and takes the
    label of another segment, anywhere in the split; so does each place of a sequence.

    Args:
        examples: A whole split or a part of it.
        problem: Gives the values in labels, and puts others in their place.
        seed: Of the shuffle.
        salt: A text on which it also depends (corpus, task and split).
    """
    given = [(example.id, problem.values(example.labels)) for example in examples]
    labels = [label for _, values in given for label in values]
    # A place is an utterance and the number of the value in it; the salted order of places is the permutation.
    places = [f"{id_} {number}" for id_, values in given for number in range(len(values))]
    order = {place: number for number, place in enumerate(places)}
    # An iterator over the whole split: each utterance takes as many values as it had.
    dealt = iter([labels[order[place]] for place in shuffled(places, seed, f"{salt} labels")])
    return tuple(replace(example, labels=problem.with_values(example.labels, dealt)) for example in examples)
