"""Features that fit neither memory nor disk as a whole: only the rows that the next training steps draw are kept.

A window holds the rows of as many steps as fit it. When a step draws a row that the window lacks, the utterances of the
next steps' rows are computed again (or read from the feature store), and all other rows are dropped at once. So a
training makes one pass over its utterances for each window of steps, and draws the same rows as with all features in
memory. Statistics need each row once, in any order; dev and test in order: they take chunk after chunk
(docs/design/0026-three-roads.md).

Axes: L layers, N frames of all utterances together, D width, R rows of a batch or window, F frames of an utterance.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from repbench.benchmark.features.batch_work import Kept, Take
from repbench.benchmark.features.table import Ahead, Features, Finish, OfBlock, Span, as_they_are
from repbench.downstream.heads.products import each_part
from repbench.errors import EnvironmentFault
from repbench.files import TEMPORARY_PREFIX
from repbench.progress import Advance, Silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The room for a window.

    Attributes:
        window_bytes: Most bytes of the rows of a window.
        chunk_bytes: Most bytes of frames that are computed and not yet used or dropped; one utterance may be more.
        folder: Folder of a file without a name that holds the window; None: it is in memory.
        dtype: What the features are rounded to, so that nothing is lost when a window is kept in it.
    """

    window_bytes: int
    chunk_bytes: int
    folder: Path | None = None
    dtype: torch.dtype = torch.float32


class FrameSource(ABC):
    """The frames of utterances, which are computed or read each time that they are asked for.

    Args:
        counts: Frames of each utterance.
        shape: L and D of the frames.
        chunk_bytes: As in `Room`.
    """

    def __init__(self, counts: tuple[int, ...], shape: tuple[int, int], chunk_bytes: int) -> None:
        self.counts = counts
        self.shape = shape
        self._chunk_bytes = chunk_bytes

    @abstractmethod
    def frames(self, numbers: Sequence[int]) -> Tensor:
        """The frames (L, N, D) float32 of some utterances, one utterance after the other."""

    def take_each(
        self, numbers: Sequence[int], take: Take[Kept], rows: Mapping[int, Tensor] | None = None
    ) -> Iterator[tuple[int, Kept]]:
        """What `take` keeps of the frames of each utterance, in any order.

        Args:
            numbers: Of the utterances.
            take: Called with the number of an utterance and frames (L, R, D), rounded; perhaps in several threads.
            rows: From each number to the rows (R,) of its F frames that `take` gets; None: all.
        """
        for chunk in self.chunks(numbers):
            each = torch.split(self.frames(chunk), [self.counts[number] for number in chunk], dim=1)  # (L, F, D)
            for number, frames in zip(chunk, each, strict=True):
                yield number, take(number, frames if rows is None else frames.index_select(1, rows[number]))

    def stage(self, purpose: str) -> AbstractContextManager[Advance]:
        """A stage of progress for one pass over some utterances; here one that nobody watches."""
        return Silence().stage(purpose)

    def chunks(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Consecutive numbers, as many as may be computed at once."""
        chunk: list[int] = []
        size = 0
        for number in numbers:
            own = self.bytes_of([number])
            if chunk and size + own > self._chunk_bytes:
                yield chunk
                chunk, size = [], 0
            chunk.append(number)
            size += own
        if chunk:
            yield chunk

    def bytes_of(self, numbers: Iterable[int]) -> int:
        """Size of the frames of utterances: all layers, float32."""
        num_layers, width = self.shape
        return sum(self.counts[number] for number in numbers) * num_layers * width * 4


class WindowedFeatures(Features):
    """Features of which a window is kept, and the rest is computed when it is needed.

    Args:
        source: Gives the frames of some utterances.
        ids: Ids of the utterances.
        room: For each window.
        layers: The layers to keep.
    """

    is_at_hand = False

    def __init__(
        self,
        source: FrameSource,
        ids: tuple[str, ...],
        room: Room,
        layers: slice = slice(None),
    ) -> None:
        self.counts = source.counts
        self.ids = ids
        self._source, self._room, self._layers = source, room, layers
        self._ends = torch.tensor(self.counts, dtype=torch.int64).cumsum(dim=0)
        self._window: Window | None = None
        self.num_fills = 0

    def of_layers(self, layers: slice) -> WindowedFeatures:
        kept = range(self._source.shape[0])[self._layers][layers]
        chosen = slice(kept.start, kept.stop, kept.step)
        return WindowedFeatures(self._source, self.ids, self._room, chosen)

    def gather(
        self, rows: Tensor, ahead: Ahead = lambda: (), out: Tensor | None = None, finish: Finish = as_they_are
    ) -> Tensor:
        places = None if self._window is None else self._window.places_of(rows)
        if self._window is None or places is None:
            self._window = None  # its memory is free before the next is allocated
            self._window = self._filled(rows, ahead)
            places = self._window.places_of(rows)
            assert places is not None
        # (R, L, D) -> (L, R, D)
        gathered = self._window.read(places).float().transpose(0, 1)
        each_part(lambda part: [finish(gathered[:, first:last]) for first, last in part], len(rows))
        return gathered

    def spans(self, groups: Iterable[Sequence[Span]]) -> Iterator[Tensor]:
        numbers = {(end - count, count): number for number, (end, count) in enumerate(self._ends_and_counts())}
        # Who reads a chunk standardises a copy of it, while the next one is computed: four times its size together.
        most = self._room.chunk_bytes // 4
        wanted = [[numbers[span] for span in group] for group in groups]
        total = sum(map(len, wanted))
        done = 0
        waiting: list[list[int]] = []
        with self._source.stage("in order") as advance:
            for group in wanted:
                waiting.append(group)
                done += len(group)
                if done == total or self._source.bytes_of(number for each in waiting for number in each) > most:
                    yield from self._computed(waiting)
                    advance(done, total)
                    waiting = []

    def of_blocks(self, of_block: OfBlock[Kept]) -> Iterator[Kept]:
        def take(number: int, frames: Tensor) -> Kept:
            return of_block(frames[self._layers].float())

        numbers = [number for number, count in enumerate(self.counts) if count]
        with self._source.stage("every frame once") as advance:
            for done, (_, kept) in enumerate(self._source.take_each(numbers, take), start=1):
                advance(done, len(numbers))
                yield kept

    def _ends_and_counts(self) -> Iterator[tuple[int, int]]:
        return zip(self._ends.tolist(), self.counts, strict=True)

    def _computed(self, groups: Sequence[Sequence[int]]) -> Iterator[Tensor]:
        """The frames (L, F, D) of each group of utterances, computed together."""
        frames = self._source.frames([number for group in groups for number in group])[self._layers]
        sizes = [sum(self.counts[number] for number in group) for group in groups]
        return iter(torch.split(frames, sizes, dim=1))

    def _filled(self, rows: Tensor, ahead: Ahead) -> Window:
        """A window with these rows, and those of as many of the batches ahead as fit it."""
        num_layers, width = len(range(self._source.shape[0])[self._layers]), self._source.shape[1]
        most = self._room.window_bytes // (num_layers * width * self._room.dtype.itemsize)
        held = self._rows_of_a_window(rows, ahead, most)
        window = Window(held, num_layers, width, self._room)
        of_row = torch.searchsorted(self._ends, held, right=True)  # (R,) the utterance of each row
        starts = self._ends - torch.tensor(self.counts)
        needed, num_rows = torch.unique_consecutive(of_row, return_counts=True)
        numbers = needed.tolist()
        inside = dict(zip(numbers, torch.split(held - starts[of_row], num_rows.tolist()), strict=True))
        firsts = dict(zip(numbers, (num_rows.cumsum(dim=0) - num_rows).tolist(), strict=True))

        def take(number: int, frames: Tensor) -> Tensor:
            # (L, R, D) -> (R, L, D): what a step draws of a frame lies together
            return frames[self._layers].transpose(0, 1).to(self._room.dtype).contiguous()

        self.num_fills += 1
        with self._source.stage(f"window {self.num_fills}") as advance:
            for done, (number, kept) in enumerate(self._source.take_each(numbers, take, inside), start=1):
                window.write(firsts[number], kept)
                advance(done, len(numbers))
        return window

    @staticmethod
    def _rows_of_a_window(rows: Tensor, ahead: Ahead, most: int) -> Tensor:
        """(R,) ascending, the rows of a batch and of batches that follow it, at most `most`.

        Raises:
            EnvironmentFault: The batch alone has more.
        """
        wanted = [torch.unique(rows)]
        if len(wanted[0]) > most:
            raise EnvironmentFault(
                f"A batch of {len(wanted[0])} frames does not fit the {most} that the memory has room for",
                key="resources.memory_gib",
                do="Raise it, lower probe.batch_frames or probe.batch_utterances, or take fewer layers",
            )
        size = len(wanted[0])
        for batch in ahead():
            wanted.append(batch)
            size += len(batch)
            if size > most:  # perhaps not, as rows that are drawn twice are kept once
                together = torch.unique(torch.cat(wanted))
                if len(together) > most:
                    wanted.pop()
                    break
                wanted, size = [together], len(together)
        held: Tensor = torch.unique(torch.cat(wanted))
        return held


class _Memory(Protocol):
    """Where the rows of a window are: each (L, D) in the dtype of the window."""

    def write(self, first: int, rows: Tensor) -> None:
        """Keep rows (R, L, D), from the row `first` on."""

    def read(self, places: Tensor) -> Tensor:
        """(R, L, D), the rows at these places."""


class Window:
    """Some rows of all features.

    Args:
        rows: (R,) ascending, their numbers.
        num_layers: L.
        width: D.
        room: Where they are kept, and in which dtype.
    """

    def __init__(self, rows: Tensor, num_layers: int, width: int, room: Room) -> None:
        self._rows = rows
        shape = (len(rows), num_layers, width)
        self._memory: _Memory = _InMemory(shape, room.dtype) if room.folder is None else _InFile(shape, room)

    def places_of(self, rows: Tensor) -> Tensor | None:
        """(R,) the places of rows in this window; None if it lacks one."""
        places = torch.searchsorted(self._rows, rows).clamp_max_(len(self._rows) - 1)
        return places if torch.equal(self._rows[places], rows) else None

    def write(self, first: int, rows: Tensor) -> None:
        """Keep rows (R, L, D), from the place `first` on."""
        self._memory.write(first, rows)

    def read(self, places: Tensor) -> Tensor:
        """(R, L, D), the rows at these places, in the dtype of the window."""
        return self._memory.read(places)


class _InMemory:
    def __init__(self, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
        self._rows = torch.empty(shape, dtype=dtype)

    def write(self, first: int, rows: Tensor) -> None:
        self._rows[first : first + len(rows)] = rows

    def read(self, places: Tensor) -> Tensor:
        return self._rows.index_select(0, places)


class _InFile:
    """Rows in a file without a name, read one by one: pages of a mapped file would count as memory of the process."""

    def __init__(self, shape: tuple[int, int, int], room: Room) -> None:
        assert room.folder is not None
        self._shape, self._dtype = shape, room.dtype
        self._row_bytes = shape[1] * shape[2] * room.dtype.itemsize
        room.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=room.folder, prefix=TEMPORARY_PREFIX) as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        try:
            # a file with holes would fail in the middle of a pass, when the disk is full
            os.posix_fallocate(self._descriptor, 0, max(1, shape[0] * self._row_bytes))
        except OSError as error:
            raise EnvironmentFault(
                f"{shape[0] * self._row_bytes / 2**30:.1f} GiB cannot be written ({error})",
                file=room.folder,
                key="resources.disk_gib",
                do="Lower it, or free space on this disk",
            ) from error

    def write(self, first: int, rows: Tensor) -> None:
        data = memoryview(rows.view(torch.uint8).numpy().reshape(-1).data)
        offset = first * self._row_bytes
        while data:  # a system writes some 2 GiB at most in one call
            written = os.pwrite(self._descriptor, data, offset)
            data, offset = data[written:], offset + written

    def read(self, places: Tensor) -> Tensor:
        rows = torch.empty(len(places), *self._shape[1:], dtype=self._dtype)
        memory = memoryview(rows.view(torch.uint8).numpy().reshape(-1).data)
        size = self._row_bytes
        for number, place in enumerate(places.tolist()):
            if os.preadv(self._descriptor, [memory[number * size : (number + 1) * size]], place * size) != size:
                raise EnvironmentFault("A temporary file was cut off", key="resources.disk_gib", do="Free space")
        return rows
