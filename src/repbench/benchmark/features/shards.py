"""Shard files, the format of the feature store: each is written once, as a whole, and read by offset.

A shard holds hidden states of one upstream, rounded to one dtype, of some utterances and layers:

    MAGIC | entries, each (F, D) of one utterance and layer, at a multiple of 64 bytes | index | footer

The index is JSON; the footer is its length (u64) and SHA-256, and MAGIC again; everything is little endian. The index
contains the SHA-256 of each entry, and the file name is a hash of the index, so that equal shards have equal names. A
shard never changes: a damaged entry is written again in a later shard, whose `replaces` lists the entries that it
replaces. There is no lock: a file appears under its name when it is complete, and two shards with the same entries do
no harm.

Axes: F frames, D width.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from repbench.files import TEMPORARY_PREFIX, atomic_write, cache_dir, canonical_json

SUFFIX = ".shard"
"""Suffix of a complete shard."""
DAMAGED_SUFFIX = ".damaged"
"""Suffix of something that had the name of a shard and is no file, after it was renamed."""

_MAGIC = b"repbench.shard/1"
_FOOTER = struct.Struct(f"<Q32s{len(_MAGIC)}s")
_ALIGNMENT = 64


def store_folder() -> Path:
    """The folder of the feature store."""
    return cache_dir() / "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOrigin:
    """What all entries of a shard have in common: the upstream that computed them, and their number format.

    Attributes:
        fingerprint: Fingerprint of the upstream.
        sample_rate_hz: Rate of the upstream, to which sound is resampled.
        width: D.
        dtype: float32, float16 or bfloat16: what the features are rounded to.
        precision: float32 or bfloat16, of the matrix products that computed the features.
    """

    fingerprint: str
    sample_rate_hz: int
    width: int
    dtype: str
    precision: str = "float32"

    def folder_name(self) -> str:
        """Name of the folder of these shards in the store."""
        facts = {"format": _MAGIC.decode("ascii"), **asdict(self)}
        if self.precision == "float32":
            del facts["precision"]  # so that stores of before `precision` was a setting keep their name
        return hashlib.sha256(canonical_json(facts)).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """One layer of one utterance, as an entry of a shard.

    Attributes:
        sound: The utterance by content: SHA-256 of its samples, `@` and their rate in Hz; where that is not the rate of
            the upstream, also `>` and the resampler; of a sound that was read in windows, also their size.
        layer: Index of the layer.
        batch: Hash of the utterances of the batch in which it was computed.
        offset: First byte in the file.
        num_bytes: Number of bytes.
        sha256: SHA-256 of these bytes.
    """

    sound: str
    layer: int
    batch: str
    offset: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwrittenLayer:
    """An entry that is not written yet; fields as in `StoredLayer`."""

    sound: str
    layer: int
    batch: str
    data: bytes


StoredKey = tuple[str, str, int]
"""Which entry of which shard: stem of the shard's file name, sound, layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The index of a shard.

    Attributes:
        path: Path of the file.
        origin: Origin of its entries.
        upstream: Name of the upstream in the run that wrote the shard.
        entries: Its entries.
        replaces: Damaged entries of other shards that its own entries replace.
    """

    path: Path
    origin: ShardOrigin
    upstream: str
    entries: tuple[StoredLayer, ...]
    replaces: frozenset[StoredKey]


class DamagedShard(ValueError):  # noqa: N818 - it names the thing
    """A file that is no complete shard, or an entry that differs from the index."""


def write_shard(
    folder: Path,
    origin: ShardOrigin,
    upstream: str,
    layers: Sequence[UnwrittenLayer],
    replaces: Sequence[StoredKey] = (),
) -> Path:
    """Write entries as one shard into the folder of their origin, atomically.

    Args:
        folder: Folder of the origin, as `folder_name` names it.
        origin: Origin of all entries.
        upstream: Name of the upstream in this run.
        layers: The entries.
        replaces: Damaged entries of other shards that these replace.

    Raises:
        EnvironmentFault: The disk is full or the folder is not writable.
    """
    offset = len(_MAGIC)
    entries = []
    for each in layers:
        offset += -offset % _ALIGNMENT
        sha256 = hashlib.sha256(each.data).hexdigest()
        entries.append([each.sound, each.layer, each.batch, offset, len(each.data), sha256])
        offset += len(each.data)
    facts = {"origin": asdict(origin), "upstream": upstream, "entries": entries, "replaces": sorted(replaces)}
    index = canonical_json(facts)
    digest = hashlib.sha256(index)
    path = folder / f"{digest.hexdigest()[:32]}{SUFFIX}"
    with atomic_write(path) as stream:
        stream.write(_MAGIC)
        for each in layers:
            stream.write(bytes(-stream.tell() % _ALIGNMENT))
            stream.write(each.data)
        stream.write(index)
        stream.write(_FOOTER.pack(len(index), digest.digest(), _MAGIC))
    return path


def shard_files(folder: Path) -> list[Path]:
    """The complete shards in the folder of one origin."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(TEMPORARY_PREFIX))


def read_index(path: Path) -> Shard:
    """Read the index of a shard.

    Raises:
        DamagedShard: The file is no complete shard.
        OSError: The file cannot be read, or was removed.
    """
    with _opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        start = os.pread(descriptor, len(_MAGIC), 0)
        footer = os.pread(descriptor, _FOOTER.size, max(0, size - _FOOTER.size))
        if len(footer) < _FOOTER.size or start != _MAGIC:
            raise DamagedShard("it is no shard, or cut off")
        length, digest, magic = _FOOTER.unpack(footer)
        if magic != _MAGIC or length > size - _FOOTER.size - len(_MAGIC):
            raise DamagedShard("its end is damaged or cut off")
        index = bytearray(length)
        _read_into(descriptor, memoryview(index), size - _FOOTER.size - length)
    if hashlib.sha256(index).digest() != digest:
        raise DamagedShard("its index is damaged")
    try:
        facts = json.loads(index)
        return Shard(
            path=path,
            origin=ShardOrigin(**facts["origin"]),
            upstream=str(facts["upstream"]),
            entries=tuple(_entry(each, size) for each in facts["entries"]),
            replaces=frozenset((shard, sound, layer) for shard, sound, layer in facts["replaces"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedShard(f"its index cannot be understood: {error}") from error


def _entry(fields: Sequence[Any], size: int) -> StoredLayer:
    """An entry of a file of `size` bytes.

    Raises:
        ValueError: It has other fields, or lies outside of the file.
        TypeError: A field has another type.
    """
    names = ("sound", "layer", "batch", "offset", "num_bytes", "sha256")
    entry = StoredLayer(**dict(zip(names, fields, strict=True)))
    numbers = (entry.layer, entry.offset, entry.num_bytes)
    if not all(type(number) is int and number >= 0 for number in numbers) or entry.offset + entry.num_bytes > size:
        raise ValueError(f"no entry of a file of {size} bytes has {numbers}")
    return entry


class ShardReader:
    """Reads single entries of an open shard into memory of the caller."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_into(self, entry: StoredLayer, buffer: memoryview) -> None:
        """Fill `buffer`, a view of `entry.num_bytes` bytes.

        Raises:
            DamagedShard: The bytes do not have the entry's checksum.
        """
        _read_into(self._descriptor, buffer, entry.offset)
        if hashlib.sha256(buffer).hexdigest() != entry.sha256:
            raise DamagedShard("its checksum does not hold")


@contextmanager
def open_shard(path: Path) -> Iterator[ShardReader]:
    """Open a shard whose index was read before.

    Raises:
        DamagedShard: The path is no regular file any more.
        OSError: The file cannot be opened, or was removed.
    """
    with _opened(path) as descriptor:
        yield ShardReader(descriptor)


def current_entries(shards: Sequence[Shard]) -> dict[tuple[str, int], list[tuple[Shard, StoredLayer]]]:
    """From (sound, layer) to the entries that store it, without those that another shard replaces."""
    replaced = frozenset().union(*(shard.replaces for shard in shards))
    current: dict[tuple[str, int], list[tuple[Shard, StoredLayer]]] = {}
    for shard in shards:
        for entry in shard.entries:
            if (shard.path.stem, entry.sound, entry.layer) not in replaced:
                current.setdefault((entry.sound, entry.layer), []).append((shard, entry))
    return current


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DamagedShard("it is not a file")
        yield descriptor
    finally:
        os.close(descriptor)


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if not count:
            raise DamagedShard("it is cut off")
        done += count
