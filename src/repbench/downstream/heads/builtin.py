"""The heads of repbench.

For frames: `linear` is one matrix; `mlp1` and `mlp2` have one and two hidden ReLU layers; `concat9` is one matrix on
nine frames and gives the scores of the middle one. (The linear phone classifier of the released Mockingjay code is an
`mlp2`.)

For utterances: `linear`, `mlp1` and `mlp2` apply their hidden layers to every frame, take the mean over the utterance's
frames, and end in a linear layer; `project_mean` is two linear layers with the mean between them and no ReLU; `gru`
reads every fifth frame.

For sequences: `ctc` is one matrix a frame, to the classes and the blank, which is the last output; `project_ctc` is
two, with no ReLU between them.

Axes: N frames of all utterances in turn, D width, U utterances, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from repbench.downstream.heads.contract import Head, HeadInfo
from repbench.downstream.heads.dropout import SeededDropout
from repbench.downstream.heads.frames import initialise, mean_of_each, windows
from repbench.downstream.heads.products import fits, hidden

HIDDEN_LAYERS = {"linear": 0, "mlp1": 1, "mlp2": 2}
"""Hidden layers of the heads that differ in nothing else."""

CONTEXT_FRAMES = 4
"""Frames on either side of the one that `concat9` scores."""

GRU_STRIDE = 5
GRU_UNITS = 32
GRU_DROPOUT = 0.5
"""Of `gru`: every fifth frame, as many units in the GRU as in the layer after it, the share dropped in that layer."""


class LayeredHead(Head):
    """Linear layers with ReLU between them; arguments as `HeadFactory`.

    Attributes:
        num_hidden: Number of hidden layers.
    """

    num_hidden = 0

    def __init__(
        self,
        *,
        width: int,
        num_outputs: int,
        hidden_units: int,
        pools: bool,
        generator: torch.Generator,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [width] + [hidden_units] * self.num_hidden
        self.hidden = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(widths))
        self.output = nn.Linear(widths[-1], num_outputs)
        self.pools = pools
        # Before the seed of the dropout is drawn: a head without dropout has the same weights as one with it.
        for layer, inner in zip((*self.hidden, self.output), widths, strict=True):
            initialise(layer, inner, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) -> (N, units), or with `counts` (U,) -> (U, units) if it pools."""
        layers = [(layer.weight, layer.bias) for layer in self.hidden if type(layer) is nn.Linear]
        if layers and len(layers) == len(self.hidden) and not self.drop.is_active and fits(frames):
            return hidden(frames, layers, counts if self.pools else None)
        for layer in self.hidden:
            frames = self.drop(torch.relu(layer(frames)))
        if self.pools:
            assert counts is not None
            frames = mean_of_each(frames, counts)  # (N, units) -> (U, units)
        return frames


class Linear(LayeredHead):
    """`linear`: one matrix, on the mean if it pools."""

    info = HeadInfo(
        name="linear", gives=("frames", "utterances"), one_matrix=True, linear_on_mean=True, mean_over_frames=True
    )


class Mlp1(LayeredHead):
    """`mlp1`: one hidden layer."""

    info = HeadInfo(name="mlp1", gives=("frames", "utterances"), mean_over_frames=True)
    num_hidden = 1


class Mlp2(LayeredHead):
    """`mlp2`: two hidden layers."""

    info = HeadInfo(name="mlp2", gives=("frames", "utterances"), mean_over_frames=True)
    num_hidden = 2


class Ctc(LayeredHead):
    """`ctc`: one matrix on every frame."""

    info = HeadInfo(name="ctc", gives=("frames with a blank",), one_matrix=True)


class ProjectedHead(Head):
    """A linear layer on every frame, the mean if it pools, a linear layer; arguments as `HeadFactory`.

    Reference:
        Yang et al., SUPERB: Speech processing Universal PERformance Benchmark, 2021.
    """

    def __init__(
        self,
        *,
        width: int,
        num_outputs: int,
        hidden_units: int,
        pools: bool,
        generator: torch.Generator,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.projection = nn.Linear(width, hidden_units)
        self.output = nn.Linear(hidden_units, num_outputs)
        self.pools = pools
        for layer in (self.projection, self.output):
            initialise(layer, layer.in_features, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) -> (N, units), or with `counts` (U,) -> (U, units) if it pools."""
        # (N, D) -> (N, units)
        projected: Tensor = self.projection(frames)
        if self.pools:
            assert counts is not None
            return mean_of_each(projected, counts)  # (N, units) -> (U, units)
        return projected


class ProjectMean(ProjectedHead):
    """`project_mean`: the mean between two linear layers."""

    info = HeadInfo(name="project_mean", gives=("utterances",), linear_on_mean=True, mean_over_frames=True)


class ProjectCtc(ProjectedHead):
    """`project_ctc`: two linear layers on every frame."""

    info = HeadInfo(name="project_ctc", gives=("frames with a blank",))


class ContextHead(Head):
    """`concat9`: one linear layer on a frame and its neighbours, the latest first; arguments as `HeadFactory`.

    Beyond the ends of an utterance its first and last frame are repeated, whatever precedes or follows it in a batch.

    Reference:
        The phone classifier on concatenated frames of CPC (van den Oord et al., 2018) as S3PRL has it.
    """

    info = HeadInfo(name="concat9", gives=("frames",), context_frames=CONTEXT_FRAMES, one_matrix=True)

    def __init__(
        self,
        *,
        width: int,
        num_outputs: int,
        generator: torch.Generator,
        hidden_units: int = 0,
        pools: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.output = nn.Linear(width * (2 * CONTEXT_FRAMES + 1), num_outputs)
        initialise(self.output, self.output.in_features, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (N, 9 D); without, windows of nine in turn, (9 N, D) -> (N, 9 D)."""
        if counts is not None:
            ends = counts.cumsum(dim=0)
            # (N,) rows -> (N, 9) -> (9 N,) -> frames (9 N, D)
            frames = frames[windows(torch.arange(len(frames), device=frames.device), ends, CONTEXT_FRAMES).flatten()]
        return frames.reshape(-1, self.output.in_features)  # (9 N, D) -> (N, 9 D)


class RecurrentHead(Head):
    """A GRU over every fifth frame, its last state, linear layers with ReLU, a linear layer.

    The layers have the names of the utterance classifier of the released Mockingjay code; `output` is its `out`.

    Args:
        width: D.
        num_outputs: O.
        before: Units of the ReLU layers before the GRU.
        units: Units of the GRU.
        after: Units of the ReLU layers after the GRU.
        dropout: Share of each ReLU layer that is dropped in training.
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        *,
        width: int,
        num_outputs: int,
        before: Sequence[int] = (),
        units: int = GRU_UNITS,
        after: Sequence[int] = (GRU_UNITS,),
        dropout: float = GRU_DROPOUT,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        lower, upper = [width, *before], [units, *after]
        self.pre_linears = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(lower))
        self.rnn = nn.GRU(lower[-1], units, batch_first=True)
        self.post_linears = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(upper))
        self.output = nn.Linear(upper[-1], num_outputs)
        for layer in (*self.pre_linears, *self.post_linears, self.output):
            assert isinstance(layer, nn.Linear)
            initialise(layer, layer.in_features, generator)
        # torch initialises a GRU by its hidden size, not by its input.
        initialise(self.rnn, units, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) frames of each utterance in turn -> (U, units)."""
        assert counts is not None
        # (N, D) -> U of (F, D) -> U of (ceil(F / 5), D): within each utterance, so that none starts off its first frame
        strided = [each[::GRU_STRIDE] for each in torch.split(frames, counts.tolist())]
        lengths = torch.tensor([len(each) for each in strided])  # (U,) on the CPU, where packing needs them
        inputs = pad_sequence(strided, batch_first=True)  # (U, longest, D)
        for layer in self.pre_linears:
            inputs = self.drop(torch.relu(layer(inputs)))
        # Packed, so that `last` is the state at the end of each utterance, not of the padding; in the caller's order.
        _, last = self.rnn(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False))
        states: Tensor = last[-1]  # (1 layer, U, units) -> (U, units)
        for layer in self.post_linears:
            states = self.drop(torch.relu(layer(states)))
        return states


class Gru(RecurrentHead):
    """`gru`: a GRU with fixed sizes and dropout; arguments as `HeadFactory`."""

    info = HeadInfo(name="gru", gives=("utterances",))

    def __init__(self, *, width: int, num_outputs: int, generator: torch.Generator, **unread: Any) -> None:
        super().__init__(width=width, num_outputs=num_outputs, generator=generator)
