"""Dynamic time warping: against loops, and within its budget of memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from repbench.downstream.metrics import dtw
from repbench.downstream.metrics.dtw import Segments, TableRequest, paired, tables
from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES
from repbench.errors import DataError, EnvironmentFault
from tests.other_device import other_device

Array = NDArray[Any]
PLENTY = 10**9


def loop_dtw(costs: Array) -> float:
    """Cost of the cheapest path divided by its length, cell by cell."""
    cheapest = np.full((len(costs) + 1, costs.shape[1] + 1), np.inf)
    steps = np.zeros(cheapest.shape)
    cheapest[0, 0] = 0
    for i, j in np.ndindex(costs.shape):
        # diagonal, left, up: `min` takes the first of equals
        before = min(((i, j), (i + 1, j), (i, j + 1)), key=lambda place: cheapest[place])
        cheapest[i + 1, j + 1] = costs[i, j] + cheapest[before]
        steps[i + 1, j + 1] = steps[before] + 1
    return float(cheapest[-1, -1] / steps[-1, -1])


def some_segments(
    count: int = 40, longest: int = 13, width: int = 5, *, of: str = "angular", seed: int = 0
) -> Segments:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, count)
    frames = torch.from_numpy(random.standard_normal((int(lengths.sum()), width)).astype(np.float32))
    if of == "kl":
        frames = frames.softmax(dim=-1)
    if of == "identical":
        frames = (frames > 0).float()[:, :1]
    return Segments(FRAME_DISTANCES[of].prepare(frames), np.cumsum(lengths) - lengths, lengths)


def looped(segments: Segments, of: str) -> Array:
    costs = FRAME_DISTANCES[of].between(segments.frames, segments.frames).numpy()
    ranges = [slice(start, start + length) for start, length in zip(segments.starts, segments.lengths, strict=True)]
    return np.array([[loop_dtw(costs[rows, columns]) for columns in ranges] for rows in ranges])


@pytest.mark.parametrize("of", ["angular", "euclidean", "kl", "identical", "cosine_exp"])
@pytest.mark.parametrize("memory_bytes", [60_000, PLENTY])
def test_a_table_is_that_of_loops_over_pairs(of: str, memory_bytes: int) -> None:
    segments = some_segments(of=of)
    rows, columns = np.arange(19), np.arange(19, 40)  # no segment with itself: the arccos of 1 has few digits
    between = FRAME_DISTANCES[of].between
    (large,) = tables(segments, [TableRequest(rows, columns)], between, memory_bytes)
    expected = looped(segments, of)[np.ix_(rows, columns)]
    np.testing.assert_allclose(large, expected, atol=1e-6)
    small = paired(segments, np.repeat(rows, len(columns)), np.tile(columns, len(rows)), between, memory_bytes)
    np.testing.assert_allclose(small.reshape(large.shape), expected, atol=1e-6)


def test_small_tables_share_tiles_and_come_in_the_order_of_the_requests() -> None:
    segments = some_segments()
    requests = [TableRequest(np.array([number, 5]), np.array([37, 38, 20 + number])) for number in range(17)]
    requests.insert(3, TableRequest(np.arange(40), None))  # too many pairs to share
    requests.append(TableRequest(np.array([3, 1, 2]), None))
    expected = looped(segments, "angular")
    found = list(tables(segments, requests, FRAME_DISTANCES["angular"].between, PLENTY))
    assert len(found) == len(requests)
    for request, table in zip(requests, found, strict=True):
        columns = request.rows if request.columns is None else request.columns
        wanted = expected[np.ix_(request.rows, columns)].copy()
        if request.columns is None:
            np.fill_diagonal(wanted, 0)
        np.testing.assert_allclose(table, wanted, atol=1e-6)


def test_of_equally_cheap_paths_the_diagonal_counts() -> None:
    # Every path to the last cell costs 1: the one along the diagonal has three pairs of frames, one around it five.
    costs = torch.zeros(3, 3, 1, 1)
    costs[2, 2] = 1
    found = dtw._sweep(costs, torch.tensor([[4]]), torch.tensor([[2]]))
    assert found.item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("of", ["angular", "euclidean", "kl", "identical"])
def test_another_device_gives_the_same_numbers(of: str) -> None:
    segments = some_segments(of=of)
    requests = [TableRequest(np.arange(40), None), TableRequest(np.arange(4), np.arange(20, 30))]
    between = FRAME_DISTANCES[of].between
    expected = list(tables(segments, requests, between, PLENTY))
    with other_device() as device:
        found = list(tables(replace(segments, frames=segments.frames.to(device)), requests, between, PLENTY))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The bytes of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.nbytes = max(self.nbytes, made.untyped_storage().nbytes())
        return made


@pytest.mark.slow
@pytest.mark.parametrize("of", ["angular", "euclidean", "kl"])
def test_no_tensor_is_larger_than_the_budget_and_the_numbers_stay(of: str) -> None:
    segments = some_segments(count=70, longest=30, of=of)
    requests = [TableRequest(np.arange(70), None), TableRequest(np.arange(9), np.arange(9, 60))]
    between = FRAME_DISTANCES[of].between
    budget = 200_000
    with Largest() as roomy:
        expected = list(tables(segments, requests, between, PLENTY))
    with Largest() as tight:
        found = list(tables(segments, requests, between, budget))
    assert roomy.nbytes > 4 * budget
    assert tight.nbytes <= budget
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("count", [1, 40])
def test_a_pair_that_does_not_fit_is_refused(count: int) -> None:
    segments = some_segments(longest=30)
    longest = np.full(count, segments.lengths.argmax())
    with pytest.raises(EnvironmentFault, match=r"The alignment of two segments of up to 30 frames takes \d+ bytes"):
        list(tables(segments, [TableRequest(longest, longest.copy())], FRAME_DISTANCES["angular"].between, 2_000))


def test_a_frame_of_zeros_has_no_direction() -> None:
    distance = FRAME_DISTANCES["angular"]
    frames = distance.prepare(torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, -1.0], [-9.0, 0.0]]))
    found = distance.between(frames, frames)
    assert found[0].tolist() == pytest.approx([0, 0, 0.5, 0.5, 0.5], abs=1e-6)
    assert found[2].tolist() == pytest.approx([0.5, 0.5, 0, 0.5, 1], abs=1e-6)


def test_frames_that_are_no_distributions_have_no_divergence() -> None:
    with pytest.raises(DataError, match="`kl` compares probabilities, but frame 1 of those compared"):
        FRAME_DISTANCES["kl"].prepare(torch.tensor([[0.5, 0.5], [1.5, -0.5]]))
