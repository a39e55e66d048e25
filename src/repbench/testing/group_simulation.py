"""Simulated predictions of groups whose true accuracies, and so whose true gap, are known, for tests of its interval.

Axes: G groups, M speakers of a group, S seeds, U utterances of a speaker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics import LeftOut
from repbench.benchmark.scoring.statistics.gaps import GroupRuns
from repbench.testing.simulation import Effects


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupWorld:
    """A kind of corpora with groups of speakers.

    Attributes:
        sizes: (G,) speakers of each group; all equal where `same_speakers`.
        offsets: (G,) of each group on the log-odds of a correct prediction; all 0: the groups are equal.
        effects: Of speakers, seeds, their interaction and utterances, and the log-odds of a group with offset 0.
        group_seed: Standard deviation of the effect of each seed on each group.
        same_speakers: Whether every speaker is in every group, as with styles of speaking; else in one.
        num_seeds: S.
        utterances: Fewest and most utterances of a speaker in a group.
    """

    sizes: tuple[int, ...]
    offsets: tuple[float, ...]
    effects: Effects = field(default_factory=lambda: Effects(seed=0.0, meeting=0.0))
    group_seed: float = 0.0
    same_speakers: bool = False
    num_seeds: int = 1
    utterances: tuple[int, int] = (5, 20)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """(G,) the expected accuracy of each group over all speakers, seeds and utterances."""
        of_seed = (self.effects.seed**2 + self.group_seed**2) ** 0.5
        whole = (replace(self.effects, seed=of_seed, mean=self.effects.mean + offset) for offset in self.offsets)
        return tuple(each.accuracy for each in whole)

    @property
    def gap(self) -> float:
        """The true distance between the best and the worst group."""
        return max(self.accuracies) - min(self.accuracies)


def simulate_groups(world: GroupWorld, seed: int) -> dict[str, GroupRuns]:
    """Draw the predictions of one corpus, and measure their accuracy (`accuracy`) as a report does.

    Returns:
        From the name of each group, g0, g1, …, to its runs.
    """
    random = np.random.default_rng(seed)
    effects, seeds = world.effects, world.num_seeds
    of_seed = effects.seed * random.standard_normal(seeds)
    most = max(world.sizes)
    shared = effects.speaker * random.standard_normal(most), effects.meeting * random.standard_normal((seeds, most))
    found = {}
    for number, (size, offset) in enumerate(zip(world.sizes, world.offsets, strict=True)):
        speaker, meeting = (each[..., :size] for each in shared)
        if not world.same_speakers:
            speaker = effects.speaker * random.standard_normal(size)
            meeting = effects.meeting * random.standard_normal((seeds, size))
        own = of_seed + world.group_seed * random.standard_normal(seeds)
        counts = random.integers(world.utterances[0], world.utterances[1] + 1, size)  # (M,)
        utterance = effects.utterance * random.standard_normal((size, world.utterances[1]))  # (M, U)
        # (S, 1, 1) + (S, M, 1) + (M, 1) + (M, U) -> (S, M, U)
        odds = effects.mean + offset + own[:, None, None] + meeting[:, :, None] + speaker[:, None] + utterance
        right = random.random(odds.shape) < 1 / (1 + np.exp(-odds))
        present = np.arange(world.utterances[1]) < counts[:, None]  # (M, U)
        correct = (right & present).sum(axis=-1)  # (S, M, U) -> (S, M)
        names = [f"s{each}" if world.same_speakers else f"g{number}s{each}" for each in range(size)]
        found[f"g{number}"] = GroupRuns(tuple(_left_out(row, counts) for row in correct), tuple(names))
    return found


def _left_out(correct: NDArray[np.int64], counts: NDArray[np.int64]) -> LeftOut:
    """The accuracy with all speakers and without each, of (M,) correct predictions and utterances."""
    without = (correct.sum() - correct) / (counts.sum() - counts)
    whole: Mapping[str, float | None] = {"accuracy": float(correct.sum() / counts.sum())}
    return LeftOut(whole, tuple({"accuracy": value} for value in without.tolist()))


def offsets_of(gap: float, num_groups: int) -> tuple[float, ...]:
    """(G,) offsets from 0 to `gap`, even steps apart."""
    return tuple(np.linspace(0.0, gap, num_groups).tolist())
