"""What lies in the feature store: list it, clear it, read every byte of it again."""

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
    open_shard,
    read_index,
    shard_files,
    standing,
)
from repbench.corpora.contract import Progress
from repbench.errors import UsageError
from repbench.files import environment_faults, remove_abandoned


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What is stored of one upstream, computed and kept in one way.

    Attributes:
        fingerprint: Of the upstream.
        names: What it was called by those who stored it.
        layers: Indices of those stored.
        dtype: float32, float16 or bfloat16: what features were rounded to.
        precision: float32 or bfloat16: of the matrix products that computed them.
        utterances: How many have a layer stored.
        bytes: On disk.
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
    """Something in the store that is not what was written.

    Attributes:
        file: The shard.
        sound: The utterance, by content; None if the whole file is at fault.
        layer: Index of its layer; None as above.
        reason: What is wrong.
    """

    file: str
    sound: str | None = None
    layer: int | None = None
    reason: str

    def line(self) -> str:
        """All of it in one line."""
        which = "" if self.sound is None else f" (layer {self.layer} of {self.sound})"
        return f"{self.file}{which}: {self.reason}"


def holdings(folder: Path) -> list[Holding]:
    """What is stored, by upstream, dtype and precision; what cannot be read is left out."""
    groups: dict[tuple[str, str, str], list[Shard]] = {}
    for shard in _readable(_shard_files(folder)):
        origin = shard.origin
        groups.setdefault((origin.fingerprint, origin.dtype, origin.precision), []).append(shard)
    return [_holding(shards) for _, shards in sorted(groups.items())]


def verify(folder: Path, *, progress: Progress | None = None) -> tuple[int, list[Damage]]:
    """Read every entry again: how many there are, and which are damaged. What has been replaced does not count."""
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
        current = {(shard.path, id(entry)) for found in standing(shards).values() for shard, entry in found}
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
    """Remove all features, or those of one upstream; how many files and bytes that were.

    A process that reads or writes at the same time is not harmed: it computes what it no longer finds.

    Args:
        folder: Of the store.
        fingerprint: Of the upstream, or how it begins.
        dry_run: Whether to count alone, and to remove nothing.

    Raises:
        UsageError: No upstream, or more than one, has such a fingerprint.
        EnvironmentFault: A file may not be removed.
    """
    doomed: Sequence[Path] = _shard_files(folder)
    if fingerprint is not None:
        shards = [each for each in _readable(doomed) if each.origin.fingerprint.startswith(fingerprint)]
        meant = {each.origin.fingerprint for each in shards}
        if len(meant) != 1 or not fingerprint:
            raise UsageError(
                f"{len(meant) or 'No'} upstreams with features have a fingerprint that begins with `{fingerprint}`",
                key="--upstream",
                do="See `repbench cache list`",
            )
        doomed = [each.path for each in shards]
    elif folder.is_dir():
        doomed = [*doomed, *folder.glob(f"*/*{DAMAGED_SUFFIX}")]
    num_bytes = 0
    for path in doomed:
        with environment_faults(path), contextlib.suppress(FileNotFoundError):
            num_bytes += path.stat().st_size
            if dry_run:
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for group in () if dry_run else {path.parent for path in doomed}:
        remove_abandoned(group)
        with contextlib.suppress(OSError):
            group.rmdir()  # only if nothing else is in it
    return len(doomed), num_bytes


def _holding(shards: Sequence[Shard]) -> Holding:
    origin = shards[0].origin
    entries = [entry for shard in shards for entry in shard.entries]
    num_bytes = 0
    for shard in shards:
        with contextlib.suppress(OSError):
            num_bytes += shard.path.stat().st_size
    return Holding(
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
