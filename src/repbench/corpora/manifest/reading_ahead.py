"""Reading the files of many utterances by a few threads, in order, without holding more than a few results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from repbench.corpora.contract import Progress

_AHEAD_OF_THREAD = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_each(
    read: Callable[[_Item], _Result], items: Sequence[_Item], progress: Progress | None = None
) -> Generator[_Result, None, None]:
    """The result of a function for each item, in order.

    `ThreadPoolExecutor.map` would start with one job for each item: a kilobyte for each of a million utterances.

    Args:
        read: Called in threads.
        items: Its arguments.
        progress: Called with (results so far, all items).
    """
    # Threads, not processes: cffi and hashlib release the lock of the interpreter while they decode and hash.
    num_threads = min(8, os.cpu_count() or 1)
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        try:
            upcoming = iter(items)
            for done in range(1, len(items) + 1):
                while len(pending) < _AHEAD_OF_THREAD * num_threads and (item := next(upcoming, None)) is not None:
                    pending.append(pool.submit(read, item))
                result = pending.popleft().result()
                if progress is not None:
                    progress(done, len(items))
                yield result
        finally:
            for future in pending:
                future.cancel()
