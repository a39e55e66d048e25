"""Products in parts of rows: the numbers of torch's own, whatever the number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.downstream.heads import build_head, linear, mean_of_each, worker_threads
from repbench.downstream.heads.products import FEWEST_ROWS, TILE_ROWS, Utterances, hidden, tiles
from repbench.downstream.heads.workers import in_parts

COUNTS = torch.tensor([800, 37, 512, 1, 650, 31])
"""Utterances that begin and end within tiles and with them, and a last tile of any size."""

Layers = list[tuple[Tensor, Tensor]]


def of_torch(rows: Tensor, layers: Layers, counts: Tensor | None) -> Tensor:
    for weight, bias in layers:
        rows = torch.relu(F.linear(rows, weight, bias))
    return rows if counts is None else mean_of_each(rows, counts)


def with_gradients(
    units_of: Callable[[Tensor, Layers, Tensor | None], Tensor], dtype: torch.dtype, num_layers: int, *, pools: bool
) -> list[Tensor]:
    """Units, and the gradients of rows, weights and biases."""
    generator = torch.Generator().manual_seed(0)
    widths = [40, 64, 48][: num_layers + 1]
    shapes = [shape for inner, outer in pairwise(widths) for shape in ((outer, inner), (outer,))]
    rows, *parameters = (
        (torch.randn(shape, generator=generator) / shape[-1] ** 0.5).to(dtype).requires_grad_()
        for shape in ((int(COUNTS.sum()), 40), *shapes)
    )
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    units = units_of(rows, layers, COUNTS if pools else None)
    units.backward(torch.randn(units.shape, generator=generator).to(dtype))  # type: ignore[no-untyped-call]
    return [units.detach(), *(each.grad for each in (rows, *parameters) if each.grad is not None)]


@pytest.mark.parametrize("pools", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_hidden_layers_are_as_near_to_float64_as_those_of_torch(num_layers: int, pools: bool) -> None:
    exact = with_gradients(of_torch, torch.float64, num_layers, pools=pools)
    usual = with_gradients(of_torch, torch.float32, num_layers, pools=pools)
    found = with_gradients(hidden, torch.float32, num_layers, pools=pools)
    assert len(found) == 2 + 2 * num_layers
    for mine, theirs, true in zip(found, usual, exact, strict=True):
        size = true.square().mean().sqrt()
        assert (mine - true).square().mean().sqrt() < 2 * (theirs - true).square().mean().sqrt() + 1e-7 * size


def test_one_matrix_and_its_gradients_are_those_of_torch() -> None:
    def of_parts(rows: Tensor, layers: Layers, counts: Tensor | None) -> Tensor:
        return linear(rows, *layers[0])

    def whole(rows: Tensor, layers: Layers, counts: Tensor | None) -> Tensor:
        return F.linear(rows, *layers[0])

    found = with_gradients(of_parts, torch.float32, 1, pools=False)
    for mine, theirs in zip(found, with_gradients(whole, torch.float32, 1, pools=False), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("pools", [True, False])
def test_the_number_of_threads_changes_no_bit(pools: bool) -> None:
    alone = with_gradients(hidden, torch.float32, 2, pools=pools)
    for threads in (1, 2, 3):
        with worker_threads(threads):
            shared = with_gradients(hidden, torch.float32, 2, pools=pools)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(shared, alone, strict=True))


def test_threads_score_without_a_gradient_too() -> None:
    generator = torch.Generator().manual_seed(0)
    head = build_head("mlp1", width=40, num_classes=3, hidden_units=8, pools=True, generator=generator)
    rows = torch.randn(int(COUNTS.sum()), 40, generator=generator)
    expected = head(rows, COUNTS).detach()
    with worker_threads(2), torch.inference_mode():
        assert torch.equal(head(rows, COUNTS), expected)


@pytest.mark.parametrize("num_rows", [0, 1, FEWEST_ROWS, TILE_ROWS - 1, TILE_ROWS, 5 * TILE_ROWS + 333])
def test_tiles_follow_each_other_and_have_few_sizes(num_rows: int) -> None:
    found = tiles(num_rows)
    assert [row for first, last in found for row in range(first, last)] == list(range(num_rows))
    sizes = {last - first for first, last in found[:-1]}
    assert sizes <= {512, 256, 128, 64, 32}


def test_utterances_are_found_in_a_tile() -> None:
    utterances = Utterances((3, 2, 4))
    assert [*utterances.of(0, 9)] == [(0, 0, 3), (1, 3, 5), (2, 5, 9)]
    assert [*utterances.of(3, 6)] == [(1, 0, 2), (2, 2, 3)]


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_threads_of_torch_are_as_many_as_before_and_faults_are_raised() -> None:
    def broken(number: int) -> int:
        raise ValueError(f"part {number}")

    with worker_threads(2):
        assert torch.get_num_threads() == 1
        with pytest.raises(ValueError, match=r"part \d"):
            in_parts(broken, 3)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("mode", [True, False])
def test_parts_come_in_their_order_from_threads_of_one_mode(mode: bool) -> None:
    """The first part ends after the second, which only another thread can have done."""
    second_done = threading.Event()

    def work(number: int) -> tuple[int, bool, int]:
        if number == 0:
            assert second_done.wait(60)
        if number == 1:
            second_done.set()
        return number, torch.is_inference_mode_enabled(), torch.get_num_threads()

    with worker_threads(2), torch.inference_mode(mode):
        assert in_parts(work, 4) == [(number, mode, 1) for number in range(4)]
