"""Accuracy, balanced accuracy, macro-F1 and area under the ROC curve.

Conventions: a confusion matrix is (C, C) integer counts, reference class by row, estimated class by column. Counts are
pooled over utterances and divided once. An undefined metric is None, never 0: an accuracy of no predictions, an area
under a curve of one class.

Metrics:
    accuracy: share of items whose estimated class is the reference. In [0, 1], higher is better.
    balanced_accuracy: mean recall over the classes that occur in the reference, which is also called unweighted average
        recall (UAR). In [0, 1], higher is better.
    macro_f1: mean F1 over the classes that occur in the reference; 2TP / (2TP + FP + FN). In [0, 1], higher is better.
    auc: chance that a random positive scores above a random negative, ties one half. In [0, 1], higher is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.int64]


def validate(confusion: Confusion) -> None:
    """Refuse an array that is not a confusion matrix.

    Raises:
        ValueError: It is no square array of whole numbers from 0 on.
    """
    if not isinstance(confusion, np.ndarray) or not np.issubdtype(confusion.dtype, np.integer):
        found = confusion.dtype if isinstance(confusion, np.ndarray) else f"a {type(confusion).__name__}"
        raise ValueError(f"a confusion matrix must be a numpy array of whole numbers, but is {found}")
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"a confusion matrix must be square, but has the shape {confusion.shape}")
    if (confusion < 0).any():
        raise ValueError("a confusion matrix holds counts, but one is negative")


def confusion_of(cells: Iterable[tuple[int, int, int]], num_classes: int) -> Confusion:
    """Pool sparse (reference, estimated, count) cells into a matrix."""
    # cells -> (3 n,) -> (n, 3); `fromiter` needs no list of tens of thousands of tuples
    table = np.fromiter(chain.from_iterable(cells), dtype=np.int64).reshape(-1, 3)
    if table.size and (table.min() < 0 or table[:, :2].max() >= num_classes):
        raise ValueError(
            f"a cell of a confusion matrix of {num_classes} classes names another class, or fewer than none"
        )
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    # `add.at`, not `confusion[rows, columns] += counts`, which adds only the last of repeated cells.
    np.add.at(confusion, (table[:, 0], table[:, 1]), table[:, 2])
    return confusion


def summed(confusions: Sequence[Confusion], num_classes: int) -> Confusion:
    """The counts of all; zeros of none."""
    return sum(confusions, np.zeros((num_classes, num_classes), dtype=np.int64))


def accuracy(confusion: Confusion) -> float | None:
    """Share of counts on the diagonal; None without any count."""
    validate(confusion)
    total = int(confusion.sum())
    return int(np.trace(confusion)) / total if total else None


def balanced_accuracy(confusion: Confusion) -> float | None:
    """Mean recall over the classes that occur in the reference; None without any."""
    validate(confusion)
    references = confusion.sum(axis=1)
    occurs = references > 0
    if not occurs.any():
        return None
    return float(np.mean(np.diag(confusion)[occurs] / references[occurs]))  # (classes that occur,) -> a mean


def macro_f1(confusion: Confusion) -> float | None:
    """Mean F1 over the classes that occur in the reference; None without any."""
    validate(confusion)
    return macro_f1_of(np.stack([np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)]))


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """What accuracy and macro-F1 need of a confusion matrix, of the classes that occur alone.

    Of thousands of classes, as speakers are, a matrix has millions of cells, and nearly all are 0.

    Attributes:
        classes: (K,) the classes that occur as reference or as estimate, ascending.
        counts: (3, K) for each the items of it with a right estimate, the items of it, and the items estimated as it.
    """

    classes: NDArray[np.int64]
    counts: NDArray[np.int64]


def class_counts(references: Sequence[int], estimates: Sequence[int], num_classes: int) -> ClassCounts:
    """Count items by their class.

    Args:
        references: (n,) the class of each item.
        estimates: (n,) the estimated one.
        num_classes: Of the task.

    Raises:
        ValueError: They are not as many, or a class is none of the task's.
    """
    given = np.array([references, estimates], dtype=np.int64)  # (2, n)
    if given.size and not 0 <= given.min() <= given.max() < num_classes:
        raise ValueError(f"a class is not among the {num_classes} of the task")
    classes, places = np.unique(given, return_inverse=True)
    reference, estimate = places.reshape(2, -1)  # each (n,): the place among the K classes
    rows = (reference[reference == estimate], reference, estimate)
    return ClassCounts(classes, np.stack([np.bincount(row, minlength=len(classes)) for row in rows]))


def summed_counts(several: Sequence[ClassCounts], num_classes: int) -> NDArray[np.int64]:
    """(3, C) the counts of all together, of every class; zeros of none."""
    margins = np.zeros((3, num_classes), dtype=np.int64)
    for each in several:
        margins[:, each.classes] += each.counts  # no class twice in one
    return margins


def accuracy_of(margins: NDArray[np.int64]) -> float | None:
    """`accuracy` of the matrix whose diagonal and sums of rows and columns are the rows of `margins`, (3, C)."""
    total = int(margins[1].sum())
    return int(margins[0].sum()) / total if total else None


def macro_f1_of(margins: NDArray[np.int64]) -> float | None:
    """`macro_f1` of the matrix whose diagonal and sums of rows and columns are the rows of `margins`, (3, C)."""
    true_positives, references, estimates = margins
    occurs = references > 0
    if not occurs.any():
        return None
    # F1 = 2TP / (2TP + FP + FN) with TP + FN = references and TP + FP = estimates: (C,) -> (classes that occur,)
    return float(np.mean(2 * true_positives[occurs] / (references[occurs] + estimates[occurs])))


def auc(references: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Area under the ROC curve; None where only one class occurs.

    With average ranks, n positives of rank sum R and m negatives, it is (R - n (n + 1) / 2) / (n m): the Mann-Whitney
    statistic over its greatest value.

    Args:
        references: Whether each item is positive: true or false, 1 or 0.
        scores: Higher means more surely positive; each a number.

    Raises:
        ValueError: They are not as many, a reference is something else, or a score is NaN.
    """
    if len(references) != len(scores):
        raise ValueError(f"{len(references)} references, but {len(scores)} scores")
    given = np.asarray(references)
    if not np.isin(given, (0, 1)).all():
        raise ValueError(f"references must be true or false, but one is {given[~np.isin(given, (0, 1))][0]!r}")
    if np.isnan(np.asarray(scores, dtype=np.float64)).any():
        raise ValueError("scores must be numbers, but one is NaN")
    positive = given.astype(bool)
    if positive.all() or not positive.any():
        return None
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    rank_sum = float(average_ranks(scores)[positive].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)


def average_ranks(scores: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) ranks from 1 on, of the least first; equal scores share the mean of their ranks."""
    _, places, counts = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True, return_counts=True)
    # n equal scores whose last rank is r hold the ranks r - n + 1 … r, with mean r - (n - 1) / 2: (distinct scores,)
    ranks: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return ranks[places]  # (distinct scores,) -> (items,)
