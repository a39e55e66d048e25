"""The numbers of a comparison, with intervals: each pair of layers, and each layer with labels.

Intervals leave out each speaker (or group) in turn. CKA is computed again without the speaker. CCA and mutual
information keep the directions and clusters that they were fitted with, and leave the speaker out of what is measured:
their intervals do not include that another fit would have found other directions. The draws of CCA are crossed with
the speakers, as the seeds of a run are.

Axes: N frames or utterances, D and E widths, C clusters.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.scoring.statistics import LeftOut, crossed_intervals_of, left_out
from repbench.benchmark.similarity.cca import (
    Canonical,
    CcaMeasure,
    CcaProblem,
    Side,
    VariateSums,
    chosen_on,
    score_of,
    side_of,
    variate_sums,
)
from repbench.benchmark.similarity.cka import Frames, cka_of, norms_left_out
from repbench.benchmark.similarity.document import MEASURES, Value
from repbench.benchmark.similarity.mutual_information import Integers, contingency, normalised_information
from repbench.benchmark.similarity.sample import slices_of

Mask = NDArray[np.bool_]

_NAME = "value"

TEST_PART, DEV_PART = 0, 1


@dataclass(frozen=True)
class Rows:
    """What the rows of features belong to.

    Attributes:
        clusters: (N,) the cluster of each row, ascending; each of the C clusters has a row.
        draws: Of each draw, (N,) the part of each row; none where no CCA is measured.
    """

    clusters: Integers
    draws: tuple[Integers, ...] = ()

    @classmethod
    def of(cls, clusters: Integers, draws: Sequence[Integers] = ()) -> Rows:
        """The rows of ascending clusters, of which some may have no row and are not counted."""
        return cls(np.unique(clusters, return_inverse=True)[1].astype(np.int64), tuple(draws))

    @property
    def num_clusters(self) -> int:
        """C."""
        return int(self.clusters[-1]) + 1

    @functools.cached_property
    def slices(self) -> list[slice]:
        """The rows of each cluster."""
        return slices_of(self.clusters, self.num_clusters)

    def where(self, chosen: Mask) -> Rows:
        """Those of (N,) a mask."""
        return Rows.of(self.clusters[chosen], [each[chosen] for each in self.draws])


class SideFrames:
    """The features of one layer, with what is computed of them once.

    Args:
        values: (N, D).
        rows: What the rows belong to.
    """

    def __init__(self, values: Frames, rows: Rows) -> None:
        self.values = values
        self.rows = rows
        self._sides: dict[int, Side | None] = {}

    @functools.cached_property
    def norms(self) -> tuple[float, tuple[float, ...]]:
        """‖XᵀX‖², whole and without each cluster."""
        return norms_left_out(self.values, self.values, self.rows.slices)

    def side(self, draw: int) -> Side | None:
        """The statistics of the training rows of a draw; None where they are constant, or there are none."""
        if draw not in self._sides:
            is_train = self.rows.draws[draw] > DEV_PART
            self._sides[draw] = side_of(self.values[is_train]) if is_train.any() else None
        return self._sides[draw]


def similarity(measure: str, x: SideFrames, y: SideFrames) -> Value:
    """A measure of two sides of the same rows.

    Args:
        measure: A measure of pairs.
        x: The first side.
        y: The second side.
    """
    assert MEASURES[measure].of_pairs
    if measure == "cka":
        return _cka(x, y)
    runs = [_cca(cast(CcaMeasure, measure), x, y, draw) for draw in range(len(x.rows.draws))]
    known = [run for run in runs if run is not None]
    return value_of(known) if len(known) == len(runs) else UNDEFINED


UNDEFINED = Value(value=None, ci95=None)


def value_of(runs: Sequence[LeftOut]) -> Value:
    """The mean over draws and its interval over draws and clusters."""
    values = [value for run in runs if (value := run.whole[_NAME]) is not None]
    if not values or len(values) < len(runs):
        return UNDEFINED
    interval = crossed_intervals_of(runs)[_NAME]
    pair = None if interval is None else (interval.low, interval.high)
    return Value(value=math.fsum(values) / len(values), ci95=pair)


def _cka(x: SideFrames, y: SideFrames) -> Value:
    whole, without = norms_left_out(x.values, y.values, x.rows.slices)
    (whole_x, without_x), (whole_y, without_y) = x.norms, y.norms
    values = [{_NAME: cka_of(*each)} for each in zip(without, without_x, without_y, strict=True)]
    return value_of([LeftOut({_NAME: cka_of(whole, whole_x, whole_y)}, tuple(values))])


def _cca(measure: CcaMeasure, x: SideFrames, y: SideFrames, draw: int) -> LeftOut | None:
    """The score of one draw on its test part, whole and without each cluster.

    None where a side is constant, or a part has fewer than two rows.
    """
    side_x, side_y = x.side(draw), y.side(draw)
    if side_x is None or side_y is None:
        return None
    part = x.rows.draws[draw]
    is_train, is_dev, is_test = part > DEV_PART, part == DEV_PART, part == TEST_PART
    if min(is_dev.sum(), is_test.sum()) < 2:  # as of a few words, of which a part may have none
        return None
    problem = CcaProblem.of(x.values[is_train], y.values[is_train], side_x, side_y)
    _, fitted = chosen_on(problem, measure, x.values[is_dev], y.values[is_dev])
    # Every cluster of the rows, also where the test part has none of its rows: draws must have the same clusters.
    tested = slices_of(x.rows.clusters[is_test], x.rows.num_clusters)
    sums = _sums_of(problem, fitted, x.values[is_test], y.values[is_test], tested)

    def score(several: list[VariateSums]) -> Mapping[str, float | None]:
        total = functools.reduce(VariateSums.__add__, several)
        return {_NAME: score_of(fitted, total) if total.count > 1 else None}

    return left_out([[each] for each in sums], score)


def _sums_of(
    problem: CcaProblem, fitted: Canonical, x: Frames, y: Frames, clusters: Sequence[slice]
) -> list[VariateSums]:
    """The sums of each cluster."""
    return [variate_sums(problem, fitted, x[own], y[own]) for own in clusters]


def information(clusters: Integers, labels: Integers, num_classes: int, rows: Rows) -> Value:
    """Mutual information of clusters with labels over the entropy of the labels.

    Args:
        clusters: (N,) cluster of k-means of each row.
        labels: (N,) class of each row.
        num_classes: Number of classes.
        rows: What the rows belong to.
    """
    shape = int(clusters.max()) + 1, num_classes
    tables = [contingency(clusters[own], labels[own], shape) for own in rows.slices]

    def measure(several: list[Integers]) -> Mapping[str, float | None]:
        return {_NAME: normalised_information(functools.reduce(np.add, several))}

    return value_of([left_out([[table] for table in tables], measure)])


Advance = Callable[[], None]


def matrix(
    measure: str, first: Sequence[SideFrames], second: Sequence[SideFrames], advance: Advance
) -> tuple[tuple[Value, ...], ...]:
    """Every layer of one model with every layer of another.

    Args:
        measure: A measure of pairs.
        first: The layers of the rows.
        second: The layers of the columns; the same object for a model with itself.
        advance: Called after each value.
    """
    values: dict[tuple[int, int], Value] = {}
    mirrors = first is second and MEASURES[measure].symmetric
    for row, x in enumerate(first):
        for column, y in enumerate(second):
            mirrored = mirrors and (column, row) in values
            values[row, column] = values[column, row] if mirrored else similarity(measure, x, y)
            advance()
    return tuple(tuple(values[row, column] for column in range(len(second))) for row in range(len(first)))
