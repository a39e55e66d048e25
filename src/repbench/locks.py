"""Locks between processes, which a kill frees, with a line that names the holder."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from repbench.errors import RunInUseError
from repbench.files import environment_faults


@contextmanager
def exclusive_lock(lock: Path, doing: str, *, wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a lock file while the block runs; a killed process leaves no lock behind.

    Args:
        lock: The lock file; the file with the suffix `.owner` names its holder.
        doing: Completes "process N on HOST …" in the error of a second process: "trains here".
        wait: Called with that line before waiting for the holder. None: do not wait.

    Raises:
        RunInUseError: Another process holds the lock, and `wait` is None.
        EnvironmentFault: The lock file cannot be written.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    owner = lock.with_suffix(".owner")
    with environment_faults(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            # The kernel frees the lock of a dead process. The lock file itself stays: removing it would let two
            # processes hold two files of one name.
            held.acquire(timeout=0)
        except Timeout:
            if wait is None:
                raise _in_use(lock, doing) from None
            wait(f"{_holder(lock)} {doing}")
            held.acquire()
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        # Before the release: after it, the file could be that of the next holder.
        owner.unlink(missing_ok=True)
        held.release()


def refuse_if_locked(lock: Path, doing: str) -> None:
    """Refuse a lock that another process holds; makes no file. Arguments as `exclusive_lock`.

    Raises:
        RunInUseError: Another process holds it.
        EnvironmentFault: The lock file cannot be opened.
    """
    from filelock import FileLock, Timeout

    if not lock.exists():
        return
    with environment_faults(lock):
        try:
            with FileLock(lock).acquire(timeout=0):
                pass
        except Timeout:
            raise _in_use(lock, doing) from None


def _holder(lock: Path) -> str:
    """The process that holds a lock, in words."""
    owner = lock.with_suffix(".owner")
    return owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"


def _in_use(lock: Path, doing: str) -> RunInUseError:
    do = "Wait, or name another folder with --out"
    return RunInUseError(f"{_holder(lock)} {doing}", file=lock.parent, do=do)
