"""CKA, CCA and mutual information: test vectors, invariants, and the intervals over speakers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics import jackknife_intervals
from repbench.benchmark.similarity.cca import (
    EPSILONS,
    CcaMeasure,
    CcaProblem,
    Moments,
    VariateSums,
    canonical_correlations,
    chosen_on,
    one_hot,
    score_of,
    side_of,
    variate_sums,
)
from repbench.benchmark.similarity.cka import (
    CrossSums,
    linear_cka,
    linear_cka_of_grams,
    norms_left_out,
)
from repbench.benchmark.similarity.measures import Rows, SideFrames, information, matrix, similarity
from repbench.benchmark.similarity.mutual_information import (
    clusters_of_frames,
    contingency,
    normalised_information,
)

Floats = NDArray[np.float64]

CKA = 0.5631734720668272
CORRELATIONS = [0.9842855, 0.96206299, 0.91832427, 0.06756055]


def vector() -> tuple[Floats, Floats]:
    """The features of the published vector, (200, 6) and (200, 4)."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 6))
    y = x[:, :3] @ generator.normal(size=(3, 4)) + 0.5 * generator.normal(size=(200, 4))
    return x, y


def rotation(width: int, seed: int = 1) -> Floats:
    rotated: Floats = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
    return rotated


# CKA


@pytest.mark.parametrize("measure", [linear_cka, linear_cka_of_grams])
def test_cka_is_that_of_the_vector(measure: object) -> None:
    assert callable(measure)
    assert measure(*vector()) == pytest.approx(CKA, abs=1e-12)


def test_cka_of_itself_is_1_and_does_not_change_by_rotation_shift_or_scale() -> None:
    x, y = vector()
    assert linear_cka(x, x) == pytest.approx(1.0, abs=1e-14)
    assert linear_cka(x @ rotation(6), y) == pytest.approx(CKA, abs=1e-12)
    assert linear_cka(1e3 * x + 1e4, y) == pytest.approx(CKA, abs=1e-9)
    assert linear_cka(x * np.arange(1, 7), y) != pytest.approx(CKA, abs=1e-3)


def test_cka_of_constant_features_is_undefined() -> None:
    x, y = vector()
    assert linear_cka(np.ones_like(x), y) is None


def test_sums_of_parts_give_the_product_of_the_whole() -> None:
    x, y = vector()
    sums = CrossSums.of(x[:70], y[:70]) + CrossSums.of(x[70:], y[70:])
    expected = (x - x.mean(0)).T @ (y - y.mean(0))
    np.testing.assert_allclose(sums.centred(), expected, atol=1e-10)
    assert sums.squared_norm() == pytest.approx(float((expected**2).sum()), rel=1e-12)


def test_features_of_other_frames_are_refused() -> None:
    x, y = vector()
    with pytest.raises(ValueError, match=r"of the same frames, but are \(200, 6\) and \(199, 4\)"):
        linear_cka(x, y[:-1])


@pytest.mark.parametrize("kept", [2**28, 0])
def test_a_norm_without_a_cluster_is_that_of_the_other_frames(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repbench.benchmark.similarity.cka.MOST_KEPT_BYTES", kept)
    monkeypatch.setattr("repbench.benchmark.similarity.cka.BLOCK_ROWS", 32)
    x, y = (each + 100 for each in vector())
    clusters = [slice(0, 50), slice(50, 60), slice(60, 200)]
    whole, without = norms_left_out(x, y, clusters)

    def norm(chosen: Floats, other: Floats) -> float:
        return float((((chosen - chosen.mean(0)).T @ (other - other.mean(0))) ** 2).sum())

    assert whole == pytest.approx(norm(x, y), rel=1e-10)
    for rows, value in zip(clusters, without, strict=True):
        assert value == pytest.approx(norm(np.delete(x, rows, 0), np.delete(y, rows, 0)), rel=1e-10)


# CCA


def test_canonical_correlations_are_those_of_the_vector() -> None:
    found = canonical_correlations(*vector())
    np.testing.assert_allclose(found, CORRELATIONS, atol=5e-9)
    assert found.mean() == pytest.approx(0.7330583276, abs=5e-11)


def test_canonical_correlations_do_not_change_by_any_invertible_map() -> None:
    x, y = vector()
    mapped = x @ np.random.default_rng(3).normal(size=(6, 6)) + 5
    np.testing.assert_allclose(canonical_correlations(mapped, 1e-4 * y), CORRELATIONS, atol=5e-9)


def test_a_repeated_feature_adds_no_direction() -> None:
    x, y = vector()
    np.testing.assert_allclose(canonical_correlations(np.c_[x, x[:, 0]], y), CORRELATIONS, atol=1e-8)
    side = side_of(one_hot(np.arange(200) % 5, 5))
    assert side is not None
    assert len(side.variances) == 4  # columns of one-hot labels add up to 1
    mixed = side_of(np.c_[x, x @ np.random.default_rng(6).normal(size=(6, 20))])
    assert mixed is not None
    assert len(mixed.variances) == 6


def fitted(measure: CcaMeasure, x: Floats, y: Floats, epsilon: float = 0.0) -> float:
    """The measure on the frames that it is fitted on."""
    first, second = side_of(x), side_of(y)
    assert first is not None
    assert second is not None
    problem = CcaProblem.of(x, y, first, second)
    found = problem.fit(measure, epsilon)
    return score_of(found, variate_sums(problem, found, x, y))


def pwcca_as_published(x: Floats, y: Floats) -> float:
    """Morcos et al. 2018: variates of X by QR and SVD, weighted by Σ_j |⟨u_k, x_j⟩|."""
    x, y = x - x.mean(0), y - y.mean(0)
    (q_x, _), (q_y, _) = np.linalg.qr(x), np.linalg.qr(y)
    left, correlations, _ = np.linalg.svd(q_x.T @ q_y, full_matrices=False)
    weights = np.abs((q_x @ left).T @ x).sum(axis=1)
    return float((weights / weights.sum()) @ correlations)


def test_the_measures_of_cca_on_their_training_frames() -> None:
    x, y = vector()
    assert fitted("cca", x, y) == pytest.approx(0.7330583276, abs=5e-11)
    assert fitted("pwcca", x, y) == pytest.approx(pwcca_as_published(x, y), abs=1e-10)
    assert fitted("pwcca", y, x) == pytest.approx(pwcca_as_published(y, x), abs=1e-10)
    assert fitted("pwcca", x, y) != pytest.approx(fitted("pwcca", y, x), abs=1e-3)


def test_weights_are_those_of_variates_of_unit_length_where_they_are_regularised() -> None:
    x, y = vector()
    x = x * np.arange(1, 7)
    first, second = side_of(x), side_of(y)
    assert first is not None
    assert second is not None
    found = CcaProblem.of(x, y, first, second).fit("pwcca", 0.5)
    centred = x - x.mean(axis=0)
    variates = centred @ first.directions @ found.first
    expected = np.abs((variates / np.linalg.norm(variates, axis=0)).T @ centred).sum(axis=1)
    np.testing.assert_allclose(found.weights, expected / expected.sum(), atol=1e-12)


def test_svcca_leaves_out_directions_of_little_variance() -> None:
    x, y = vector()
    noise = 1e-3 * np.random.default_rng(5).normal(size=(200, 30))
    assert fitted("svcca", np.c_[x, noise], y) == pytest.approx(fitted("cca", x, y), abs=1e-3)
    assert fitted("cca", np.c_[x, noise], y) > fitted("cca", x, y) + 0.05


def test_measures_of_cca_do_not_change_by_rotation_and_scale() -> None:
    x, y = vector()
    for measure in ("cca", "svcca"):
        assert fitted(measure, 3 * x @ rotation(6), y) == pytest.approx(fitted(measure, x, y), abs=1e-9)
        assert fitted(measure, x, x) == pytest.approx(1.0, abs=1e-9)
    assert fitted("pwcca", 3 * x + 1, y) == pytest.approx(fitted("pwcca", x, y), abs=1e-9)


def test_epsilon_is_chosen_on_dev() -> None:
    """92 dimensions fit 100 frames of anything; a ε above the variance of 90 of them keeps to the two others."""
    generator = np.random.default_rng(7)
    x = np.c_[generator.normal(size=(400, 2)), 1e-4 * generator.normal(size=(400, 90))]
    y = x[:, :2] + 0.5 * generator.normal(size=(400, 2))
    first, second = side_of(x[:100]), side_of(y[:100])
    assert first is not None
    assert second is not None
    problem = CcaProblem.of(x[:100], y[:100], first, second)
    dev, test = (x[100:200], y[100:200]), (x[200:], y[200:])

    def scored(epsilon: float, frames: tuple[Floats, Floats]) -> float:
        found = problem.fit("cca", epsilon)
        return score_of(found, variate_sums(problem, found, *frames))

    epsilon, found = chosen_on(problem, "cca", *dev)
    assert scored(1e-11, (x[:100], y[:100])) == pytest.approx(1.0, abs=0.05)
    assert epsilon == max(EPSILONS, key=lambda each: scored(each, dev)) > 1e-8
    held_out = score_of(found, variate_sums(problem, found, *test))
    assert held_out == scored(epsilon, test) > scored(1e-11, test) + 0.2


def test_of_equal_scores_the_smallest_epsilon_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = vector()
    first, second = side_of(x), side_of(y)
    assert first is not None
    assert second is not None
    monkeypatch.setattr("repbench.benchmark.similarity.cca.score_of", lambda fitted, sums: 0.5)
    assert chosen_on(CcaProblem.of(x, y, first, second), "cca", x, y)[0] == 1e-11


@pytest.mark.parametrize("measure", ["cca", "svcca"])
def test_moments_give_the_sums_of_the_frames(measure: CcaMeasure) -> None:
    x, y = vector()
    x = np.c_[x, 1e-3 * x[:, 3:] ** 2]
    first, second = side_of(x[:100]), side_of(y[:100])
    assert first is not None
    assert second is not None
    problem = CcaProblem.of(x[:100], y[:100], first, second)
    found = problem.fit(measure, 1e-3)
    expected = variate_sums(problem, found, x[100:] + 1, y[100:])
    np.testing.assert_allclose(Moments.of(problem, x[100:] + 1, y[100:]).variates(found).sums, expected.sums, atol=1e-8)


def test_a_variate_that_is_constant_where_it_is_measured_has_no_correlation() -> None:
    u = np.full((11, 50), 0.1)
    v = 1 + np.random.default_rng(0).normal(size=(11, 50))
    for one, other in ((u, v), (v, u)):
        sums = [each.sum(axis=0) for each in (one, other, one * one, other * other, one * other)]
        assert VariateSums(11, np.stack(sums)).correlations().tolist() == [0.0] * 50


# Mutual information


def test_information_of_tables() -> None:
    assert normalised_information(np.diag([3, 5, 2])) == pytest.approx(1.0)
    assert normalised_information(np.full((4, 3), 7)) == pytest.approx(0.0, abs=1e-15)
    assert normalised_information(np.array([[4], [2]])) is None
    # I = H(K) + H(Y) - H(K, Y) of [[8, 2], [3, 7]], over H(Y) of (11, 9)
    joint = np.array([8, 2, 3, 7]) / 20
    entropies = [-sum(p * np.log(p) for p in shares) for shares in ((0.5, 0.5), (0.55, 0.45), joint)]
    expected = (entropies[0] + entropies[1] - entropies[2]) / entropies[1]
    assert normalised_information(np.array([[8, 2], [3, 7]])) == pytest.approx(expected, abs=1e-12)


def test_the_table_counts_clusters_by_class() -> None:
    table = contingency(np.array([0, 0, 2, 2, 2]), np.array([1, 1, 0, 1, 0]), (3, 2))
    assert table.tolist() == [[0, 2], [0, 0], [2, 1]]


def test_clusters_find_groups_and_repeat_with_their_seed() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    x = (10 * np.eye(3)[labels] + generator.normal(size=(180, 3))).astype(np.float32)
    clusters = clusters_of_frames(x, 3, seed=1)
    assert normalised_information(contingency(clusters, labels, (3, 3))) == pytest.approx(1.0)
    assert clusters.tolist() == clusters_of_frames(x, 3, seed=1).tolist()
    assert len(np.unique(clusters_of_frames(x[:2], 5, seed=0))) == 2


# Intervals over speakers


def rows_of(counts: list[int], parts: int = 0) -> Rows:
    """Rows of speakers with so many frames each; with parts, one draw in which rows take turns."""
    clusters = np.repeat(np.arange(len(counts)), counts)
    draws = [np.arange(len(clusters)) % 10] * parts
    return Rows.of(clusters, draws)


def test_the_interval_of_cka_leaves_out_each_speaker() -> None:
    x, y = vector()
    rows = rows_of([40, 60, 30, 70])
    found = similarity("cka", SideFrames(x, rows), SideFrames(y, rows))

    def measure(frames: list[tuple[Floats, Floats]]) -> dict[str, float | None]:
        first, second = (np.array(each) for each in zip(*frames, strict=True))
        return {"cka": linear_cka(first, second)}

    speakers = [list(zip(x[rows], y[rows], strict=True)) for rows in rows.slices]
    expected = jackknife_intervals(speakers, measure)["cka"]
    assert found.value == pytest.approx(CKA, abs=1e-12)
    assert expected is not None
    assert found.ci95 == pytest.approx((expected.low, expected.high), abs=1e-10)


def test_one_speaker_has_no_interval() -> None:
    x, y = vector()
    for measure in ("cka", "cca"):
        rows = rows_of([200], parts=1)
        found = similarity(measure, SideFrames(x, rows), SideFrames(y, rows))
        assert found.value is not None
        assert found.ci95 is None


@pytest.mark.parametrize("measure", ["cca", "svcca", "pwcca"])
def test_cca_is_measured_on_frames_that_it_was_not_fitted_on(measure: str) -> None:
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(300, 40)), generator.normal(size=(300, 40))
    rows = rows_of([100, 100, 100], parts=3)
    unrelated = similarity(measure, SideFrames(x, rows), SideFrames(y, rows)).value
    assert unrelated is not None
    assert abs(unrelated) < 0.15
    in_training = fitted("cca", x, y)
    assert in_training > 0.3
    same = similarity(measure, SideFrames(x, rows), SideFrames(2 * x, rows)).value
    assert same == pytest.approx(1.0, abs=1e-6)


def test_the_interval_of_cca_is_over_draws_and_speakers() -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=(600, 5))
    y = x + generator.normal(size=(600, 5))
    clusters = np.repeat(np.arange(6), 100)
    alike = Rows.of(clusters, [np.arange(600) % 10] * 3)
    unlike = Rows.of(clusters, [generator.permutation(600) % 10 for _ in range(3)])
    narrow = similarity("cca", SideFrames(x, alike), SideFrames(y, alike))
    wide = similarity("cca", SideFrames(x, unlike), SideFrames(y, unlike))
    assert narrow.ci95 is not None
    assert wide.ci95 is not None
    assert narrow.ci95[0] < (narrow.value or 0) < narrow.ci95[1]
    assert wide.value != narrow.value


def test_constant_features_have_no_similarity() -> None:
    x, y = vector()
    rows = rows_of([100, 100], parts=1)
    for measure in ("cka", "pwcca"):
        found = similarity(measure, SideFrames(np.zeros_like(x), rows), SideFrames(y, rows))
        assert (found.value, found.ci95) == (None, None)


def test_a_part_without_rows_leaves_cca_undefined() -> None:
    x, y = vector()
    for parts in (np.full(200, 5), np.zeros(200, dtype=np.int64)):
        rows = Rows.of(np.repeat([0, 1], 100), [parts])
        assert similarity("cca", SideFrames(x, rows), SideFrames(y, rows)).value is None


def test_the_interval_of_information_leaves_out_each_speaker() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    clusters = np.where(generator.random(300) < 0.7, labels, generator.integers(0, 4, 300))
    rows = rows_of([100, 80, 120])
    found = information(clusters, labels, 4, rows)
    pairs = np.stack([clusters, labels], axis=1)

    def measure(several: list[NDArray[np.int64]]) -> dict[str, float | None]:
        both = np.array(several)
        return {"mi": normalised_information(contingency(both[:, 0], both[:, 1], (4, 4)))}

    expected = jackknife_intervals([list(pairs[own]) for own in rows.slices], measure)["mi"]
    assert expected is not None
    assert found.ci95 == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_rows_number_the_speakers_that_are_there() -> None:
    rows = Rows.of(np.array([0, 0, 2, 2, 5]))
    assert rows.num_clusters == 3
    assert rows.slices == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert rows.where(np.array([True, False, False, False, True])).clusters.tolist() == [0, 1]


def test_half_of_a_symmetric_matrix_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = vector()
    rows = rows_of([100, 100])
    sides = [SideFrames(each, rows) for each in (x, y, x[:, :2])]
    computed: list[int] = []

    def count(measure: str, first: SideFrames, second: SideFrames) -> object:
        computed.append(1)
        return similarity(measure, first, second)

    monkeypatch.setattr("repbench.benchmark.similarity.measures.similarity", count)
    advanced: list[int] = []
    values = matrix("cka", sides, sides, lambda: advanced.append(1))
    assert (len(computed), len(advanced)) == (6, 9)
    assert [values[row][row].value for row in range(3)] == pytest.approx([1.0, 1.0, 1.0])
    assert values[0][1] is values[1][0]
    matrix("cka", sides, list(sides), lambda: None)
    assert len(computed) == 6 + 9
