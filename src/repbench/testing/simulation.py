"""Simulated answers whose true accuracy is known, for tests of intervals and significance.

A speaker, a seed, their meeting and an utterance each move the odds of a right answer. The utterance's difficulty and
the speaker's are the same for every seed, as they are when several probes answer one test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Cell = tuple[int, int]
"""Correct answers and utterances of one speaker in one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """Standard deviations of the normal effects of each source on the log-odds of a correct answer.

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
        points, weights = np.polynomial.hermite_e.hermegauss(64)
        spread = np.sqrt(self.speaker**2 + self.seed**2 + self.meeting**2 + self.utterance**2)
        return float((weights * _share(self.mean + spread * points)).sum() / weights.sum())


@dataclass(frozen=True, slots=True)
class Simulated:
    """Answers of S seeds to the utterances of C speakers, in each of T trials.

    Attributes:
        correct: (T, S, C) correct answers.
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
    """Draw answers; each speaker has from `utterances[0]` to `utterances[1]` utterances, evenly drawn."""
    generator = np.random.default_rng(seed)
    trials, seeds, speakers, most = num_trials, num_seeds, num_speakers, utterances[1]

    def normal(*shape: int) -> NDArray[np.float64]:
        return generator.standard_normal(shape)

    counts = generator.integers(utterances[0], most + 1, size=(trials, speakers))
    shared = effects.speaker * normal(trials, 1, speakers, 1) + effects.utterance * normal(trials, 1, speakers, most)
    own = effects.seed * normal(trials, seeds, 1, 1) + effects.meeting * normal(trials, seeds, speakers, 1)
    right = generator.random((trials, seeds, speakers, most)) < _share(effects.mean + shared + own)
    present = np.arange(most) < counts[:, None, :, None]
    return Simulated((right & present).sum(axis=-1), counts)


def pooled_accuracy(cells: Sequence[Cell]) -> Mapping[str, float | None]:
    """The measure for `Simulated.runs`: correct answers over utterances, as `accuracy`."""
    total = sum(count for _, count in cells)
    return {"accuracy": sum(correct for correct, _ in cells) / total if total else None}


def _share(log_odds: Any) -> Any:
    return 1 / (1 + np.exp(-log_odds))
