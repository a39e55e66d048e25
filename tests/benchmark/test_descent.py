"""The steps are those of torch's classes, to the last bit."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import nn

from repbench.benchmark.probing.fused_adam import FusedAdam

CLASSES: dict[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((5, 4), (5,), (3,))]


@pytest.mark.parametrize("name", ["adamw", "adam"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_step_is_that_of_torch(name: Literal["adamw", "adam"], weight_decay: float) -> None:
    ours, theirs = parameters(), parameters()
    descent = FusedAdam(name, ours, learning_rate=3e-2, weight_decay=weight_decay)
    optimizer = CLASSES[name](theirs, lr=3e-2, weight_decay=weight_decay, fused=True)
    generator = torch.Generator().manual_seed(4)
    for step in range(20):
        for one, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(one.shape, generator=generator)
            known = len(one) != 3 or step % 3  # the last has no gradient now and then
            one.grad, other.grad = (gradient.clone(), gradient.clone()) if known else (None, None)
        descent.step()
        optimizer.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(ours[0], parameters()[0])
    descent.zero_grad()
    assert all(each.grad is None for each in ours)
    before = ours[0].clone()
    descent.step()
    assert torch.equal(ours[0], before), "no gradient, no step"
