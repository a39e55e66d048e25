"""Whether the parts of an interval that come of speakers and of seeds are the true ones, on normal effects.

For each world, number of seeds and number of speakers: the mean over the trials of both parts of the squared error,
over the true ones; the true share of the seeds and the quartiles of the found one; and the width that runs with one
seed more, and with fifty, have, over the one that was forecast for them.

    python benchmarks/seed_shares.py                 # some minutes on one core
    python benchmarks/seed_shares.py --trials 100    # that it runs
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np

from repbench.benchmark.scoring.statistics import crossed_intervals_of, seed_share
from repbench.testing.simulation import crossed_values, mean_without_each

SEEDS = (2, 3, 5)
SPEAKERS = (4, 10, 20, 40)
MANY = 50
"""Seeds of the largest run."""

WORLDS = {
    "speakers alone": {"speaker": 1.0, "seed": 0.0, "meeting": 0.0},
    "seeds like speakers": {"speaker": 1.0, "seed": 0.3, "meeting": 0.3},
    "seeds above speakers": {"speaker": 0.5, "seed": 0.5, "meeting": 0.3},
    "mostly interaction": {"speaker": 0.3, "seed": 0.1, "meeting": 1.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "seed_shares.json")
    arguments = parser.parse_args()
    rows = []
    for world, effects in WORLDS.items():
        print(
            f"\n{world}: parts found / true (speakers, seeds); share true, found quartiles; widths found / forecast "
            "(one more, 50)"
        )
        for num_seeds in SEEDS:
            for num_speakers in SPEAKERS:
                row = measured(effects, num_seeds, num_speakers, arguments.trials)
                rows.append({"world": world, "num_seeds": num_seeds, "num_speakers": num_speakers, **row})
                print(f"{num_seeds} seeds {num_speakers:3} speakers  " + "  ".join(map(shown, row.values())))
    result = {
        "trials": arguments.trials,
        "worlds": WORLDS,
        "rows": rows,
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measured(effects: dict[str, float], num_seeds: int, num_speakers: int, trials: int) -> dict[str, object]:
    """The numbers of one line."""
    generator = np.random.default_rng(num_seeds * 1000 + num_speakers)
    meeting = effects["meeting"] ** 2 / (num_seeds * num_speakers)
    true_speakers = effects["speaker"] ** 2 / num_speakers
    true_seeds = effects["seed"] ** 2 / num_seeds + 2 * meeting
    parts, shares, more, most = [], [], [], []
    for _ in range(trials):
        # The first rows are the run, all of them are the one with more seeds.
        values = crossed_values(**effects, num_seeds=MANY, num_speakers=num_speakers, generator=generator)
        found = seed_share(mean_without_each(values[:num_seeds]), "value")
        assert found is not None
        parts.append((found.clusters, found.seeds))
        shares.append(found.share)
        more.append((width(values[: num_seeds + 1]), 2 * found.half_width(num_seeds + 1)))
        most.append((width(values), 2 * found.half_width(MANY)))
    clusters, seeds = np.mean(parts, axis=0)
    return {
        "of_speakers": float(clusters / true_speakers),
        "of_seeds": float(seeds / true_seeds) if true_seeds else None,
        "true_share": true_seeds / (true_seeds + true_speakers),
        "found_share": [float(each) for each in np.quantile(shares, (0.25, 0.5, 0.75))],
        "one_more": ratio(more),
        "fifty": ratio(most),
    }


def width(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Of the interval over these seeds."""
    interval = crossed_intervals_of(mean_without_each(values))["value"]
    assert interval is not None
    return interval.high - interval.low


def ratio(pairs: list[tuple[float, float]]) -> float:
    """The mean of the first numbers over the mean of the second."""
    found, forecast = np.mean(pairs, axis=0)
    return float(found / forecast)


def shown(value: object) -> str:
    if isinstance(value, list):
        return "/".join(f"{each:.2f}" for each in value)
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
