"""Coverage of the interval of a score that is pooled over folds, on simulated corpora.

They are divided, probed and scored as in a run. A fold's probe scores several speakers, and the trains of two folds
share most of theirs: speakers are not independent, as the interval takes them to be. Prints and writes the share of
corpora whose nominal 95 % interval holds the accuracy that their own probes have on new speakers, and the share whose
interval holds the mean accuracy over all corpora.

    python benchmarks/fold_coverage.py                  # some ten minutes on one core
    python benchmarks/fold_coverage.py --trials 10      # that it runs
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from repbench.testing.fold_simulation import FoldTrial, FoldWorld, fold_trial

WORLDS = {
    "4 speakers, each a fold": FoldWorld(num_speakers=4, num_folds=4, utterances=30),
    "10 speakers, 5 folds": FoldWorld(num_speakers=10, num_folds=5),
    "10 speakers, 5 folds, speakers far apart": FoldWorld(num_speakers=10, num_folds=5, voice=1.0, clarity=0.6),
    "24 speakers, 5 folds": FoldWorld(num_speakers=24, num_folds=5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fold_coverage.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    for name, world in WORLDS.items():
        rows[name] = row(world, [fold_trial(world, seed) for seed in range(arguments.trials)])
        print(f"{name:<42}" + "".join(f"  {key} {value:.3f}" for key, value in rows[name].items() if key != "world"))
    result = {"trials": arguments.trials, "rows": rows, "torch": torch.__version__, "machine": platform.machine()}
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def row(world: FoldWorld, trials: list[FoldTrial]) -> dict[str, Any]:
    """The coverage of one world."""
    expected = math.fsum(each.value for each in trials) / len(trials)
    return {
        "covers_own_probes": _share(trials, [each.of_probes for each in trials]),
        "covers_mean_of_corpora": _share(trials, [expected] * len(trials)),
        "mean_accuracy": expected,
        "mean_width": math.fsum(each.interval[1] - each.interval[0] for each in trials) / len(trials),
        "world": asdict(world),
    }


def _share(trials: list[FoldTrial], truths: list[float]) -> float:
    held = [each.interval[0] <= truth <= each.interval[1] for each, truth in zip(trials, truths, strict=True)]
    return sum(held) / len(held)


if __name__ == "__main__":
    main()
