"""The two-covariance model: against its own definition, and that it finds what vectors were drawn from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from repbench.downstream.plda import TwoCovariances, Whitening
from repbench.errors import DataError

BETWEEN = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, 0.2], [0.0, 0.2, 0.1]])
WITHIN = np.array([[0.5, 0.1, 0.0], [0.1, 0.7, 0.3], [0.0, 0.3, 1.0]])


def drawn(num_speakers: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    """Vectors of speakers with 2 to 6 each."""
    random = np.random.default_rng(seed)
    vectors, speakers = [], []
    for number in range(num_speakers):
        centre = random.multivariate_normal(np.array([1.0, -2.0, 3.0]), BETWEEN)
        count = int(random.integers(2, 7))
        vectors.append(random.multivariate_normal(centre, WITHIN, size=count))
        speakers += [f"s{number:04d}"] * count
    return np.concatenate(vectors), speakers


def likelihood(vectors: np.ndarray, speakers: list[str], model: TwoCovariances) -> float:
    """Of all vectors, each speaker's as one normal of all its coordinates."""
    projected = model.project(vectors)
    between, total = np.diag(model.between), 0.0
    for name in sorted(set(speakers)):
        own = projected[[each == name for each in speakers]]
        count = len(own)
        covariance = np.kron(np.ones((count, count)), between) + np.eye(count * len(between))
        total += multivariate_normal(np.zeros(count * len(between)), covariance).logpdf(own.ravel())
    return float(total + len(vectors) * np.linalg.slogdet(model.coordinates)[1])


def test_ratios_are_those_of_the_joint_densities() -> None:
    vectors, speakers = drawn(40)
    model = TwoCovariances.fitted(vectors, speakers)
    between, width = np.diag(model.between), len(model.between)
    projected = model.project(vectors)
    for count in (1, 3):
        enrolled, tested = projected[:count], projected[count]
        n = count + 1
        joint = np.kron(np.ones((n, n)), between) + np.eye(n * width)
        apart = joint.copy()
        apart[-width:, :-width] = apart[:-width, -width:] = 0
        point = np.concatenate([enrolled.ravel(), tested])
        expected = multivariate_normal(None, joint).logpdf(point) - multivariate_normal(None, apart).logpdf(point)
        found = model.ratios(enrolled.mean(axis=0, keepdims=True), np.array([count]), tested[None])
        assert found[0] == pytest.approx(expected, abs=1e-9)


def test_a_trial_and_its_reverse_have_one_ratio() -> None:
    vectors, speakers = drawn(30)
    model = TwoCovariances.fitted(vectors, speakers)
    a, b, one = model.project(vectors[:5]), model.project(vectors[5:10]), np.ones(5, dtype=np.int64)
    assert model.ratios(a, one, b) == pytest.approx(model.ratios(b, one, a), abs=1e-10)


def test_training_finds_the_covariances_that_vectors_were_drawn_from() -> None:
    vectors, speakers = drawn(3000)
    model = TwoCovariances.fitted(vectors, speakers, iterations=60)
    back = np.linalg.inv(model.coordinates)
    assert back.T @ np.diag(model.between) @ back == pytest.approx(BETWEEN, abs=0.12)
    assert back.T @ back == pytest.approx(WITHIN, abs=0.03)


def test_no_step_lowers_the_likelihood() -> None:
    vectors, speakers = drawn(60)
    found = [likelihood(vectors, speakers, TwoCovariances.fitted(vectors, speakers, iterations=n)) for n in range(6)]
    assert all(later > earlier for earlier, later in itertools.pairwise(found))


def test_whitened_vectors_have_one_length_and_train_without_it_has_unit_covariance() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)) @ np.diag([9, 5, 3, 2, 1, 1, 0.5, 0]) + 4
    whitening = Whitening.fitted(vectors, 5)
    assert whitening.directions.shape == (8, 5)
    white = (vectors - whitening.mean) @ whitening.directions
    assert white.T @ white / 50 == pytest.approx(np.eye(5), abs=1e-12)
    assert np.linalg.norm(whitening(vectors), axis=1) == pytest.approx(np.sqrt(5))
    assert Whitening.fitted(vectors, 100).directions.shape == (8, 7)  # one of 8 is constant
    assert not whitening(whitening.mean[None]).any()


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(DataError, match="in train there is one speaker"):
        TwoCovariances.fitted(np.random.default_rng(0).normal(size=(4, 2)), ["a"] * 4)
    with pytest.raises(DataError, match="in train no speaker has two utterances"):
        TwoCovariances.fitted(np.random.default_rng(0).normal(size=(4, 2)), list("abcd"))
    with pytest.raises(DataError, match="are equal"):
        Whitening.fitted(np.full((4, 3), 0.1), 2)
