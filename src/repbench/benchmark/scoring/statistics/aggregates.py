"""One number of many tasks. Aggregators disagree, so show at least two, each with its coverage.

Conventions: a table maps system -> task -> value. A missing cell, absent or None, is never a zero: it adds nothing to
its system's number, takes nothing from it, and lowers its coverage. Numbers of unlike coverage were earned on unlike
tasks: show the coverage beside them, and rank together only what is covered alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Table = Mapping[str, Mapping[str, float | None]]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One number of a system over many tasks.

    Attributes:
        value: The number; None where no task of the system can be compared.
        scored: Tasks for which the system has a value.
        tasks: Tasks of the table.
    """

    value: float | None
    scored: int
    tasks: int

    @property
    def coverage(self) -> float:
        """Share of the tasks that the system has a value for."""
        return self.scored / self.tasks


def normalised_means(
    table: Table,
    higher_is_better: Mapping[str, bool],
    *,
    zeros: Mapping[str, float] | None = None,
    ones: Mapping[str, float] | None = None,
) -> dict[str, Aggregate]:
    """Mean over a system's tasks of (value - zero) / (one - zero).

    `zero` is the worst and `one` the best value in the task's column unless they are given, such as those of a mel
    baseline and of the best system known; then a score can lie outside [0, 1]. With SUPERB's FBANK and its best known
    values, and tasks of one metric each, a thousand times this mean is the formula known as SUPERB's score. A task
    whose zero is its one tells nothing apart and is left out of every mean. Values taken from the column change with
    the systems shown: such means are of this table alone.

    Args:
        table: System -> task -> value.
        higher_is_better: Direction of each task; it names the tasks.
        zeros: Task -> the value that counts 0.
        ones: Task -> the value that counts 1.
    """
    columns = _columns(table, higher_is_better)
    scores: dict[str, list[float]] = {system: [] for system in table}
    for task, column in columns.items():
        worst, best = (min, max) if higher_is_better[task] else (max, min)
        zero = (zeros or {}).get(task, worst(column.values(), default=0.0))
        one = (ones or {}).get(task, best(column.values(), default=0.0))
        if zero != one:
            for system, value in column.items():
                scores[system].append((value - zero) / (one - zero))
    return {
        system: _aggregate(math.fsum(each) / len(each) if each else None, system, columns)
        for system, each in scores.items()
    }


def borda(table: Table, higher_is_better: Mapping[str, bool]) -> dict[str, Aggregate]:
    """Points for systems left behind: n - rank in each task, average ranks for ties, summed.

    That is so of a full table, n being the number of systems. In a task that only k systems have, k - rank is stretched
    from at most k - 1 to at most n - 1; the mean over the tasks a system has, times the number of tasks, stands for
    the sum. A missing task thus counts like the mean of the others, not like a last place. A task that one system
    alone has compares nothing.

    Args:
        table: System -> task -> value.
        higher_is_better: Direction of each task; it names the tasks.
    """
    from scipy.stats import rankdata

    columns = _columns(table, higher_is_better)
    points: dict[str, list[float]] = {system: [] for system in table}
    for task, column in columns.items():
        if len(column) < 2:
            continue
        sign = -1 if higher_is_better[task] else 1
        stretch = (len(table) - 1) / (len(column) - 1)
        ranks = rankdata([sign * value for value in column.values()])
        for system, rank in zip(column, ranks.tolist(), strict=True):
            points[system].append((len(column) - rank) * stretch)
    return {
        system: _aggregate(len(columns) * math.fsum(each) / len(each) if each else None, system, columns)
        for system, each in points.items()
    }


def _columns(table: Table, higher_is_better: Mapping[str, bool]) -> dict[str, dict[str, float]]:
    """Task -> the values of the systems that have it."""
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
