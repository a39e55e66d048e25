"""Coverage of the interval of a paired drop, on simulated predictions of known accuracy.

One probe of each seed is scored on clean sound and under conditions. Speakers, seeds, their interaction and utterances
move the odds of a correct answer, the same on all sound; a condition lowers the odds, and does so by more for some
speakers and for some seeds. The true drop is the difference of the expected accuracies. Prints the share of trials in
which a nominal 95 % interval holds it, and its mean width: of the drop under one condition and of the mean drop over
five, with seeds paired as in the report, and with the seeds of two unrelated methods, for comparison. An interval of
one seed is about that seed, so that seeds have no effect there.

    python benchmarks/robustness_coverage.py                    # some minutes on one core
    python benchmarks/robustness_coverage.py --trials 100       # that it runs
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics import (
    Interval,
    LeftOut,
    combined,
    left_out,
    mean_and_error_of,
    paired_differences_of,
)
from repbench.testing.simulation import Effects, pooled_accuracy

SPEAKERS = (4, 10, 20, 40)
NUM_CONDITIONS = 5
UTTERANCES = (20, 60)


@dataclass(frozen=True, slots=True)
class World:
    """A simulated world.

    Attributes:
        effects: On clean sound.
        loss: By how much a condition lowers the log-odds.
        speaker: Standard deviation of that loss over speakers.
        seed: The same over seeds.
    """

    effects: Effects
    loss: float
    speaker: float = 0.0
    seed: float = 0.0

    @property
    def drop(self) -> float:
        """The expected drop of accuracy."""
        under = replace(
            self.effects,
            mean=self.effects.mean - self.loss,
            speaker=math.hypot(self.effects.speaker, self.speaker),
            seed=math.hypot(self.effects.seed, self.seed),
        )
        return self.effects.accuracy - under.accuracy


WORLDS = {
    "a small loss, alike for all": World(Effects(), loss=0.2),
    "a loss that speakers share": World(Effects(), loss=1.0),
    "a loss that differs by speaker": World(Effects(), loss=1.0, speaker=0.4),
    "and by seed": World(Effects(), loss=1.0, speaker=0.4, seed=0.2),
    "large effects of seeds": World(Effects(seed=0.4, meeting=0.3), loss=1.0, speaker=0.2, seed=0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "robustness_coverage.json")
    arguments = parser.parse_args()
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for name, world in WORLDS.items():
        for num_seeds in (1, 3):
            title = f"{name}; {num_seeds} seed{'s' * (num_seeds > 1)}"
            found[title] = {str(each): coverage(world, num_seeds, each, arguments.trials) for each in SPEAKERS}
            show(title, found[title])
    result = {
        "nominal": 0.95,
        "trials": arguments.trials,
        "utterances_per_speaker": UTTERANCES,
        "conditions_of_a_mean": NUM_CONDITIONS,
        "true_drops_over_seeds": {name: world.drop for name, world in WORLDS.items()},
        "coverage": found,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def coverage(world: World, num_seeds: int, num_speakers: int, trials: int) -> dict[str, dict[str, float]]:
    """Coverage and mean width of each interval."""
    share = 1 / NUM_CONDITIONS
    if num_seeds == 1:
        # The interval of one run is about that run: its seed is no draw.
        world = replace(world, effects=replace(world.effects, seed=0.0), seed=0.0)
    bounds: dict[str, list[Interval | None]] = {"drop": [], "mean drop": [], "drop, seeds not paired": []}
    generator = np.random.default_rng([num_speakers, num_seeds])
    for _ in range(trials):
        clean, *under = draw(world, num_seeds, num_speakers, generator)
        found = {
            "drop": mean_and_error_of(combined([clean, under[0]], [1.0, -1.0])),
            "mean drop": mean_and_error_of(combined([clean, *under], [1.0, *[-share] * NUM_CONDITIONS])),
            "drop, seeds not paired": paired_differences_of(clean, under[0]),
        }
        for name, each in found.items():
            bounds[name].append(each["accuracy"].interval)
    return {name: summary(several, world.drop) for name, several in bounds.items()}


def draw(world: World, num_seeds: int, num_speakers: int, generator: np.random.Generator) -> list[list[LeftOut]]:
    """The runs on clean sound and under each condition, one for each seed.

    Axes: K sounds (clean, then conditions), S seeds, C speakers, U utterances.
    """
    effects, most = world.effects, UTTERANCES[1]
    counts = generator.integers(UTTERANCES[0], most + 1, size=num_speakers)

    def normal(*shape: int) -> NDArray[np.float64]:
        return generator.standard_normal(shape)

    # (C, U) + (S, 1, 1) + (S, C, 1) -> (S, C, U): the same on all sound
    shared = effects.speaker * normal(num_speakers, 1) + effects.utterance * normal(num_speakers, most)
    shared = shared + effects.seed * normal(num_seeds, 1, 1) + effects.meeting * normal(num_seeds, num_speakers, 1)
    runs = []
    for sound in range(1 + NUM_CONDITIONS):
        loss = 0.0 if sound == 0 else world.loss
        # (1, C, 1) + (S, 1, 1) -> (S, C, 1): of this condition alone
        own = world.speaker * normal(1, num_speakers, 1) + world.seed * normal(num_seeds, 1, 1)
        odds = effects.mean + shared - loss + (own if sound else 0.0)
        right = generator.random(odds.shape) < 1 / (1 + np.exp(-odds))
        # (S, C, U) -> (S, C): of the utterances that a speaker has
        correct = (right & (np.arange(most) < counts[:, None])).sum(axis=-1)
        runs.append(
            [
                left_out([[cell] for cell in zip(row, counts.tolist(), strict=True)], pooled_accuracy)
                for row in correct.tolist()
            ]
        )
    return runs


def summary(intervals: list[Interval | None], truth: float) -> dict[str, float]:
    """Coverage, where a trial without an interval does not cover, and mean width of those that have one."""
    known = [each for each in intervals if each is not None]
    covers = sum(each.low <= truth <= each.high for each in known)
    width = math.fsum(each.high - each.low for each in known) / len(known)
    return {"coverage": round(covers / len(intervals), 4), "mean_width": round(width, 4)}


def show(title: str, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    print(f"\n{title}\n{'coverage / mean width, by speakers':<36}" + "".join(f"{each:>16}" for each in rows))
    for name in next(iter(rows.values())):
        cells = (f"{row[name]['coverage']:.3f} / {row[name]['mean_width']:.3f}" for row in rows.values())
        print(f"{name:<36}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
