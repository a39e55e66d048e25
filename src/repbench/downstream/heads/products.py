"""Matrix products of heads and their gradients, in parts of rows.

torch multiplies float32 matrices by MKL, which uses half of what a processor of AMD can do. oneDNN, which torch brings
along for compiled code, uses all of it (docs/design/0021-products-of-probes.md). Rows are taken a few hundred at a
time, so that what one product leaves is still in the cache for the next, and parts of them by several threads
(`heads.workers`).

Axes: N rows, K inputs, H outputs or units, D width, U utterances.
"""

from __future__ import annotations

import platform
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from repbench.downstream.heads.workers import in_parts

Result = TypeVar("Result")

TILE_ROWS = 512
"""Rows of one product: with 256 units they fill half of a processor's second cache."""

MOST_PARTS = 8
"""Parts of a batch at most, each with sums of its own; no more threads than this share a batch."""

FEWEST_ROWS = 32
"""Rows below which oneDNN gains nothing."""

Span = tuple[int, int]
"""First row, and the row after the last."""

Sums = list[Tensor]
"""Gradients of a weight (H, K) and of a bias (H,), of one layer after the other."""


def _has_onednn() -> bool:
    x86 = platform.machine().lower() in {"x86_64", "amd64"}  # the only one where it was measured
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return x86 and available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


_ONEDNN = _has_onednn()


def fits(rows: Tensor) -> bool:
    """Whether products of these rows can be taken in parts: float32 on the CPU, and no autocast to another type."""
    return rows.device.type == "cpu" and rows.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As `torch.nn.functional.linear`, (N, K) -> (N, H)."""
    if not fits(rows) or len(rows) < FEWEST_ROWS:
        return F.linear(rows, weight, bias)
    scores: Tensor = _LinearProduct.apply(rows, weight, bias)
    return scores


def hidden(rows: Tensor, layers: Sequence[tuple[Tensor, Tensor]], counts: Tensor | None) -> Tensor:
    """Linear layers, each with a ReLU, and the mean over each utterance.

    Args:
        rows: (N, D), float32 on the CPU.
        layers: Weight (H, K) and bias (H,) of each.
        counts: (U,) rows of each utterance, which add up to N; None: no mean.

    Returns:
        (N, H), or the means (U, H).
    """
    sizes = None if counts is None else tuple(counts.tolist())
    parameters = (each for layer in layers for each in layer)
    units: Tensor = _Hidden.apply(rows, sizes, torch.is_grad_enabled(), *parameters)
    return units


class _LinearProduct(torch.autograd.Function):
    """A product in parts of rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        scores = rows.new_empty(len(rows), len(weight))

        def work(part: Sequence[Span]) -> None:
            for first, last in part:
                scores[first:last] = _product(rows[first:last], weight, last - first, bias)

        each_part(work, len(rows))
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None

        def work(part: Sequence[Span]) -> Sums:
            sums: Sums = []
            for first, last in part:
                tile = gradient[first:last]
                _add(sums, [_product(tile.t(), rows[first:last].t(), last - first), tile.sum(dim=0)])
                if of_rows is not None:
                    of_rows[first:last] = _product(tile, weight.t(), last - first)
            return sums

        return of_rows, *_total(each_part(work, len(rows)))


class _Hidden(torch.autograd.Function):
    """Hidden layers and the mean, of which nothing leaves the cache but the units that the gradient needs.

    Units stand in rows and rows of the batch in columns, (H, T) of a tile: so the product for the gradient of a weight,
    (H, T) by (T, D), reads them as they lie, which saves a quarter of its time. It depends on no random numbers, so a
    head with dropout cannot be one.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...] | None, learns: bool, *parameters: Tensor) -> Tensor:
        columns = [(weight, bias[:, None]) for weight, bias in zip(parameters[::2], parameters[1::2], strict=True)]
        utterances = None if sizes is None else Utterances(sizes)
        scores = rows.new_empty(len(rows) if utterances is None else 0, len(parameters[-1]))  # (N, H) without a mean
        kept: dict[Span, list[Tensor]] = {}

        def work(part: Sequence[Span]) -> list[tuple[int, Tensor]]:
            sums: list[tuple[int, Tensor]] = []
            for first, last in part:
                read, of_layers = rows[first:last], []  # (T, K)
                for weight, column in columns:
                    units = _product(weight, read, last - first).add_(column).relu_()  # (H, T)
                    of_layers.append(units)
                    read = units.t()
                if learns:
                    kept[first, last] = of_layers
                if utterances is None:
                    scores[first:last] = read
                else:
                    sums += [(each, units[:, here:there].sum(1)) for each, here, there in utterances.of(first, last)]
            return sums

        found = each_part(work, len(rows))
        ctx.save_for_backward(rows, *parameters[::2])
        ctx.utterances, ctx.kept = utterances, kept
        if utterances is None:
            return scores
        means = rows.new_zeros(len(utterances.sizes), len(parameters[-1]))
        of_utterances = means.unbind()
        for number, total in (each for part in found for each in part):
            of_utterances[number].add_(total)
        return means.div_(torch.tensor(utterances.sizes)[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, *weights = ctx.saved_tensors
        utterances: Utterances | None = ctx.utterances
        of_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        columns: Sequence[Tensor] = ()
        if utterances is not None:
            gradient = gradient / torch.tensor(utterances.sizes)[:, None]
            columns = gradient[:, :, None].unbind()  # (U, H) -> U times (H, 1)

        def work(part: Sequence[Span]) -> Sums:
            sums: Sums = []
            for first, last in part:
                num_rows = last - first
                units: list[Tensor] = ctx.kept[first, last]
                tile = torch.gt(units[-1], 0, out=torch.empty_like(units[-1]))  # (H, T): the slope of ReLU, 0 or 1
                if utterances is None:
                    tile *= gradient[first:last].t()
                else:
                    for each, here, there in utterances.of(first, last):
                        tile[:, here:there].mul_(columns[each])  # `*=` would copy it onto itself
                of_layers: Sums = []
                for number in reversed(range(len(weights))):
                    read = units[number - 1] if number else rows[first:last].t()  # (K, T)
                    of_layers = [_product(tile, read, num_rows), tile.sum(dim=1), *of_layers]
                    if number:
                        tile = _product(weights[number].t(), tile.t(), num_rows).mul_(read > 0)
                    elif of_rows is not None:
                        of_rows[first:last] = _product(tile.t(), weights[0].t(), num_rows)
                _add(sums, of_layers)
            return sums

        return of_rows, None, None, *_total(each_part(work, len(rows)))


class Utterances:
    """The place of each utterance in rows that follow each other."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self._ends = list(accumulate(sizes))

    def of(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Of the utterances with rows from `first` to `last`: number, first row there and row after the last there."""
        number = bisect_right(self._ends, first)
        here = first
        while here < last:
            there = min(last, self._ends[number])
            if there > here:
                yield number, here - first, there - first
            here, number = there, number + 1


def _product(left: Tensor, right: Tensor, num_rows: int, bias: Tensor | None = None) -> Tensor:
    """A matrix times a transposed one, plus bias, of a tile of `num_rows`: (A, K), (B, K), (B,) -> (A, B)."""
    if not _ONEDNN or num_rows % FEWEST_ROWS:
        return F.linear(left, right, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return product


def _add(sums: Sums, more: Sums) -> None:
    """Add to sums, which begin empty."""
    if not sums:
        sums += more
        return
    for total, each in zip(sums, more, strict=True):
        total += each


def _total(parts_of: Sequence[Sums]) -> Sums:
    """The sums of all parts, in their order."""
    total: Sums = []
    for each in parts_of:
        _add(total, each)
    return total


def tiles(num_rows: int) -> tuple[Span, ...]:
    """As many tiles as there are whole ones, then halves of halves of one.

    oneDNN compiles a kernel for each shape, which takes as long as some products do, and keeps a thousand of them. So
    the sizes are few, whatever the number of rows; only the last, of fewer than `FEWEST_ROWS`, has any.
    """
    ends, size = [0], TILE_ROWS
    while ends[-1] < num_rows:
        while size > num_rows - ends[-1] and size > FEWEST_ROWS:
            size //= 2
        ends.append(min(ends[-1] + size, num_rows))
    return tuple(pairwise(ends))


def each_part(work: Callable[[Sequence[Span]], Result], num_rows: int) -> list[Result]:
    """What comes of consecutive parts of the tiles, which do not depend on the number of threads."""
    every = tiles(num_rows)
    count = min(MOST_PARTS, len(every))
    starts = [len(every) * number // max(count, 1) for number in range(count + 1)]
    of_part = [every[first:last] for first, last in pairwise(starts)]
    return in_parts(lambda number: work(of_part[number]), count)
