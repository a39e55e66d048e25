"""Adam and AdamW by torch's own fused step, without the classes around it.

The first optimizer that is built imports torch's compiler, which takes longer than training a linear probe.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim.adam import adam

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""torch's own defaults."""


class FusedAdam:
    """Equal to `torch.optim.Adam` and `AdamW` with `fused=True`, to the last bit.

    Args:
        name: Whether the weight decay is part of the gradient (`adam`) or not (`adamw`).
        parameters: To be trained; a parameter without a gradient stays as it is.
        learning_rate: Of all parameters.
        weight_decay: Of all parameters.
    """

    def __init__(
        self,
        name: Literal["adamw", "adam"],
        parameters: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self.parameters = list(parameters)
        self._decoupled = name == "adamw"
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._means = [torch.zeros_like(each) for each in self.parameters]
        self._squares = [torch.zeros_like(each) for each in self.parameters]
        # Counters () float32 on the parameter's device, as the fused kernels read and increment them.
        self._steps = [torch.zeros((), device=each.device) for each in self.parameters]

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        states = zip(self.parameters, self._means, self._squares, self._steps, strict=True)
        known = [(each, each.grad, *state) for each, *state in states if each.grad is not None]
        if not known:
            return
        parameters, gradients, means, squares, steps = (list(each) for each in zip(*known, strict=True))
        adam(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=self._learning_rate,
            weight_decay=self._weight_decay,
            eps=EPSILON,
            maximize=False,
            decoupled_weight_decay=self._decoupled,
        )
