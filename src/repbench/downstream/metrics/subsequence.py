"""Subsequence dynamic time warping: how well a query matches any part of a document.

Conventions: each frame of the query is paired with exactly one frame of the document: the same as, one after, or
two after that of the query's frame before. The cost of an alignment is the mean distance over the frames of the query.
That is the step pattern `asymmetric` of the package dtw-python with open ends. Before, the distances of a frame of the
query to those of a document are scaled to [0, 1], as in SUPERB, so that a frame unlike all of a document counts no more
than another.

Axes: E width of a prepared frame, A queries, B documents, I and J frames of the longest of each.

Reference:
    Giorgino, Computing and visualizing dynamic time warping alignments in R: the dtw package, JSS 2009; Yang et al.,
    SUPERB, Interspeech 2021, and the task `quesst14_dtw` of S3PRL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from repbench.downstream.metrics.dtw import Between, Distances, Integers, Segments
from repbench.errors import EnvironmentFault

if TYPE_CHECKING:
    from torch import Tensor

_VALUE_BYTES = 4
_COPIES = 4
"""Tensors of the size of the distances: their product, the scaled ones, the mask of padding and what scaling takes."""

_LEAST_RANGE = 1e-9
"""Least range of distances by which is divided."""


def search(
    segments: Segments, queries: Integers, documents: Integers, between: Between, memory_bytes: int
) -> Distances:
    """(A, B) the costs of the best alignments of whole queries with parts of documents.

    Args:
        segments: All segments, on the device that computes.
        queries: (A,) numbers of segments.
        documents: (B,) numbers of segments.
        between: Distances of prepared frames, as `FrameDistance.between`.
        memory_bytes: What the tensors of a tile may take together.

    Raises:
        EnvironmentFault: One query and one document do not fit.
    """
    import torch

    found = np.zeros((len(queries), len(documents)), dtype=np.float32)
    # The longest first: the first of a tile bounds the lengths of all of it.
    rows = np.argsort(-segments.lengths[queries], kind="stable")
    columns = np.argsort(-segments.lengths[documents], kind="stable")
    at = 0
    while at < len(rows):
        longest_query = int(segments.lengths[queries[rows[at]]])
        longest_document = int(segments.lengths[documents[columns[0]]])
        width = segments.frames.shape[-1]
        of_pair = _VALUE_BYTES * (
            _COPIES * longest_query * longest_document + width * (longest_query + longest_document)
        )
        if of_pair > memory_bytes:
            what = (
                f"The search for a query of {longest_query} frames in a document of {longest_document} takes {of_pair}"
            )
            do = "Give more with --set resources.memory_gib=N, or cut documents into shorter ones"
            raise EnvironmentFault(f"{what} bytes of {memory_bytes}", key="resources.memory_gib", do=do)
        side = max(1, int((memory_bytes // of_pair) ** 0.5))
        some = rows[at : at + side]
        for start in range(0, len(columns), side):
            others = columns[start : start + side]
            costs = _costs(segments, queries[some], documents[others], between)
            lengths = (
                torch.from_numpy(segments.lengths[each]).to(costs.device) for each in (queries[some], documents[others])
            )
            found[np.ix_(some, others)] = subsequence(costs, *lengths).cpu().numpy()
        at += len(some)
    return found


def _costs(segments: Segments, queries: Integers, documents: Integers, between: Between) -> Tensor:
    """(I, J, A, B) distances of frames of queries to frames of documents, each row of a document from 0 to 1."""
    padded = segments.padded(queries), segments.padded(documents)
    # (I A, E) and (J B, E) -> (I A, J B) -> (I, A, J, B) -> (I, J, A, B), a view
    costs = between(padded[0].flatten(0, 1), padded[1].flatten(0, 1))
    costs = costs.view(*padded[0].shape[:2], *padded[1].shape[:2]).transpose(1, 2)
    # Padding repeats the last frame of a document, so it changes neither the least nor the greatest distance.
    least, most = costs.amin(dim=1, keepdim=True), costs.amax(dim=1, keepdim=True)  # (I, 1, A, B)
    return (costs - least) / (most - least).clamp_min(_LEAST_RANGE)


def subsequence(costs: Tensor, query_lengths: Tensor, document_lengths: Tensor) -> Tensor:
    """(A, B) costs of the cheapest alignments of A whole queries with parts of B documents, a frame of the query.

    Args:
        costs: (I, J, A, B) distances of frames of queries to frames of documents; values beyond the ends are not used.
        query_lengths: (A,) frames of each query.
        document_lengths: (B,) frames of each document.
    """
    import torch

    num_rows, num_columns, num_queries, num_documents = costs.shape
    # (J, 1, 1) against (B,): frames beyond the end of a document cannot be a part of a path
    beyond = torch.arange(num_columns, device=costs.device)[:, None, None] >= document_lengths
    found = torch.zeros((num_queries, num_documents), device=costs.device)
    total = costs[0].masked_fill(beyond, torch.inf)  # (J, A, B); a path may start at any frame of the document
    for row in range(num_rows):
        if row:
            best = total.clone()
            torch.minimum(best[1:], total[:-1], out=best[1:])
            torch.minimum(best[2:], total[:-2], out=best[2:])
            total = best.add_(costs[row]).masked_fill_(beyond, torch.inf)
        ends = query_lengths == row + 1  # (A,)
        # (J, A', B) -> (A', B); a path may end at any frame
        found[ends] = total[:, ends].amin(dim=0) / (row + 1)
    return found
