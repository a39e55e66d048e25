"""Dynamic time warping of many pairs of segments at once, within a budget of memory.

Conventions: a segment is a run of prepared frames (`frame_distances`). A path goes from the first frames of two
segments to their last by steps (1, 0), (0, 1) and (1, 1); its cost is the sum of the distances of the pairs of frames
on it. The distance of two segments is the cost of the cheapest path, divided by the number of pairs of frames on it.
Among equally cheap predecessors the diagonal one is taken, then the one with the earlier frame of the second segment,
as in fastabx.

All pairs of a tile advance together, one anti-diagonal of their matrices at a time, so the cost of Python is that of
one pair. Segments of similar lengths share a tile; a shorter one needs no mask, because the cell in which its path ends
does not depend on what lies beyond.

Axes: N frames of all segments, E width of a prepared frame, A and B segments of the two sides of a tile, I and J frames
of the longest of each side, P pairs.

Reference:
    Sakoe and Chiba, Dynamic programming algorithm optimization for spoken word recognition, IEEE TASSP 1978; Poli
    et al., fastabx, arXiv 2505.02692.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from repbench.errors import EnvironmentFault

if TYPE_CHECKING:
    from torch import Tensor

Integers = NDArray[np.int64]
Distances = NDArray[np.float32]
Between = Callable[["Tensor", "Tensor"], "Tensor"]

_VALUE_BYTES = 4
_SWEEP_ARRAYS = 12
"""Arrays of one anti-diagonal that a sweep holds: three of costs, three of lengths, those that the next is made of."""

_TILE_PAIRS = {"cpu": 2**14}
_OTHER_TILE_PAIRS = 2**20
"""Pairs of a tile at most: a larger one is no faster on a CPU, as its arrays leave the cache."""

_SMALL_TABLE = 2**10
"""Pairs below which a table shares a tile with other tables: a tile of its own would be overhead alone."""


@dataclass(frozen=True, slots=True)
class Segments:
    """Runs of frames.

    Attributes:
        frames: (N, E) prepared frames of all segments.
        starts: (S,) first frame of each.
        lengths: (S,) frames of each, at least 1.
    """

    frames: Tensor
    starts: Integers
    lengths: Integers

    def padded(self, numbers: Integers) -> Tensor:
        """(longest, len(numbers), E) frames of some segments; beyond its end a segment repeats its last frame."""
        import torch

        longest = int(self.lengths[numbers].max())
        # (longest, 1) and (len,) -> (longest, len)
        places = np.minimum(np.arange(longest)[:, None], self.lengths[numbers] - 1) + self.starts[numbers]
        return self.frames[torch.from_numpy(places).to(self.frames.device)]


@dataclass(frozen=True, slots=True)
class TableRequest:
    """The segments of the rows and of the columns of a table of distances.

    Attributes:
        rows: (A,) numbers of segments.
        columns: (B,) numbers of segments; None: the rows again, and the table is symmetric with a diagonal of zeros.
    """

    rows: Integers
    columns: Integers | None

    @property
    def num_pairs(self) -> int:
        """Pairs of the table."""
        return len(self.rows) * len(self.rows if self.columns is None else self.columns)


def tables(
    segments: Segments, requests: Iterable[TableRequest], between: Between, memory_bytes: int
) -> Iterator[Distances]:
    """The table (A, B) of each request, in turn.

    Args:
        segments: All segments, on the device that computes.
        requests: The tables that are wanted.
        between: Distances of prepared frames, as `FrameDistance.between`.
        memory_bytes: What the tensors of a tile may take together.

    Raises:
        EnvironmentFault: The matrix of one pair does not fit.
    """
    waiting: list[TableRequest] = []
    num_pairs = 0
    for request in requests:
        if request.num_pairs <= _SMALL_TABLE:
            waiting.append(request)
            num_pairs += request.num_pairs
            if num_pairs < _most_pairs(segments):
                continue
        yield from _small_tables(segments, waiting, between, memory_bytes)
        waiting, num_pairs = [], 0
        if request.num_pairs > _SMALL_TABLE:
            yield _table(segments, request, between, memory_bytes)
    yield from _small_tables(segments, waiting, between, memory_bytes)


def _most_pairs(segments: Segments) -> int:
    return _TILE_PAIRS.get(segments.frames.device.type, _OTHER_TILE_PAIRS)


def _small_tables(
    segments: Segments, requests: list[TableRequest], between: Between, memory_bytes: int
) -> Iterator[Distances]:
    """The tables of requests, whose pairs are aligned together."""
    if not requests:
        return
    indices = [_pairs_of(each) for each in requests]
    distances = paired(
        segments,
        np.concatenate([request.rows[rows] for request, (rows, _) in zip(requests, indices, strict=True)]),
        np.concatenate(
            [
                (request.rows if request.columns is None else request.columns)[columns]
                for request, (_, columns) in zip(requests, indices, strict=True)
            ]
        ),
        between,
        memory_bytes,
    )
    ends = np.cumsum([len(rows) for rows, _ in indices])
    for request, (rows, columns), own in zip(requests, indices, np.split(distances, ends[:-1]), strict=True):
        num_columns = len(request.rows if request.columns is None else request.columns)
        table = np.zeros((len(request.rows), num_columns), dtype=np.float32)
        table[rows, columns] = own
        yield table + table.T if request.columns is None else table


def _pairs_of(request: TableRequest) -> tuple[Integers, Integers]:
    """(P,) rows and (P,) columns of the cells to compute: above the diagonal of a symmetric table, else all."""
    if request.columns is None:
        rows, columns = np.triu_indices(len(request.rows), k=1)
    else:
        rows, columns = np.indices((len(request.rows), len(request.columns))).reshape(2, -1)
    return rows.astype(np.int64), columns.astype(np.int64)


def paired(segments: Segments, first: Integers, second: Integers, between: Between, memory_bytes: int) -> Distances:
    """(P,) distances of the pairs of segments `first[p]` and `second[p]`; arguments and errors as `tables`."""
    import torch

    found = np.zeros(len(first), dtype=np.float32)
    lengths = np.stack([segments.lengths[first], segments.lengths[second]]) if len(first) else np.zeros((2, 0))
    # By the longer of two lengths, then by the other: neighbours need matrices of about the same size.
    order = np.lexsort((lengths.min(axis=0), lengths.max(axis=0)))
    width = segments.frames.shape[-1]
    start = 0
    while start < len(order):
        # Chunks are cut from the longest on, so the first pair of a chunk bounds the lengths of all of it.
        longest = int(lengths[:, order[len(order) - 1 - start]].max())
        # The matrix twice, as it is copied into the order of the sweep; the frames of both sides, and a copy of them.
        of_pair = _VALUE_BYTES * (2 * longest**2 + _SWEEP_ARRAYS * (longest + 1) + 4 * longest * width)
        size = min(_fitting(of_pair, memory_bytes, longest), _most_pairs(segments))
        chosen = order[max(0, len(order) - start - size) : len(order) - start]
        # (I, P, E) -> (P, I, E), and the matrices (P, I, J)
        costs = between(segments.padded(first[chosen]).transpose(0, 1), segments.padded(second[chosen]).transpose(0, 1))
        # (P, I, J) -> (I, J, 1, P): pairs last, so that an anti-diagonal is read in runs
        costs = costs.permute(1, 2, 0).contiguous().unsqueeze(2)
        ends = torch.from_numpy(lengths[:, None, chosen].sum(axis=0) - 2), torch.from_numpy(lengths[:1, chosen] - 1)
        found[chosen] = _sweep(costs, *ends)[0].cpu().numpy()
        start += len(chosen)
    return found


def _fitting(of_pair: int, memory_bytes: int, longest: int) -> int:
    if of_pair > memory_bytes:
        what = f"The alignment of two segments of up to {longest} frames takes {of_pair} bytes of {memory_bytes}"
        do = "Give more with --set resources.memory_gib=N, or take shorter segments"
        raise EnvironmentFault(what, key="resources.memory_gib", do=do)
    return memory_bytes // of_pair


def _table(segments: Segments, request: TableRequest, between: Between, memory_bytes: int) -> Distances:
    """The table of one request, tile by tile."""
    is_symmetric = request.columns is None
    columns = request.rows if request.columns is None else request.columns
    found = np.zeros((len(request.rows), len(columns)), dtype=np.float32)
    bands = _bands(segments, request.rows, columns, memory_bytes)
    for first, row_band in enumerate(bands[0]):
        for second, column_band in enumerate(bands[1]):
            if is_symmetric and second < first:
                continue
            tile = _tile(segments, request.rows[row_band], columns[column_band], between)
            if is_symmetric and first == second:
                # One of (x, y) and (y, x): two equally cheap paths can have different lengths.
                tile = np.triu(tile, k=1)
                tile = tile + tile.T
            found[np.ix_(row_band, column_band)] = tile
            if is_symmetric:
                found[np.ix_(column_band, row_band)] = tile.T
    return found


def _bands(
    segments: Segments, rows: Integers, columns: Integers, memory_bytes: int
) -> tuple[list[Integers], list[Integers]]:
    """Places of rows and of columns, ordered by length and cut so that each pair of bands is a tile that fits."""
    longest = [int(segments.lengths[side].max()) for side in (rows, columns)]
    width = segments.frames.shape[-1]

    def bytes_of(count: int) -> int:
        # The distances of frames and, of some of them, a term that is added; the frames, and a copy for some products.
        pairs = count**2 * (2 * longest[0] * longest[1] + _SWEEP_ARRAYS * (longest[0] + 1))
        return _VALUE_BYTES * (pairs + 2 * count * width * sum(longest))

    if bytes_of(1) > memory_bytes:
        _fitting(bytes_of(1), memory_bytes, max(longest))
    count = int(_most_pairs(segments) ** 0.5)
    while bytes_of(count) > memory_bytes:
        count = max(1, count // 2)
    orders = (np.argsort(segments.lengths[side], kind="stable") for side in (rows, columns))
    by_row, by_column = ([order[at : at + count] for at in range(0, len(order), count)] for order in orders)
    return by_row, by_column


def _tile(segments: Segments, rows: Integers, columns: Integers, between: Between) -> Distances:
    """(A, B) distances of each of A segments to each of B."""
    import torch

    # (I, A, E) -> (I A, E), and likewise (J B, E): one product for the tile
    padded = segments.padded(rows), segments.padded(columns)
    costs = between(padded[0].flatten(0, 1), padded[1].flatten(0, 1))
    # (I A, J B) -> (I, A, J, B) -> (I, J, A, B), a view
    costs = costs.view(*padded[0].shape[:2], *padded[1].shape[:2]).transpose(1, 2)
    lengths = segments.lengths[rows][:, None], segments.lengths[columns][None, :]
    ends = torch.from_numpy(lengths[0] + lengths[1] - 2), torch.from_numpy(np.repeat(lengths[0] - 1, len(columns), 1))
    return _sweep(costs, *ends).cpu().numpy()


def _sweep(costs: Tensor, diagonals: Tensor, last_rows: Tensor) -> Tensor:
    """(A, B) distances of pairs from the distances of their frames.

    Args:
        costs: (I, J, A, B) of any strides; beyond the ends of a pair its values are not used.
        diagonals: (A, B) the anti-diagonal in which the path of each pair ends, on the CPU.
        last_rows: (A, B) the row in which it ends, on the CPU.
    """
    import torch

    num_rows, num_columns, *sides = costs.shape
    # Row 0 is a row before the first frame. Rows that an anti-diagonal does not reach are infinitely far.
    best = [torch.full((num_rows + 1, *sides), torch.inf, device=costs.device) for _ in range(3)]
    steps = [torch.zeros((num_rows + 1, *sides), device=costs.device) for _ in range(3)]
    found = torch.zeros(sides, device=costs.device).flatten()
    ending = _ending(diagonals, num_rows + num_columns - 1)
    for number in range(num_rows + num_columns - 1):
        low, high = max(0, number - num_columns + 1), min(number, num_rows - 1)
        before, last, now = (best[(number + shift) % 3] for shift in range(3))
        steps_before, steps_last, steps_now = (steps[(number + shift) % 3] for shift in range(3))
        here = _anti_diagonal(costs, number, low, high)
        inner, above = slice(low + 1, high + 2), slice(low, high + 1)
        if number == 0:
            now[inner], steps_now[inner] = here, 1
        else:
            up, left, diagonal = last[above], last[inner], before[above]
            nearest = torch.minimum(up, left)
            length = torch.where(left <= up, steps_last[inner], steps_last[above])
            torch.where(diagonal <= nearest, steps_before[above], length, out=steps_now[inner])
            steps_now[inner] += 1
            torch.add(torch.minimum(nearest, diagonal, out=nearest), here, out=now[inner])
        pairs = ending[number].to(costs.device)
        if len(pairs):
            rows = last_rows.flatten().to(costs.device)[pairs] + 1
            # (I + 1, A, B) -> (I + 1, A B): the pairs whose path ends here
            found[pairs] = now.flatten(1)[rows, pairs] / steps_now.flatten(1)[rows, pairs]
    return found.view(sides)


def _ending(diagonals: Tensor, count: int) -> tuple[Tensor, ...]:
    """The pairs that end in each of `count` anti-diagonals."""
    import torch

    flat = diagonals.flatten()
    order = flat.argsort(stable=True)
    return torch.split(order, torch.bincount(flat, minlength=count).tolist())


def _anti_diagonal(costs: Tensor, number: int, low: int, high: int) -> Tensor:
    """(high - low + 1, A, B) the cells (i, number - i) of (I, J, A, B) for i from `low` to `high`: a view."""
    down, right, *others = costs.stride()
    offset = costs.storage_offset() + low * down + (number - low) * right
    # One row further is one column back.
    return costs.as_strided((high - low + 1, *costs.shape[2:]), (down - right, *others), offset)
