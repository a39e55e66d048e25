"""The part of an interval that comes of speakers, the part that comes of seeds, and what more seeds would buy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.gather import Cell, Gathered
from repbench.benchmark.scoring.statistics import SeedShare


@dataclass(frozen=True, slots=True)
class CellSeeds:
    """The seeds of one number.

    Attributes:
        cell: The number.
        parts: Of its squared error; None with one seed, from which nothing follows for others, and without an interval.
    """

    cell: Cell
    parts: SeedShare | None

    @property
    def num_seeds(self) -> int:
        """Of the number."""
        return len(self.cell.runs)

    @property
    def share(self) -> float | None:
        """The part of the squared error that falls with the number of seeds."""
        return None if self.parts is None else self.parts.share

    @property
    def deviation(self) -> float | None:
        """The standard deviation between seeds, in the unit of the metric; None of one seed."""
        metric, mean = self.cell.column.metric, self.cell.value
        values = [run.record.metrics[metric].value for run in self.cell.runs]
        known = [value for value in values if value is not None]
        if mean is None or len(known) < 2:
            return None
        return math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1))

    @property
    def with_one_more(self) -> float | None:
        """The width of the interval with one more seed, over its width now."""
        return None if self.parts is None else self.parts.relative(self.num_seeds + 1)

    @property
    def with_any_number(self) -> float | None:
        """The width of the interval with seeds without end, over its width now."""
        return None if self.parts is None else self.parts.relative(None)


@dataclass(frozen=True, slots=True)
class SeedShares:
    """The seeds of the numbers of a column.

    Attributes:
        column: The column.
        cells: Of every number of it.
    """

    column: Column
    cells: tuple[CellSeeds, ...]

    @property
    def fewest(self) -> int:
        """The smallest number of seeds of those that have several."""
        return min(each.num_seeds for each in self.cells if each.num_seeds > 1)


def seed_shares(gathered: Gathered, evidence: Evidence) -> list[SeedShares]:
    """The seeds of each column in which a number has several."""
    found = []
    for column in gathered.all_columns:
        cells = gathered.column_cells(column)
        if any(len(cell.runs) > 1 for cell in cells):
            parts = (CellSeeds(cell, evidence.seed_share(cell.runs, column.metric)) for cell in cells)
            found.append(SeedShares(column, tuple(parts)))
    return found


def uncertainty(num_seeds: int, *, level: float = 0.95) -> tuple[float, float]:
    """The bounds of the true standard deviation between seeds, over the one that `num_seeds` seeds show.

    For normal deviations (S - 1) s² / σ² is χ² with S - 1 degrees of freedom.
    """
    from scipy.special import chdtri

    freedom = num_seeds - 1
    # `chdtri` takes the probability above the quantile.
    high, low = (float(chdtri(freedom, tail)) for tail in ((1 - level) / 2, (1 + level) / 2))
    return math.sqrt(freedom / high), math.sqrt(freedom / low)
