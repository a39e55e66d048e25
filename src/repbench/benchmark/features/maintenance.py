"""Maintenance of the feature store: list its content, clear it, and verify every byte."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repbench.benchmark.features.shards import (
    DAMAGED_SUFFIX,
    DamagedShard,
    Shard,
    current_entries,
    open_shard,
    read_index,
    shard_files,
)
from repbench.corpora.contract import Progress
from repbench.errors import UsageError
from repbench.files import environment_faults, remove_abandoned


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFeatures:
    """Summary of the stored features of one upstream, with one dtype and precision.

    Attributes:
        fingerprint: Fingerprint of the upstream.
        names: Names of the upstream in the runs that stored the features.
        layers: Indices of the stored layers.
        dtype: float32, float16 or bfloat16: what the features are rounded to.
        precision: float32 or bfloat16, of the matrix products that computed the features.
        utterances: Number of utterances with a stored layer.
        bytes: Bytes on disk.
    """

    fingerprint: str
    names: tuple[str, ...]
    layers: tuple[int, ...]
    dtype: str
    precision: str
    utterances: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged entry or shard.

    Attributes:
        file: Path of the shard.
        sound: Key of the utterance in the shard; None if the whole file is damaged.
        layer: Index of the layer; None if the whole file is damaged.
        reason: The fault, in words.
    """

    file: str
    sound: str | None = None
    layer: int | None = None
    reason: str

    def line(self) -> str:
        """The damage in one line of text."""
        which = "" if self.sound is None else f" (layer {self.layer} of {self.sound})"
        return f"{self.file}{which}: {self.reason}"


def stored_features(folder: Path) -> list[StoredFeatures]:
    """Summarise the store by upstream, dtype and precision, without shards that cannot be read."""
    groups: dict[tuple[str, str, str], list[Shard]] = {}
    for shard in _readable(_shard_files(folder)):
        origin = shard.origin
        groups.setdefault((origin.fingerprint, origin.dtype, origin.precision), []).append(shard)
    return [_summary(shards) for _, shards in sorted(groups.items())]


def verify(folder: Path, *, progress: Progress | None = None) -> tuple[int, list[Damage]]:
    """Read every entry that is not replaced; the number of entries, and what is damaged."""
    files = _shard_files(folder)
    damaged: list[Damage] = []
    by_folder: dict[Path, list[Shard]] = {}
    for path in files:
        try:
            by_folder.setdefault(path.parent, []).append(read_index(path))
        except (DamagedShard, OSError) as error:
            damaged.append(Damage(file=str(path), reason=str(error)))
    count = done = 0
    for shards in by_folder.values():
        current = {(shard.path, id(entry)) for found in current_entries(shards).values() for shard, entry in found}
        for shard in shards:
            wanted = [entry for entry in shard.entries if (shard.path, id(entry)) in current]
            count += len(wanted)
            try:
                with open_shard(shard.path) as reader:
                    for entry in wanted:
                        try:
                            reader.read_into(entry, memoryview(bytearray(entry.num_bytes)))
                        except DamagedShard as damage:
                            damaged.append(
                                Damage(file=str(shard.path), sound=entry.sound, layer=entry.layer, reason=str(damage))
                            )
            except (DamagedShard, OSError) as error:
                damaged.append(Damage(file=str(shard.path), reason=str(error)))
            done += 1
            if progress is not None:
                progress(done, len(files))
    return count, damaged


def clear(folder: Path, fingerprint: str | None = None, *, dry_run: bool = False) -> tuple[int, int]:
    """Remove all features, or those of one upstream.

    A process that reads or writes at the same time goes on, and computes the features that were removed.

    Args:
        folder: Folder of the store.
        fingerprint: Fingerprint of the upstream, or its first digits.
        dry_run: Whether to count only, and to remove nothing.

    Returns:
        The number of files and of bytes.

    Raises:
        UsageError: No upstream, or more than one, has such a fingerprint.
        EnvironmentFault: A file may not be removed.
    """
    paths: Sequence[Path] = _shard_files(folder)
    if fingerprint is not None:
        shards = [each for each in _readable(paths) if each.origin.fingerprint.startswith(fingerprint)]
        found = {each.origin.fingerprint for each in shards}
        if len(found) != 1 or not fingerprint:
            raise UsageError(
                f"{len(found) or 'No'} upstreams with features have a fingerprint that begins with `{fingerprint}`",
                key="--upstream",
                do="See `repbench cache list`",
            )
        paths = [each.path for each in shards]
    elif folder.is_dir():
        paths = [*paths, *folder.glob(f"*/*{DAMAGED_SUFFIX}")]
    num_bytes = 0
    for path in paths:
        with environment_faults(path), contextlib.suppress(FileNotFoundError):
            num_bytes += path.stat().st_size
            if dry_run:
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for group in () if dry_run else {path.parent for path in paths}:
        remove_abandoned(group)
        with contextlib.suppress(OSError):
            group.rmdir()  # fails where another process has written since
    return len(paths), num_bytes


def _summary(shards: Sequence[Shard]) -> StoredFeatures:
    origin = shards[0].origin
    entries = [entry for shard in shards for entry in shard.entries]
    num_bytes = 0
    for shard in shards:
        with contextlib.suppress(OSError):
            num_bytes += shard.path.stat().st_size
    return StoredFeatures(
        fingerprint=origin.fingerprint,
        names=tuple(sorted({shard.upstream for shard in shards})),
        layers=tuple(sorted({entry.layer for entry in entries})),
        dtype=origin.dtype,
        precision=origin.precision,
        utterances=len({entry.sound for entry in entries}),
        bytes=num_bytes,
    )


def _shard_files(folder: Path) -> list[Path]:
    return [path for group in sorted(folder.glob("*")) for path in shard_files(group)]


def _readable(files: Iterable[Path]) -> Iterator[Shard]:
    for path in files:
        with contextlib.suppress(DamagedShard, OSError):
            yield read_index(path)
