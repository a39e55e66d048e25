"""Jobs of probes side by side, each in a thread of its own.

Two jobs share no step, so threads that train one each wait for nobody. What is not repbench's own may not bear that: a
task of others whose metric keeps something between its calls would measure one job with another's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.probing.probe import ProbeShape
from repbench.downstream.heads import head_entry, keep_freed_memory
from repbench.progress import Advance

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_BYTES = 2**30
"""Memory of the batches of all jobs that are trained at once."""


class StoppedError(Exception):
    """Another thread failed, or the process was interrupted."""


class CountedSteps:
    """The progress of all jobs together.

    Args:
        progress: Called with the steps done and all steps, by one thread at a time.
        total: All steps.
    """

    def __init__(self, progress: Advance, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def step(self) -> None:
        """Count a step.

        Raises:
            StoppedError: No further one is wanted.
        """
        if self.stopped.is_set():
            raise StoppedError
        with self._lock:
            self._done += 1
            self._progress(self._done, self._total)


def jobs_at_once(predictor: Predictor, shape: ProbeShape, device: torch.device, batch_bytes: int) -> int:
    """The number of jobs that are trained side by side: as many as torch has threads, where all code is repbench's."""
    own = all(type(each).__module__.startswith("repbench.") for each in (predictor.task, predictor.problem))
    if device.type != "cpu" or not own or not head_entry(shape.head).builtin:
        return 1
    return max(1, min(torch.get_num_threads(), BATCH_BYTES // max(batch_bytes, 1)))


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], count: int, stopped: threading.Event
) -> list[Result]:
    """`[work(item), …]` by `count` threads with one thread of torch each.

    What the first failing item in order raises is raised, after `stopped` has ended the others.
    """
    if not items:
        return []
    before = torch.get_num_threads()
    keep_freed_memory()
    try:
        with ThreadPoolExecutor(count, "repbench-probes", torch.set_num_threads, (1,)) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(before)  # the last number that any thread set is that of threads to come
