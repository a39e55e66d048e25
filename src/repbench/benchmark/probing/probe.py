"""The probe on frozen features: standardise, normalise, mix the layers, apply the head; and its file.

Axes: L layers, N frames, D width, U utterances, C classes.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repbench.benchmark.features.table import Features, Span
from repbench.downstream.heads import Head, build_head, head_faults, linear, refuse_other_head
from repbench.downstream.problems.contract import TargetStatistics
from repbench.errors import IntegrityError
from repbench.tensor_files import encoded_tensors

STD_FLOOR = 1e-3
"""Least standard deviation, as a share of the median one: a nearly constant dimension is not blown up."""

RAW_WEIGHT = 1 / 12
"""Initial raw weight of every layer, as in the released Mockingjay code: twelve layers, whatever the model."""

_TILE_COLUMNS = 16
"""Columns of a matrix product are padded to a multiple of this: a product with a part of a tile is a sixth slower."""

_STATISTICS_ROWS = 2_048
"""Frames in one block of the statistics of a table."""
_CACHED_ROWS = 64
"""Frames in one block where they come utterance by utterance: a float64 copy of it stays in a processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeShape:
    """Everything a probe is built from; saved with it.

    Attributes:
        head: Name of the head.
        pools: Whether the head gives one row of scores for each utterance, not for each frame.
        num_layers: L, the layers that are mixed.
        width: D, of each layer.
        hidden_units: Of the head.
        classes: Names of the C classes, in the order of the scores.
        mix: "mean", "weighted" (learnt weights that add up to 1) or "raw" (learnt weights without a constraint, from
            1/12 on); with one layer all three are that layer.
        dropout: Share of the head's hidden units that is dropped in training.
        outputs: Scores of a row, where they are not one a class; written into the file of a probe only there.
        standardises_targets: Whether it is trained on standardised numbers and keeps their mean and deviation; written
            into the file of a probe only there.
        layer_norm: Whether each frame of each layer is normalised over its dimensions before the mix; written into the
            file of a probe only where it is.
    """

    head: str
    pools: bool
    num_layers: int
    width: int
    hidden_units: int
    classes: tuple[str, ...]
    mix: str
    dropout: float = 0.0
    outputs: int | None = None
    standardises_targets: bool = False
    layer_norm: bool = False


class Probe(nn.Module):
    """Standardises each layer, normalises its frames where `layer_norm` is set, mixes the layers, applies the head."""

    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_deviation: Tensor

    def __init__(self, shape: ProbeShape, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.num_layers, 1, shape.width))
        self.register_buffer("std", torch.ones(shape.num_layers, 1, shape.width))
        if shape.standardises_targets:
            self.register_buffer("target_mean", torch.zeros(()))
            self.register_buffer("target_deviation", torch.ones(()))
        # Logits of 0 are equal weights 1 / L after the softmax.
        first = RAW_WEIGHT if shape.mix == "raw" else 0.0
        self.layer_logits = nn.Parameter(torch.full((shape.num_layers,), first), requires_grad=shape.mix != "mean")
        self.head: Head = build_head(
            shape.head,
            width=shape.width,
            num_classes=len(shape.classes) if shape.outputs is None else shape.outputs,
            hidden_units=shape.hidden_units,
            pools=shape.pools,
            generator=generator,
            dropout=shape.dropout,
        )

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take (L, 1, D) statistics of the training split."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def set_target_statistics(self, statistics: TargetStatistics | None) -> None:
        """Take the statistics of the numbers that it is trained on, if there are any."""
        if statistics is not None:
            self.target_mean.fill_(statistics.mean)
            self.target_deviation.fill_(statistics.deviation)

    def in_units(self, scores: Tensor) -> Tensor:
        """Scores, of any shape, in the unit of the labels, where it learned standardised numbers; else as they are."""
        if not self.shape.standardises_targets:
            return scores
        return scores * self.target_deviation + self.target_mean

    def forward(self, frames: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores of frames.

        Args:
            frames: (L, N, D), the frames of U utterances one after the other.
            counts: (U,) frames of each utterance; heads that score each frame alone do without.

        Returns:
            (N, C), or (U, C) of a head that pools.
        """
        return self.scores(self.standardised(frames), counts)

    def standardised(self, frames: Tensor) -> Tensor:
        """Frames (L, N, D) minus mean, over deviation, of the training split, then each normalised with `layer_norm`.

        Where no statistics were set, the first part changes nothing.
        """
        return self._normalised((frames - self.mean).div_(self.std))  # (L, N, D) with (L, 1, D)

    def _normalised(self, standard: Tensor) -> Tensor:
        """Each frame of each layer (L, N, D) minus its mean over D, over its deviation, where `layer_norm` is set."""
        return F.layer_norm(standard, standard.shape[-1:]) if self.shape.layer_norm else standard

    def standardise_(self, frames: Tensor) -> None:
        """As `standardised`, in place: the same numbers without a copy."""
        frames.sub_(self.mean).div_(self.std)
        if self.shape.layer_norm:
            frames.copy_(self._normalised(frames))

    def scores(self, standard: Tensor, counts: Tensor | None = None) -> Tensor:
        """Scores of frames as `standardised` gives them; arguments and result as of `forward`."""
        with head_faults(self.shape.head):
            scores: Tensor = self.head(self.mixed(standard), counts)
        return scores

    def mixed(self, standard: Tensor) -> Tensor:
        """Input of the head, the weighted sum of the layers: (L, N, D) -> (N, D)."""
        if len(standard) == 1:
            return standard[0]
        return torch.einsum("l,lnd->nd", self.layer_weights(), standard)  # (L,) and (L, N, D) -> (N, D)

    def layer_weights(self) -> Tensor:
        """Weights (L,) of the layers, which add up to 1 unless they are raw."""
        return weights_of(self.layer_logits, self.shape.mix)


def scores_side_by_side(probes: Sequence[Probe], standard: Tensor, counts: Tensor | None = None) -> Tensor:
    """Scores of several probes of one shape on the same standardised frames.

    Where each probe learns one matrix alone, the matrices are stacked and one product computes all scores: each score
    is a sum over the same numbers as alone. Where a probe learns anything before that matrix, each computes its own.

    Args:
        probes: R of them.
        standard: (L, N, D).
        counts: As in `Probe.forward`.

    Returns:
        (R, N, C) or (R, U, C).
    """
    first, num_probes = probes[0], len(probes)
    # Learnt weights of the layers come before the matrix, and differ between the probes: R of (N, C) -> (R, N, C)
    if first.layer_logits.requires_grad or not first.head.is_one_matrix:
        return torch.stack([probe.scores(standard, counts) for probe in probes])
    with head_faults(first.shape.head):
        read = first.head.before_output(first.mixed(standard), counts)
    outputs = [probe.head.output for probe in probes]
    # R matrices (C, D) -> (R C + spare, D)
    columns = num_probes * outputs[0].out_features
    spare = -columns % _TILE_COLUMNS  # rows of zeros, whose scores are cut off below
    weights = torch.cat([*(output.weight for output in outputs), read.new_zeros(spare, read.shape[1])])
    biases = torch.cat([*(output.bias for output in outputs), read.new_zeros(spare)])
    scores = linear(read, weights, biases)  # (N, D) @ (D, R C + spare) -> (N, R C + spare)
    # (N, R C) -> (N, R, C) -> (R, N, C)
    return scores[:, :columns].view(len(scores), num_probes, -1).transpose(0, 1)


def weights_of(logits: Tensor, mix: str) -> Tensor:
    """Weights (..., L) of the layers from logits (..., L)."""
    return logits if mix == "raw" else torch.softmax(logits, dim=-1)


def statistics_of(table: Features) -> tuple[Tensor, Tensor]:
    """Mean and floored standard deviation of each layer's dimensions over all frames: two (L, 1, D), from float64.

    Frames are read once and in blocks, so that the memory does not grow with the corpus.

    Args:
        table: Frames (L, N, D) of the training split.
    """
    layers: list[Moments] = []
    # The blocks of features that are at hand are large, and their sums are those of records so far.
    rows = _STATISTICS_ROWS if table.is_at_hand else _CACHED_ROWS
    for of_block in table.of_blocks(functools.partial(_moments_of_layers, rows=rows)):
        if not layers:
            layers = of_block
            continue
        for moments, others in zip(layers, of_block, strict=True):
            moments.merge(others)
    return _mean_and_floored(layers)


def statistics_of_parts(table: Features, parts: Sequence[Collection[str]]) -> list[tuple[Tensor, Tensor]]:
    """As `statistics_of`, of each of several parts of a table, which may overlap, in one pass over the frames.

    Utterances that are in the same parts are counted together, and the moments of a part are those of its groups
    joined. So nothing of an utterance outside of a part affects its statistics, not even by rounding.

    Args:
        table: Frames (L, N, D) of all parts.
        parts: Ids of the utterances of each part.
    """
    groups: dict[tuple[bool, ...], list[Span]] = {}
    members = [frozenset(part) for part in parts]
    for id_, span in table.starts().items():
        if span[1]:
            groups.setdefault(tuple(id_ in part for part in members), []).append(span)
    groups.pop((False,) * len(parts), None)
    blocks = [(group, spans) for group, own in groups.items() for spans in _blocks_of(own)]
    layers: dict[tuple[bool, ...], list[Moments]] = {}
    for (group, _), block in zip(blocks, table.spans(spans for _, spans in blocks), strict=True):
        layers[group] = _with_block(layers.get(group, []), block)
    return [
        _mean_and_floored([joined(of_layer) for of_layer in zip(*(layers[group] for group in own), strict=True)])
        for own in ([group for group in layers if group[number]] for number in range(len(parts)))
    ]


def _blocks_of(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """The spans in blocks of at least `_STATISTICS_ROWS` rows, the last one excepted."""
    block: list[Span] = []
    for span in spans:
        block.append(span)
        if sum(count for _, count in block) >= _STATISTICS_ROWS:
            yield block
            block = []
    if block:
        yield block


def _with_block(layers: list[Moments], block: Tensor) -> list[Moments]:
    """The moments of each layer with a block (L, R, D); none so far: of this block."""
    layers = layers or [Moments() for _ in block]
    for moments, frames in zip(layers, block, strict=True):
        moments.add(frames)
    return layers


def _mean_and_floored(layers: Sequence[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and floored deviation of L layers: two (L, 1, D)."""
    means, deviations = [], []
    for moments in layers:
        mean, deviation = moments.mean_and_deviation()
        moving = deviation[deviation > 0]  # (D',): constant dimensions would pull the median down
        # Where nothing moves the floor is 1: the features are then centred, and stay 0.
        floor = STD_FLOOR * float(moving.median()) if len(moving) else 1.0
        means.append(mean[None])  # (D,) -> (1, D)
        deviations.append(deviation.clamp_min(floor)[None])
    return torch.stack(means).float(), torch.stack(deviations).float()  # L of (1, D) -> (L, 1, D)


def _moments_of_layers(block: Tensor, rows: int) -> list[Moments]:
    """The moments of each layer of (L, R, D)."""
    layers = [Moments(rows) for _ in block]
    for moments, frames in zip(layers, block, strict=True):
        moments.add(frames)
    return layers


class Moments:
    """Mean and standard deviation (D,) in float64 of frames that come in blocks.

    Both are sums, in one pass, of the frames minus the mean of the first block, so that the difference between the mean
    square and the squared mean loses no digits.

    Args:
        rows: Frames of a block.
    """

    def __init__(self, rows: int = _STATISTICS_ROWS) -> None:
        self._rows = rows
        self._count = 0
        self._shift = self._total = self._squares = torch.zeros(0)

    def add(self, frames: Tensor) -> None:
        """Add (N, D) frames."""
        blocks = torch.split(frames, self._rows)
        # One float64 buffer for all blocks; the last block may be shorter, hence `room[: len(block)]`.
        room = blocks[0].new_empty(blocks[0].shape, dtype=torch.float64)
        ones = room.new_ones(len(room))
        if not self._count:
            self._shift = blocks[0].mean(dim=0, dtype=torch.float64)
            self._total, self._squares = torch.zeros_like(self._shift), torch.zeros_like(self._shift)
        for block in blocks:
            # (N,) @ (N, D) -> (D,): a product with ones is ten times as fast as a sum over the first axis
            left = room[: len(block)].copy_(block).sub_(self._shift)
            self._total += ones[: len(block)] @ left
            self._squares += ones[: len(block)] @ left.square_()
        self._count += len(frames)

    def merge(self, other: Moments) -> None:
        """Add the frames of another, whose sums are moved to the shift of this one."""
        moved = other._shift - self._shift
        # sum (x - s)^2 with x - s = (x - o) + (o - s), where o - s is `moved`
        moved_squares = other._squares + 2 * moved * other._total + other._count * moved.square()
        # not in place: a copy of these moments has the same tensors
        self._squares = self._squares + moved_squares
        self._total = self._total + other._total + other._count * moved
        self._count += other._count

    def mean_and_deviation(self) -> tuple[Tensor, Tensor]:
        """(D,) each."""
        # With x' = x - shift: mean = E x' + shift, variance = E x'^2 - (E x')^2. Rounding can leave a constant one
        # slightly below 0, which `sqrt` would turn into NaN.
        mean = self._total / self._count
        return mean + self._shift, (self._squares / self._count - mean.square()).clamp_min_(0.0).sqrt_()


def joined(several: Iterable[Moments]) -> Moments:
    """The moments of all frames of one or more, which stay as they are."""
    first, *others = several
    together = copy.copy(first)
    for other in others:
        together.merge(other)
    return together


def moments_of(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) in float64 of (N, D) frames."""
    moments = Moments()
    moments.add(frames)
    return moments.mean_and_deviation()


def fields_of(shape: ProbeShape) -> dict[str, Any]:
    """The shape as the file of a probe holds it."""
    fields = {name: getattr(shape, name) for name in ProbeShape.__dataclass_fields__}
    # Fields that most files do not have: their bytes stay those of before there were any.
    for name in ("outputs", "standardises_targets", "layer_norm"):
        if not fields[name]:
            del fields[name]
    return fields


def encoded_probe(probe: Probe, facts: dict[str, Any]) -> bytes:
    """The probe as safetensors; its shape and `facts` (task, upstream, layer) are in the metadata."""
    metadata = {"format": "repbench.probe/1", "shape": shape_json(probe), "facts": json.dumps(facts)}
    # safetensors refuses tensors that are not contiguous.
    tensors = {name: tensor.cpu().contiguous() for name, tensor in probe.state_dict().items()}
    return encoded_tensors(tensors, metadata)


def load_probe(path: Path) -> tuple[Probe, dict[str, Any]]:
    """Read a probe, in eval mode, and the facts it was saved with.

    Raises:
        IntegrityError: The file is not a whole probe.
    """
    with whole_file(path, "probe", do="Give the folder of a frozen run"):
        tensors, metadata = read_tensors(path)
        probe, facts = probe_in(tensors, metadata, file=path)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise IntegrityError("The probe's weights hold NaN or infinity", file=path, do="Run it again")
    return probe, facts


# the parts of a file with a probe in it; a fine-tuned network is one too


def shape_json(probe: Probe) -> str:
    """The shape of a probe, for the metadata of its file."""
    return json.dumps(fields_of(probe.shape))


@contextmanager
def whole_file(path: Path, what: str, *, do: str) -> Iterator[None]:
    """Turn every fault of a file that was cut off or changed into an IntegrityError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise IntegrityError(f"This is not a whole {what}: {error}", file=path, do=do) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a mapping
        return tensors, stored.metadata() or {}


def probe_in(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, file: Path) -> tuple[Probe, dict[str, Any]]:
    """The probe of some tensors, in eval mode, and the facts in the metadata.

    Raises:
        PluginError: The head is not installed.
        IntegrityError: The installed head comes from another package or version.
    """
    shape, facts = json.loads(metadata["shape"]), json.loads(metadata["facts"])
    refuse_other_head(shape["head"], facts.get("head_origin"), file=file)
    # The seed is without effect: the weights of the file replace all that are drawn.
    probe = Probe(ProbeShape(**{**shape, "classes": tuple(shape["classes"])}), torch.Generator().manual_seed(0))
    probe.load_state_dict(dict(tensors), strict=True)
    return probe.eval(), facts
