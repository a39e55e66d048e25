"""Coverage of the interval of the gap between groups, on simulated corpora whose true gap is known.

Prints and writes, for worlds of 2 and 5 groups with 10 to 60 speakers each, the share of corpora whose nominal 95 %
interval holds the true gap between the best and the worst group: that of repbench, and the interval of the difference
of the two groups that were found, without a correction for their choice. Beside them the share in which the interval of
repbench holds the true difference of the two groups that were found, the mean gap that was found, and the mean of the
gap that equal groups would show. At the end the same for equal error rates of trials.

    python benchmarks/group_coverage.py                  # half an hour on one core
    python benchmarks/group_coverage.py --corpora 20 --trials 2     # that it runs
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repbench.benchmark.scoring.statistics.gaps import GroupRuns, gap_of
from repbench.benchmark.scoring.statistics.intervals import Interval
from repbench.testing.group_simulation import GroupWorld, offsets_of, simulate_groups
from repbench.testing.pair_simulation import PairWorld, group_runs, simulate_trials, true_eer
from repbench.testing.simulation import Effects

SIZES = {
    "2 groups of 10": (10, 10),
    "2 groups of 60": (60, 60),
    "groups of 10 and 60": (10, 60),
    "5 groups of 10": (10,) * 5,
    "5 groups of 30": (30,) * 5,
    "groups of 10, 15, 25, 40, 60": (10, 15, 25, 40, 60),
}

SEVERAL_SEEDS = Effects(seed=0.15, meeting=0.2)


def worlds() -> Iterator[tuple[str, GroupWorld]]:
    """Worlds by name: equal groups, and small and large gaps; unequal sizes in both orders."""
    for name, sizes in SIZES.items():
        for size, offset in (("equal", 0.0), ("small gap", 0.3), ("large gap", 1.0)):
            world = GroupWorld(sizes=sizes, offsets=offsets_of(offset, len(sizes)))
            yield f"{name}, {size}", world
            if len(set(sizes)) > 1 and offset:
                yield f"{name}, {size}, the largest group worst", replace(world, sizes=sizes[::-1])
    for count in (2, 5):
        for name, offset in (("equal", 0.0), ("small gap", 0.3), ("large gap", 1.0)):
            world = GroupWorld(sizes=(20,) * count, offsets=offsets_of(offset, count), same_speakers=True)
            yield f"{count} groups of the same 20 speakers, {name}", world
            seeds = replace(world, same_speakers=False, effects=SEVERAL_SEEDS, group_seed=0.1, num_seeds=3)
            yield f"{count} groups of 20, 3 seeds, {name}", seeds


def trial_worlds() -> Iterator[tuple[str, tuple[PairWorld, ...]]]:
    """Worlds of trials by name: one world a group."""
    for count, sizes in ((2, (10, 60)), (2, (30, 30)), (5, (10, 15, 20, 30, 40))):
        equal = tuple(PairWorld(num_speakers=size, scatter=1.0, max_trials=4000) for size in sizes)
        # Even steps from 1 down to 0.6 times the scatter: equal error rates from about 0.16 to about 0.06.
        unequal = tuple(replace(each, scatter=1.0 - 0.4 * n / (count - 1)) for n, each in enumerate(equal))
        yield f"trials, groups of {', '.join(map(str, sizes))}, equal", equal
        yield f"trials, groups of {', '.join(map(str, sizes))}, unequal", unequal


class Found(NamedTuple):
    """What one corpus shows: gap, interval, uncorrected interval, gap of equal groups, true difference of the two."""

    value: float
    interval: Interval | None
    uncorrected: Interval | None
    by_chance: float | None
    of_pair: float


def found_in(groups: dict[str, GroupRuns], truth: dict[str, float], metric: str, *, higher_is_better: bool) -> Found:
    """The gap of one corpus."""
    rate = metric == "eer"  # whose own intervals are of log-odds
    gap = gap_of(groups, metric, higher_is_better=higher_is_better, in_log_odds=rate)
    assert gap is not None
    pair = {name: groups[name] for name in (gap.best, gap.worst)}
    alone = gap_of(pair, metric, higher_is_better=higher_is_better, in_log_odds=rate)
    assert alone is not None
    difference = truth[gap.best] - truth[gap.worst]
    signed = difference if higher_is_better else -difference
    return Found(gap.value, gap.interval, alone.interval, gap.by_chance, signed)


def row(found: Callable[[int], Found], truth: float, num_corpora: int) -> dict[str, float]:
    """Coverages and means over corpora; one without an interval does not hold the truth."""
    several = [found(seed) for seed in range(1, num_corpora + 1)]
    widths = [each.interval.high - each.interval.low for each in several if each.interval is not None]
    return {
        "true_gap": truth,
        "mean_gap": float(np.mean([each.value for each in several])),
        "mean_by_chance": float(np.mean([each.by_chance for each in several if each.by_chance is not None])),
        "coverage": float(np.mean([_holds(each.interval, truth) for each in several])),
        "coverage_of_found_pair": float(np.mean([_holds(each.interval, each.of_pair) for each in several])),
        "coverage_uncorrected": float(np.mean([_holds(each.uncorrected, truth) for each in several])),
        "mean_width": float(np.mean(widths)),
        "without_interval": 1 - len(widths) / len(several),
    }


def _holds(interval: Interval | None, truth: float) -> bool:
    return interval is not None and interval.low <= truth <= interval.high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpora", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=250, help="corpora of trials")
    parser.add_argument("--worlds", default="", help="only worlds with this text in their names; other rows stay")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "group_coverage.json")
    arguments = parser.parse_args()
    rows: dict[str, Any] = {}
    if arguments.worlds and arguments.out.exists():
        rows = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"]

    def keep(name: str, numbers: dict[str, float], world: Any) -> None:
        rows[name] = numbers | {"world": world}
        shown = "  ".join(f"{key} {value:.3f}" for key, value in numbers.items())
        print(f"{name}: {shown}", flush=True)
        result = {
            "corpora": arguments.corpora,
            "corpora_of_trials": arguments.trials,
            "rows": rows,
            "numpy": np.__version__,
            "machine": platform.machine(),
        }
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    for name, world in worlds():
        if arguments.worlds not in name:
            continue
        truth = {f"g{number}": value for number, value in enumerate(world.accuracies)}

        def of_groups(seed: int, world: GroupWorld = world, truth: dict[str, float] = truth) -> Found:
            return found_in(simulate_groups(world, seed), truth, "accuracy", higher_is_better=True)

        keep(name, row(of_groups, world.gap, arguments.corpora), asdict(world))
    for name, several in trial_worlds():
        if arguments.worlds not in name:
            continue
        # The rate of speakers met once each does not depend on their number: one computation for equal worlds.
        rates = {f"g{number}": true_eer(replace(each, num_speakers=2)) for number, each in enumerate(several)}

        def of_trials(seed: int, several: tuple[PairWorld, ...] = several, rates: dict[str, float] = rates) -> Found:
            groups = {
                f"g{number}": group_runs(simulate_trials(each, seed * len(several) + number), f"g{number}s")
                for number, each in enumerate(several)
            }
            return found_in(groups, rates, "eer", higher_is_better=False)

        truth_of_trials = max(rates.values()) - min(rates.values())
        keep(name, row(of_trials, truth_of_trials, arguments.trials), [asdict(each) for each in several])


if __name__ == "__main__":
    main()
