"""Simulated predictions whose true accuracy is known, for tests of intervals and significance.

Axes: T trials, S seeds, C speakers, U utterances of a speaker.

A speaker, a seed, their meeting and an utterance each move the odds of a correct prediction. The utterance's difficulty
and the speaker's are the same for every seed, as they are when several probes are scored on one test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics import LeftOut

Cell = tuple[int, int]
"""Correct predictions and utterances of one speaker in one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Standard deviations of the normal effects of each source on the log-odds of a correct prediction.

    Attributes:
        speaker: Of speakers, the same for all seeds.
        seed: Of seeds, the same for all speakers.
        meeting: Of each speaker in each seed.
        utterance: Of utterances, the same for all seeds.
        mean: The log-odds themselves.
    """

    speaker: float = 0.5
    seed: float = 0.15
    meeting: float = 0.2
    utterance: float = 0.5
    mean: float = 1.0

    @property
    def accuracy(self) -> float:
        """The expected accuracy over all speakers, seeds and utterances, by Gauss-Hermite quadrature."""
        # Nodes of the weight exp(-x²/2) (probabilists' polynomials); division by the sum of weights, √(2π), makes it a
        # mean over a standard normal.
        points, weights = np.polynomial.hermite_e.hermegauss(64)
        # Independent normal effects add up to one normal, whose variance is the sum.
        spread = np.sqrt(self.speaker**2 + self.seed**2 + self.meeting**2 + self.utterance**2)
        return float((weights * _share(self.mean + spread * points)).sum() / weights.sum())


@dataclass(frozen=True, slots=True)
class Simulated:
    """Predictions of S seeds for the utterances of C speakers, in each of T trials.

    Attributes:
        correct: (T, S, C) correct predictions.
        counts: (T, C) utterances.
    """

    correct: NDArray[np.int64]
    counts: NDArray[np.int64]

    def runs(self, trial: int) -> list[list[list[Cell]]]:
        """One trial as `crossed_intervals` takes it: by seed and speaker, one cell each."""
        counts = self.counts[trial].tolist()
        return [[[cell] for cell in zip(row, counts, strict=True)] for row in self.correct[trial].tolist()]


def simulate(
    effects: Effects, *, num_trials: int, num_seeds: int, num_speakers: int, seed: int, utterances: Cell = (20, 60)
) -> Simulated:
    """Draw predictions; each speaker has from `utterances[0]` to `utterances[1]` utterances, evenly drawn."""
    generator = np.random.default_rng(seed)
    trials, seeds, speakers, most = num_trials, num_seeds, num_speakers, utterances[1]

    def normal(*shape: int) -> NDArray[np.float64]:
        return generator.standard_normal(shape)

    # The order of draws is fixed: tests hold numbers that follow from it.
    counts = generator.integers(utterances[0], most + 1, size=(trials, speakers))
    # (T, 1, C, 1) + (T, 1, C, U): the same for all seeds
    shared = effects.speaker * normal(trials, 1, speakers, 1) + effects.utterance * normal(trials, 1, speakers, most)
    # (T, S, 1, 1) + (T, S, C, 1)
    own = effects.seed * normal(trials, seeds, 1, 1) + effects.meeting * normal(trials, seeds, speakers, 1)
    # (T, S, C, U) Bernoulli draws
    right = generator.random((trials, seeds, speakers, most)) < _share(effects.mean + shared + own)
    # (U,) < (T, 1, C, 1) -> (T, 1, C, U): which of the U drawn utterances the speaker has
    present = np.arange(most) < counts[:, None, :, None]
    return Simulated((right & present).sum(axis=-1), counts)


def crossed_values(
    *, speaker: float, seed: float, meeting: float, num_seeds: int, num_speakers: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Values of normal effects with known variances, (S, C): v_sc = a_c + b_s + e_sc.

    Args:
        speaker: Standard deviation of a, the same for all seeds.
        seed: Of b, the same for all speakers.
        meeting: Of e, of each speaker in each seed.
        num_seeds: S.
        num_speakers: C.
        generator: Draws them.
    """
    of_speakers = speaker * generator.standard_normal((1, num_speakers))
    of_seeds = seed * generator.standard_normal((num_seeds, 1))
    return of_speakers + of_seeds + meeting * generator.standard_normal((num_seeds, num_speakers))


def mean_without_each(values: NDArray[np.float64]) -> list[LeftOut]:
    """The mean over the speakers of each row of (S, C) values, whole and without each speaker, as `value`."""
    # (S, C) -> (S, C): the mean of the others
    without = (values.sum(axis=1, keepdims=True) - values) / (values.shape[1] - 1)
    return [
        LeftOut({"value": float(row.mean())}, tuple({"value": each} for each in left))
        for row, left in zip(values, without.tolist(), strict=True)
    ]


def pooled_accuracy(cells: Sequence[Cell]) -> Mapping[str, float | None]:
    """The measure for `Simulated.runs`: correct predictions over utterances, as `accuracy`."""
    total = sum(count for _, count in cells)
    return {"accuracy": sum(correct for correct, _ in cells) / total if total else None}


def _share(log_odds: Any) -> Any:
    return 1 / (1 + np.exp(-log_odds))
