"""The features of a split as probes read them: rows by number, spans of utterances in order, blocks for statistics.

A `FeatureTable` holds all of them in one tensor. `features.windows` gives the same numbers where they do not fit: it
holds only the rows that the next steps draw, so it is told which steps follow.

Axes: L layers, N frames of all utterances together, D width, R rows of a batch, F frames of an utterance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor

from repbench.downstream.heads.products import each_part
from repbench.downstream.heads.workers import in_parts

Span = tuple[int, int]
"""First row and number of rows of consecutive frames."""

Ahead = Callable[[], Iterable[Tensor]]
"""The rows (R,) of the batches that follow, as far as they are drawn already."""

Finish = Callable[[Tensor], object]
"""Changes rows (L, R, D) that were just gathered, in place; any rows, and in any of several threads."""

Result = TypeVar("Result")
OfBlock = Callable[[Tensor], Result]
"""From a block of frames (L, R, D) float32 to what is kept of it."""


def as_they_are(rows: Tensor) -> None:
    """Do nothing to gathered rows."""


def rows_of(spans: Iterable[Span]) -> Tensor:
    """(R,) int64, the numbers of the rows of some spans, one after the other."""
    return torch.cat([torch.arange(start, start + count) for start, count in spans])


class Features(ABC):
    """The features of many utterances, one after the other: N rows of L layers.

    Attributes:
        counts: Frames of each utterance, in the order of `ids`.
        ids: Ids of the utterances.
    """

    counts: tuple[int, ...]
    ids: tuple[str, ...]

    def starts(self) -> dict[str, Span]:
        """From the id of each utterance to its first row and its number of frames."""
        starts, start = {}, 0
        for id_, count in zip(self.ids, self.counts, strict=True):
            starts[id_] = (start, count)
            start += count
        return starts

    @property
    @abstractmethod
    def is_at_hand(self) -> bool:
        """Whether all rows are in memory, so that reading them a second time costs next to nothing."""

    @abstractmethod
    def of_layers(self, layers: slice) -> Features:
        """The same utterances with some of the layers."""

    @abstractmethod
    def gather(
        self, rows: Tensor, ahead: Ahead = lambda: (), out: Tensor | None = None, finish: Finish = as_they_are
    ) -> Tensor:
        """(L, R, D) float32, the rows (R,) int64 in their order.

        Args:
            rows: Numbers of the rows.
            ahead: What the next calls will ask for.
            out: (L, R, D) memory for the result, which may be used.
            finish: Done once to each row of the result.
        """

    def gather_spans(self, spans: Sequence[Span], ahead: Ahead = lambda: (), finish: Finish = as_they_are) -> Tensor:
        """As `gather`, the rows of whole spans."""
        return self.gather(rows_of(spans), ahead, finish=finish)

    @abstractmethod
    def spans(self, groups: Iterable[Sequence[Span]]) -> Iterator[Tensor]:
        """For each group of spans in turn its frames (L, F, D) float32, those of its spans one after the other.

        They may be a view of the features: not to be written to.
        """

    @abstractmethod
    def of_blocks(self, of_block: OfBlock[Result]) -> Iterator[Result]:
        """The results of a function of blocks (L, R, D) that hold each frame once; it may run in several threads."""


class FeatureTable(Features):
    """Features in one tensor.

    Args:
        frames: (L, N, D) float32.
        counts: Frames of each utterance, in the order of `ids`.
        ids: Ids of the utterances.
    """

    is_at_hand = True

    def __init__(self, frames: Tensor, counts: tuple[int, ...], ids: tuple[str, ...]) -> None:
        self.frames = frames
        self.counts = counts
        self.ids = ids

    def to(self, device: torch.device) -> FeatureTable:
        """The same table with its frames on a device."""
        return FeatureTable(self.frames.to(device), self.counts, self.ids)

    def of_layers(self, layers: slice) -> FeatureTable:
        return FeatureTable(self.frames[layers], self.counts, self.ids)

    def gather(
        self, rows: Tensor, ahead: Ahead = lambda: (), out: Tensor | None = None, finish: Finish = as_they_are
    ) -> Tensor:
        frames = self.frames
        if out is None:
            out = frames.new_empty(len(frames), len(rows), frames.shape[-1])
        chosen, gathered = rows.to(frames.device), out

        def work(part: Sequence[tuple[int, int]]) -> None:
            for first, last in part:
                tile = gathered[:, first:last]
                for layer, chosen_of_layer in zip(frames, tile, strict=True):  # two axes go twice as fast as three
                    torch.index_select(layer, 0, chosen[first:last], out=chosen_of_layer)
                finish(tile)  # while it is in the cache

        if frames.device.type == "cpu":
            each_part(work, len(rows))
        else:
            work([(0, len(rows))])
        return gathered

    def gather_spans(self, spans: Sequence[Span], ahead: Ahead = lambda: (), finish: Finish = as_they_are) -> Tensor:
        if finish is as_they_are:  # nothing keeps a thread busy: one call for all, of which a step on means has 16 rows
            return torch.cat([self.frames[:, start : start + count] for start, count in spans], dim=1)
        frames, places = self.frames, [0, *accumulate(count for _, count in spans)]
        gathered = frames.new_empty(len(frames), places[-1], frames.shape[-1])

        def work(number: int) -> None:  # rows that follow each other are copied in half the time of rows by number
            start, count = spans[number]
            own = gathered[:, places[number] : places[number] + count]
            own.copy_(frames[:, start : start + count])
            finish(own)

        in_parts(work, len(spans))
        return gathered

    def spans(self, groups: Iterable[Sequence[Span]]) -> Iterator[Tensor]:
        for group in groups:
            follows = all(sum(one) == other for one, (other, _) in pairwise(group))
            # a view where the spans are next to each other, and so without a copy
            yield self.frames[:, group[0][0] : sum(group[-1])] if follows else self.gather_spans(group)

    def of_blocks(self, of_block: OfBlock[Result]) -> Iterator[Result]:
        yield of_block(self.frames)
