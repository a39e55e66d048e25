"""Linear centred kernel alignment (CKA) of two sets of features of the same frames.

    CKA(X, Y) = ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), Frobenius norms, columns centred.

It is 1 for equal features, at least 0, and does not change when one side is rotated, shifted or scaled as a whole. Sums
are in float64. The products are of features with features (D × E), never of frames with frames, so memory does not grow
with the number of frames; the form by Gram matrices is the definition by kernels, and equal.

Axes: N frames, D width of one side, E width of the other, C clusters.

Reference:
    Kornblith, Norouzi, Lee and Hinton, Similarity of Neural Network Representations Revisited, ICML 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Frames = NDArray[np.floating]

BLOCK_ROWS = 8192
"""Most rows that are converted to float64 at once."""

MOST_KEPT_BYTES = 2**28
"""Most memory of the products of single clusters; above it they are computed a second time."""


@dataclass(frozen=True, slots=True)
class CrossSums:
    """The sums from which the centred product XᵀY follows; sums of disjoint frames add up.

    Attributes:
        count: Number of frames.
        first: (D,) sum of X.
        second: (E,) sum of Y.
        product: (D, E) sum of the products, not centred.
    """

    count: int
    first: Floats
    second: Floats
    product: Floats

    @classmethod
    def of(cls, x: Frames, y: Frames) -> CrossSums:
        """The sums of (N, D) and (N, E) features of the same frames.

        Raises:
            ValueError: They are not of the same frames.
        """
        _validate(x, y)
        x, y = x.astype(np.float64), y.astype(np.float64)
        return cls(len(x), x.sum(axis=0), y.sum(axis=0), x.T @ y)

    def __add__(self, other: CrossSums) -> CrossSums:
        return CrossSums(
            self.count + other.count,
            self.first + other.first,
            self.second + other.second,
            self.product + other.product,
        )

    def centred(self) -> Floats:
        """(D, E) product of the centred features: Σ x yᵀ - (Σ x)(Σ y)ᵀ / n."""
        return self.product - np.outer(self.first, self.second) / self.count

    def squared_norm(self) -> float:
        """‖XᵀY‖² of the centred features."""
        return float(np.square(self.centred()).sum())


def linear_cka(x: Frames, y: Frames) -> float | None:
    """CKA of (N, D) and (N, E) features of the same frames, in [0, 1]; None where one side is constant.

    Raises:
        ValueError: They are not of the same frames.

    Example:
        >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 5.0]])
        >>> round(linear_cka(x, 3 * x + 1), 12)
        1.0
    """
    _validate(x, y)
    whole = [slice(0, len(x))]
    return cka_of(*(norms_left_out(*sides, whole)[0] for sides in ((x, y), (x, x), (y, y))))


def linear_cka_of_grams(x: Frames, y: Frames) -> float | None:
    """As `linear_cka`, by the (N, N) Gram matrices: for few frames."""
    _validate(x, y)
    grams = [_centred_gram(each.astype(np.float64)) for each in (x, y)]
    return cka_of(*(float((one * other).sum()) for one, other in (grams, (grams[0],) * 2, (grams[1],) * 2)))


def _centred_gram(x: Floats) -> Floats:
    centred = x - x.mean(axis=0)
    gram: Floats = centred @ centred.T  # (N, D) -> (N, N)
    return gram


def cka_of(xy: float, xx: float, yy: float) -> float | None:
    """CKA from the squared norms of the three centred products; None where a side is constant."""
    if xx <= 0.0 or yy <= 0.0:
        return None
    return xy / math.sqrt(xx * yy)


def norms_left_out(x: Frames, y: Frames, clusters: Sequence[slice]) -> tuple[float, tuple[float, ...]]:
    """‖XᵀY‖² of the centred features, over all frames and without each cluster.

    With P the product over all frames, centred on their means, P_c that over cluster c, a_c and b_c its sums and
    n - n_c frames outside of it, the centred product of the others is P - P_c - a_c b_cᵀ / (n - n_c): the means
    of the others are -a_c / (n - n_c) and -b_c / (n - n_c), because all deviations add up to 0.

    Args:
        x: (N, D).
        y: (N, E), of the same frames.
        clusters: Rows of each cluster; together all rows.

    Returns:
        The squared norm, and those without each cluster; none with one cluster.
    """
    _validate(x, y)
    # Centred first: sums of squares of features far from 0 would cancel.
    means = x.mean(axis=0, dtype=np.float64), y.mean(axis=0, dtype=np.float64)
    keeps = len(clusters) * x.shape[1] * y.shape[1] * 8 <= MOST_KEPT_BYTES
    kept = list(_sums_of(x, y, means, clusters)) if keeps else None
    whole = np.zeros((x.shape[1], y.shape[1]))
    for each in kept or _sums_of(x, y, means, clusters):
        whole += each.product
    norm = float(np.square(whole).sum())
    if len(clusters) < 2:
        return norm, ()
    without = []
    for each in kept or _sums_of(x, y, means, clusters):
        others = whole - each.product - np.outer(each.first, each.second) / (len(x) - each.count)
        without.append(float(np.square(others).sum()))
    return norm, tuple(without)


def _sums_of(x: Frames, y: Frames, means: tuple[Floats, Floats], clusters: Sequence[slice]) -> Iterator[CrossSums]:
    """The sums of each cluster, of deviations from the means."""
    for rows in clusters:
        sums = CrossSums(0, np.zeros(x.shape[1]), np.zeros(y.shape[1]), np.zeros((x.shape[1], y.shape[1])))
        for start in range(rows.start, rows.stop, BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, rows.stop))
            sums += CrossSums.of(x[block] - means[0], y[block] - means[1])
        yield sums


def _validate(x: Frames, y: Frames) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"features must be (N, D) and (N, E) of the same frames, but are {x.shape} and {y.shape}")
