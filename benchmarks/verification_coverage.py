"""Coverage of the interval of the equal error rate, on simulated corpora whose true rate is known.

Prints and writes, for corpora of 20, 40 and 125 speakers, the share whose nominal 95 % interval holds the rate over all
speakers: of intervals that leave a speaker's trials on both sides out, on a linear scale and of log-odds, as those of
`verification` are; and of two naive ones, which take the speakers of the test side, or all trials, for independent.

    python benchmarks/verification_coverage.py                  # some ten minutes on one core
    python benchmarks/verification_coverage.py --corpora 10     # that it runs
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from repbench.benchmark.scoring.statistics import Interval
from repbench.testing.pair_simulation import PairWorld, Way, intervals_of, simulate_trials, true_eer

WORLDS = {
    f"{num_speakers} speakers, {name}": PairWorld(num_speakers=num_speakers, scatter=scatter, unlike=unlike)
    for num_speakers in (20, 40, 125)
    for name, scatter, unlike in (
        ("rate about 0.05", 0.55, 0.3),
        ("rate about 0.25", 1.4, 0.3),
        ("rate about 0.05, speakers unlike", 0.45, 0.6),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "verification_coverage.json")
    arguments = parser.parse_args()
    rows = {}
    for name, world in WORLDS.items():
        rows[name] = row(world, arguments.corpora)
        shares = "".join(f"  {way} {each['coverage']:.3f}" for way, each in rows[name]["ways"].items())
        print(f"{name:<46} true {rows[name]['true_eer']:.4f} mean {rows[name]['mean_eer']:.4f}{shares}", flush=True)
        result = {
            "corpora": arguments.corpora,
            "rows": rows,
            "numpy": np.__version__,
            "machine": platform.machine(),
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def row(world: PairWorld, num_corpora: int) -> dict[str, Any]:
    """The coverage in one world."""
    truth = true_eer(world)
    found: dict[Way, list[Interval | None]] = {}
    rates = []
    for seed in range(1, num_corpora + 1):
        intervals = intervals_of(simulate_trials(world, seed))
        for way, interval in intervals.items():
            found.setdefault(way, []).append(interval)
        middle = intervals["both sides"]
        rates.append(math.nan if middle is None else (middle.low + middle.high) / 2)
    return {
        "true_eer": truth,
        "mean_eer": float(np.nanmean(rates)),
        "ways": {way: _shares(several, truth) for way, several in found.items()},
        "world": asdict(world),
    }


def _shares(intervals: list[Interval | None], truth: float) -> dict[str, float]:
    """Share of corpora whose interval holds the truth; one without an interval does not."""
    known = [each for each in intervals if each is not None]
    return {
        "coverage": sum(each.low <= truth <= each.high for each in known) / len(intervals),
        "mean_width": math.fsum(each.high - each.low for each in known) / max(len(known), 1),
        "without_interval": (len(intervals) - len(known)) / len(intervals),
    }


if __name__ == "__main__":
    main()
