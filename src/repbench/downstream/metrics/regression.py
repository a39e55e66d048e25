"""Agreement of numbers: concordance, correlation and error.

Conventions: a reference and an estimate are (n,) numbers in the same unit, item by item; all items are pooled and
measured once. An undefined metric is None, never 0.

Metrics:
    ccc: concordance correlation, 2 s_xy / (s_x² + s_y² + (mean_x - mean_y)²) with moments divided by n. In [-1, 1],
        higher is better; 1 only where every estimate is its reference. None with fewer than two items, and where the
        reference is constant. A constant estimate of a varying reference has 0: it agrees no better than chance.
    pearson: linear correlation s_xy / (s_x s_y). In [-1, 1], higher is better. None with fewer than two items, and
        where reference or estimate is constant.
    spearman: Pearson's correlation of the ranks, equal numbers with the mean of their ranks. As pearson.
    rmse: root of the mean squared difference, in the unit of the reference. From 0, lower is better. None of nothing.

Reference:
    Lin, A concordance correlation coefficient to evaluate reproducibility, Biometrics 45, 1989.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from repbench.downstream.metrics.classification import average_ranks

Floats = NDArray[np.float64]


def validate(reference: ArrayLike, estimated: ArrayLike) -> tuple[Floats, Floats]:
    """Both as (n,) float64.

    Raises:
        ValueError: They are not as many, no lists of numbers, or one is NaN or infinite.
    """
    x, y = (np.asarray(each, dtype=np.float64) for each in (reference, estimated))
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"reference and estimate must be lists of one length, but are {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("references and estimates must be finite numbers")
    return x, y


def ccc(reference: ArrayLike, estimated: ArrayLike) -> float | None:
    """Lin's concordance correlation coefficient."""
    x, y = validate(reference, estimated)
    if _is_constant(x):
        return None
    deviation_x, deviation_y = x - x.mean(), y - y.mean()
    # One division by n: it cancels but for the squared difference of the means, which is n times what it is in the
    # formula. The divisor is positive, as the reference varies.
    divisor = deviation_x @ deviation_x + deviation_y @ deviation_y + len(x) * (x.mean() - y.mean()) ** 2
    return float(2 * (deviation_x @ deviation_y) / divisor)


def pearson(reference: ArrayLike, estimated: ArrayLike) -> float | None:
    """Pearson's correlation."""
    x, y = validate(reference, estimated)
    if _is_constant(x) or _is_constant(y):
        return None
    deviation_x, deviation_y = x - x.mean(), y - y.mean()
    # Scaled before they are multiplied, so that no square of a tiny or huge deviation leaves the range of float64.
    deviation_x, deviation_y = (each / np.abs(each).max() for each in (deviation_x, deviation_y))
    product = deviation_x @ deviation_y
    value = product / math.sqrt((deviation_x @ deviation_x) * (deviation_y @ deviation_y))
    return float(np.clip(value, -1.0, 1.0))  # rounding can lead 1e-16 beyond


def spearman(reference: ArrayLike, estimated: ArrayLike) -> float | None:
    """Spearman's rank correlation."""
    x, y = validate(reference, estimated)
    return pearson(average_ranks(x), average_ranks(y))


def rmse(reference: ArrayLike, estimated: ArrayLike) -> float | None:
    """Root mean squared error."""
    x, y = validate(reference, estimated)
    return math.sqrt(float(np.mean((x - y) ** 2))) if len(x) else None


def _is_constant(values: Floats) -> bool:
    """Whether nothing varies: fewer than two items are constant too."""
    return len(values) < 2 or bool((values == values[0]).all())
