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
            who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"
            if wait is None:
                do = "Wait, or name another folder with --out"
                raise RunInUseError(f"{who} {doing}", file=lock.parent, do=do) from None
            wait(f"{who} {doing}")
            held.acquire()
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        # Before the release: after it, the file could be that of the next holder.
        owner.unlink(missing_ok=True)
        held.release()
