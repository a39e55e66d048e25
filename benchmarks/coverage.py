"""Coverage of confidence intervals, those of repbench and the usual ones, on simulated predictions of known accuracy.

Speakers, seeds, their interaction and utterances have random effects; predictions are right or wrong, accuracy pooled.
Prints the share of trials in which a nominal 95 % interval holds the true accuracy, with its mean width, and writes
both. At the end the least that the interval over seeds can cover, whatever the shares of speakers and seeds.

    python benchmarks/coverage.py                    # some minutes on one core
    python benchmarks/coverage.py --trials 200       # that it runs
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy import stats

from repbench.benchmark.scoring.statistics import crossed_intervals, jackknife_intervals, paired_differences
from repbench.testing.simulation import Effects, Simulated, pooled_accuracy, simulate

Array = NDArray[np.float64]
Bounds = tuple[Array, Array]

SEEDS = 3
SPEAKERS = (4, 10, 20, 40)
RESAMPLES = 600

WORLDS = {
    "seeds alike": Effects(seed=0.0, meeting=0.0),
    "small seed effect": Effects(seed=0.05, meeting=0.1),
    "seeds like speakers": Effects(seed=0.15, meeting=0.2),
    "seeds above speakers": Effects(seed=0.4, meeting=0.3),
    "mostly interaction": Effects(speaker=0.3, seed=0.1, meeting=0.6),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "coverage.json")
    arguments = parser.parse_args()
    trials: int = arguments.trials
    one_run = {"seeds alike": table(WORLDS["seeds alike"], 1, ONE_RUN, trials)}
    show("one run, no seed effect", one_run)
    several = {name: table(effects, SEEDS, SEVERAL_RUNS, trials) for name, effects in WORLDS.items()}
    show(f"mean of {SEEDS} seeds", several)
    pairs = {name: paired(effects, trials) for name, effects in WORLDS.items()}
    show(f"difference of two methods without one, {SEEDS} seeds each", pairs)
    least = {str(seeds): least_coverage(seeds) for seeds in (2, 3, 5)}
    print("\nleast coverage of crossed_intervals for normal effects, by seeds and speakers")
    for seeds, row in least.items():
        print(f"{seeds} seeds" + "".join(f"{row[str(n)]:>15.3f}" for n in SPEAKERS))
    result = {
        "nominal": 0.95,
        "trials": trials,
        "resamples": RESAMPLES,
        "utterances_per_speaker": [20, 60],
        "worlds": {name: asdict(effects) | {"accuracy": effects.accuracy} for name, effects in WORLDS.items()},
        "one_run": one_run,
        "mean_of_seeds": several,
        "paired_difference": pairs,
        "least_for_normal_effects": least,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


Row = dict[str, dict[str, float]]
Method = Callable[[Simulated, np.random.Generator], Bounds]


def table(effects: Effects, num_seeds: int, methods: dict[str, Method], trials: int) -> dict[str, Row]:
    """Coverage and mean width by method and number of speakers."""
    rows: dict[str, Row] = {name: {} for name in methods}
    for speakers in SPEAKERS:
        drawn = simulate(effects, num_trials=trials, num_seeds=num_seeds, num_speakers=speakers, seed=speakers)
        for name, method in methods.items():
            low, high = method(drawn, np.random.default_rng(0))
            rows[name][str(speakers)] = summary(low, high, effects.accuracy)
    return rows


def paired(effects: Effects, trials: int) -> dict[str, Row]:
    """Coverage of a true difference of zero; both methods meet the same speakers and utterances, not the same seeds."""
    rows: dict[str, Row] = {"clusters + max(seeds - both, 0), t": {}, "paired_differences (repbench)": {}}
    for speakers in SPEAKERS:
        drawn = simulate(effects, num_trials=trials, num_seeds=2 * SEEDS, num_speakers=speakers, seed=speakers)
        for row, (low, high) in zip(rows.values(), (paired_truncated(drawn), paired_of_repbench(drawn)), strict=True):
            row[str(speakers)] = summary(low, high, 0.0)
    return rows


def paired_of_repbench(drawn: Simulated) -> Bounds:
    bounds = []
    for trial in range(len(drawn.counts)):
        runs = drawn.runs(trial)
        interval = paired_differences(runs[:SEEDS], runs[SEEDS:], pooled_accuracy)["accuracy"].interval
        bounds.append((np.nan, np.nan) if interval is None else (interval.low, interval.high))
    low, high = np.array(bounds).T
    return low, high


def paired_truncated(drawn: Simulated) -> Bounds:
    """As `truncated`, for the difference of the first seeds and the last."""
    a, b = (Simulated(each, drawn.counts) for each in (drawn.correct[:, :SEEDS], drawn.correct[:, SEEDS:]))
    (value_a, _, seeds_a, both_a), (value_b, _, seeds_b, both_b) = _parts(a), _parts(b)
    c = drawn.correct.shape[2]
    clusters = (_pseudo_values(a)[1].mean(1) - _pseudo_values(b)[1].mean(1)).var(-1, ddof=1) / c
    rest = np.maximum(seeds_a + seeds_b - both_a - both_b, 0)
    shared = (both_a**2 + both_b**2) / ((SEEDS - 1) * (c - 1))
    spread = clusters**2 / (c - 1) + (seeds_a**2 + seeds_b**2) / (SEEDS - 1) + shared
    freedom = np.where(rest > 0, (clusters + rest) ** 2 / spread, c - 1)
    return _students(value_a - value_b, clusters + rest, np.clip(freedom, min(SEEDS, c) - 1, c - 1))


def least_coverage(num_seeds: int) -> dict[str, float]:
    """Coverage at the worst share of seeds in the variance, by speakers; both estimates are drawn as chi-squared."""
    generator = np.random.default_rng(0)
    deviation = np.abs(generator.standard_normal(200_000))
    found: dict[str, float] = {}
    for speakers in SPEAKERS:
        coverages = []
        for share in np.linspace(0, 1, 41):
            seeds = share * generator.chisquare(num_seeds - 1, len(deviation)) / (num_seeds - 1)
            clusters = (1 - share) * generator.chisquare(speakers - 1, len(deviation)) / (speakers - 1)
            freedom = (clusters + seeds) ** 2 / (clusters**2 / (speakers - 1) + seeds**2 / (num_seeds - 1))
            reach = stats.t.ppf(0.975, freedom) * np.sqrt(clusters + seeds)
            coverages.append(float((deviation <= reach).mean()))
        found[str(speakers)] = round(min(coverages), 4)
    return found


def summary(low: Array, high: Array, truth: float) -> dict[str, float]:
    covers = (low <= truth) & (truth <= high)
    return {"coverage": round(float(covers.mean()), 4), "mean_width": round(float(np.nanmean(high - low)), 4)}


def show(title: str, worlds: dict[str, dict[str, Row]]) -> None:
    for world, rows in worlds.items():
        print(f"\n{title}; {world}\n{'coverage / mean width, by speakers':<46}" + "".join(f"{n:>15}" for n in SPEAKERS))
        for name, row in rows.items():
            cells = (f"{row[str(n)]['coverage']:.3f} / {row[str(n)]['mean_width']:.3f}" for n in SPEAKERS)
            print(f"{name:<46}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def of_repbench(drawn: Simulated, _: np.random.Generator) -> Bounds:
    bounds = []
    for trial in range(len(drawn.counts)):
        runs = drawn.runs(trial)
        several = len(runs) > 1
        found = crossed_intervals(runs, pooled_accuracy) if several else jackknife_intervals(runs[0], pooled_accuracy)
        interval = found["accuracy"]
        bounds.append((np.nan, np.nan) if interval is None else (interval.low, interval.high))
    low, high = np.array(bounds).T
    return low, high


def utterance_bootstrap(drawn: Simulated, _: np.random.Generator) -> Bounds:
    """Percentiles of resampled right answers, each answer of each seed taken for independent: those of a binomial."""
    correct, asked = drawn.correct.sum(axis=(1, 2)), drawn.correct.shape[1] * drawn.counts.sum(axis=1)
    low, high = stats.binom.ppf([[0.025], [0.975]], asked, correct / asked) / asked
    return low, high


def speaker_bootstrap(drawn: Simulated, generator: np.random.Generator) -> Bounds:
    """Percentiles over resampled speakers, the seeds as they are."""
    return _bootstrap(drawn, generator, draw_seeds=False, nested=False)


def crossed_bootstrap(drawn: Simulated, generator: np.random.Generator) -> Bounds:
    """Percentiles over resampled seeds and, for all of them together, resampled speakers."""
    return _bootstrap(drawn, generator, draw_seeds=True, nested=False)


def nested_bootstrap(drawn: Simulated, generator: np.random.Generator) -> Bounds:
    """Percentiles over resampled seeds and, for each of them anew, resampled speakers."""
    return _bootstrap(drawn, generator, draw_seeds=True, nested=True)


def _bootstrap(drawn: Simulated, generator: np.random.Generator, *, draw_seeds: bool, nested: bool) -> Bounds:
    _, seeds, speakers = drawn.correct.shape
    bounds = []
    for correct, counts in zip(drawn.correct, drawn.counts, strict=True):
        sets = seeds if nested else 1
        weights = generator.multinomial(speakers, np.full(speakers, 1 / speakers), size=(RESAMPLES, sets))  # (B, s, C)
        values = (weights * correct).sum(-1) if nested else weights[:, 0] @ correct.T  # (B, S)
        values = values / (weights @ counts)
        shares = (
            generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
            if draw_seeds
            else np.full((RESAMPLES, seeds), 1 / seeds)
        )
        bounds.append(np.quantile((values * shares).sum(-1), (0.025, 0.975)))
    low, high = np.array(bounds).T
    return low, high


def _pseudo_values(drawn: Simulated) -> tuple[Array, Array]:
    """(T, S) accuracies and their (T, S, C) jackknife pseudo-values."""
    speakers = drawn.correct.shape[2]
    counts, correct = drawn.counts[:, None, :], drawn.correct
    whole = correct.sum(-1) / counts.sum(-1)
    without = (correct.sum(-1, keepdims=True) - correct) / (counts.sum(-1, keepdims=True) - counts)
    return whole, speakers * whole[..., None] - (speakers - 1) * without


def _parts(drawn: Simulated) -> tuple[Array, Array, Array, Array]:
    """The mean over seeds, and the parts of its squared error: clusters, seeds, and what is in both."""
    _, seeds, speakers = drawn.correct.shape
    whole, pseudo = _pseudo_values(drawn)
    of_clusters = pseudo.mean(1).var(-1, ddof=1) / speakers
    of_seeds = whole.var(1, ddof=1) / seeds
    grand = pseudo.mean((1, 2), keepdims=True)
    rest = pseudo - pseudo.mean(-1, keepdims=True) - pseudo.mean(1, keepdims=True) + grand
    of_both = (rest**2).sum((1, 2)) / ((seeds - 1) * (speakers - 1)) / (seeds * speakers)
    return whole.mean(1), of_clusters, of_seeds, of_both


def clusters_alone(drawn: Simulated, _: np.random.Generator) -> Bounds:
    """The jackknife over speakers of the mean over seeds, as if there were no other seeds."""
    value, clusters, *_rest = _parts(drawn)
    return _students(value, clusters, np.full_like(value, drawn.correct.shape[2] - 1))


def subtracted(drawn: Simulated, _: np.random.Generator) -> Bounds:
    """Clusters + seeds - what is in both, Satterthwaite: the textbook's two-way variance."""
    value, clusters, seeds, both = _parts(drawn)
    _, s, c = drawn.correct.shape
    variance = np.maximum(clusters + seeds - both, 1e-12)
    spread = clusters**2 / (c - 1) + seeds**2 / (s - 1) + both**2 / ((s - 1) * (c - 1))
    return _students(value, variance, np.clip(variance**2 / spread, 1, None))


def truncated(drawn: Simulated, _: np.random.Generator) -> Bounds:
    """As subtracted, but seeds never take from the clusters; degrees of freedom within what they can be."""
    value, clusters, seeds, both = _parts(drawn)
    _, s, c = drawn.correct.shape
    variance = clusters + np.maximum(seeds - both, 0)
    spread = clusters**2 / (c - 1) + seeds**2 / (s - 1) + both**2 / ((s - 1) * (c - 1))
    freedom = np.where(seeds > both, variance**2 / spread, c - 1)
    return _students(value, variance, np.clip(freedom, min(s, c) - 1, c - 1))


def cochran(drawn: Simulated, _: np.random.Generator) -> Bounds:
    """Clusters + seeds, with the mean of both t quantiles weighted by the variances (Cochran and Cox)."""
    value, clusters, seeds, *_rest = _parts(drawn)
    _, s, c = drawn.correct.shape
    variance = clusters + seeds
    quantile = (clusters * stats.t.ppf(0.975, c - 1) + seeds * stats.t.ppf(0.975, s - 1)) / variance
    reach = quantile * np.sqrt(variance)
    return value - reach, value + reach


def _students(value: Array, variance: Array, freedom: Array) -> Bounds:
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    return value - reach, value + reach


ONE_RUN: dict[str, Method] = {
    "bootstrap of utterances, percentiles": utterance_bootstrap,
    "bootstrap of speakers, percentiles": speaker_bootstrap,
    "jackknife_intervals (repbench)": of_repbench,
}

SEVERAL_RUNS: dict[str, Method] = {
    "bootstrap of utterances, percentiles": utterance_bootstrap,
    "bootstrap of speakers, percentiles": speaker_bootstrap,
    "bootstrap, speakers nested in seeds": nested_bootstrap,
    "bootstrap, speakers crossed with seeds": crossed_bootstrap,
    "clusters alone, t": clusters_alone,
    "clusters + seeds - both, t": subtracted,
    "clusters + max(seeds - both, 0), t": truncated,
    "clusters + seeds, Cochran's quantile": cochran,
    "crossed_intervals (repbench)": of_repbench,
}


if __name__ == "__main__":
    main()
