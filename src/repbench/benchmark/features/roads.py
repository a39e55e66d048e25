"""Where the features of a run are: in memory, in the feature store, or computed again for each window of steps.

The road is chosen from a forecast before anything is computed. It changes no number beyond the last digits that the
composition of a batch changes (docs/design/0026-three-roads.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from repbench.benchmark.features.budget import GIB, Budget
from repbench.benchmark.features.windows import Room
from repbench.errors import EnvironmentFault

RoadName = Literal["memory", "store", "recompute"]
Wanted = Literal["auto", "memory", "store", "recompute"]
"""The setting `resources.road`."""

WORKING_BYTES = 256 * 2**20
"""Memory for everything that does not grow with the corpus, such as the activations of a batch."""
INDEX_BYTES = 40
"""Memory for each training frame's number, class and place in the order of the batches."""
CHUNK_BYTES = 2 * 2**30
"""Most bytes of features that are computed and not yet used or dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What the features of a run would take.

    Attributes:
        num_frames: Frames of all utterances that are read.
        num_layers: Layers of each frame that are extracted.
        width: Dimensions of each layer.
        dtype: What they are rounded to, and stored in.
        missing_frames: Those of utterances that the store lacks.
        drawn_frames: Frames that one training draws at most, repeats included; 0 where features are read in order.
        batch_frames: Most frames of one of its batches.
        trainings: Number of trainings.
    """

    num_frames: int
    num_layers: int
    width: int
    dtype: torch.dtype
    missing_frames: int
    drawn_frames: int = 0
    batch_frames: int = 0
    trainings: int = 1

    @property
    def table_bytes(self) -> int:
        """All features in memory, as float32."""
        return self.num_frames * self.num_layers * self.width * 4

    @property
    def row_bytes(self) -> int:
        """One frame of all layers, as it is stored."""
        return self.num_layers * self.width * self.dtype.itemsize

    @property
    def store_bytes(self) -> int:
        """What the store would grow by."""
        return self.missing_frames * self.row_bytes

    @property
    def window_bytes(self) -> int:
        """The rows of one whole training."""
        return min(self.drawn_frames, self.num_frames) * self.row_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """The road of some features.

    Attributes:
        name: `memory`: all in one table; `store`: windows of rows, filled from the store; `recompute`: windows of rows,
            filled by the upstream.
        room: Of a window; None for a table.
        passes: How often each training goes over its utterances.
    """

    name: RoadName
    room: Room | None = None
    passes: int = 1


def choose_road(need: Need, budget: Budget, *, store_room_bytes: float, folder: Path, wanted: Wanted = "auto") -> Road:
    """The first road that the budget allows, of memory, store and recompute.

    Args:
        need: What the features would take.
        budget: What the run may use.
        store_room_bytes: What the store may still grow by; 0 where there is none.
        folder: Folder of temporary files.
        wanted: The only road that is tried.

    Raises:
        EnvironmentFault: Neither of the roads, or not the wanted one, keeps to the budget.
    """
    free = budget.free_memory_bytes - WORKING_BYTES - need.num_frames * INDEX_BYTES
    if wanted in {"auto", "memory"} and need.table_bytes + _batch_bytes(need) <= free:
        return Road(name="memory")
    if wanted == "memory":
        raise _does_not_fit(need, budget, need.table_bytes + _batch_bytes(need) - free)
    # What is stored already costs no disk, whatever the budget.
    fits_store = need.store_bytes <= min(store_room_bytes, budget.disk_bytes) or not need.missing_frames
    if wanted == "store" and not fits_store:
        raise EnvironmentFault(
            f"The features need {_gib(need.store_bytes)} more in the store, which may grow by "
            f"{_gib(min(store_room_bytes, budget.disk_bytes))}",
            key="resources.road",
            do="Raise resources.disk_gib and extraction.store_gib, set extraction.dtype to float16, or take recompute",
        )
    name: RoadName = "store" if fits_store and wanted != "recompute" else "recompute"
    room = _room(need, free, budget.disk_bytes - (need.store_bytes if name == "store" else 0), folder)
    if room.window_bytes < need.batch_frames * need.row_bytes or free < room.chunk_bytes + _batch_bytes(need):
        # `_room` takes a third of what is free for chunks, and a batch and its rows must fit the rest.
        least = (_batch_bytes(need) + need.batch_frames * need.row_bytes) * 3 // 2
        raise _does_not_fit(need, budget, least - free)
    drawn_bytes = need.drawn_frames * need.row_bytes
    passes = 1 if need.window_bytes <= room.window_bytes else math.ceil(drawn_bytes / room.window_bytes)
    return Road(name=name, room=room, passes=passes)


def _batch_bytes(need: Need) -> int:
    """A batch, its standardised copy and its gradient, as float32."""
    return 3 * need.batch_frames * need.num_layers * need.width * 4


def _room(need: Need, free: int, disk_bytes: int, folder: Path) -> Room:
    """The window in memory if it holds all that is drawn, or more than the disk would; else in a file."""
    chunk = max(2**20, min(CHUNK_BYTES, free // 8))
    # A chunk is there twice for a moment: as computed, and its kept rows.
    in_memory = max(0, free - 2 * chunk - _batch_bytes(need))
    on_disk = max(0, disk_bytes)
    keeps_file = in_memory < need.window_bytes and on_disk > in_memory
    window = min(max(need.window_bytes, 1), on_disk if keeps_file else in_memory)
    return Room(window_bytes=window, chunk_bytes=chunk, folder=folder if keeps_file else None, dtype=need.dtype)


def forecast(need: Need, budget: Budget, road: Road) -> str:
    """The choice in one line: what each road would take, what there is, and what is done."""
    what = f"{need.num_frames:,} frames of {need.num_layers} x {need.width}"
    takes = f"would take {_gib(need.table_bytes)} of memory or {_gib(need.store_bytes)} of disk"
    has = f"{_gib(budget.memory_bytes)} and {_gib(budget.disk_bytes)} may be used"
    source = "read from the store" if road.name == "store" else "computed again"
    times = f"{road.passes} time{'s' * (road.passes != 1)}" + (" for each training" if need.trainings > 1 else "")
    return f"features ({what}) {takes}; {has}: they are {source} {times} (resources.road {road.name})"


def _does_not_fit(need: Need, budget: Budget, lacking: int) -> EnvironmentFault:
    enough = math.ceil((budget.memory_bytes + lacking) / GIB * 10 + 1) / 10
    return EnvironmentFault(
        f"A run on {need.num_frames:,} frames of {need.num_layers} layers of {need.width} does not fit "
        f"{_gib(budget.memory_bytes)} of memory, of which {_gib(budget.used_bytes)} are used already",
        key="resources.memory_gib",
        do=f"Give {enough:g}, lower probe.batch_frames or probe.batch_utterances, or take fewer layers",
    )


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.{0 if num_bytes >= 10 * GIB else 1 if num_bytes >= GIB else 3}f} GiB"
