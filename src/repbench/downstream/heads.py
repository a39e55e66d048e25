"""Heads, named for what they are.

`linear` is one matrix; `mlp1` and `mlp2` have one and two hidden ReLU layers. A head for utterances applies its hidden
layers to every frame, takes the mean over the utterance's frames, and ends in a linear layer; a head for frames leaves
the mean out. (What the released Mockingjay code calls a linear phone classifier is an `mlp2`.)

Axes: N frames, D width, U utterances, C classes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from repbench.errors import UsageError

HIDDEN_LAYERS = {"linear": 0, "mlp1": 1, "mlp2": 2}


class Head(nn.Module):
    """Frames to class scores.

    Args:
        width: D of the frames.
        num_classes: C.
        num_hidden: Hidden layers.
        hidden_units: Units of each.
        pools: Whether it answers once an utterance rather than once a frame.
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        *,
        width: int,
        num_classes: int,
        num_hidden: int,
        hidden_units: int,
        pools: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = [width] + [hidden_units] * num_hidden
        self.hidden = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(widths))
        self.output = nn.Linear(widths[-1], num_classes)
        self.pools = pools
        for layer in (*self.hidden, self.output):
            _initialise(layer, generator)

    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) -> (N, C), or with `counts` (U,) frames of each utterance in turn, (U, C)."""
        for layer in self.hidden:
            frames = torch.relu(layer(frames))
        if self.pools:
            assert counts is not None
            frames = mean_of_each(frames, counts)
        scores: Tensor = self.output(frames)
        return scores


def build_head(
    name: str, *, width: int, num_classes: int, hidden_units: int, pools: bool, generator: torch.Generator
) -> Head:
    """The head called `name`.

    Raises:
        UsageError: There is no such head.
    """
    return Head(
        width=width,
        num_classes=num_classes,
        num_hidden=hidden_layers(name),
        hidden_units=hidden_units,
        pools=pools,
        generator=generator,
    )


def hidden_layers(name: str) -> int:
    """How many hidden layers the head called `name` has."""
    if name not in HIDDEN_LAYERS:
        raise UsageError(f"There is no head `{name}`", key="--head", do=f"Choose one of {', '.join(HIDDEN_LAYERS)}")
    return HIDDEN_LAYERS[name]


def mean_of_each(frames: Tensor, counts: Tensor) -> Tensor:
    """Mean over each utterance's frames: (N, D) with counts (U,) -> (U, D)."""
    means: Tensor = torch.segment_reduce(frames, "mean", lengths=counts, axis=0)
    return means


def _initialise(layer: nn.Module, generator: torch.Generator) -> None:
    """Uniform in ±1/sqrt(fan in), torch's own rule for linear layers, drawn from `generator`."""
    assert isinstance(layer, nn.Linear)
    bound = layer.in_features**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
