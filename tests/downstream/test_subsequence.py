"""Subsequence dynamic time warping, against loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES
from repbench.downstream.metrics.subsequence import search, subsequence
from repbench.errors import EnvironmentFault
from tests.downstream.test_dtw import some_segments
from tests.other_device import other_device

Array = NDArray[np.float32]


def loop_subsequence(costs: Array) -> float:
    total = costs[0]
    for row in costs[1:]:
        total = np.array([row[j] + total[max(0, j - 2) : j + 1].min() for j in range(len(row))])
    return float(total.min() / len(costs))


def test_a_query_is_aligned_with_a_part_of_a_document() -> None:
    random = np.random.default_rng(0)
    queries, documents = [1, 4, 7, 2], [9, 3, 5, 8, 1]
    costs = random.random((max(queries), max(documents), len(queries), len(documents))).astype(np.float32)
    found = subsequence(torch.from_numpy(costs), torch.tensor(queries), torch.tensor(documents))
    for number, rows in enumerate(queries):
        for other, columns in enumerate(documents):
            expected = loop_subsequence(costs[:rows, :columns, number, other])
            assert found[number, other].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("memory_bytes", [30_000, 10**8])
def test_rows_are_scaled_to_the_document_whatever_the_tiles(memory_bytes: int) -> None:
    segments = some_segments(count=30, longest=20)
    queries, documents = np.arange(12), np.arange(12, 30)
    between = FRAME_DISTANCES["cosine_exp"].between
    found = search(segments, queries, documents, between, memory_bytes)
    costs = between(segments.frames, segments.frames).numpy()
    for query in queries:
        rows = slice(segments.starts[query], segments.starts[query] + segments.lengths[query])
        for document in documents:
            start = segments.starts[document]
            own = costs[rows, start : start + segments.lengths[document]]
            least, most = own.min(axis=1, keepdims=True), own.max(axis=1, keepdims=True)
            expected = loop_subsequence((own - least) / np.maximum(most - least, 1e-9))
            assert found[query, document - 12] == pytest.approx(expected, abs=1e-5)


def test_another_device_gives_the_same_numbers() -> None:
    segments = some_segments(count=12)
    between = FRAME_DISTANCES["cosine_exp"].between
    expected = search(segments, np.arange(5), np.arange(5, 12), between, 10**8)
    with other_device() as device:
        moved = replace(segments, frames=segments.frames.to(device))
        found = search(moved, np.arange(5), np.arange(5, 12), between, 10**8)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_document_that_does_not_fit_is_refused() -> None:
    segments = some_segments(count=30, longest=20)
    with pytest.raises(EnvironmentFault, match=r"The search for a query of 20 frames in a document of 20 takes \d+"):
        search(segments, np.arange(30), np.arange(30), FRAME_DISTANCES["cosine_exp"].between, 2_000)
