"""Metrics: golden triples, properties, and what stays undefined."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from repbench.downstream.metrics import classification, edits


def confusion(reference: list[int], estimated: list[int], num_classes: int = 3) -> classification.Confusion:
    return classification.confusion_of(((r, e, 1) for r, e in zip(reference, estimated, strict=True)), num_classes)


def test_accuracy_divides_once_over_pooled_counts() -> None:
    assert classification.accuracy(classification.confusion_of([(0, 0, 3), (1, 0, 1)], 2)) == 0.75


def test_counts_beyond_float32_are_exact() -> None:
    pooled = classification.confusion_of([(0, 0, 2**24 + 1), (0, 1, 1)], 2)
    assert int(pooled.sum()) == 2**24 + 2
    assert pooled.dtype == classification.summed([pooled], 2).dtype == classification.summed([], 2).dtype == np.int64
    assert int(classification.summed([pooled, pooled], 2).sum()) == 2**25 + 4


def test_macro_f1_is_scikit_learns_over_the_classes_that_occur() -> None:
    random = np.random.default_rng(0)
    reference, estimated = random.integers(0, 4, 200).tolist(), random.integers(0, 4, 200).tolist()
    expected = f1_score(reference, estimated, average="macro")
    assert classification.macro_f1(confusion(reference, estimated, 4)) == pytest.approx(expected, abs=1e-12)


def test_counts_of_the_classes_that_occur_measure_as_the_matrix_does() -> None:
    draw = np.random.default_rng(5)
    for num_items in (0, 1, 7, 200):
        reference, estimated = (draw.integers(0, 30, num_items).tolist() for _ in range(2))
        estimated[::2] = reference[::2]
        matrix = confusion(reference, estimated, 30)
        # In three parts, two of which may be empty.
        parts = [classification.class_counts(reference[first::3], estimated[first::3], 30) for first in range(3)]
        margins = classification.summed_counts(parts, 30)
        expected = np.stack([np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)])
        assert margins.tolist() == expected.tolist()
        assert classification.accuracy_of(margins) == classification.accuracy(matrix)
        assert classification.macro_f1_of(margins) == classification.macro_f1(matrix)


def test_counts_hold_the_classes_that_occur_alone() -> None:
    counts = classification.class_counts([7, 7, 9_000], [7, 3, 9_000], 10_000)
    assert counts.classes.tolist() == [3, 7, 9_000]
    assert counts.counts.tolist() == [[0, 1, 1], [0, 2, 1], [1, 1, 1]]
    for wrong in (-1, 10_000):
        with pytest.raises(ValueError, match="not among the 10000 of the task"):
            classification.class_counts([7], [wrong], 10_000)


def test_a_class_that_does_not_occur_does_not_lower_macro_f1() -> None:
    assert classification.macro_f1(confusion([0, 1], [0, 1], num_classes=40)) == 1.0


def test_auc_of_unlike_numbers_of_both_classes_is_the_share_of_pairs_in_order() -> None:
    assert classification.auc([1, 0, 0, 0], [0.5, 0.9, 0.2, 0.1]) == pytest.approx(2 / 3)  # type: ignore[list-item]


def test_auc_counts_pairs_and_ties_as_half() -> None:
    assert classification.auc([True, False], [0.9, 0.1]) == 1.0
    assert classification.auc([True, False], [0.5, 0.5]) == 0.5
    assert classification.auc([True, True, False, False], [0.8, 0.3, 0.5, 0.1]) == 0.75


def test_what_is_undefined_is_none_and_never_zero() -> None:
    empty = classification.confusion_of([], 3)
    assert classification.accuracy(empty) is None
    assert classification.macro_f1(empty) is None
    assert classification.auc([True, True], [0.1, 0.9]) is None
    assert edits.error_rate(0, 0) is None


def test_what_is_no_confusion_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        classification.accuracy(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(ValueError, match=r"square, but has the shape \(2, 2, 2\)"):
        classification.macro_f1(np.zeros((2, 2, 2), dtype=np.int64))
    with pytest.raises(ValueError, match="negative"):
        classification.accuracy(np.array([[1, -1], [0, 0]]))
    with pytest.raises(ValueError, match="2 references, but 1 scores"):
        classification.auc([True, False], [0.5])


def test_collapsing_joins_repeats_and_keeps_phones_apart_that_silence_parts() -> None:
    assert edits.collapse([0, 1, 1, 0, 1, 2, 2, 0], dropped={0}) == [1, 1, 2]


@pytest.mark.parametrize(
    ("reference", "estimated", "expected"),
    [([], [], 0), ([1, 2, 3], [1, 2, 3], 0), ([1, 2, 3], [1, 3], 1), ([1, 2], [2, 1], 2), ([], [1, 2], 2)],
)
def test_edits_are_levenshteins(reference: list[int], estimated: list[int], expected: int) -> None:
    assert edits.count_edits(reference, estimated) == expected
