"""The feature store: features of a frozen upstream are computed once and read from disk afterwards.

An entry is found by content alone: the upstream's fingerprint, the layer, the samples of the utterance with their rate,
the rate and width of the upstream, the dtype, and the resampler where the two rates differ. So a changed weight, sample
or field misses, and a moved or touched file hits. Only the requested layers are stored and read. No run fails because
of the store: if it is damaged, full or not writable, the features are computed without it, and a note says so.

Axes: L layers, F frames, D width, N frames of all utterances together.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from repbench.audio.resample import RESAMPLER
from repbench.benchmark.features.allocation import SPARE_BYTES, allocate_table, free_bytes
from repbench.benchmark.features.extraction import (
    ExtractionOptions,
    TableIndex,
    batch_samples,
    length_batches,
    run_batches,
    table_index,
)
from repbench.benchmark.features.shard_writer import ShardWriter
from repbench.benchmark.features.shards import (
    DAMAGED_SUFFIX,
    DamagedShard,
    Shard,
    ShardOrigin,
    StoredKey,
    StoredLayer,
    UnwrittenLayer,
    current_entries,
    open_shard,
    read_index,
    shard_files,
    write_shard,
)
from repbench.benchmark.features.table import FeatureTable
from repbench.corpora.contract import Progress, Utterance
from repbench.corpora.read import samples_at
from repbench.errors import EnvironmentFault
from repbench.files import remove_abandoned
from repbench.upstream.contract import Upstream
from repbench.upstream.windowed import windows_of

MAX_READERS = 8
"""Most shards that are read at the same time."""
GIB = 2**30

CurrentEntries = Mapping[tuple[str, int], Sequence[tuple[Shard, StoredLayer]]]
"""From a sound and a layer to the entries that store it."""

UtteranceLayer = tuple[int, int]
"""Number of an utterance in the table, and index of a layer."""


class FeatureStore:
    """The stored features of one upstream, with one dtype and precision.

    Args:
        folder: Folder of all stores; need not exist.
        upstream: Model in eval mode.
        origin: What all its entries have in common, as `origin_for` makes it.
        name: Name of the upstream in this run; not part of any key.
        quota_bytes: Most bytes of the folder, over all upstreams.
        say: Receives one line about damage, and one if nothing more is stored.
    """

    def __init__(
        self,
        folder: Path,
        upstream: Upstream,
        origin: ShardOrigin,
        *,
        name: str,
        quota_bytes: float,
        say: Callable[[str], None],
    ) -> None:
        self._root = folder
        self._upstream = upstream
        self._origin = origin
        self._name = name
        self._quota_bytes = quota_bytes
        self._say = say
        self._is_closed = False
        self._folder = folder / origin.folder_name()
        self._known: dict[Path, Shard] = {}
        self._current: tuple[tuple[Path, ...], CurrentEntries] | None = None

    def extract(
        self,
        utterances: Sequence[Utterance],
        layers: Sequence[int],
        options: ExtractionOptions,
        *,
        progress: Progress | None = None,
        pageable: bool = True,
    ) -> FeatureTable:
        """Read the features that are stored, compute and store the others.

        Arguments, result and errors as `features.extraction.extract`; `pageable` as in `features.source.features_of`.

        Raises:
            ValueError: The options have another dtype or precision than the store.
        """
        if (options.dtype, options.precision) != (self._origin.dtype, self._origin.precision):
            raise ValueError(f"the store has the origin {self._origin}, but the options are {options}")
        index = table_index(self._upstream, utterances)
        shape = len(layers), sum(index.counts), self._upstream.info.width  # (L, N, D)
        frames = allocate_table(shape, self._root) if pageable else torch.empty(shape)
        damaged: list[StoredKey] = []
        read = self._read(index, layers, frames, damaged)
        missing = {
            number: lacking
            for number in range(len(utterances))
            if (lacking := [layer for layer in layers if (number, layer) not in read])
        }
        done = len(utterances) - len(missing)
        if progress is not None and done:
            progress(done, len(utterances))
        self._check_space(index, missing)
        writer = ShardWriter(self, damaged)
        try:
            batches = self._batches(index, missing, read, batch_samples(self._upstream, options.batch_seconds))
            for batch, features in run_batches(self._upstream, index, layers, batches, options):
                batch_name = self._batch_name(index, batch)
                for number, computed in zip(batch, features, strict=True):  # computed: (L, F, D)
                    for layer in missing.get(number, ()):
                        row = layers.index(layer)
                        frames[row, index.rows[number]] = computed[row]
                        writer.add(self._sound(index.utterances[number]), layer, batch_name, computed[row])
                writer.write_if_due()
                done += sum(number in missing for number in batch)
                if progress is not None:
                    progress(done, len(utterances))
        finally:
            writer.write()
        return index.table(frames)

    def lacking(self, utterances: Sequence[Utterance], layers: Sequence[int]) -> list[Utterance]:
        """The utterances of which one of the layers is not stored."""
        stored = self._entries()
        return [each for each in utterances if any((self._sound(each), layer) not in stored for layer in layers)]

    def _sound(self, utterance: Utterance) -> str:
        """The key of an utterance in the shards."""
        key = _sound_key(utterance, self._origin.sample_rate_hz)
        windows = windows_of(self._upstream, samples_at(utterance, self._origin.sample_rate_hz))
        return key if windows is None else f"{key} {windows.key()}"

    def _batch_name(self, index: TableIndex, batch: Sequence[int]) -> str:
        sounds = " ".join(self._sound(index.utterances[number]) for number in batch)
        return hashlib.sha256(sounds.encode("ascii")).hexdigest()[:16]

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is stored: the disk or the quota is full, or the folder is not writable."""
        return self._is_closed

    @property
    def room_bytes(self) -> float:
        """What may still be stored: of the quota, or of the disk where that has less."""
        if self.is_closed:
            return 0
        return max(0, min(self._quota_bytes - bytes_below(self._root), free_bytes(self._root) - SPARE_BYTES))

    def read_only(self) -> None:
        """Store nothing more, without a note."""
        self._is_closed = True

    def write(self, entries: Sequence[UnwrittenLayer], replaced: Sequence[StoredKey]) -> None:
        """Write a shard; called beside everything else, in the thread of the writer.

        Raises:
            EnvironmentFault: The disk is full or the folder is not writable.
        """
        write_shard(self._folder, self._origin, self._name, entries, replaced)

    def close_after(self, error: EnvironmentFault | OSError) -> None:
        """Store nothing more, after a shard could not be written."""
        if not self.is_closed:
            self._close(f"the feature store cannot be written to ({_reason(error)})")

    def _read(
        self, index: TableIndex, layers: Sequence[int], frames: Tensor, damaged: list[StoredKey]
    ) -> dict[UtteranceLayer, StoredLayer]:
        """Fill the (L, N, D) table with the stored features.

        Where several shards store the same features, they are tried in order until one is not damaged.

        Returns:
            From each utterance and layer that was read to its entry; damaged entries are appended to `damaged`.
        """
        # By the path of the first shard; the others of an entry are tried if this one is damaged.
        waiting: dict[Path, dict[UtteranceLayer, list[tuple[Shard, StoredLayer]]]] = {}
        for key, entries in self._stored_entries(index, layers):
            waiting.setdefault(entries[0][0].path, {})[key] = entries
        read: dict[UtteranceLayer, StoredLayer] = {}
        first_damage = ""

        def read_shard(
            wanted: Mapping[UtteranceLayer, Sequence[tuple[Shard, StoredLayer]]],
        ) -> list[tuple[UtteranceLayer, str | None]]:
            (shard, _), *_ = next(iter(wanted.values()))
            first = {key: entries[0][1] for key, entries in wanted.items()}
            return list(self._read_shard(shard, first, index, frames, layers))

        # Reading and hashing release the GIL.
        with ThreadPoolExecutor(min(torch.get_num_threads(), MAX_READERS)) as readers:
            while waiting:
                current, waiting = waiting, {}
                outcomes = readers.map(read_shard, current.values())
                for (path, wanted), outcome in zip(current.items(), outcomes, strict=True):
                    for key, damage in outcome:
                        entry = wanted[key][0][1]
                        if damage is None:
                            read[key] = entry
                            continue
                        if damage:
                            first_damage = first_damage or f"{path}: {damage}"
                            damaged.append((path.stem, entry.sound, entry.layer))
                        if others := wanted[key][1:]:
                            waiting.setdefault(others[0][0].path, {})[key] = others
        if damaged:
            self._say(f"note: {len(damaged)} stored features are damaged ({first_damage}) and are computed again")
        return read

    def _stored_entries(
        self, index: TableIndex, layers: Sequence[int]
    ) -> Iterator[tuple[UtteranceLayer, list[tuple[Shard, StoredLayer]]]]:
        """The entries, of the expected size, of each utterance and layer that is stored."""
        stored = self._entries()
        for number, utterance in enumerate(index.utterances):
            num_bytes = index.counts[number] * self._upstream.info.width * _dtype(self._origin).itemsize
            for layer in layers:
                same_key = stored.get((self._sound(utterance), layer), ())
                entries = [each for each in same_key if each[1].num_bytes == num_bytes]
                if entries:
                    yield (number, layer), entries

    def _read_shard(
        self,
        shard: Shard,
        wanted: Mapping[UtteranceLayer, StoredLayer],
        index: TableIndex,
        frames: Tensor,
        layers: Sequence[int],
    ) -> Iterator[tuple[UtteranceLayer, str | None]]:
        """Read entries of one shard into the (L, N, D) table.

        Yields:
            Each utterance and layer with None, the damage of its entry, or "" if the shard was removed.
        """
        left = dict(wanted)
        dtype = _dtype(self._origin)
        try:
            with open_shard(shard.path) as reader:
                for (number, layer), entry in wanted.items():
                    target = frames[layers.index(layer), index.rows[number]]  # (F, D)
                    data = target if dtype == torch.float32 else torch.empty(target.shape, dtype=dtype)
                    try:
                        reader.read_into(entry, data.view(torch.uint8).numpy().reshape(-1).data)
                    except DamagedShard as damage:
                        yield (number, layer), str(damage)
                    else:
                        if data is not target:
                            target.copy_(data)
                        yield (number, layer), None
                    del left[number, layer]
        except (DamagedShard, OSError):
            for key in left:
                yield key, ""

    def _entries(self) -> CurrentEntries:
        """The current entries of the store; a folder that did not change is not understood a second time."""
        shards = self._shards()
        paths = tuple(shard.path for shard in shards)
        if self._current is None or self._current[0] != paths:
            self._current = paths, current_entries(shards)
        return self._current[1]

    def _shards(self) -> list[Shard]:
        remove_abandoned(self._folder)
        shards = []
        for path in shard_files(self._folder):
            try:
                # A shard never changes under its name, which is the digest of its index.
                shard = self._known[path] if path in self._known else read_index(path)
            except DamagedShard as damage:
                self._say(f"note: stored features are damaged ({path}: {damage}) and are computed again")
                discard(path)
            except OSError:
                continue  # removed by another process, or not readable: its features are computed
            else:
                self._known[path] = shard
                if shard.origin == self._origin:
                    shards.append(shard)
        return shards

    def _batches(
        self,
        index: TableIndex,
        missing: Mapping[int, Sequence[int]],
        read: Mapping[UtteranceLayer, StoredLayer],
        max_samples: int,
    ) -> Iterator[Sequence[int]]:
        """The batches to compute, as numbers of utterances.

        The last digits of a feature may depend on the other utterances of its batch. So a batch of which a part is
        stored is computed whole where that part was computed in the same batch: the result is the one that was lost.
        Where the stored part was computed in other batches, only the missing utterances are computed.
        """
        stored_batches: dict[int, set[str]] = {}
        for (number, _), entry in read.items():
            stored_batches.setdefault(number, set()).add(entry.batch)
        return self._batches_lacking(index, missing, stored_batches, max_samples)

    def _batches_lacking(
        self,
        index: TableIndex,
        missing: Container[int],
        stored_batches: Mapping[int, Collection[str]],
        max_samples: int,
    ) -> Iterator[Sequence[int]]:
        """The batches to compute, as numbers of utterances, of which `missing` holds those that lack a layer.

        Args:
            index: All utterances.
            missing: Numbers of the utterances that lack a layer.
            stored_batches: Names, as `_batch_name` gives them, of the batches that computed what is stored of each.
            max_samples: Most samples of a batch, padding included.
        """
        scattered: list[int] = []
        for batch in length_batches(index.lengths, max_samples):
            lacking = [number for number in batch if number in missing]
            names = set[str]().union(*(stored_batches.get(number, ()) for number in batch if number not in missing))
            if lacking and names <= {self._batch_name(index, batch)}:
                yield batch
            else:
                scattered += lacking
        for batch in length_batches([index.lengths[number] for number in scattered], max_samples):
            yield [scattered[position] for position in batch]

    def _check_space(self, index: TableIndex, missing: Mapping[int, Sequence[int]]) -> None:
        """Close the store before anything is computed if the missing features exceed the quota or the disk."""
        num_frames = sum(index.counts[number] * len(lacking) for number, lacking in missing.items())
        num_bytes = num_frames * self._upstream.info.width * _dtype(self._origin).itemsize
        if self.is_closed or not num_bytes:
            return
        stored = bytes_below(self._root)
        if stored + num_bytes > self._quota_bytes:
            quota = f"the quota of {self._quota_bytes / GIB:g} GiB (extraction.store_gib)"
            self._close(f"{_size(num_bytes)} of features and {_size(stored)} already stored would exceed {quota}")
        elif (free := free_bytes(self._root)) < num_bytes + SPARE_BYTES:
            self._close(f"{_size(num_bytes)} of features do not fit the disk, which has {_size(free)} free")

    def _close(self, reason: str) -> None:
        self._is_closed = True
        self._say(f"note: {reason}: features are streamed, not stored")


def origin_for(upstream: Upstream, fingerprint: str, dtype: str, precision: str = "float32") -> ShardOrigin:
    """The origin of the features of an upstream.

    Args:
        upstream: Model whose rate and width are taken.
        fingerprint: Fingerprint of its weights, settings and code.
        dtype: float32, float16 or bfloat16: what the features are rounded to.
        precision: float32 or bfloat16, of the upstream's matrix products.
    """
    return ShardOrigin(
        fingerprint=fingerprint,
        sample_rate_hz=upstream.info.sample_rate_hz,
        width=upstream.info.width,
        dtype=dtype,
        precision=precision,
    )


def discard(path: Path) -> None:
    """Remove a file that is no shard; rename a folder of such a name."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}-{secrets.token_hex(4)}{DAMAGED_SUFFIX}"))
        else:
            path.unlink()


def bytes_below(folder: Path) -> int:
    """Size of all shards in the folders of the store."""
    total = 0
    for path in (each for group in folder.glob("*") for each in shard_files(group)):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _dtype(origin: ShardOrigin) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, origin.dtype)
    return dtype


def _sound_key(utterance: Utterance, rate_hz: int) -> str:
    """The content of an utterance as the input of an upstream at `rate_hz`.

    It consists of the hash of the samples, their rate, and the resampler where the two rates differ.
    """
    content = f"{utterance.samples_sha256}@{utterance.sample_rate_hz}"
    return content if utterance.sample_rate_hz == rate_hz else f"{content}>{RESAMPLER}"


def _reason(error: Exception) -> str:
    return error.line().rstrip(".") if isinstance(error, EnvironmentFault) else str(error)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= 0.1 * GIB else f"{num_bytes / 2**20:.1f} MiB"
