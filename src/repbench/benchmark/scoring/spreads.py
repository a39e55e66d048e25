"""The variation of the values of tasks: how it is measured from predictions, and what it is where nothing is known.

`KNOWN` was measured on records of repbench by `benchmarks/spreads.py`, which keeps them in
`benchmarks/results/spreads.json`; a test holds the table to that file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from repbench.benchmark.scoring.metrics import clusters_of
from repbench.benchmark.scoring.statistics import Spread
from repbench.downstream.contract import Downstream, Prediction, problem_of, tallied
from repbench.errors import plugin_faults

HALVES = 24
"""Divisions of the utterances into halves, whose mean has a standard error of about a seventh of a deviation."""


@dataclass(frozen=True, slots=True)
class KnownSpread:
    """The spread of a task, with what it was measured on.

    Attributes:
        metric: The primary metric of the task.
        unit: Of the metric.
        value: The mean of the values that it was measured at.
        corpus: The corpora, in words.
        spread: The spread.
    """

    metric: str
    unit: str
    value: float
    corpus: str
    spread: Spread


KNOWN: Mapping[str, KnownSpread] = {
    "emotion": KnownSpread(
        "accuracy",
        "proportion of utterances",
        0.394,
        "synthetic:emotions:noisy:small",
        Spread(0.117, 0.488, 0.804, 0.012, 0.100),
    ),
    "gender": KnownSpread(
        "accuracy", "proportion of utterances", 0.721, "speechocean762-train", Spread(0.324, 0.351, 0.743, 0.031, 0.109)
    ),
    "intent": KnownSpread(
        "accuracy",
        "proportion of utterances",
        0.475,
        "synthetic:commands:noisy:small",
        Spread(0.073, 0.504, 0.509, 0.057, 0.307),
    ),
    "keyword": KnownSpread(
        "accuracy",
        "proportion of utterances",
        0.978,
        "synthetic:words:noisy:small",
        Spread(0.010, 0.139, 0.326, 0.006, 0.199),
    ),
    "phone": KnownSpread(
        "accuracy", "proportion of instants", 0.636, "synthetic:noisy:small", Spread(0.035, 0.098, 0.959, 0.001, 0.002)
    ),
    "sentiment": KnownSpread(
        "accuracy",
        "proportion of utterances",
        0.622,
        "synthetic:noisy:small",
        Spread(0.000, 0.528, 0.258, 0.011, 0.409),
    ),
    "slots": KnownSpread(
        "slot_type_f1", "proportion", 0.465, "synthetic:commands:noisy:small", Spread(0.047, 0.293, 0.493, 0.033, 0.416)
    ),
    "speaker": KnownSpread(
        "accuracy",
        "proportion of utterances",
        0.487,
        "synthetic:noisy:small",
        Spread(0.344, 0.349, 0.274, 0.041, 0.641),
    ),
    "verification": KnownSpread(
        "eer", "fraction", 0.448, "synthetic:noisy:small", Spread(0.076, 0.000, 0.276, None, 0.000)
    ),
}
"""From the name of a task."""


def own_spread(task: Downstream) -> KnownSpread | None:
    """The spread of a task in `KNOWN`; None where it is not there, or has another metric."""
    metric = task.info.primary_metric
    own = KNOWN.get(task.info.name)
    fits = own is not None and (own.metric, own.unit) == (metric, task.info.metrics[metric].unit)
    return own if fits else None


def known_spread(task: Downstream) -> tuple[Spread, str] | None:
    """The spread of a task in `KNOWN`, or the widest of its unit there; with its source in words. None without any."""
    own, unit = own_spread(task), task.info.metrics[task.info.primary_metric].unit
    if own is not None:
        return own.spread, f"measured on {own.corpus}"
    alike = {other: each for other, each in KNOWN.items() if each.unit == unit}
    if not alike:
        return None
    # The widest, so that what is promised is rather too little.
    widest = max(alike, key=lambda other: (alike[other].spread.cluster, alike[other].spread.utterance))
    return alike[widest].spread, f"of `{widest}`, which has the same unit, measured on {alike[widest].corpus}"


def utterance_error(
    task: Downstream, classes: Sequence[str], predictions: Sequence[Prediction], metric: str
) -> float | None:
    """The squared error of a metric over other utterances of the same speakers (or groups).

    The utterances of each cluster are divided into halves at random; the two halves of all have the same clusters, so
    the squared difference of their values is 4 times this error in the mean. The mean over `HALVES` divisions, which
    are the same every time.

    Args:
        task: Measures the predictions.
        classes: Of the task.
        predictions: All of a run.
        metric: Name of the metric.

    Returns:
        The squared error; None where a prediction depends on other clusters than its own, a half has no value, or no
        cluster has two utterances.

    Reference:
        McCarthy, Pseudoreplication: half samples, Review of the International Statistical Institute 37, 1969.
    """
    problem = problem_of(task)
    _, clusters = clusters_of(predictions, problem.resampled)
    if problem.crosses_units or all(len(cluster) < 2 for cluster in clusters):
        return None
    by_tallies, generator = tallied(task), Random(0)
    squares = []
    for _ in range(HALVES):
        halves: tuple[list[Prediction], list[Prediction]] = ([], [])
        for cluster in clusters:
            order = generator.sample(cluster, len(cluster))
            # The odd one of a cluster goes to either half.
            first = generator.randrange(2)
            for place, prediction in enumerate(order):
                halves[(place + first) % 2].append(prediction)
        with plugin_faults(task.info.name):
            values = [
                by_tallies.measure_tallies([by_tallies.tally(half, classes)], classes)[metric].value for half in halves
            ]
        if values[0] is None or values[1] is None:
            return None
        squares.append((values[0] - values[1]) ** 2 / 4)
    return math.fsum(squares) / len(squares)
