"""Agreement of units with phones, boundaries, and bits per second, against numbers computed elsewhere or by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from repbench.downstream.metrics import boundaries, units
from repbench.downstream.metrics.boundaries import BoundaryCounts, count_found

JOINT = [[8, 2], [3, 7]]


def test_pnmi_of_a_table_that_two_formulas_agree_on() -> None:
    assert units.phone_normalised_mutual_information(JOINT) == pytest.approx(0.19116495692878016, abs=1e-15)


def test_pnmi_is_one_for_a_unit_a_phone_and_zero_for_units_that_know_nothing() -> None:
    assert units.phone_normalised_mutual_information(np.diag([5, 9, 1])) == pytest.approx(1.0, abs=1e-15)
    assert units.phone_normalised_mutual_information(np.full((3, 4), 2)) == pytest.approx(0.0, abs=1e-15)


def test_pnmi_is_normalised_by_the_phones() -> None:
    """Two units for each phone remove all uncertainty about it; the transpose, one unit for two phones, half of it."""
    joint = np.array([[4, 4, 0, 0], [0, 0, 4, 4]])
    assert units.phone_normalised_mutual_information(joint) == pytest.approx(1.0)
    assert units.phone_normalised_mutual_information(joint.T) == pytest.approx(0.5)


def test_purities_of_a_table() -> None:
    assert units.phone_purity(JOINT) == 0.75
    assert units.cluster_purity(JOINT) == 0.75
    wide = [[5, 4, 0], [0, 0, 9]]
    assert units.phone_purity(wide) == 1.0
    assert units.cluster_purity(wide) == pytest.approx(14 / 18)


def test_conditional_entropy_is_in_bits() -> None:
    assert units.conditional_entropy([[1, 1], [1, 1]]) == pytest.approx(1.0)
    assert units.conditional_entropy(np.diag([3, 4])) == 0.0
    # H(phone) - I(phone; unit) of the table of PNMI, whose phones have one bit
    assert units.conditional_entropy(JOINT) == pytest.approx(1 - 0.19116495692878016)


def test_bitrate_is_symbols_a_second_times_their_entropy() -> None:
    assert units.bitrate([2, 2, 2, 2], seconds=4.0) == pytest.approx(8 / 4 * 2)
    assert units.bitrate([7, 0], seconds=2.0) == 0.0
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert units.bitrate([1, 3], seconds=0.5) == pytest.approx(8 * quarter)


def test_of_no_frames_everything_is_undefined() -> None:
    empty = np.zeros((2, 3), dtype=int)
    for measure in (
        units.phone_normalised_mutual_information,
        units.phone_purity,
        units.cluster_purity,
        units.conditional_entropy,
    ):
        assert measure(empty) is None
    assert units.bitrate([0, 0], seconds=1.0) is None
    assert units.bitrate([1, 1], seconds=0.0) is None
    assert units.phone_normalised_mutual_information([[3, 4]]) is None  # one phone: nothing to know


@pytest.mark.parametrize("joint", [[1, 2], [[1.5, 2]], [[-1, 2]]])
def test_what_is_no_table_of_counts_is_refused(joint: object) -> None:
    with pytest.raises(ValueError, match="counts must"):
        units.phone_purity(joint)  # type: ignore[arg-type]


def test_f1_and_r_value_of_published_counts() -> None:
    counts = BoundaryCounts(reference=21, estimated=24, found=18)  # TP 18, FP 6, FN 3
    assert boundaries.precision(counts) == 0.75
    assert boundaries.recall(counts) == pytest.approx(0.857, abs=5e-4)
    assert boundaries.f1(counts) == pytest.approx(0.8, abs=1e-12)
    assert boundaries.r_value(counts) == pytest.approx(0.798, abs=5e-4)


def test_r_value_is_one_for_perfect_boundaries_and_punishes_too_many() -> None:
    assert boundaries.r_value(BoundaryCounts(9, 9, 9)) == 1.0
    everywhere = boundaries.r_value(BoundaryCounts(10, 100, 10))
    assert everywhere is not None
    assert everywhere < -5
    # no estimate at all: recall 0, over-segmentation -1, so r1 = sqrt(2) and r2 = 0
    assert boundaries.r_value(BoundaryCounts(10, 0, 0)) == pytest.approx(1 - math.sqrt(2) / 2)


def test_a_boundary_is_found_within_the_tolerance_its_ends_included() -> None:
    assert count_found([0.2], [0.22], 0.02) == BoundaryCounts(1, 1, 1)
    assert count_found([0.2], [0.18], 0.02) == BoundaryCounts(1, 1, 1)
    assert count_found([0.2], [0.2201], 0.02) == BoundaryCounts(1, 1, 0)


def test_each_reference_boundary_is_found_once() -> None:
    assert count_found([1.0], [0.99, 1.0, 1.01], 0.02) == BoundaryCounts(1, 3, 1)


def test_windows_that_overlap_end_in_the_middle() -> None:
    """One estimate between two near boundaries finds the nearer of them, not both."""
    assert count_found([1.00, 1.02], [1.012], 0.02) == BoundaryCounts(2, 1, 1)
    # 0.985 and 1.015 are both within 20 ms of 1.00, but 1.015 is in the window of 1.02
    assert count_found([1.00, 1.02], [0.985, 1.015], 0.02) == BoundaryCounts(2, 2, 2)
    # both in the window of the first: the second is not found, though an estimate is within 20 ms of it
    assert count_found([1.00, 1.02], [0.995, 1.005], 0.02) == BoundaryCounts(2, 2, 1)


def test_an_estimate_in_the_middle_belongs_to_the_earlier_boundary() -> None:
    assert count_found([2.0, 4.0], [3.0, 4.0], 1.0) == BoundaryCounts(2, 2, 2)
    assert count_found([2.0, 4.0], [2.0, 3.0], 1.0) == BoundaryCounts(2, 2, 1)


def test_of_no_boundaries_everything_is_undefined() -> None:
    nothing = count_found([], [], 0.02)
    for measure in (boundaries.precision, boundaries.recall, boundaries.f1, boundaries.r_value):
        assert measure(nothing) is None
    assert boundaries.f1(count_found([1.0], [], 0.02)) == 0.0


def test_times_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="ascend"):
        count_found([2.0, 1.0], [], 0.02)


def test_counts_of_utterances_are_pooled() -> None:
    assert boundaries.summed([BoundaryCounts(3, 4, 2), BoundaryCounts(5, 6, 1)]) == BoundaryCounts(8, 10, 3)
