"""What knowing nothing scores: the rows without which a number cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from repbench.benchmark.instants import instants_s, num_instants
from repbench.benchmark.plan import Question, Questions
from repbench.downstream.contract import Downstream


def baselines(task: Downstream, classes: Sequence[str], train: Questions, test: Questions) -> dict[str, float | None]:
    """Chance and majority of the primary metric; None where it is no accuracy.

    Chance answers at random with equal odds; majority always answers the class most frequent in training (None where
    nothing was trained).
    """
    if task.info.primary_metric != "accuracy":
        return {"chance": None, "majority": None}
    known = Counter(answer for question in train for answer in answers(question))
    chance = 1 / len(classes)
    if not known:
        return {"chance": chance, "majority": None}
    frequent = min(known, key=lambda label: (-known[label], label))
    asked = Counter(answer for question in test for answer in answers(question))
    return {"chance": chance, "majority": asked[frequent] / sum(asked.values())}


def answers(question: Question) -> Iterator[str]:
    """The right answers to a question: one an utterance, or one a labelled instant."""
    if isinstance(question.labels, str):
        yield question.labels
        return
    utterance = question.utterance
    times = iter(instants_s(num_instants(utterance.num_samples, utterance.sample_rate_hz)).tolist())
    time_s = next(times, None)
    for phone in question.labels:
        while time_s is not None and time_s < phone.start_s:
            time_s = next(times, None)
        while time_s is not None and time_s < phone.end_s:
            yield phone.label
            time_s = next(times, None)
