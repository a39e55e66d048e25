"""Threads of computing: how many this process may use, and how many pay for a piece of work.

torch divides one operation among the threads of a team, and each operation ends when the last of them does. Where
other processes keep the processors busy, every operation then waits for a turn of the scheduler, however small it is:
work on small tensors becomes many times slower with two threads than with one. So small work runs on one thread, and
several pieces of it side by side.

The number of threads is a value of each thread: `torch.set_num_threads` changes it for the calling thread, and for
threads that are started later, but not for others that run.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

SMALL_MACS = 8 * 10**9
"""Multiply-accumulates of a batch or step up to which it is computed on one thread: some 0.2 s of it."""

_LIMITING_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which a user sets the number of threads of torch."""


def usable_cpus(*, own_groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may keep busy: those of its affinity mask, at most its cgroup's quota, rounded up.

    Args:
        own_groups: File that names the control groups of this process.
        mount: Folder of the control groups.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cgroup_quota(own_groups, mount))))


def cgroup_quota(own_groups: Path, mount: Path) -> float:
    """Processors that the control groups of a process, or one above them, grant it; infinite without a quota."""
    try:
        lines = own_groups.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return math.inf
    quotas = [math.inf]
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
        if not controllers:  # version 2: one tree for all controllers
            quotas += [_quota_2(mount.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
        elif "cpu" in controllers.split(","):  # version 1; inside of a container its own group is the root of the tree
            tree = mount / controllers if (mount / controllers).is_dir() else mount / "cpu"
            quotas += [_quota_1(tree.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return min(quotas)


def _quota_2(group: Path) -> float:
    """`cpu.max` holds the quota and its period in microseconds: `150000 100000`, or `max 100000`."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _quota_1(group: Path) -> float:
    """Two files hold quota and period in microseconds; a quota of -1 is none."""
    try:
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")) for name in _QUOTA_AND_PERIOD)
        return math.inf if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


_QUOTA_AND_PERIOD = ("quota", "period")


def choose_threads(number: int | None = None) -> int:
    """Set the number of threads of this process, and return it.

    Args:
        number: As given; None: as torch chooses, but not more than `usable_cpus`, of which torch knows no quota. A
            user's OMP_NUM_THREADS or MKL_NUM_THREADS is kept.
    """
    if number is None:
        given = any(os.environ.get(name) for name in _LIMITING_VARIABLES)
        number = torch.get_num_threads() if given else min(torch.get_num_threads(), usable_cpus())
    torch.set_num_threads(number)
    return number


def threads_for(macs: float) -> int:
    """Threads for a batch or step of `macs` multiply-accumulates: one up to `SMALL_MACS`, else those of the caller."""
    return 1 if macs <= SMALL_MACS else torch.get_num_threads()


@contextlib.contextmanager
def threads(number: int) -> Iterator[None]:
    """Let operations of the calling thread run on `number` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def single_threaded_pool(workers: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads whose operations run on one thread each; at the end, what has not begun is cancelled.

    Args:
        workers: Number of its threads.
        name: Start of their names.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        # A thread that sets its own number also sets that of threads to come: give these the caller's again.
        torch.set_num_threads(torch.get_num_threads())
