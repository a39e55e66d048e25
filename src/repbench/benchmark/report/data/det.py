"""Curves of detection error trade-off (DET), of tasks whose predictions are scored trials.

Axes: k operating points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.evidence import Evidence, predictions_of
from repbench.benchmark.report.data.gather import Cell, Gathered
from repbench.downstream.contract import Prediction, problem_of
from repbench.downstream.metrics.verification import ErrorRates, RankedTrials, eer, error_rates
from repbench.errors import RepbenchError

MOST_CURVES = 8
"""Curves of a column: those of the best systems."""

MOST_POINTS = 200
"""Operating points of a curve that are kept."""

ALARMS = (0.01, 0.05, 0.1)
"""False-alarm rates at which the table has the miss rate."""


@dataclass(frozen=True, slots=True)
class DetCurve:
    """The operating points of one record.

    Attributes:
        cell: The cell that the record is of.
        seed: Of the record.
        false_alarm: (k,) rates, which rise.
        miss: (k,) rates, which fall.
        eer: The rate at which both are equal.
        misses: The miss rate at each false-alarm rate of `ALARMS`, interpolated.
    """

    cell: Cell
    seed: int
    false_alarm: tuple[float, ...]
    miss: tuple[float, ...]
    eer: float
    misses: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DetCurves:
    """The curves of a column, the best equal error rate first.

    Attributes:
        column: The column.
        curves: At most `MOST_CURVES`.
        num_systems: Systems of the column, with those that have no curve here.
    """

    column: Column
    curves: tuple[DetCurve, ...]
    num_systems: int


def det_curves(gathered: Gathered, evidence: Evidence) -> list[DetCurves]:
    """A curve of each system for each column of trials: of the first seed of its best layer with the most labels."""
    found = []
    for column in gathered.columns:
        cells = [cell for cell in gathered.column_cells(column) if cell.value is not None]
        if not cells or not _has_trials(cells[0], evidence):
            continue
        fraction = max(cell.row.fraction for cell in cells)
        best: dict[tuple[str, str], Cell] = {}
        for cell in cells:
            if cell.row.fraction == fraction:
                key = cell.row.system.name, cell.row.mode
                best[key] = max(best.get(key, cell), cell, key=lambda each: each.signed_value)
        ranked = sorted(best.values(), key=lambda each: (-each.signed_value, each.row.title))
        curves = [curve for cell in ranked[:MOST_CURVES] if (curve := _curve(cell)) is not None]
        if curves:
            found.append(DetCurves(column, tuple(curves), len(ranked)))
    return found


def _has_trials(cell: Cell, evidence: Evidence) -> bool:
    """Whether the predictions of a cell are trials: known from the class, without reading any."""
    try:
        problem = problem_of(evidence.task(cell.runs[0].record))
    except RepbenchError:  # the report has a note that the task is not installed
        return False
    return problem.prediction.scored_trials is not Prediction.scored_trials


def _curve(cell: Cell) -> DetCurve | None:
    run = cell.runs[0]
    predictions = predictions_of(run) if run.unchecked is None else run.unchecked
    if isinstance(predictions, str):  # the reason that they cannot be read, which the report has as a note
        return None
    trials = [trial for each in predictions for trial in each.scored_trials() or ()]
    rates = error_rates(RankedTrials.of([score for _, score in trials], [target for target, _ in trials]))
    if rates is None:
        return None
    kept = _spread(rates)
    return DetCurve(
        cell,
        run.record.seed,
        tuple(rates.false_alarm[kept].tolist()),
        tuple(rates.miss[kept].tolist()),
        eer(rates),
        tuple(_miss_at(rates, alarm) for alarm in ALARMS),
    )


def _spread(rates: ErrorRates) -> NDArray[np.int64]:
    """(k',) operating points that lie evenly along the curve as it is drawn; its ends among them."""
    x, y = normal_deviate(rates.false_alarm), normal_deviate(rates.miss)
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])  # (k,)
    # The first point beyond each of evenly spaced lengths.
    places = np.searchsorted(length, np.linspace(0, length[-1], MOST_POINTS))
    return np.unique(np.clip(places, 0, len(length) - 1))


def normal_deviate(rates: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) the quantiles of a normal at these rates: normally distributed scores make a DET curve a straight line."""
    from scipy.special import ndtri

    # 0 and 1 have none; no list of trials resolves a rate below 1e-6.
    deviates: NDArray[np.float64] = ndtri(np.clip(rates, 1e-6, 1 - 1e-6))
    return deviates


def _miss_at(rates: ErrorRates, alarm: float) -> float:
    """The miss rate at a false-alarm rate, on the lines between operating points; the least where several have it."""
    # Of points with one false-alarm rate the last has the fewest misses, and `interp` needs each rate once.
    last = np.append(np.diff(rates.false_alarm) > 0, True)
    return float(np.interp(alarm, rates.false_alarm[last], rates.miss[last]))
