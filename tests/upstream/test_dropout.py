"""Dropout against its definition: which elements 16 random bits drop, and what becomes of them and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.upstream.dropout import dropout

SHAPE = (3, 5, 67)
"""1,005 elements: the last of the 64-bit numbers is not used up."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def shares_of(seed: int) -> Tensor:
    """The number in [0, 1), 16 bits long, that is drawn for each element and compared with the probability."""
    size = math.prod(SHAPE)
    torch.manual_seed(seed)
    drawn = torch.empty(-(-size // 4), dtype=torch.int64).random_(-(2**63), None)
    lanes = drawn.numpy().view(np.int16)[:size].astype(np.int64) + 2**15
    return torch.from_numpy(lanes / 2**16).view(SHAPE)


def values_of(dtype: torch.dtype) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype)


def bits(values: Tensor) -> Tensor:
    return values.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()])


@every_dtype
@pytest.mark.parametrize(
    "probability",
    [0.1, 0.5, float(shares_of(4)[1, 2, 3]), float(shares_of(4)[0, 1, 2]) + 0.6 * 2**-16],
    ids=["tenth", "half", "as drawn", "rounded up to more than is drawn"],
)
def test_elements_and_their_gradients_are_scaled_or_zero(dtype: torch.dtype, probability: float) -> None:
    values, gradient = values_of(dtype).requires_grad_(), values_of(dtype) + 1
    kept = shares_of(4) >= round(probability * 2**16) / 2**16
    torch.manual_seed(4)
    found = dropout(values, probability, training=True)
    (back,) = torch.autograd.grad(found, values, gradient)

    zero = torch.zeros((), dtype=dtype)
    for result, given in ((found.detach(), values.detach()), (back, gradient)):
        assert result.dtype == dtype
        assert torch.equal(bits(result), bits(torch.where(kept, given * (1 / (1 - probability)), zero)))


@every_dtype
def test_what_is_dropped_is_zero_whatever_it_was(dtype: torch.dtype) -> None:
    values = torch.tensor([math.inf, -math.inf, math.nan, -1.0], dtype=dtype).repeat(100)
    found = dropout(values, 0.5, training=True)
    is_zero = bits(found) == 0
    assert 100 < int(is_zero.sum()) < 300
    assert not bool((found[~is_zero] == 0).any())


@every_dtype
def test_axes_in_another_order_are_dropped_by_their_place(dtype: torch.dtype) -> None:
    values = values_of(dtype)
    torch.manual_seed(0)
    expected = dropout(values.transpose(0, 2).contiguous(), 0.3, training=True)
    torch.manual_seed(0)
    assert torch.equal(dropout(values.transpose(0, 2), 0.3, training=True), expected)


@every_dtype
def test_a_probability_of_one_drops_everything(dtype: torch.dtype) -> None:
    assert not bool(dropout(values_of(dtype), 1.0, training=True).any())


def test_other_devices_have_the_dropout_of_torch() -> None:
    before = torch.get_rng_state()
    found = dropout(torch.empty(SHAPE, device="meta"), 0.5, training=True)
    assert (found.device.type, found.shape) == ("meta", SHAPE)
    assert torch.equal(torch.get_rng_state(), before), "no mask is drawn on the CPU"


@pytest.mark.parametrize(("probability", "training"), [(0.0, True), (0.3, False)])
def test_nothing_is_drawn_where_nothing_is_dropped(probability: float, training: bool) -> None:
    values, before = values_of(torch.float32), torch.get_rng_state()
    assert dropout(values, probability, training) is values
    assert torch.equal(torch.get_rng_state(), before)
