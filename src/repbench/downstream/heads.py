"""Heads, named for what they are.

For frames: `linear` is one matrix; `mlp1` and `mlp2` have one and two hidden ReLU layers; `concat9` is one matrix on
nine frames, the middle one answered. (What the released Mockingjay code calls a linear phone classifier is an `mlp2`.)

For utterances: `linear`, `mlp1` and `mlp2` apply their hidden layers to every frame, take the mean over the utterance's
frames, and end in a linear layer; `project_mean` is two linear layers with the mean between them and no ReLU; `gru`
reads every fifth frame.

For sequences: `ctc` is one matrix a frame, to the classes and the blank, which stands last; `project_ctc` is two, with
no ReLU between them.

Axes: N frames, D width, U utterances, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from repbench.downstream.problems import PROBLEMS, Problem
from repbench.errors import UsageError

HIDDEN_LAYERS = {"linear": 0, "mlp1": 1, "mlp2": 2}

HEADS: dict[str, tuple[str, ...]] = {name: problem.heads for name, problem in PROBLEMS.items()}
"""The heads of each built-in problem, by its name."""

_WITH_BLANK = frozenset({"ctc", "project_ctc"})
"""Heads with one output more than there are classes."""

LINEAR_ON_MEAN = frozenset({"linear", "project_mean"})
"""Heads that make nothing of an utterance but a linear function of the mean of its frames."""

CONTEXT_FRAMES = 4
"""Frames on either side of the one that `concat9` answers."""

GRU_STRIDE = 5
GRU_UNITS = 32
GRU_DROPOUT = 0.5
"""Of `gru`: every fifth frame, as many units in the GRU as in the layer after it, and what that layer drops."""


class Head(nn.Module):
    """Frames to class scores.

    Attributes:
        output: Its last layer.
        context_frames: Frames on either side of each that it answers.
    """

    output: nn.Linear
    context_frames = 0

    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) frames of each utterance in turn -> (N, C), or (U, C) if it answers utterances.

        A head without context that answers frames needs no counts.
        """
        scores: Tensor = self.output(self.before_output(frames, counts))
        return scores

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """What its last layer reads: arguments as `forward`, (N, inputs of the layer) or (U, inputs)."""
        raise NotImplementedError

    @property
    def is_one_matrix(self) -> bool:
        """Whether it learns nothing but its last layer."""
        return all(name.startswith("output.") for name, _ in self.named_parameters())


class LayeredHead(Head):
    """Linear layers with ReLU between them: `linear`, `mlp1`, `mlp2`.

    Args:
        width: D of the frames.
        num_classes: C.
        num_hidden: Hidden layers.
        hidden_units: Units of each.
        pools: Whether it answers once an utterance rather than once a frame.
        dropout: Share of each hidden layer that is dropped in training.
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
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        widths = [width] + [hidden_units] * num_hidden
        self.hidden = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairwise(widths))
        self.output = nn.Linear(widths[-1], num_classes)
        self.pools = pools
        for layer, inner in zip((*self.hidden, self.output), widths, strict=True):
            _initialise(layer, inner, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) -> (N, units), or with `counts` (U,) frames of each utterance in turn, (U, units)."""
        for layer in self.hidden:
            frames = self.drop(torch.relu(layer(frames)))
        if self.pools:
            assert counts is not None
            frames = mean_of_each(frames, counts)
        return frames


class ProjectedHead(Head):
    """A linear layer on every frame, the mean if it pools, a linear layer: `project_mean`, `project_ctc`.

    Args:
        width: D of the frames.
        num_classes: C.
        units: Of the first layer.
        pools: Whether it answers once an utterance.
        generator: Draws the initial weights.

    Reference:
        Yang et al., SUPERB: Speech processing Universal PERformance Benchmark, 2021.
    """

    def __init__(self, *, width: int, num_classes: int, units: int, pools: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.projection = nn.Linear(width, units)
        self.output = nn.Linear(units, num_classes)
        self.pools = pools
        for layer in (self.projection, self.output):
            _initialise(layer, layer.in_features, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) -> (N, units), or with `counts` (U,) frames of each utterance in turn, (U, units)."""
        projected: Tensor = self.projection(frames)
        if self.pools:
            assert counts is not None
            return mean_of_each(projected, counts)
        return projected


class ContextHead(Head):
    """One linear layer on a frame and its neighbours, the latest first: `concat9`.

    Beyond the ends of an utterance stand its own first and last frame, whatever follows it in a batch.

    Args:
        width: D of the frames.
        num_classes: C.
        generator: Draws the initial weights.

    Reference:
        The phone classifier on concatenated frames of CPC (van den Oord et al., 2018) as S3PRL has it.
    """

    context_frames = CONTEXT_FRAMES

    def __init__(self, *, width: int, num_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.output = nn.Linear(width * (2 * CONTEXT_FRAMES + 1), num_classes)
        _initialise(self.output, self.output.in_features, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) -> (N, 9 D); without, windows of nine in turn, (9 N, D) -> (N, 9 D)."""
        if counts is not None:
            ends = counts.cumsum(dim=0)
            frames = frames[windows(torch.arange(len(frames), device=frames.device), ends, CONTEXT_FRAMES).flatten()]
        return frames.reshape(-1, self.output.in_features)


class RecurrentHead(Head):
    """A GRU over every fifth frame, its last state, linear layers with ReLU, a linear layer: `gru`.

    The layers have the names of the utterance classifier of the released Mockingjay code; `output` is its `out`.

    Args:
        width: D of the frames.
        num_classes: C.
        before: Units of the ReLU layers before the GRU.
        units: Of the GRU.
        after: Units of the ReLU layers after the GRU.
        dropout: Share of each ReLU layer that is dropped in training.
        generator: Draws the initial weights.
    """

    def __init__(
        self,
        *,
        width: int,
        num_classes: int,
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
        self.output = nn.Linear(upper[-1], num_classes)
        for layer in (*self.pre_linears, *self.post_linears, self.output):
            assert isinstance(layer, nn.Linear)
            _initialise(layer, layer.in_features, generator)
        _initialise(self.rnn, units, generator)
        self.drop = SeededDropout(dropout, generator)

    def before_output(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """(N, D) with `counts` (U,) frames of each utterance in turn -> (U, units)."""
        assert counts is not None
        heard = [each[::GRU_STRIDE] for each in torch.split(frames, counts.tolist())]
        lengths = torch.tensor([len(each) for each in heard])
        inputs = pad_sequence(heard, batch_first=True)  # (U, longest, D)
        for layer in self.pre_linears:
            inputs = self.drop(torch.relu(layer(inputs)))
        _, last = self.rnn(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False))
        states: Tensor = last[-1]  # (U, units)
        for layer in self.post_linears:
            states = self.drop(torch.relu(layer(states)))
        return states


class SeededDropout(nn.Module):
    """Dropout whose masks follow from a seed of its own: neither another head nor the global state plays a part.

    Args:
        share: What is dropped in training; the rest is scaled up.
        generator: Gives the seed, if anything is dropped.
    """

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share = share
        self._seed = int(torch.randint(2**31, (), generator=generator)) if share else 0
        self._masks: torch.Generator | None = None

    def restart(self, seed: int) -> None:
        """Draw the masks to come from another seed."""
        self._seed, self._masks = seed, None

    def forward(self, values: Tensor) -> Tensor:
        """The same shape."""
        if not self.share or not self.training:
            return values
        if self._masks is None:
            self._masks = torch.Generator(values.device).manual_seed(self._seed)
        kept = torch.rand(values.shape, generator=self._masks, device=values.device) >= self.share
        return values * kept / (1 - self.share)


def restart_dropout(module: nn.Module, seed: int) -> None:
    """Draw the masks to come in a module from another seed, so that they do not depend on those before."""
    for part in module.modules():
        if isinstance(part, SeededDropout):
            part.restart(seed)


def build_head(
    name: str,
    *,
    width: int,
    num_classes: int,
    hidden_units: int,
    pools: bool,
    generator: torch.Generator,
    dropout: float = 0.0,
) -> Head:
    """The head called `name`.

    Args:
        name: One of `HEADS`.
        width: D of the frames.
        num_classes: C; heads for sequences have one output more, the blank.
        hidden_units: Units of hidden layers and projections; `gru` has its own.
        pools: Whether it answers once an utterance rather than once a frame.
        generator: Draws the initial weights.
        dropout: Share of each hidden layer of `mlp1` and `mlp2` that is dropped in training; `gru` has its own.

    Raises:
        UsageError: There is no such head.
    """
    if name == "concat9":
        return ContextHead(width=width, num_classes=num_classes, generator=generator)
    if name == "gru":
        return RecurrentHead(width=width, num_classes=num_classes, generator=generator)
    outputs = num_classes + (name in _WITH_BLANK)
    if name in {"project_mean", "project_ctc"}:
        return ProjectedHead(width=width, num_classes=outputs, units=hidden_units, pools=pools, generator=generator)
    if name != "ctc" and name not in HIDDEN_LAYERS:
        raise _no_head(name, "", sorted({head for each in PROBLEMS.values() for head in each.heads}))
    return LayeredHead(
        width=width,
        num_classes=outputs,
        num_hidden=HIDDEN_LAYERS.get(name, 0),
        hidden_units=hidden_units,
        pools=pools,
        dropout=dropout,
        generator=generator,
    )


def refuse_head(name: str, problem: Problem) -> None:
    """Refuse a head that does not fit a problem.

    Raises:
        UsageError: Names those that do.
    """
    if name not in problem.heads:
        raise _no_head(name, f" for {problem.name}", problem.heads)


def mean_of_each(frames: Tensor, counts: Tensor) -> Tensor:
    """Mean over each utterance's frames: (N, D) with counts (U,) -> (U, D)."""
    means: Tensor = torch.segment_reduce(frames, "mean", lengths=counts, axis=0)
    return means


def windows(rows: Tensor, ends: Tensor, context: int) -> Tensor:
    """Each row with its neighbours in its own utterance, the latest first; the ends of the utterance are repeated.

    Args:
        rows: (N,) of utterances that lie one after the other.
        ends: (U,) the row after the last of each utterance.
        context: Neighbours on either side.

    Returns:
        (N, 2 context + 1) rows: of row t, t + context, …, t, …, t - context.
    """
    utterance = torch.searchsorted(ends, rows, right=True)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    offsets = torch.arange(context, -context - 1, -1, device=rows.device)
    return (rows[:, None] + offsets).clamp(starts[utterance, None], ends[utterance, None] - 1)


def _no_head(name: str, what_for: str, heads: Sequence[str]) -> UsageError:
    return UsageError(f"There is no head `{name}`{what_for}", key="--head", do=f"Choose one of {', '.join(heads)}")


def _initialise(layer: nn.Module, fan_in: int, generator: torch.Generator) -> None:
    """Uniform in ±1/sqrt(fan in), torch's own rule for linear layers and GRUs, drawn from `generator`."""
    bound = fan_in**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
