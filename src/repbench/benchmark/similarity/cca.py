"""Canonical correlations of two sets of features, regularised and measured on frames that they were not fitted on.

Conventions: covariances are those of the training frames. ε is added to the diagonal of a covariance that is divided by
its largest absolute entry, so it does not depend on the scale of the features. Directions without variance are left
out. A direction that is constant on the frames that it is measured on has the correlation 0 there.

Measures, of features X (N, D) with Y (N, E), each at most 1:

* `cca`: mean of the min(rank X, rank Y) canonical correlations.
* `svcca`: the same, of the principal directions of each side that hold 99 % of its variance.
* `pwcca`: the correlations weighted by how much of X each canonical variate accounts for, Σ_j |⟨u_k, x_j⟩|. The weights
  are those of the first side, so it is not symmetric.

On the training frames with ε = 0 all are at least 0. On other frames a direction that was fitted to noise is as often
below 0 as above, and is not cut off there: a mean of values cut at 0 would be above 0 for unrelated features.

Axes: N frames, D and E widths, R directions with variance, K canonical directions.

Reference:
    Raghu, Gilmer, Yosinski and Sohl-Dickstein, SVCCA, NeurIPS 2017; Morcos, Raghu and Bengio, Insights on
    Representational Similarity in Neural Networks with Canonical Correlation, NeurIPS 2018; Pasad, Chou and Livescu,
    Layer-wise Analysis of a Self-supervised Speech Representation Model, ASRU 2021 (ε chosen on a dev part).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.similarity.cka import BLOCK_ROWS, Floats, Frames

CcaMeasure = Literal["cca", "svcca", "pwcca"]

EPSILONS = (1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5)
"""The regularisations that are tried on dev."""

SVCCA_VARIANCE = 0.99
"""Share of the variance that the directions of SVCCA hold."""


@dataclass(frozen=True, slots=True)
class Side:
    """The training statistics of one set of features.

    Attributes:
        mean: (D,).
        scale: Largest absolute entry of the covariance.
        variances: (R,) of the principal directions, divided by the scale, descending.
        directions: (D, R) principal directions.
        num_main: How many of them hold `SVCCA_VARIANCE` of the variance.
    """

    mean: Floats
    scale: float
    variances: Floats
    directions: Floats
    num_main: int


def side_of(x: Frames) -> Side | None:
    """The statistics of (N, D) training features; None where they are constant."""
    mean = x.mean(axis=0, dtype=np.float64)
    covariance = _covariance(x, mean, x, mean)
    scale = float(np.abs(covariance).max())
    if scale == 0.0:
        return None
    variances, directions = np.linalg.eigh(covariance / scale)
    variances, directions = variances[::-1], directions[:, ::-1]
    # Rounding gives directions without variance eigenvalues of this size, of either sign.
    rank = int((variances > variances[0] * len(mean) * np.finfo(np.float64).eps * 4).sum())
    shares = np.cumsum(variances[:rank]) / variances[:rank].sum()
    num_main = min(rank, int(np.searchsorted(shares, SVCCA_VARIANCE)) + 1)
    return Side(mean, scale, variances[:rank], directions[:, :rank], num_main)


@dataclass(frozen=True, slots=True)
class Canonical:
    """Fitted canonical directions, each a combination of the leading principal directions of its side.

    Attributes:
        first: (R, K) of X.
        second: (R', K) of Y.
        correlations: (K,) on the training frames, as regularised.
        weights: (K,) of the mean over directions, adding up to 1.
    """

    first: Floats
    second: Floats
    correlations: Floats
    weights: Floats


@dataclass(frozen=True, slots=True)
class CcaProblem:
    """Two sides and their cross-covariance in principal directions: all that a fit with any ε needs.

    Attributes:
        x: The first side.
        y: The second side.
        between: (R, R') covariance of the principal directions of both, divided by the root of both scales.
    """

    x: Side
    y: Side
    between: Floats

    @classmethod
    def of(cls, x_train: Frames, y_train: Frames, x: Side, y: Side) -> CcaProblem:
        """The problem of (N, D) and (N, E) training features with their statistics."""
        between = _covariance(x_train, x.mean, y_train, y.mean) / (x.scale * y.scale) ** 0.5
        # (D, E) -> (R, R')
        return cls(x, y, x.directions.T @ between @ y.directions)

    def fit(self, measure: CcaMeasure, epsilon: float) -> Canonical:
        """The canonical directions with a regularisation."""
        num_x, num_y = self._nums(measure)
        roots_x = np.sqrt(self.x.variances[:num_x] + epsilon)
        roots_y = np.sqrt(self.y.variances[:num_y] + epsilon)
        whitened = self.between[:num_x, :num_y] / np.outer(roots_x, roots_y)
        left, correlations, right = np.linalg.svd(whitened, full_matrices=False)
        # The directions of whitened features -> those of principal directions: (R, K)
        first, second = left / roots_x[:, None], right.T / roots_y[:, None]
        return Canonical(first, second, correlations, self._weights(measure, first))

    def _nums(self, measure: CcaMeasure) -> tuple[int, int]:
        if measure == "svcca":
            return self.x.num_main, self.y.num_main
        return len(self.x.variances), len(self.y.variances)

    def _weights(self, measure: CcaMeasure, first: Floats) -> Floats:
        if measure != "pwcca":
            return np.full(first.shape[1], 1 / first.shape[1])
        variances = self.x.variances[:, None]
        # The covariance of each variate with each feature: (D, R) @ (R, K) -> (D, K)
        with_features = self.x.directions @ (variances * first)
        # With ε above 0 variates do not have variance 1, which the weights assume.
        deviations = np.sqrt((variances * np.square(first)).sum(axis=0))
        weights: Floats = np.abs(with_features).sum(axis=0) / deviations
        weights /= weights.sum()
        return weights


def canonical_correlations(x: Frames, y: Frames, epsilon: float = 0.0) -> Floats:
    """(K,) canonical correlations of (N, D) with (N, E) on the frames that they are fitted on, descending.

    Raises:
        ValueError: One side is constant.
    """
    first, second = side_of(x), side_of(y)
    if first is None or second is None:
        raise ValueError("features without variance have no canonical correlations")
    return CcaProblem.of(x, y, first, second).fit("cca", epsilon).correlations


@dataclass(frozen=True, slots=True)
class VariateSums:
    """The sums of canonical variates from which their correlations follow; sums of disjoint frames add up.

    Attributes:
        count: Number of frames.
        sums: (5, K): Σ u, Σ v, Σ u², Σ v², Σ u v.
    """

    count: int
    sums: Floats

    def __add__(self, other: VariateSums) -> VariateSums:
        return VariateSums(self.count + other.count, self.sums + other.sums)

    def correlations(self) -> Floats:
        """(K,) correlations of the pairs of variates; 0 where one is constant."""
        u, v, uu, vv, uv = self.sums / max(self.count, 1)
        first, second = uu - u * u, vv - v * v
        # Below this a variance is rounding: the squares of a constant do not quite cancel.
        rounding = np.finfo(np.float64).eps * 16
        is_varied = (first > rounding * uu) & (second > rounding * vv)
        return np.where(is_varied, (uv - u * v) / np.sqrt(np.where(is_varied, first * second, 1.0)), 0.0)


def variate_sums(problem: CcaProblem, fitted: Canonical, x: Frames, y: Frames) -> VariateSums:
    """The sums of the variates of (N, D) and (N, E) features, which need not be those of training."""
    # (N, D) -> (N, K), both sides centred on the means of training
    u = (x - problem.x.mean) @ (problem.x.directions[:, : len(fitted.first)] @ fitted.first)
    v = (y - problem.y.mean) @ (problem.y.directions[:, : len(fitted.second)] @ fitted.second)
    return VariateSums(len(x), np.stack([u.sum(0), v.sum(0), (u * u).sum(0), (v * v).sum(0), (u * v).sum(0)]))


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of frames in principal directions, from which the variates of any fit have theirs.

    Attributes:
        count: Number of frames.
        first: (R,) mean of X.
        second: (R',) mean of Y.
        xx: (R, R) mean of the products of X with itself, not centred.
        yy: (R', R') of Y with itself.
        xy: (R, R') of X with Y.
    """

    count: int
    first: Floats
    second: Floats
    xx: Floats
    yy: Floats
    xy: Floats

    @classmethod
    def of(cls, problem: CcaProblem, x: Frames, y: Frames) -> Moments:
        """Those of (N, D) and (N, E) features."""
        u = (x - problem.x.mean) @ problem.x.directions  # (N, D) -> (N, R)
        v = (y - problem.y.mean) @ problem.y.directions
        return cls(len(u), u.mean(axis=0), v.mean(axis=0), u.T @ u / len(u), v.T @ v / len(u), u.T @ v / len(u))

    def variates(self, fitted: Canonical) -> VariateSums:
        """As `variate_sums`, without the frames."""
        one, other = fitted.first, fitted.second
        r, s = len(one), len(other)
        sums = (
            self.first[:r] @ one,
            self.second[:s] @ other,
            ((self.xx[:r, :r] @ one) * one).sum(axis=0),
            ((self.yy[:s, :s] @ other) * other).sum(axis=0),
            ((self.xy[:r, :s] @ other) * one).sum(axis=0),
        )
        return VariateSums(self.count, self.count * np.stack(sums))


def score_of(fitted: Canonical, sums: VariateSums) -> float:
    """The weighted mean of the correlations."""
    return float(fitted.weights @ sums.correlations())


def chosen_on(
    problem: CcaProblem, measure: CcaMeasure, x_dev: Frames, y_dev: Frames, epsilons: tuple[float, ...] = EPSILONS
) -> tuple[float, Canonical]:
    """The ε with the highest score on (N, D) and (N, E) dev features, and its fit; of equal ones the smallest."""
    moments = Moments.of(problem, x_dev, y_dev)
    best: tuple[float, float, Canonical] | None = None
    for epsilon in epsilons:
        fitted = problem.fit(measure, epsilon)
        score = score_of(fitted, moments.variates(fitted))
        if best is None or score > best[0]:
            best = score, epsilon, fitted
    assert best is not None
    return best[1], best[2]


def _covariance(x: Frames, x_mean: Floats, y: Frames, y_mean: Floats) -> Floats:
    """(D, E) covariance, in blocks of float64."""
    total = np.zeros((len(x_mean), len(y_mean)))
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        total += (x[rows] - x_mean).T @ (y[rows] - y_mean)
    return total / len(x)


def one_hot(labels: NDArray[np.int64], num_classes: int) -> Floats:
    """(N,) classes -> (N, C) with a 1 at the class of each frame."""
    return np.eye(num_classes)[labels]
