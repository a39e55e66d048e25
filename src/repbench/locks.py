"""One process at a time: a lock on a folder that a kill frees, and a line that says who holds it."""

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
        lock: The file; who holds it stands beside it.
        doing: What the owner does there, for those who come second: "trains here".
        wait: Told whom this process waits for. None: it does not wait.

    Raises:
        RunInUseError: Another process holds it, and this one is not to wait.
    """
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    owner = lock.with_suffix(".owner")
    with environment_faults(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
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
        owner.unlink(missing_ok=True)
        held.release()
