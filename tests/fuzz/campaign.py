"""Runs workers, notices those that hang or die, and counts what they met."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_RESTARTS = 20
"""How often a reader's worker is started again after a hang or a crash; then the reader counts as unusable."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One input at which a reader did not do what it must.

    Attributes:
        number: Of the input; with reader and seed it names the input for good.
        what: The error, the hang or the crash.
        place: The innermost line of the package, where one is known.
    """

    number: int
    what: str
    place: str = ""


@dataclass(slots=True)
class Tally:
    """What became of the inputs of one reader.

    Attributes:
        num_inputs: How many were tried.
        outcomes: How often each regular end was met: "read", "exit 3", …
        faults: All others.
    """

    num_inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


def run(
    targets: str,
    name: str,
    *,
    num_inputs: int,
    seed: int = 0,
    first: int = 0,
    timeout_s: float = 20,
    memory_mib: int = 2048,
) -> Tally:
    """Feed one reader with mutated inputs.

    Args:
        targets: `MODULE:NAME` of the dict of targets.
        name: Of the target.
        num_inputs: How many inputs.
        seed: Of the mutations.
        first: The number of the first input.
        timeout_s: How long one input may take before it counts as a hang.
        memory_mib: How much memory the worker may take beyond what it has when it starts.
    """
    tally = Tally()
    end = first + num_inputs
    for _ in range(MOST_RESTARTS):
        with tempfile.TemporaryDirectory(prefix="repbench-fuzz-") as folder:
            first = _work(tally, [targets, name, f"{seed}", f"{first}", f"{end}", folder, f"{memory_mib}"], timeout_s)
        if first >= end:
            return tally
    tally.faults.append(Fault(first, f"the worker ended {MOST_RESTARTS} times; the rest was not tried"))
    return tally


def _work(tally: Tally, arguments: list[str], timeout_s: float) -> int:
    """One worker from its start to its end; the number of the first input that is left to try."""
    first, end = int(arguments[3]), int(arguments[4])
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-m", "tests.fuzz.worker", *arguments]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=Path(__file__).parents[2])
        number = first - 1
        for said in _lines(worker, timeout_s):
            if "input" in said:
                number = said["input"]
                tally.num_inputs += 1
            elif "fault" in said:
                tally.faults.append(Fault(said["number"], said["fault"], said["place"]))
            elif "outcome" in said:
                tally.outcomes[said["outcome"]] += 1
            elif "done" in said:
                worker.wait()
                return end
            else:
                tally.faults.append(Fault(number, f"hang: nothing within {timeout_s:g} s"))
        code = worker.wait()
        errors.seek(0)
        told = errors.read().decode("utf-8", "replace").strip().splitlines()
    if number < first:
        raise RuntimeError(f"The worker could not start ({code}): {' '.join(told[-3:])}")
    if not tally.faults or tally.faults[-1].number != number:
        tally.faults.append(Fault(number, f"the worker died ({code})", " ".join(told[:6])))
    return number + 1


def _lines(worker: subprocess.Popen[bytes], timeout_s: float) -> Iterator[dict[str, Any]]:
    """What a worker says; an empty dict, and its end, where it says nothing for too long."""
    said: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        assert worker.stdout is not None
        with worker.stdout:
            for line in worker.stdout:
                said.put(line)
        said.put(b"")

    threading.Thread(target=listen, daemon=True).start()
    allowed_s = max(timeout_s, 120.0)  # the imports and seeds come before the first input
    while True:
        try:
            line = said.get(timeout=allowed_s)
        except queue.Empty:
            worker.kill()
            yield {}
            return
        if not line:
            return
        allowed_s = timeout_s
        yield json.loads(line)
