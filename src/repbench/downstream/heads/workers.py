"""Threads that share the rows of a batch.

A product of a probe is small: threads of one product wait for each other more than they multiply, and on a busy
machine they wait for one that is not running. Here each thread takes whole parts of the rows, one after the other, and
multiplies alone. Which rows are a part does not depend on the number of threads, and what comes of the parts is added
in their order: so no result depends on that number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

Result = TypeVar("Result")

_KEPT_FLOATS = 31 * 2**18
"""31 MiB: glibc keeps freed memory up to the largest block that it saw freed, and looks at none above 32 MiB."""


class _Current(threading.local):
    """The pool of this thread, and the number of threads, its own included."""

    pool: ThreadPoolExecutor | None = None
    threads: int = 1


_current = _Current()


@contextmanager
def worker_threads(count: int) -> Iterator[None]:
    """Inside, `in_parts` of this thread uses `count` threads, and torch uses one in each of them.

    Args:
        count: Of threads, with the one that enters.
    """
    before, outer = torch.get_num_threads(), (_current.pool, _current.threads)
    pool = ThreadPoolExecutor(count - 1, "repbench-rows", torch.set_num_threads, (1,)) if count > 1 else None
    torch.set_num_threads(1)
    keep_freed_memory()
    _current.pool, _current.threads = pool, count
    try:
        yield
    finally:
        _current.pool, _current.threads = outer
        if pool is not None:
            pool.shutdown()
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of one step for the next.

    It gives blocks of a megabyte back to the system at once, and the next step gets new pages for them: half the time
    of a step of short products. A larger block, freed once and never written to, raises that bound.
    """
    torch.empty(_KEPT_FLOATS)


def in_parts(work: Callable[[int], Result], count: int) -> list[Result]:
    """`[work(0), …, work(count - 1)]`, computed by the threads of `worker_threads`; by this one alone outside of it.

    `work` records no gradients.
    """
    pool, helpers = _current.pool, min(_current.threads, count) - 1
    inference = torch.is_inference_mode_enabled()  # each thread has a mode of its own
    if pool is None or helpers < 1:
        with torch.no_grad():
            return [work(number) for number in range(count)]
    waiting: SimpleQueue[int] = SimpleQueue()
    for number in range(count):
        waiting.put(number)
    done: dict[int, Result] = {}
    others = [pool.submit(_take, work, waiting, done, inference) for _ in range(helpers)]
    try:
        _take(work, waiting, done, inference)
    finally:
        for other in others:
            _wait(other)
    return [done[number] for number in range(count)]


def _take(work: Callable[[int], Result], waiting: SimpleQueue[int], done: dict[int, Result], inference: bool) -> None:
    """Do parts until none waits."""
    with torch.inference_mode(inference), torch.no_grad():
        while True:
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            done[number] = work(number)


def _wait(other: Future[None]) -> None:
    """For a thread that has begun; one that has not is not needed any more."""
    if not other.cancel():
        other.result()
