"""The bytes of the feature store: shard files that are written once, whole, and read by position.

A shard holds hidden states of one upstream, rounded to one dtype, of some utterances and layers:

    MAGIC | entries, each (F, D) of one utterance and layer, from a multiple of 64 bytes on | index | footer

The index is JSON; the footer is its length (u64) and SHA-256, and MAGIC again; everything is little endian. The index
carries a SHA-256 for each entry, and the shard is named after the index, so that equal shards have equal names. A shard
never changes: what turns out to be damaged is written again in a later shard, which says in `replaces` whose place the
new entries take. Nobody holds a lock: a file appears under its name when it is whole, and two that hold the same are as
good as one.

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
"""Of a file that is a whole shard."""
DAMAGED_SUFFIX = ".damaged"
"""Of what was found in the place of a shard and is no file, so that it was moved out of the way."""

_MAGIC = b"repbench.shard/1"
_FOOTER = struct.Struct(f"<Q32s{len(_MAGIC)}s")
_ALIGNMENT = 64


def store_folder() -> Path:
    """Where features are stored."""
    return cache_dir() / "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOrigin:
    """What all entries of a shard have in common: who said it, and how exactly it is kept.

    Attributes:
        fingerprint: Of the upstream.
        sample_rate_hz: At which the upstream takes sound, and so to which sound is resampled.
        width: D.
        dtype: float32, float16 or bfloat16.
        precision: Of the matrix products that computed them, float32 or bfloat16.
    """

    fingerprint: str
    sample_rate_hz: int
    width: int
    dtype: str
    precision: str = "float32"

    def folder_name(self) -> str:
        """Where such shards lie below the store."""
        facts = {"format": _MAGIC.decode("ascii"), **asdict(self)}
        if self.precision == "float32":
            del facts["precision"]  # as it was named before there was another
        return hashlib.sha256(canonical_json(facts)).hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """One layer of one utterance.

    Attributes:
        sound: The utterance by content: SHA-256 of its samples, `@` and their rate in Hz; where that is not the rate of
            the upstream, also `>` and the resampler.
        layer: Index of the layer.
        batch: Names the utterances that went through the upstream together.
        offset: First byte in the file.
        num_bytes: How many there are.
        sha256: Of them.
    """

    sound: str
    layer: int
    batch: str
    offset: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwrittenLayer:
    """An entry on its way into a shard; fields as in `StoredLayer`."""

    sound: str
    layer: int
    batch: str
    data: bytes


Place = tuple[str, str, int]
"""Name of a shard, sound, layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The index of a shard.

    Attributes:
        path: Of the file.
        origin: Of its entries.
        upstream: What the upstream was called by whoever wrote it.
        entries: What it holds.
        replaces: The damaged entries of other shards whose place its own entries take.
    """

    path: Path
    origin: ShardOrigin
    upstream: str
    entries: tuple[StoredLayer, ...]
    replaces: frozenset[Place]


class DamagedShard(ValueError):  # noqa: N818 - it names the thing
    """A file that is no whole shard, or an entry that is not what the index says."""


def write_shard(
    folder: Path, origin: ShardOrigin, upstream: str, drafts: Sequence[UnwrittenLayer], replaces: Sequence[Place] = ()
) -> Path:
    """Write entries as one shard into the folder of their origin; it is there whole or not at all.

    Raises:
        EnvironmentFault: The disk is full or the place may not be written to.
    """
    offset = len(_MAGIC)
    entries = []
    for draft in drafts:
        offset += -offset % _ALIGNMENT
        sha256 = hashlib.sha256(draft.data).hexdigest()
        entries.append([draft.sound, draft.layer, draft.batch, offset, len(draft.data), sha256])
        offset += len(draft.data)
    facts = {"origin": asdict(origin), "upstream": upstream, "entries": entries, "replaces": sorted(replaces)}
    index = canonical_json(facts)
    digest = hashlib.sha256(index)
    path = folder / f"{digest.hexdigest()[:32]}{SUFFIX}"
    with atomic_write(path) as stream:
        stream.write(_MAGIC)
        for draft in drafts:
            stream.write(bytes(-stream.tell() % _ALIGNMENT))
            stream.write(draft.data)
        stream.write(index)
        stream.write(_FOOTER.pack(len(index), digest.digest(), _MAGIC))
    return path


def shard_files(folder: Path) -> list[Path]:
    """The finished shards in a folder of one origin."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith(TEMPORARY_PREFIX))


def read_index(path: Path) -> Shard:
    """Read what a shard holds, not the entries themselves.

    Raises:
        DamagedShard: The file is no whole shard.
        OSError: It cannot be read, or is gone.
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
    """An entry that lies in a file of `size` bytes; a ValueError or TypeError where it does not."""
    names = ("sound", "layer", "batch", "offset", "num_bytes", "sha256")
    entry = StoredLayer(**dict(zip(names, fields, strict=True)))
    numbers = (entry.layer, entry.offset, entry.num_bytes)
    if not all(type(number) is int and number >= 0 for number in numbers) or entry.offset + entry.num_bytes > size:
        raise ValueError(f"no entry of a file of {size} bytes has {numbers}")
    return entry


class ShardReader:
    """Reads entries by position: nothing is mapped, nothing stays in memory but what was asked for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_into(self, entry: StoredLayer, place: memoryview) -> None:
        """Fill `place`, a view of bytes, as many as the entry has.

        Raises:
            DamagedShard: They are not the bytes that were written.
        """
        _read_into(self._descriptor, place, entry.offset)
        if hashlib.sha256(place).hexdigest() != entry.sha256:
            raise DamagedShard("its checksum does not hold")


@contextmanager
def open_shard(path: Path) -> Iterator[ShardReader]:
    """Open a shard whose index was read before.

    Raises:
        DamagedShard: It is no file any more.
        OSError: It cannot be opened, or is gone.
    """
    with _opened(path) as descriptor:
        yield ShardReader(descriptor)


def standing(shards: Sequence[Shard]) -> dict[tuple[str, int], list[tuple[Shard, StoredLayer]]]:
    """Where each sound and layer stands, leaving out what a later shard replaces."""
    replaced = frozenset().union(*(shard.replaces for shard in shards))
    places: dict[tuple[str, int], list[tuple[Shard, StoredLayer]]] = {}
    for shard in shards:
        for entry in shard.entries:
            if (shard.path.stem, entry.sound, entry.layer) not in replaced:
                places.setdefault((entry.sound, entry.layer), []).append((shard, entry))
    return places


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DamagedShard("it is not a file")
        yield descriptor
    finally:
        os.close(descriptor)


def _read_into(descriptor: int, place: memoryview, offset: int) -> None:
    done = 0
    while done < len(place):
        count = os.preadv(descriptor, [place[done:]], offset + done)
        if not count:
            raise DamagedShard("it is cut off")
        done += count
