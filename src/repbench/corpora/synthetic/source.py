"""The corpus source: made once into the cache, found there afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repbench.corpora.contract import Corpus, CorpusSource, Progress
from repbench.corpora.synthetic.conditions import SyntheticSpec, parse
from repbench.errors import DataError, EnvironmentFault, IntegrityError
from repbench.files import TEMPORARY_PREFIX, cache_dir, environment_faults, is_alive

_LOCK_SECONDS = 3600.0
_ABANDONED_SECONDS = 24 * 3600.0
_WAV_HEADER_BYTES = 44

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SyntheticSource:
    """Opens a synthetic corpus, and makes it first where the cache does not hold it.

    Two processes that open the same corpus at the same time both get it whole: one waits for the other; where locks do
    not work (some network disks) both make it, and the first to finish is used.

    Attributes:
        num_workers: Number of worker processes; None for one a processor core. Affects the time only.
    """

    num_workers: int | None = None

    def open(self, options: tuple[str, ...], *, progress: Progress | None = None) -> Corpus:
        """Open the corpus; `options` are a kind, a condition and a size, in any order.

        Raises:
            UsageError: An option is unknown (the message lists those that exist).
            EnvironmentFault: It has to be made and espeak-ng is not installed, a worker failed, or the cache cannot be
                written to.
        """
        spec = parse(options)
        folder = cache_dir() / "corpora" / spec.folder_name
        corpus = _read(folder)
        if corpus is not None:
            return corpus
        with environment_faults(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _build_lock(folder):
                # Read again under the lock: another process may have made it while this one waited.
                return _read(folder) or self._make(spec, folder, progress)

    def _make(self, spec: SyntheticSpec, folder: Path, progress: Progress | None) -> Corpus:
        from repbench.corpora.synthetic import build, worker_pool

        _remove_leftovers(folder)
        if folder.exists():
            _log.warning("The cached corpus is damaged and will be made again: %s", folder)
        with _unfinished_folder(folder) as unfinished:
            num_workers = self.num_workers or worker_pool.default_num_workers()
            build.build(spec, unfinished, num_workers=num_workers, progress=progress)
            return _publish(unfinished, folder)


SYNTHETIC: CorpusSource = SyntheticSource()
"""The source behind `--corpus synthetic`."""


def _read(folder: Path) -> Corpus | None:
    """The corpus in `folder`; None if it is not there or damaged."""
    from repbench.corpora import manifest

    try:
        corpus = manifest.read(folder) if folder.exists() else None
    except (DataError, IntegrityError) as error:
        _log.info("The cached corpus cannot be read: %s", error)
        return None
    # Sizes alone, because opening must stay fast; the manifest has the hashes for an audit.
    for utterance in corpus.utterances if corpus else ():
        if not _is_whole(utterance.audio, utterance.num_samples):
            _log.info("The cached corpus cannot be read: %s is not whole", utterance.audio)
            return None
    return corpus


def _is_whole(path: Path, num_samples: int) -> bool:
    # 16-bit samples of one channel after the 44 bytes that `wave` writes
    return path.is_file() and path.stat().st_size == _WAV_HEADER_BYTES + 2 * num_samples


@contextlib.contextmanager
def _build_lock(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = folder.with_name(f".{folder.name}.lock")
    try:
        with FileLock(lock, timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        raise EnvironmentFault(
            f"Another process has held this lock for {_LOCK_SECONDS / 60:.0f} minutes",
            file=lock,
            do="End that process, or choose another cache with REPBENCH_CACHE",
        ) from error


@contextlib.contextmanager
def _unfinished_folder(folder: Path) -> Iterator[Path]:
    """A folder next to `folder`, with process and host in its name; removed when the block ends."""
    name = f"{_unfinished_prefix(folder)}{os.getpid()}@{socket.gethostname()}-{secrets.token_hex(4)}"
    unfinished = folder.with_name(name)
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        if unfinished.exists():
            shutil.rmtree(unfinished)


def _publish(unfinished: Path, folder: Path) -> Corpus:
    """Give the finished corpus its name; if another process was first, its corpus is the one that counts."""
    from repbench.corpora import manifest

    try:
        # Renaming is atomic within a file system, which is why the unfinished folder is next to its place.
        unfinished.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        winner = _read(folder)
        if winner is not None:
            return winner
        # A damaged folder is moved away before it is removed: the place is empty only between two renames.
        folder.rename(unfinished.with_name(f"{unfinished.name}-damaged"))
        unfinished.rename(folder)
        shutil.rmtree(unfinished.with_name(f"{unfinished.name}-damaged"))
    return manifest.read(folder)


def _remove_leftovers(folder: Path) -> None:
    """Remove unfinished folders of killed processes next to `folder`."""
    for leftover in folder.parent.glob(f"{_unfinished_prefix(folder)}*"):
        if _is_in_use(leftover):
            continue
        try:
            shutil.rmtree(leftover)
        except OSError as error:  # its last worker may still write there; the rest does no harm
            _log.warning("The unfinished %s cannot be removed: %s", leftover, error)


def _is_in_use(leftover: Path) -> bool:
    """Whether a process may still work there; a folder of another machine counts as in use for a day."""
    owner = re.search(r"-(\d+)@(.+)-[0-9a-f]{8}(-damaged)?$", leftover.name)
    if owner is None:
        return False
    # a process id means nothing on another machine that shares the cache
    if owner[2] == socket.gethostname():
        return is_alive(int(owner[1]))
    return time.time() - leftover.stat().st_mtime < _ABANDONED_SECONDS


def _unfinished_prefix(folder: Path) -> str:
    return f"{TEMPORARY_PREFIX}{folder.name}-"
