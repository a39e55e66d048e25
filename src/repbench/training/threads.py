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
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from repbench.processors import usable_cpus

SMALL_MACS = 8 * 10**9
"""Multiply-accumulates of a batch or step up to which it is computed on one thread: some 0.2 s of it."""

_LIMITING_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables by which a user sets the number of threads of torch."""


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
