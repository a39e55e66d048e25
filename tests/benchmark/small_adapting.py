"""An upstream with all that can be frozen: layers that it declares, dropout, and both kinds of normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from repbench.testing import Envelope
from repbench.upstream.contract import HiddenStates

DEEP = "py:tests.benchmark.small_adapting:deep"
UNDECLARED = "py:tests.benchmark.small_adapting:undeclared"


class Layer(nn.Module):
    """Linear, batch and layer normalisation, dropout: (B, F, D) -> (B, F, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.batch_norm = nn.BatchNorm1d(width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.2)

    def forward(self, frames: Tensor) -> Tensor:
        # (B, F, D) -> (B, D, F) -> (B, F, D)
        normed = self.batch_norm(self.linear(frames).transpose(1, 2)).transpose(1, 2)
        hidden: Tensor = self.dropout(self.norm(torch.relu(normed)))
        return frames + hidden


class Undeclared(Envelope):
    """Three layers on the energies, hidden states 0 to 3; it does not declare them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        width = self.info.width
        self.info = replace(self.info, layer_names=("energy", "one", "two", "three"))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.first = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.2))
            self.layers = nn.ModuleList(Layer(width) for _ in range(3))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        base = super().forward(waveforms, lengths)
        states = [self.first(base.layers[1])]
        for layer in self.layers:
            states.append(layer(states[-1]))
        counts = torch.arange(base.layers.shape[2])[None] < base.lengths[:, None]  # (B, F)
        return HiddenStates(torch.stack(states) * counts[None, ..., None], base.lengths)


class Deep(Undeclared):
    """The same, declared."""

    @property
    def layer_modules(self) -> list[list[nn.Module]]:
        return [[layer] for layer in self.layers]


def deep(*, checkpoint: str | None = None, seed: int = 0) -> Deep:
    return Deep()


def undeclared(*, checkpoint: str | None = None, seed: int = 0) -> Undeclared:
    return Undeclared()


@contextmanager
def bytes_kept(module: nn.Module) -> Iterator[list[int]]:
    """Inside, the bytes of each tensor but weights that a forward pass keeps for the backward pass."""
    seen = {each.untyped_storage().data_ptr() for each in (*module.parameters(), *module.buffers())}
    sizes: list[int] = []

    def note(tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            sizes.append(storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield sizes
