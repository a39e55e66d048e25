"""The feature store: what a frozen upstream once said of an utterance is not computed again.

An entry is found by content alone: the upstream's fingerprint, the layer, the samples of the utterance with their rate,
the rate and width of the upstream, the dtype, and the resampler where the two rates differ. So a changed weight, sample
or field misses, and a moved or touched file hits. Only the layers asked for are stored and read. The store is a help
and never a condition: where it is damaged, full or closed, the features are computed as if it were not there, and a
line says so.

Axes: L layers, F frames, D width, N frames of all utterances together.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from repbench.audio.resample import RESAMPLER
from repbench.benchmark.features.allocation import SPARE_BYTES, free_bytes, room_for
from repbench.benchmark.features.extraction import (
    FeatureTable,
    Outline,
    batch_samples,
    length_batches,
    outline,
    run_batches,
)
from repbench.benchmark.features.shards import (
    DAMAGED_SUFFIX,
    DamagedShard,
    Place,
    Shard,
    ShardOrigin,
    StoredLayer,
    UnwrittenLayer,
    open_shard,
    read_index,
    shard_files,
    standing,
    write_shard,
)
from repbench.corpora.contract import Progress, Utterance
from repbench.errors import EnvironmentFault
from repbench.files import remove_abandoned
from repbench.upstream.contract import Upstream

SHARD_BYTES = 32 * 2**20
"""Size at which a shard is closed; until then its entries lie in memory."""
SHARD_SECONDS = 20.0
"""Time after which a shard is closed: how much work a kill can cost."""
MOST_READERS = 8
"""Shards that are read at once, at most."""
GIB = 2**30

Cell = tuple[int, int]
"""Index of an utterance and of a layer."""


class FeatureStore:
    """The stored features of one upstream in one dtype.

    Args:
        folder: Of all stores; need not exist.
        upstream: In eval mode.
        fingerprint: Of the upstream.
        name: What the upstream is called here; not part of any key.
        dtype: float32, float16 or bfloat16.
        precision: Of the upstream's matrix products, float32 or bfloat16.
        quota_bytes: Most that the folder may come to hold.
        say: Told, once each, of damage, and of why nothing more is stored.
    """

    def __init__(
        self,
        folder: Path,
        upstream: Upstream,
        *,
        fingerprint: str,
        name: str,
        dtype: str,
        precision: str = "float32",
        quota_bytes: float,
        say: Callable[[str], None],
    ) -> None:
        info = upstream.info
        self._root = folder
        self._upstream = upstream
        self._name = name
        self._quota_bytes = quota_bytes
        self._say = say
        self._streams = False
        self._origin = ShardOrigin(
            fingerprint=fingerprint,
            sample_rate_hz=info.sample_rate_hz,
            width=info.width,
            dtype=dtype,
            precision=precision,
        )
        self._folder = folder / self._origin.folder_name()

    def extract(
        self,
        utterances: Sequence[Utterance],
        layers: Sequence[int],
        *,
        batch_seconds: float,
        device: torch.device,
        progress: Progress | None = None,
    ) -> FeatureTable:
        """What `features.extraction.extract` gives, read where it is stored; arguments and errors as there."""
        plan = outline(self._upstream, utterances)
        frames = room_for((len(layers), sum(plan.counts), self._upstream.info.width), self._root)
        replaced: list[Place] = []
        read = self._read(plan, layers, frames, replaced)
        missing = {
            index: lacking
            for index in range(len(utterances))
            if (lacking := [layer for layer in layers if (index, layer) not in read])
        }
        done = len(utterances) - len(missing)
        if progress is not None and done:
            progress(done, len(utterances))
        self._forecast(plan, missing)
        writer = _Writer(self, replaced)
        try:
            batches = self._batches(plan, missing, read, batch_samples(self._upstream, batch_seconds))
            for batch, features in run_batches(
                self._upstream,
                plan,
                layers,
                batches,
                device=device,
                dtype=self._origin.dtype,
                precision=self._origin.precision,
            ):
                together = self._batch_name(plan, batch)
                for index, rounded in zip(batch, features, strict=True):
                    for layer in missing.get(index, ()):
                        place = layers.index(layer)
                        frames[place, plan.places[index]] = rounded[place]
                        writer.add(self._sound(plan.utterances[index]), layer, together, rounded[place])
                writer.close_if_due()
                done += sum(index in missing for index in batch)
                if progress is not None:
                    progress(done, len(utterances))
        finally:
            writer.close()
        return plan.table(frames)

    def lacking(self, utterances: Sequence[Utterance], layers: Sequence[int]) -> list[Utterance]:
        """Those of which one of the layers is not stored."""
        places = standing(self._shards())
        return [each for each in utterances if any((self._sound(each), layer) not in places for layer in layers)]

    def _sound(self, utterance: Utterance) -> str:
        """What the content of an utterance is called in the shards."""
        return _sound(utterance, self._origin.sample_rate_hz)

    def _batch_name(self, plan: Outline, batch: Sequence[int]) -> str:
        sounds = " ".join(self._sound(plan.utterances[index]) for index in batch)
        return hashlib.sha256(sounds.encode("ascii")).hexdigest()[:16]

    @property
    def streams(self) -> bool:
        """Whether nothing more is stored."""
        return self._streams

    def write(self, drafts: Sequence[UnwrittenLayer], replaced: Sequence[Place]) -> None:
        """Store what was computed, unless nothing is stored any more."""
        if self.streams:
            return
        try:
            write_shard(self._folder, self._origin, self._name, drafts, replaced)
        except (EnvironmentFault, OSError) as error:
            self._stream(f"the feature store cannot be written to ({_reason(error)})")

    def _read(
        self, plan: Outline, layers: Sequence[int], frames: Tensor, replaced: list[Place]
    ) -> dict[Cell, StoredLayer]:
        """Fill the table with what is stored, and say which entry filled which cell; damaged ones go to `replaced`."""
        waiting: dict[Path, dict[Cell, list[tuple[Shard, StoredLayer]]]] = {}  # by the shard that is to be asked next
        for cell, found in self._found(plan, layers):
            waiting.setdefault(found[0][0].path, {})[cell] = found
        read: dict[Cell, StoredLayer] = {}
        first_damage = ""

        def read_shard(cells: Mapping[Cell, Sequence[tuple[Shard, StoredLayer]]]) -> list[tuple[Cell, str | None]]:
            (shard, _), *_ = next(iter(cells.values()))
            here = {cell: found[0][1] for cell, found in cells.items()}
            return list(self._read_shard(shard, here, plan, layers, frames))

        with ThreadPoolExecutor(min(torch.get_num_threads(), MOST_READERS)) as readers:  # reading, hashing: no GIL
            while waiting:
                asked, waiting = waiting, {}
                for (path, cells), told in zip(asked.items(), readers.map(read_shard, asked.values()), strict=True):
                    for cell, damage in told:
                        entry = cells[cell][0][1]
                        if damage is None:
                            read[cell] = entry
                            continue
                        if damage:
                            first_damage = first_damage or f"{path}: {damage}"
                            replaced.append((path.stem, entry.sound, entry.layer))
                        if others := cells[cell][1:]:
                            waiting.setdefault(others[0][0].path, {})[cell] = others
        if replaced:
            self._say(f"note: {len(replaced)} stored features are damaged ({first_damage}) and are computed again")
        return read

    def _found(self, plan: Outline, layers: Sequence[int]) -> Iterator[tuple[Cell, list[tuple[Shard, StoredLayer]]]]:
        """Where each utterance and layer of the table stands, of those that are stored."""
        places = standing(self._shards())
        for index, utterance in enumerate(plan.utterances):
            num_bytes = plan.counts[index] * self._upstream.info.width * _dtype(self._origin).itemsize
            for layer in layers:
                stored = places.get((self._sound(utterance), layer), ())
                found = [each for each in stored if each[1].num_bytes == num_bytes]
                if found:
                    yield (index, layer), found

    def _read_shard(
        self, shard: Shard, wanted: Mapping[Cell, StoredLayer], plan: Outline, layers: Sequence[int], frames: Tensor
    ) -> Iterator[tuple[Cell, str | None]]:
        """Read entries of one shard into the table; for each, None or what is wrong with it ("": it is gone)."""
        left = dict(wanted)
        dtype = _dtype(self._origin)
        try:
            with open_shard(shard.path) as reader:
                for (index, layer), entry in wanted.items():
                    place = frames[layers.index(layer), plan.places[index]]  # (F, D)
                    data = place if dtype == torch.float32 else torch.empty(place.shape, dtype=dtype)
                    try:
                        reader.read_into(entry, data.view(torch.uint8).numpy().reshape(-1).data)
                    except DamagedShard as damage:
                        yield (index, layer), str(damage)
                    else:
                        if data is not place:
                            place.copy_(data)
                        yield (index, layer), None
                    del left[index, layer]
        except (DamagedShard, OSError):
            for cell in left:
                yield cell, ""

    def _shards(self) -> list[Shard]:
        remove_abandoned(self._folder)
        shards = []
        for path in shard_files(self._folder):
            try:
                shard = read_index(path)
            except DamagedShard as damage:
                self._say(f"note: stored features are damaged ({path}: {damage}) and are computed again")
                set_aside(path)
            except OSError:
                continue  # removed meanwhile, or out of reach: what it holds is computed
            else:
                if shard.origin == self._origin:
                    shards.append(shard)
        return shards

    def _batches(
        self, plan: Outline, missing: Mapping[int, Sequence[int]], read: Mapping[Cell, StoredLayer], budget: int
    ) -> Iterator[Sequence[int]]:
        """What goes through the upstream together.

        The last digits of a feature may depend on who was in its batch. So a batch of which a part is stored is
        computed whole where that part came of the same batch: the result is the one that was lost. Where it came of
        others, only what is missing is computed.
        """
        stored_mates: dict[int, set[str]] = {}
        for (index, _), entry in read.items():
            stored_mates.setdefault(index, set()).add(entry.batch)
        scattered: list[int] = []
        for batch in length_batches(plan.lengths, budget):
            lacking = [index for index in batch if index in missing]
            mates = set().union(*(stored_mates.get(index, set()) for index in batch if index not in missing))
            if lacking and mates <= {self._batch_name(plan, batch)}:
                yield batch
            else:
                scattered += lacking
        for batch in length_batches([plan.lengths[index] for index in scattered], budget):
            yield [scattered[index] for index in batch]

    def _forecast(self, plan: Outline, missing: Mapping[int, Sequence[int]]) -> None:
        """Decide before anything is computed whether it can be stored: frames x width x layers x bytes."""
        num_frames = sum(plan.counts[index] * len(lacking) for index, lacking in missing.items())
        num_bytes = num_frames * self._upstream.info.width * _dtype(self._origin).itemsize
        if self.streams or not num_bytes:
            return
        taken = bytes_below(self._root)
        if taken + num_bytes > self._quota_bytes:
            quota = f"the quota of {self._quota_bytes / GIB:g} GiB (extraction.store_gib)"
            self._stream(f"{_size(num_bytes)} of features beside {_size(taken)} already stored would exceed {quota}")
        elif (free := free_bytes(self._root)) < num_bytes + SPARE_BYTES:
            self._stream(f"{_size(num_bytes)} of features do not fit the disk, which has {_size(free)} free")

    def _stream(self, why: str) -> None:
        self._streams = True
        self._say(f"note: {why}: features are streamed, not stored")


class _Writer:
    """Gathers entries and closes a shard when it is large or old enough."""

    def __init__(self, store: FeatureStore, replaced: Sequence[Place]) -> None:
        self._store = store
        self._replaced = list(replaced)
        self._drafts: list[UnwrittenLayer] = []
        self._num_bytes = 0
        self._started = time.monotonic()

    def add(self, sound: str, layer: int, batch: str, frames: Tensor) -> None:
        if self._store.streams:
            return
        data = frames.contiguous().view(torch.uint8).numpy().tobytes()
        self._drafts.append(UnwrittenLayer(sound=sound, layer=layer, batch=batch, data=data))
        self._num_bytes += len(data)

    def close_if_due(self) -> None:
        if self._num_bytes >= SHARD_BYTES or time.monotonic() - self._started >= SHARD_SECONDS:
            self.close()

    def close(self) -> None:
        if self._drafts or self._replaced:
            self._store.write(self._drafts, self._replaced)
        self._drafts, self._replaced, self._num_bytes = [], [], 0
        self._started = time.monotonic()


def set_aside(path: Path) -> None:
    """Take what is no shard out of the way: remove a file, rename anything else."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}-{secrets.token_hex(4)}{DAMAGED_SUFFIX}"))
        else:
            path.unlink()


def bytes_below(folder: Path) -> int:
    """Size of all shards in the folders of a store."""
    total = 0
    for path in (each for group in folder.glob("*") for each in shard_files(group)):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _dtype(origin: ShardOrigin) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, origin.dtype)
    return dtype


def _sound(utterance: Utterance, rate_hz: int) -> str:
    """The content of an utterance as an upstream at `rate_hz` takes it.

    That is its samples, the rate that gives them their meaning, and what resamples them where the two rates differ.
    """
    content = f"{utterance.samples_sha256}@{utterance.sample_rate_hz}"
    return content if utterance.sample_rate_hz == rate_hz else f"{content}>{RESAMPLER}"


def _reason(error: Exception) -> str:
    return error.line().rstrip(".") if isinstance(error, EnvironmentFault) else str(error)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= 0.1 * GIB else f"{num_bytes / 2**20:.1f} MiB"
