"""A process that makes the inventories of one job after another: starting takes it longer than most inventories."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO

from repbench.benchmark.sweep.children import GRACE_SECONDS, Child, Children
from repbench.benchmark.sweep.jobs import Job
from repbench.benchmark.sweep.pair_inventory import PairInventory, inventories_of_json

_MODULE = "repbench.benchmark.sweep.inventory"


class InventoryProcess:
    """A process of `repbench.benchmark.sweep.inventory`; one that a model ended is replaced for the next job.

    Args:
        children: The processes that end with the sweep.
        environment: Of the process.
    """

    def __init__(self, children: Children, environment: Mapping[str, str]) -> None:
        self._children, self._environment = children, dict(environment)
        self._running = ExitStack()
        self._child: Child | None = None
        self._errors: IO[str]

    def __enter__(self) -> InventoryProcess:
        return self

    def __exit__(self, *fault: object) -> None:
        self._end()

    def inventories(self, job: Job, limit_seconds: float, limit: str) -> list[PairInventory]:
        """The inventory of each pair of a job; the same error for all where there is none.

        Args:
            job: The job.
            limit_seconds: Longest time, start of the process included.
            limit: The same in words.

        Raises:
            Stopped: The children are being ended.
        """
        deadline = time.monotonic() + limit_seconds
        child = self._child or self._start()
        self._errors.seek(0)
        self._errors.truncate()
        line = _answer(child, job.as_json() + "\n", deadline)
        if line is None:
            child.kill()
            self._end()
            error = f"the inventory did not end within {limit} (look_timeout_min)"
            return [PairInventory(error=error, timed_out=True)] * len(job.pairs)
        inventories = inventories_of_json(line) if line else []
        if len(inventories) == len(job.pairs):
            return inventories
        code = child.wait()
        self._errors.seek(0)
        last = self._errors.read().strip().rpartition("\n")[2]
        self._end()
        error = f"the inventory ended without a result{f': {last}' if last else ''}"
        if code != 0:
            error = last or f"the inventory ended with {code}"
        return [PairInventory(error=error)] * len(job.pairs)

    def _start(self) -> Child:
        # A file and no pipe, which a model that warns at each layer would fill while nobody reads.
        file = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by `_end`
        self._errors = self._running.enter_context(file)
        self._child = self._running.enter_context(
            self._children.started(
                _MODULE, (), environment=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file
            )
        )
        return self._child

    def _end(self) -> None:
        """End the process, which ends by itself when nobody asks any more, and close what belongs to it."""
        child, self._child = self._child, None
        if child is not None:
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):  # what was not yet written has no reader any more
                    pipe.close()
            try:
                child.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:  # a model may have started threads that never end
                child.kill()
        self._running.close()


def _answer(child: Child, question: str, deadline: float) -> str | None:
    """The line that a process answers; "" if it ended without one, None if it did not by the deadline."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(question)
        child.stdin.flush()
    except BrokenPipeError:
        return ""
    answer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not answer.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            # Past the buffer of `child.stdout`, in which `select` would not see what was read ahead.
            read = os.read(child.stdout.fileno(), 1 << 16)
            if not read:
                return ""
            answer += read
    return answer.decode("utf-8")
