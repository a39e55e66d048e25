"""The order of batches: which stretches of which utterances, as a function of the seed and the number of the batch.

There is no state between batches, so a resumed run and each of several processes find their batches by number alone.

Axes: B batch, F frames (or samples), D width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_BIN_WIDTH = 1.05
"""Lengths within 5 % of each other count as equal, so that batches mix other utterances in each epoch."""


def derived_seed(seed: int, *names: object) -> int:
    """A seed for one purpose, below 2^63."""
    # A separator that no name holds: (1, "23") and (12, "3") give different texts. Not `hash`, which Python salts anew
    # in each process.
    text = "\0".join(map(str, (seed, *names)))
    # 8 bytes, and one bit less: `manual_seed` takes signed 64-bit integers
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """`length` frames of the utterance `index`, from frame `start` on."""

    index: int
    start: int
    length: int


@dataclass(slots=True)
class BatchOrder:
    """An endless sequence of batches of similar lengths; each epoch has one stretch of each utterance.

    Attributes:
        lengths: Frames (or samples) of each utterance.
        crop: Frames of the longest stretch; None: whole utterances.
        budget: Frames of a batch, padding included; a longer stretch is a batch alone.
        seed: Of the order and the stretches.
    """

    lengths: Sequence[int]
    crop: int | None
    budget: int
    seed: int
    _bins: list[int] = field(init=False)
    _groups: list[tuple[int, int]] = field(init=False)
    _epoch: tuple[int, list[list[Stretch]]] = field(init=False, default=(-1, []))

    def __post_init__(self) -> None:
        self._bins = [self._capped(_upper_edge(self._capped(length))) for length in self.lengths]
        self._groups = list(_grouped(sorted(self._bins), self.budget))

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches with one stretch of each utterance; the same in every epoch."""
        return len(self._groups)

    def batch(self, number: int) -> list[Stretch]:
        """The stretches of a batch, counted from 0 over all epochs."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._planned(epoch))
        return self._epoch[1][place]

    def _capped(self, length: int) -> int:
        return length if self.crop is None else min(length, self.crop)

    def _planned(self, epoch: int) -> list[list[Stretch]]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "epoch", epoch))
        # Shuffled before a stable sort: utterances of one bin of lengths meet others in each epoch. One generator draws
        # utterances, places and batches, in this order: another order would be another training for the same seed.
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        order = sorted(shuffled, key=self._bins.__getitem__)
        # float64: float32 has 2^24 places, as many as there are samples in 17 minutes at 16 kHz.
        places = torch.rand(len(self.lengths), generator=generator, dtype=torch.float64).tolist()
        # `_groups` is the same in every epoch, because the sorted bins are.
        batches = [[self._stretch(index, places[index]) for index in order[first:end]] for first, end in self._groups]
        # The batches are formed in ascending order of length; a second shuffle keeps that order out of the training.
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]

    def _stretch(self, index: int, place: float) -> Stretch:
        length = self._capped(self.lengths[index])
        # `place` in [0, 1) -> start in [0, longest start]
        return Stretch(index, int(place * (self.lengths[index] - length + 1)), length)


def _upper_edge(length: int) -> int:
    """The longest length that counts as equal to `length`."""
    # 1e-9 against rounding: a length that is itself an edge is in its own bin
    number = math.ceil(math.log(length) / math.log(_BIN_WIDTH) - 1e-9)
    return max(length, math.floor(_BIN_WIDTH**number))


def _grouped(edges: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Batches of ascending lengths whose padded size is within the budget, as (first, end) of their indices."""
    groups, first = [], 0
    for index, edge in enumerate(edges):
        # Lengths ascend, so the newest edge is the longest: count * edge is the padded size. `index > first` lets a
        # stretch above the budget be a batch alone.
        if index > first and (index - first + 1) * edge > budget:
            groups.append((first, index))
            first = index
    groups.append((first, len(edges)))
    return groups


def padded(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad tensors (F, …) with zeros at the end: (B, F, …), and (B,) lengths."""
    # B times (F, …) -> (B, longest F, …)
    lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True), lengths
