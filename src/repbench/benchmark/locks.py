"""One training in a folder at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repbench.errors import RunInUseError
from repbench.files import environment_faults
from repbench.upstream.parallel import Processes

LOCK_FILE = "run.lock"


@contextmanager
def locked(run: Path, processes: Processes, *, do: str = "Wait, or name another folder with --out") -> Iterator[None]:
    """Keep other trainings out of a folder; a killed process leaves no lock behind.

    Args:
        run: The folder; made if missing.
        processes: That train together; the one that leads holds the lock.
        do: What whoever comes second can do.

    Raises:
        RunInUseError: Another process trains there.
    """
    if not processes.leads:
        yield
        return
    from filelock import FileLock, Timeout

    path = run / LOCK_FILE
    lock = FileLock(path)
    owner = path.with_suffix(".owner")
    with environment_faults(path):
        run.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"
            raise RunInUseError(f"{who} trains here", file=run, do=do) from None
    try:
        owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
