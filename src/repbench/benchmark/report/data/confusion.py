"""Confusion matrices of tasks with classes, pooled over the seeds of the best system."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from repbench.benchmark.report.data.columns import Column
from repbench.benchmark.report.data.compare import Verdicts
from repbench.benchmark.report.data.evidence import classes_of, predictions_of
from repbench.benchmark.report.data.gather import Cell, Gathered
from repbench.benchmark.report.render.escaping import shown
from repbench.downstream.contract import FramePrediction

MOST_CLASSES = 100
"""Most classes of a matrix that is drawn."""

MOST_PAIRS = 12


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """A reference class and a class predicted in its place.

    Attributes:
        reference: Name of the reference class.
        estimated: Name of the predicted class.
        count: Number of items.
        share: Their share of the items of the reference.
    """

    reference: str
    estimated: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """The confusion matrix of one cell.

    Attributes:
        cell: The cell.
        classes: Names, in the order of the task.
        shares: shares[r][e]: share of the items of r predicted as e; None where r never occurs.
        pairs: The most frequent confusions.
        items: What is counted: instants of frame tasks, else utterances.
    """

    cell: Cell
    classes: tuple[str, ...]
    shares: tuple[tuple[float, ...] | None, ...]
    pairs: tuple[ConfusedPair, ...]
    items: str = "instants"


def confusions(gathered: Gathered, verdicts: Verdicts) -> tuple[list[Confusion], list[str]]:
    """A matrix for each column of a task with classes, and a note for each that has none."""
    found: list[Confusion] = []
    notes: list[str] = []
    for column in gathered.columns:
        cell = best_cell(gathered, verdicts, column)
        if cell is None:
            continue
        matrix = _confusion(cell)
        if isinstance(matrix, Confusion):
            found.append(matrix)
        elif matrix is not None:
            notes.append(f"{column.title}: no confusion matrix of {cell.row.title}: {matrix}")
    return found, notes


def best_cell(gathered: Gathered, verdicts: Verdicts, column: Column) -> Cell | None:
    """The best cell of the column's first group, which has the largest label fraction."""
    cells = gathered.column_cells(column)
    best = next((cell for cell in cells if cell.key in verdicts.best), None)
    known = sorted((cell for cell in cells if cell.value is not None), key=lambda cell: not cell.compared)
    return best or next(iter(known), None)


def _confusion(cell: Cell) -> Confusion | str | None:
    """The pooled matrix; None for a task whose predictions are not of single classes; else the reason for none."""
    counts: Counter[tuple[int, int]] = Counter()
    known: set[tuple[str, ...]] = set()
    items = "instants"
    for run in cell.runs:
        if run.unchecked is not None:
            return run.unchecked
        predictions = predictions_of(run)
        if isinstance(predictions, str):
            return predictions
        confused = [cells for each in predictions if (cells := each.confused()) is not None]
        if not confused:
            return None
        classes = classes_of(run)
        if isinstance(classes, str):
            return classes
        # Numbers of classes can be added over seeds only where they number the same names.
        known.add(classes)
        items = "instants" if isinstance(predictions[0], FramePrediction) else "utterances"
        for cells in confused:
            counts.update({(reference, estimated): n for reference, estimated, n in cells})
    if len(known) != 1:
        return "its seeds have different classes"
    (classes,) = known
    if len(classes) > MOST_CLASSES:
        return f"{len(classes)} classes are too many to draw"
    return replace(_matrix(cell, tuple(shown(name, 12) for name in classes), counts), items=items)


def _matrix(cell: Cell, classes: tuple[str, ...], counts: Counter[tuple[int, int]]) -> Confusion:
    totals = Counter[int]()
    for (reference, _), count in counts.items():
        totals[reference] += count
    numbers = range(len(classes))
    # Each row sums to 1: rows are references, columns predictions.
    shares = tuple(tuple(counts[r, e] / totals[r] for e in numbers) if totals[r] else None for r in numbers)
    wrong = sorted(((n, r, e) for (r, e), n in counts.items() if r != e and n), key=lambda each: (-each[0], each[1:]))
    pairs = tuple(ConfusedPair(classes[r], classes[e], n, n / totals[r]) for n, r, e in wrong[:MOST_PAIRS])
    return Confusion(cell, classes, shares, pairs)
