"""The difference that a test set could show: as the test that is made finds it, in simulations and in closed form."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.scoring.spreads import utterance_error
from repbench.benchmark.scoring.statistics import (
    Sizes,
    Spread,
    clusters_needed,
    detectable,
    paired_differences,
    smallest_difference,
    spread_of,
)
from repbench.downstream.contract import Downstream, Prediction, UtterancePrediction
from repbench.registry import registry

SPREAD = Spread(cluster=0.2, utterance=0.4, correlation=0.7, seed=0.05)
SIZES = Sizes((20,) * 8)


def mean(items: list[float]) -> dict[str, float | None]:
    return {"mean": sum(items) / len(items)}


def paired(spread: Spread, sizes: Sizes, num_seeds: int = 1) -> float:
    found = detectable(spread, sizes, num_seeds=num_seeds)
    assert found is not None
    return found.paired


def test_it_is_the_smallest_difference_of_the_error_that_the_sizes_have() -> None:
    found = detectable(SPREAD, SIZES)
    assert found is not None
    error = math.sqrt(0.2**2 / 8 + 0.4**2 / 160)

    assert found.paired == pytest.approx(smallest_difference(math.sqrt(2 * 0.3) * error, 7), rel=1e-12)
    assert found.unpaired == pytest.approx(smallest_difference(math.sqrt(2) * error, 14), rel=1e-12)


def test_seeds_of_both_systems_add_their_variance() -> None:
    found = detectable(SPREAD, SIZES, num_seeds=3)
    assert found is not None
    of_speakers, of_seeds = 0.6 * (0.2**2 / 8 + 0.4**2 / 160), 2 * 0.05**2 / 3
    freedom = (of_speakers + of_seeds) ** 2 / (of_speakers**2 / 7 + 2 * (of_seeds / 2) ** 2 / 2)

    assert found.paired == pytest.approx(smallest_difference(math.sqrt(of_speakers + of_seeds), freedom), rel=1e-12)
    # With one seed the difference is that of two trained probes.
    assert paired(SPREAD, SIZES) == paired(Spread(0.2, 0.4, 0.7), SIZES)


def test_what_differs_between_seeds_is_averaged_out() -> None:
    one = 0.2**2 / 8 + 0.4**2 / 160
    # r + g = 0.9: nine tenths of the variance of one run cancel or are averaged out over very many seeds.
    found = detectable(Spread(0.2, 0.4, 0.7, interaction=0.2), SIZES, num_seeds=1_000_000)
    assert found is not None
    assert found.paired == pytest.approx(smallest_difference(math.sqrt(2 * 0.1 * one), 7), rel=1e-3)
    assert found.unpaired == pytest.approx(smallest_difference(math.sqrt(2 * 0.8 * one), 14), rel=1e-3)
    assert paired(Spread(0.2, 0.4, 0.7, interaction=0.2), SIZES) == paired(Spread(0.2, 0.4, 0.7), SIZES)
    # More cannot differ between seeds than differs at all.
    found = detectable(Spread(0.2, 0.4, 0.7, interaction=0.9), SIZES, num_seeds=2)
    assert found is not None
    assert found.paired == pytest.approx(smallest_difference(math.sqrt(0.3 * one), 7), rel=1e-12)


def scores(generator: np.random.Generator, spread: Spread, sizes: Sizes) -> tuple[list[list[float]], list[list[float]]]:
    """Normal scores of two systems on the same utterances, by speaker, which differ by nothing in the mean."""

    def pair(deviation: float, count: int) -> NDArray[np.float64]:
        shared = math.sqrt(spread.correlation) * generator.standard_normal(count)
        own = math.sqrt(1 - spread.correlation) * generator.standard_normal((2, count))
        return deviation * (shared + own)  # (2, count)

    a: list[list[float]] = []
    b: list[list[float]] = []
    for of_speaker, count in zip(pair(spread.cluster, sizes.num_clusters).T, sizes.counts, strict=True):
        one, other = of_speaker[:, None] + pair(spread.utterance, count)
        a.append(one.tolist())
        b.append(other.tolist())
    return a, b


@pytest.mark.parametrize(
    ("counts", "least", "most"), [((12,) * 8, 0.77, 0.83), ((30, 10, 10, 10, 5, 5, 5, 5), 0.7, 0.86)]
)
def test_the_test_of_a_report_finds_it_in_four_of_five_trials(
    counts: tuple[int, ...], least: float, most: float
) -> None:
    sizes, generator, found, trials = Sizes(counts), np.random.default_rng(5), 0, 2000
    difference = paired(SPREAD, sizes)
    for _ in range(trials):
        a, b = scores(generator, SPREAD, sizes)
        better = [[value + difference for value in speaker] for speaker in a]
        interval = paired_differences([better], [b], mean)["mean"].interval
        assert interval is not None
        found += interval.low > 0
    assert least < found / trials < most


def test_uneven_speakers_show_less_than_even_ones() -> None:
    assert Sizes((40, 40)).concentration == 0.5
    assert paired(SPREAD, Sizes((70, 30, 30, 30))) > paired(SPREAD, Sizes((40,) * 4))


def test_more_utterances_of_the_same_speakers_stop_helping() -> None:
    limit = smallest_difference(math.sqrt(0.6 * 0.2**2 / 8), 7)
    assert paired(SPREAD, Sizes((10**6,) * 8)) == pytest.approx(limit, rel=1e-4)


def test_one_speaker_shows_nothing() -> None:
    assert detectable(SPREAD, Sizes((100,))) is None


def test_a_spread_without_deviation_is_refused() -> None:
    with pytest.raises(ValueError, match="without any deviation"):
        detectable(Spread(0.0, 0.0, 0.5), SIZES)
    with pytest.raises(ValueError, match="`num_seeds` must be at least 1, but is 0"):
        detectable(SPREAD, SIZES, num_seeds=0)


def test_the_fewest_speakers_that_show_a_difference() -> None:
    needed = clusters_needed(SPREAD, 0.1, utterances=20)
    assert needed is not None
    assert paired(SPREAD, Sizes((20,) * needed)) <= 0.1 < paired(SPREAD, Sizes((20,) * (needed - 1)))
    # Two seeds of deviation 0.05 differ by more than this, whatever the speakers.
    assert clusters_needed(SPREAD, 0.01, utterances=20, num_seeds=2) is None


def test_deviations_follow_from_the_two_errors() -> None:
    sizes = Sizes((30, 10, 20))
    by_utterances = 0.4**2 / 60
    by_clusters = 0.2**2 * sizes.concentration + by_utterances
    assert spread_of(by_clusters, by_utterances, [sizes]) == pytest.approx((0.2, 0.4))
    assert spread_of(by_utterances / 2, by_utterances, [sizes]) == pytest.approx((0.0, 0.4))


def task_of(name: str) -> Downstream:
    return build_task(registry().find("downstream", name).entry, {})


def sentiments(shares: list[float], count: int, seed: int) -> list[Prediction]:
    """Predictions of which each speaker has another share right."""
    drawn = Random(seed)
    return [
        UtterancePrediction(
            id=f"{speaker}-{number}",
            speaker=f"s{speaker}",
            group=None,
            reference=1,
            scores=(0.0, 1.0 if drawn.random() < share else -1.0),
        )
        for speaker, share in enumerate(shares)
        for number in range(count)
    ]


def test_the_error_over_utterances_is_that_within_speakers() -> None:
    shares = [0.2, 0.5, 0.9, 0.7]
    found = [
        utterance_error(task_of("sentiment"), ("negative", "positive"), sentiments(shares, 50, seed), "accuracy")
        for seed in range(8)
    ]
    within = sum(share * (1 - share) for share in shares) / 4
    assert np.mean([each or 0.0 for each in found]) == pytest.approx(within / 200, rel=0.12)


def test_speakers_that_are_all_right_or_all_wrong_have_no_error_over_utterances() -> None:
    predictions = sentiments([0.0, 1.0, 1.0], 10, 0)
    assert utterance_error(task_of("sentiment"), ("negative", "positive"), predictions, "accuracy") == 0.0


def test_one_utterance_a_speaker_tells_nothing_of_utterances() -> None:
    predictions = sentiments([0.5] * 6, 1, 0)
    assert utterance_error(task_of("sentiment"), ("negative", "positive"), predictions, "accuracy") is None
