"""A pipeline over batches: read ahead in threads, compute in order or side by side, give back in order.

The caller drives it. Each time that it takes a result, further batches are begun, up to a bound in bytes and in number;
nothing runs without bound while the caller is busy, and no queue can block. An error of any stage is raised in the
caller when its batch is due, after the results of all batches before it, so that it is the one that would be raised
without threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from repbench.training.threads import single_threaded_pool

Item = TypeVar("Item")
Input = TypeVar("Input")
Launched = TypeVar("Launched")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages(Generic[Item, Input, Launched, Result]):
    """The work on one item.

    Attributes:
        read: Gives the input of an item; called in several threads at once.
        launch: Starts computing, in the caller's thread or, of an item that may, in several threads at once.
        finish: Waits for what was launched and gives the result; called in the thread of `launch`.
        num_bytes: Memory that an item takes from its reading to its result, in bytes.
        may_share: Whether an item may be computed in a thread of its own beside others.
    """

    read: Callable[[Item], Input]
    launch: Callable[[Input], Launched]
    finish: Callable[[Launched], Result]
    num_bytes: Callable[[Item], int]
    may_share: Callable[[Item], bool]

    def compute(self, read: Future[Input]) -> Result:
        """The result of what was read."""
        return self.finish(self.launch(read.result()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far the stages run ahead.

    Attributes:
        readers: Threads that read.
        workers: Threads that compute items that may share.
        launched: Items of the caller's thread that are launched before the first of them is finished; 1: one after
            the other.
        ahead_bytes: Most memory of the items that are begun; a single item may take more.
    """

    readers: int
    workers: int
    launched: int
    ahead_bytes: float


@dataclass(slots=True)
class _Begun(Generic[Item, Input, Launched, Result]):
    """An item whose reading has begun."""

    item: Item
    num_bytes: int
    read: Future[Input]
    computed: Future[Result] | None = None
    launched: Future[Launched] | None = None


class Pipeline(Generic[Item, Input, Launched, Result]):
    """Runs the stages over items.

    Args:
        stages: The work on one item.
        limits: How far they run ahead.

    Attributes:
        was_alone: Whether nothing was computed beside the item that was given last.
    """

    def __init__(self, stages: Stages[Item, Input, Launched, Result], limits: Limits) -> None:
        self._stages = stages
        self._limits = limits
        self._begun: deque[_Begun[Item, Input, Launched, Result]] = deque()
        self._num_bytes = 0
        self._is_alone = False
        self.was_alone = True

    def results(self, items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """The result of each item, in the order of the items.

        The threads end with the generator: items that run are finished, others are not begun.
        """
        with (
            single_threaded_pool(self._limits.workers, "compute") as workers,
            single_threaded_pool(self._limits.readers, "read") as readers,  # ends first: workers wait for it
        ):
            source = iter(items)
            self._begin(source, readers, workers)
            while self._begun:
                result = self._result_of(self._begun[0])
                done = self._begun.popleft()
                self._num_bytes -= done.num_bytes
                self._begin(source, readers, workers)  # before the caller is busy with the result
                yield done.item, result

    def compute_alone(self) -> None:
        """Wait until nothing is being computed, and compute one item after the other from now on.

        What was launched ahead is given up, with its memory, and launched again when it is due.
        """
        self._is_alone = True
        for each in self._begun:
            each.launched = None
            if each.computed is not None and each.computed.cancel():
                each.computed = None
        wait([each.computed for each in self._begun if each.computed is not None])

    def _begin(self, source: Iterator[Item], readers: ThreadPoolExecutor, workers: ThreadPoolExecutor) -> None:
        """Begin as many further items as the limits allow."""
        most = 2 * (self._limits.readers + self._limits.workers)
        while len(self._begun) < most and (not self._begun or self._num_bytes < self._limits.ahead_bytes):
            try:
                item = next(source)
            except StopIteration:
                break
            num_bytes = self._stages.num_bytes(item)
            self._begun.append(_Begun(item, num_bytes, readers.submit(self._stages.read, item)))
            self._num_bytes += num_bytes
        # Up to the first item that needs all threads for itself.
        for each in self._begun:
            if self._is_alone or not self._stages.may_share(each.item):
                break
            if each.computed is None:
                each.computed = workers.submit(self._stages.compute, each.read)

    def _result_of(self, first: _Begun[Item, Input, Launched, Result]) -> Result:
        """The result of the first item that has begun; raises its error."""
        self.was_alone = first.computed is None and (self._is_alone or self._limits.launched == 1)
        if first.computed is not None:
            return first.computed.result()
        for each in list(self._begun)[: 1 if self._is_alone else self._limits.launched]:
            if each.computed is not None or (each is not first and not each.read.done()):
                break
            if each.launched is None:
                each.launched = self._launched(each.read)
        assert first.launched is not None
        return self._stages.finish(first.launched.result())

    def _launched(self, read: Future[Input]) -> Future[Launched]:
        """What was launched, or the error, which is raised when the item is due."""
        launched: Future[Launched] = Future()
        try:
            launched.set_result(self._stages.launch(read.result()))
        except Exception as error:
            launched.set_exception(error)
        return launched
