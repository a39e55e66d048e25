"""Simulated trials of speaker verification whose true equal error rate is known, for tests of intervals.

Speakers differ in how far their utterances scatter, so that a speaker moves all of its trials, on either side. An
interval for other speakers has to follow from that; one that takes trials, or the speakers of one side, for independent
does not.

Axes: S speakers, U utterances of a speaker, D width, N trials.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics import Interval, LeftOut, crossed_intervals_in_log_odds, crossed_intervals_of
from repbench.benchmark.scoring.statistics.gaps import GroupRuns
from repbench.downstream.metrics.verification import RankedTrials, eer, error_rates
from repbench.downstream.verification import PairTally, Verification

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Way = Literal["both sides", "both sides, log-odds", "test side", "trials"]

NUM_BLOCKS = 100
"""Random blocks of trials that are left out in turn, where trials are taken for independent."""

_TRUTH_TRIALS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PairWorld:
    """A kind of corpora.

    Attributes:
        num_speakers: Speakers of test.
        utterances: Of each speaker.
        width: Of a vector.
        scatter: Standard deviation of a speaker's vectors around its own, which has 1.
        unlike: Standard deviation, over speakers, of the logarithm of the scatter.
        max_trials: Trials at most, half of them of one speaker where there are enough.
    """

    num_speakers: int
    utterances: int = 8
    width: int = 16
    scatter: float = 1.0
    unlike: float = 0.3
    max_trials: int = 20_000


class SimulatedTrials(NamedTuple):
    """Trials of one corpus.

    Attributes:
        scores: (N,) cosines.
        targets: (N,) whether both sides are of one speaker.
        enrolled: (N,) numbers of the enrolled speakers.
        tested: (N,) numbers of the test speakers.
    """

    scores: Floats
    targets: NDArray[np.bool_]
    enrolled: Integers
    tested: Integers


def simulate_trials(world: PairWorld, seed: int) -> SimulatedTrials:
    """Draw speakers, their vectors, and trials among them as the task draws them."""
    random = np.random.default_rng(seed)
    vectors = _vectors(world, world.num_speakers, random)  # (S, U, D)
    speaker = np.repeat(np.arange(world.num_speakers), world.utterances)  # (S U,)
    flat = vectors.reshape(-1, world.width)
    first, second = np.triu_indices(len(flat), 1)
    swapped = random.random(len(first)) < 0.5
    first, second = np.where(swapped, second, first), np.where(swapped, first, second)
    same = speaker[first] == speaker[second]
    of_one, of_two = np.flatnonzero(same), np.flatnonzero(~same)
    num_same = min(len(of_one), world.max_trials // 2)
    chosen = np.concatenate(
        [
            random.choice(of_one, num_same, replace=False),
            random.choice(of_two, min(len(of_two), world.max_trials - num_same), replace=False),
        ]
    )
    first, second = first[chosen], second[chosen]
    scores = np.einsum("nd,nd->n", flat[first], flat[second])
    return SimulatedTrials(scores, same[chosen], speaker[first], speaker[second])


@functools.lru_cache
def true_eer(world: PairWorld) -> float:
    """The rate over all speakers of the world: each trial is of speakers of its own."""
    random = np.random.default_rng(0)
    pairs = _vectors(world, _TRUTH_TRIALS // 4, random, utterances=2)  # (P, 2, D)
    targets = np.einsum("nd,nd->n", pairs[:, 0], pairs[:, 1])
    others = np.einsum("nd,nd->n", pairs[:-1, 0], pairs[1:, 1])
    rates = error_rates(
        RankedTrials.of(np.concatenate([targets, others]), np.repeat([True, False], [len(targets), len(others)]))
    )
    assert rates is not None
    return eer(rates)


def group_runs(trials: SimulatedTrials, prefix: str = "") -> GroupRuns:
    """The equal error rate (`eer`) of trials, with all speakers and without each on either side, as one group has it.

    Args:
        trials: Of one group.
        prefix: Of the names of its speakers, which are numbers.
    """
    task = Verification()
    tallies = _tallies(trials)
    whole = task.measure_tallies(tallies, ())["eer"].value
    without = tuple({"eer": each["eer"].value} for each in task.without_each(tallies, ()))
    names = tuple(f"{prefix}{number}" for number in range(len(tallies)))
    return GroupRuns((LeftOut({"eer": whole}, without),), names)


def _tallies(trials: SimulatedTrials) -> list[PairTally]:
    """One for each speaker, in the order of their numbers."""
    names = [f"{number:04d}" for number in range(1 + int(max(trials.enrolled.max(), trials.tested.max())))]
    return [
        PairTally(
            frozenset({name}),
            trials.scores[trials.tested == number],
            trials.targets[trials.tested == number],
            [names[other] for other in trials.enrolled[trials.tested == number]],
        )
        for number, name in enumerate(names)
    ]


def intervals_of(trials: SimulatedTrials) -> dict[Way, Interval | None]:
    """The interval of the equal error rate in four ways: on a linear scale, of log-odds as the task has it, two naive.

    `test side` leaves out the trials with a speaker as test side alone; `trials` leaves out random blocks of trials, as
    if these were independent.
    """
    task = Verification()
    tallies = _tallies(trials)
    whole = task.measure_tallies(tallies, ())["eer"].value
    both = [each["eer"].value for each in task.without_each(tallies, ())]
    ranked = RankedTrials.of(trials.scores, trials.targets)
    order = np.argsort(-trials.scores, kind="stable")
    block = np.random.default_rng(0).integers(NUM_BLOCKS, size=len(order))
    tested = trials.tested[order]
    one_side = [_rate(ranked.where(tested != number)) for number in range(len(tallies))]
    blocks = [_rate(ranked.where(block != number)) for number in range(NUM_BLOCKS)]
    return {
        "both sides": _interval(whole, both),
        "both sides, log-odds": _in_log_odds(whole, both),
        "test side": _interval(whole, one_side),
        "trials": _interval(whole, blocks),
    }


def _vectors(world: PairWorld, num_speakers: int, random: np.random.Generator, utterances: int | None = None) -> Floats:
    """(S, U, D) vectors of length 1."""
    count = utterances or world.utterances
    centres = random.standard_normal((num_speakers, 1, world.width))
    scatter = world.scatter * np.exp(world.unlike * random.standard_normal((num_speakers, 1, 1)))
    vectors = centres + scatter * random.standard_normal((num_speakers, count, world.width))
    unit: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _rate(trials: RankedTrials) -> float | None:
    rates = error_rates(trials)
    return None if rates is None else eer(rates)


def _interval(whole: float | None, without: list[float | None]) -> Interval | None:
    return crossed_intervals_of([LeftOut({"eer": whole}, tuple({"eer": each} for each in without))])["eer"]


def _in_log_odds(whole: float | None, without: list[float | None]) -> Interval | None:
    run = LeftOut({"eer": whole}, tuple({"eer": each} for each in without))
    return crossed_intervals_in_log_odds([run])["eer"]
