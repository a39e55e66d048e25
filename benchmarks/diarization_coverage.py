"""Coverage of 95 % intervals of a diarization error rate, by simulation: speakers left out, pairs, or mixtures.

    python benchmarks/diarization_coverage.py [--worlds 400] [--out benchmarks/results/diarization_coverage.json]

A world has S speakers with errors a_i and M mixtures of random pairs, the error of each a_i + a_j + e. The true value
is the mean over all speakers that could be drawn. Each interval is the jackknife with Student's t of the package.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from repbench.benchmark.scoring.metrics import units_apart
from repbench.benchmark.scoring.statistics import LeftOut, crossed_intervals_of
from repbench.downstream.contract import TaskContext
from repbench.downstream.diarization import Diarization
from repbench.downstream.problems import MULTILABEL
from repbench.downstream.problems.multilabel import DiarizationPrediction

MEAN, SPEAKER, NOISE = 0.3, 0.05, 0.1
"""Mean of the error, and standard deviations of the part of a speaker and of that of a mixture."""

SHAPES = ((6, 30), (20, 200), (40, 400), (40, 3000), (125, 1000))
"""Speakers and mixtures of a test split."""


def world(
    num_speakers: int, num_mixtures: int, random: np.random.Generator
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """The pair of speakers (M, 2) and the error (M,) of each mixture."""
    of_speakers = SPEAKER * random.standard_normal(num_speakers)
    pairs = [tuple(sorted(random.choice(num_speakers, size=2, replace=False).tolist())) for _ in range(num_mixtures)]
    errors = [MEAN + of_speakers[i] + of_speakers[j] + NOISE * random.standard_normal() for i, j in pairs]
    return [(i, j) for i, j in pairs], np.array(errors)


def covers(errors: np.ndarray, units: Sequence[Sequence[int]]) -> bool:
    """Whether the interval from leaving out each unit, a list of mixtures, holds the true mean."""
    whole, count = errors.sum(), len(errors)
    without = tuple({"der": (whole - errors[list(own)].sum()) / (count - len(own))} for own in units)
    interval = crossed_intervals_of([LeftOut({"der": whole / count}, without)])["der"]
    assert interval is not None
    return bool(interval.low <= MEAN <= interval.high)


def units_of(pairs: Sequence[tuple[int, int]]) -> dict[str, list[list[int]]]:
    """From each way to divide mixtures to its units, each the numbers of its mixtures."""
    task = Diarization()
    empty = MULTILABEL.made_up(TaskContext(task, task.classes({}, ())), 0, "right", id="", speaker="", group="")
    assert isinstance(empty, DiarizationPrediction)
    predictions = [replace(empty, id=str(number), speaker=f"{i}+{j}") for number, (i, j) in enumerate(pairs)]
    by_pair: dict[tuple[int, int], list[int]] = {}
    for number, pair in enumerate(pairs):
        by_pair.setdefault(pair, []).append(number)
    apart = units_apart(MULTILABEL, predictions, "speaker").values()
    return {
        "each speaker": [list(map(int, own)) for own in apart],
        "each pair": list(by_pair.values()),
        "each mixture": [[number] for number in range(len(pairs))],
    }


def main() -> None:
    """Simulate, and print and write the coverage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = []
    for num_speakers, num_mixtures in SHAPES:
        random = np.random.default_rng([arguments.seed, num_speakers, num_mixtures])
        hits: dict[str, int] = {}
        for _ in range(arguments.worlds):
            pairs, errors = world(num_speakers, num_mixtures, random)
            for name, units in units_of(pairs).items():
                hits[name] = hits.get(name, 0) + covers(errors, units)
        coverage = {name: count / arguments.worlds for name, count in hits.items()}
        found.append({"speakers": num_speakers, "mixtures": num_mixtures, "coverage": coverage})
        print(num_speakers, num_mixtures, coverage, flush=True)
    if arguments.out is not None:
        content = {"worlds": arguments.worlds, "mean": MEAN, "speaker": SPEAKER, "noise": NOISE, "shapes": found}
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
