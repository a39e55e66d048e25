"""How far a condition moves the states of a layer, relative to the distance between utterances.

Let x_t be the state at instant t of the sound as it is in the corpus, and y_t that of the disturbed sound at the same
instant, moved where the condition moves time. Each dimension is divided by its standard deviation over all x_t. Then

    invariance = mean over t of ‖x_t - y_t‖² / mean over t, u of different utterances of ‖x_t - x_u‖².

0: the condition changes nothing. 1: the disturbed state is as far from the clean one as a state of another utterance
at any instant. For states of mean 0 that are mixed, y = a x + √(1 - a²) n, with n unrelated to x and as widely spread,
it is 1 - a. Values above 1 are possible: a state may be thrown out of the range of clean ones.

To scale or shift a dimension changes nothing. A rotation of the space does, as long as its dimensions have unlike
deviations, since the deviations of other axes are then made equal: the axes are those in which a linear probe with
standardised inputs reads the layer.

Axes: N instants, D dimensions, U utterances, C clusters (speakers or groups).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics import LeftOut

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

VALUE = "value"
"""The name of the number in `LeftOut`."""

FLOOR = 1e-3
"""Least deviation that a dimension is divided by, in median deviations, as probes have it: constants are not noise."""

LEAST_DISTANCE = 1e-9
"""Least mean square distance a dimension between utterances, of standardised states. Below it, as of the means of
features that are normalised over the utterance, there is nothing to be relative to."""


def deviations(states: NDArray[np.float32]) -> Floats:
    """(D,) the standard deviation of each dimension of (N, D) states, at least `FLOOR` of the median, never 0."""
    found: Floats = states.std(axis=0, dtype=np.float64)
    least = FLOOR * float(np.median(found))
    return np.maximum(found, least) if least else np.where(found > 0, found, 1.0)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the states of each cluster, of which means over pairs of different utterances follow.

    Attributes:
        count: (C,) states.
        square: (C,) sum of ‖x‖².
        total: (C, D) sum of x.
        own: (C,) Σ n_u Σ ‖x‖² - ‖Σ x‖² over its utterances: half the sum of distances within utterances.
        own_pairs: (C,) Σ n_u² over its utterances.
    """

    count: Floats
    square: Floats
    total: Floats
    own: Floats
    own_pairs: Floats


class CleanStates:
    """The states of a layer in clean sound, and the distance between its utterances.

    Args:
        states: (N, D) float32.
        owners: (N,) number of the utterance of each state, ascending.
        clusters: (U,) number of the cluster of each utterance, from 0 on, ascending.
        deviation: (D,) that each dimension is divided by.
    """

    def __init__(self, states: NDArray[np.float32], owners: Integers, clusters: Integers, deviation: Floats) -> None:
        self._deviation = deviation
        self._cluster = clusters[owners]  # (U,) -> (N,)
        self._num_clusters = int(clusters.max()) + 1
        self._states = states
        # A common shift changes no distance, and keeps the differences of large sums exact.
        scaled = states / deviation
        self._sums = self._sums_of(scaled - scaled.mean(axis=0), owners, clusters)

    def distance_to(self, disturbed: NDArray[np.float32]) -> LeftOut:
        """The invariance to a condition, over all clusters and without each.

        Args:
            disturbed: (N, D) float32, of the disturbed sound at the same instants.
        """
        # (N, D) -> (N,) -> (C,)
        moved = np.square((self._states.astype(np.float64) - disturbed) / self._deviation).sum(axis=1)
        of_cluster = _summed(self._cluster, moved, self._num_clusters)
        every = np.ones(self._num_clusters, dtype=bool)
        whole = {VALUE: self._ratio(of_cluster, every)}
        if self._num_clusters < 2:
            return LeftOut(whole, ())
        others = ~np.eye(self._num_clusters, dtype=bool)  # (C, C), row c without cluster c
        return LeftOut(whole, tuple({VALUE: self._ratio(of_cluster, kept)} for kept in others))

    def _ratio(self, moved: Floats, kept: NDArray[np.bool_]) -> float | None:
        """Of some clusters; None where their utterances do not differ."""
        sums = self._sums
        count, total = sums.count[kept].sum(), sums.total[kept].sum(axis=0)
        pairs = count**2 - sums.own_pairs[kept].sum()
        if pairs == 0:
            return None
        # Σ_t Σ_u ‖x_t - x_u‖² = 2 (N Σ ‖x‖² - ‖Σ x‖²) over all pairs; those of one utterance are taken away.
        apart = 2 * (count * sums.square[kept].sum() - total @ total - sums.own[kept].sum()) / pairs
        if apart <= LEAST_DISTANCE * len(total):
            return None
        return float(moved[kept].sum() / count / apart)

    def _sums_of(self, states: Floats, owners: Integers, clusters: Integers) -> _Sums:
        num_utterances, width = len(clusters), states.shape[1]
        squares = np.square(states).sum(axis=1)
        count = _summed(owners, np.ones(len(owners)), num_utterances)  # (U,)
        square = _summed(owners, squares, num_utterances)
        total = np.zeros((num_utterances, width))
        np.add.at(total, owners, states)  # (N, D) -> (U, D)
        own = count * square - np.square(total).sum(axis=1)

        def of_clusters(values: Floats) -> Floats:  # (U,) -> (C,)
            return _summed(clusters, values, self._num_clusters)

        totals = np.zeros((self._num_clusters, width))
        np.add.at(totals, clusters, total)  # (U, D) -> (C, D)
        return _Sums(of_clusters(count), of_clusters(square), totals, of_clusters(own), of_clusters(count**2))


def _summed(groups: Integers, values: Floats, count: int) -> Floats:
    """(count,) the sum of (N,) values over each of the (N,) groups."""
    sums: Floats = np.bincount(groups, weights=values, minlength=count).astype(np.float64)
    return sums
