"""Write shards of the feature store beside the computation of what comes next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from repbench.benchmark.features.shards import StoredKey, UnwrittenLayer
from repbench.errors import EnvironmentFault

SHARD_BYTES = 32 * 2**20
"""Size at which a shard is written; until then its entries are kept in memory."""
SHARD_SECONDS = 20.0
"""Time after which a shard is written: the most work that a kill can cost."""


class ShardStore(Protocol):
    """The part of a feature store that a writer needs."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is stored."""

    def write(self, entries: Sequence[UnwrittenLayer], replaced: Sequence[StoredKey]) -> None:
        """Write a shard."""

    def close_after(self, error: EnvironmentFault | OSError) -> None:
        """Store nothing more, after a shard could not be written."""


class ShardWriter:
    """Collects entries and writes them as a shard when they are many or old enough.

    A shard is hashed and written in a thread, while the next one is collected; there are never more than these two.
    """

    def __init__(self, store: ShardStore, replaced: Sequence[StoredKey]) -> None:
        self._store = store
        self._replaced = list(replaced)
        self._entries: list[UnwrittenLayer] = []
        self._num_bytes = 0
        self._started = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write")  # begins with the first shard
        self._writing: Future[None] | None = None

    def add(self, sound: str, layer: int, batch: str, frames: Tensor) -> None:
        """Add (F, D) frames."""
        if self._store.is_closed:
            return
        data = frames.contiguous().view(torch.uint8).numpy().tobytes()
        self._entries.append(UnwrittenLayer(sound=sound, layer=layer, batch=batch, data=data))
        self._num_bytes += len(data)

    def write_if_due(self) -> None:
        """Begin to write what was added, if it is many bytes or old."""
        if self._num_bytes >= SHARD_BYTES or time.monotonic() - self._started >= SHARD_SECONDS:
            self._begin()

    def write(self) -> None:
        """Write what was added, and wait until it is written."""
        self._begin()
        self._wait()

    def _begin(self) -> None:
        self._wait()
        if (self._entries or self._replaced) and not self._store.is_closed:
            self._writing = self._thread.submit(self._store.write, self._entries, self._replaced)
        self._entries, self._replaced, self._num_bytes = [], [], 0
        self._started = time.monotonic()

    def _wait(self) -> None:
        """Wait for the shard that is being written; where it cannot be, the store closes with a note."""
        writing, self._writing = self._writing, None
        try:
            if writing is not None:
                writing.result()
        except (EnvironmentFault, OSError) as error:
            self._store.close_after(error)
