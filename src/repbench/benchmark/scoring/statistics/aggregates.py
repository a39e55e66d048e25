"""Aggregates over tasks. They can rank systems differently, so show at least two, each with its coverage.

Conventions: a table maps system -> task -> value. A missing cell, absent or None, is not a zero: it leaves the
aggregate of its system unchanged and lowers its coverage. Aggregates of different coverage are computed from different
tasks: show the coverage with them, and rank only systems with the same tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

TaskValues = Mapping[str, Mapping[str, float | None]]
"""System -> task -> value."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate of a system over tasks.

    Attributes:
        value: The aggregate; None where no task of the system can be compared.
        scored: Number of tasks with a value of the system.
        tasks: Number of tasks of the table.
    """

    value: float | None
    scored: int
    tasks: int

    @property
    def coverage(self) -> float:
        """Share of the tasks with a value of the system."""
        return self.scored / self.tasks


def normalised_means(
    table: TaskValues,
    higher_is_better: Mapping[str, bool],
    *,
    zeros: Mapping[str, float] | None = None,
    ones: Mapping[str, float] | None = None,
) -> dict[str, Aggregate]:
    """Mean over a system's tasks of (value - zero) / (one - zero).

    `zero` is the worst and `one` the best value in the task's column unless they are given, such as those of a mel
    baseline and of the best system known; then a score can lie outside [0, 1]. With SUPERB's FBANK and its best known
    values, and tasks of one metric each, a thousand times this mean is the formula known as SUPERB's score. A task
    whose zero equals its one is left out of every mean. Values taken from the column change with the systems in it:
    such means hold for this table alone.

    Args:
        table: System -> task -> value.
        higher_is_better: Direction of each task; it names the tasks.
        zeros: Task -> the value with score 0.
        ones: Task -> the value with score 1.

    Raises:
        ValueError: The table has a task without a direction.
    """
    columns = _columns(table, higher_is_better)
    scores: dict[str, list[float]] = {system: [] for system in table}
    for task, column in columns.items():
        worst, best = (min, max) if higher_is_better[task] else (max, min)
        zero = (zeros or {}).get(task, worst(column.values(), default=0.0))
        one = (ones or {}).get(task, best(column.values(), default=0.0))
        # A column with one value, or in which all systems tie, has no scale.
        if zero != one:
            for system, value in column.items():
                scores[system].append((value - zero) / (one - zero))
    return {
        system: _aggregate(math.fsum(each) / len(each) if each else None, system, columns)
        for system, each in scores.items()
    }


def borda(table: TaskValues, higher_is_better: Mapping[str, bool]) -> dict[str, Aggregate]:
    """Borda points: the sum over tasks of n - rank, where n is the number of systems and ties share the average rank.

    In a task with values of only k systems, k - rank is scaled from [0, k - 1] to [0, n - 1]. The sum is replaced by
    the mean over the tasks of a system times the number of tasks, so a missing task counts like the mean of the others,
    not like a last place. A task with one system is left out.

    Args:
        table: System -> task -> value.
        higher_is_better: Direction of each task; it names the tasks.

    Raises:
        ValueError: As `normalised_means`.
    """
    from scipy.stats import rankdata

    columns = _columns(table, higher_is_better)
    points: dict[str, list[float]] = {system: [] for system in table}
    for task, column in columns.items():
        if len(column) < 2:
            continue
        sign = -1 if higher_is_better[task] else 1
        # From [0, k - 1] to [0, n - 1]; k is at least 2 here.
        stretch = (len(table) - 1) / (len(column) - 1)
        # rankdata gives 1 to the smallest and the average rank to ties; the sign makes the best value the smallest.
        ranks = rankdata([sign * value for value in column.values()])
        for system, rank in zip(column, ranks.tolist(), strict=True):
            points[system].append((len(column) - rank) * stretch)
    return {
        system: _aggregate(len(columns) * math.fsum(each) / len(each) if each else None, system, columns)
        for system, each in points.items()
    }


def _columns(table: TaskValues, higher_is_better: Mapping[str, bool]) -> dict[str, dict[str, float]]:
    """Task -> system -> value, without missing cells."""
    undirected = {task for row in table.values() for task in row} - higher_is_better.keys()
    if undirected:
        raise ValueError(f"no direction is given for {', '.join(sorted(undirected))}")
    columns: dict[str, dict[str, float]] = {}
    for task in higher_is_better:
        cells = {system: row.get(task) for system, row in table.items()}
        columns[task] = {system: value for system, value in cells.items() if value is not None}
    return columns


def _aggregate(value: float | None, system: str, columns: Mapping[str, Mapping[str, float]]) -> Aggregate:
    scored = sum(system in column for column in columns.values())
    return Aggregate(value, scored, len(columns))
