"""Dropout whose masks come from a seed of the module."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SeededDropout(nn.Module):
    """Dropout whose masks depend on its own seed alone: neither on another head nor on global random state.

    Args:
        share: Share that is dropped in training; the rest is scaled up.
        generator: Draws the seed, if `share` is not 0.
    """

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share = share
        # No draw without dropout: what the same generator draws next does not depend on this layer.
        self._seed = int(torch.randint(2**31, (), generator=generator)) if share else 0
        self._masks: torch.Generator | None = None

    def restart(self, seed: int) -> None:
        """Draw all further masks from another seed."""
        self._seed, self._masks = seed, None

    @property
    def is_active(self) -> bool:
        """Whether anything is dropped."""
        return bool(self.share) and self.training

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, floating-point -> the same shape and dtype."""
        if not self.is_active:
            return values
        if self._masks is None:
            # Made at the first use: only then is the device known, because a head is built on the CPU and moved.
            self._masks = torch.Generator(values.device).manual_seed(self._seed)
        # Own draw, not `F.dropout`, which takes no generator.
        kept = torch.rand(values.shape, generator=self._masks, device=values.device) >= self.share
        # Scaled up in training, so that the expected value is that of evaluation, where nothing is dropped.
        return values * kept / (1 - self.share)


def restart_dropout(module: nn.Module, seed: int) -> None:
    """Draw all further masks of a module from another seed, so that they do not depend on earlier ones."""
    for part in module.modules():
        if isinstance(part, SeededDropout):
            part.restart(seed)
