"""What knowing nothing scores: the rows without which a number cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repbench.benchmark.data.dataset import LabelledUtterances
from repbench.benchmark.data.scoring_grid import UNLABELLED
from repbench.downstream.contract import Downstream


def baselines(
    task: Downstream, classes: Sequence[str], train: LabelledUtterances, test: LabelledUtterances
) -> dict[str, float | None]:
    """Chance and majority of the primary metric; None where it is no accuracy.

    Chance answers at random with equal odds; majority always answers the class most frequent in training, the first
    of equals (None where nothing was trained). An error rate has neither: an answer at random has no length of its own,
    and the empty answer scores 1 whatever the corpus.
    """
    if task.info.primary_metric != "accuracy":
        return {"chance": None, "majority": None}
    known, asked = _counts(train, classes), _counts(test, classes)
    majority = float(asked[known.argmax()] / asked.sum()) if known.any() else None
    return {"chance": 1 / len(classes), "majority": majority}


def _counts(examples: LabelledUtterances, classes: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How often each class is the right answer."""
    index = {label: number for number, label in enumerate(classes)}
    counts = np.zeros(len(classes), dtype=np.int64)
    for example in examples:
        answers = example.answers(index)
        counts += np.bincount(answers[answers != UNLABELLED], minlength=len(classes))
    return counts
