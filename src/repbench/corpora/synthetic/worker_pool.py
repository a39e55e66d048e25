"""Worker processes: started, watched, and ended on every way out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repbench.corpora.contract import Progress
from repbench.errors import EnvironmentFault

WORKER_COMMAND = (sys.executable, "-m", "repbench.corpora.synthetic.worker")

_STALL_SECONDS = 120.0
_POLL_SECONDS = 0.05
_MOST_WORKERS = 8


def default_num_workers() -> int:
    """As many as there are processor cores for this process, up to eight."""
    # the cores that a scheduler grants, which may be fewer than the machine has
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """The command line of a worker.

    Attributes:
        arguments: Follow the two files of the worker and the id of this process.
        program: Starts a worker.
        stall_seconds: The longest time without a result, in seconds, before the workers are ended.
    """

    arguments: Sequence[str] = ()
    program: Sequence[str] = WORKER_COMMAND
    stall_seconds: float = _STALL_SECONDS


def run(
    jobs: Sequence[Mapping[str, object]],
    scratch: Path,
    command: WorkerCommand,
    *,
    num_workers: int,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Share `jobs` out among workers and collect their results.

    Args:
        jobs: Any number; each worker takes every `num_workers`-th.
        scratch: An empty folder for the files that pass between the processes.
        command: Starts each worker.
        num_workers: At most so many processes.
        progress: Called with (results, `len(jobs)`).

    Returns:
        All results of all workers, in no particular order.

    Raises:
        EnvironmentFault: A worker died, stalled, or left something out; names it and the last line of its stderr.
    """
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(f"{number + 1} of {num_workers}", shard, scratch, command))
            for number in range(num_workers)
            if (shard := jobs[number::num_workers])
        ]
        _watch(workers, len(jobs), progress, command.stall_seconds)
        return [result for worker in workers for result in worker.results_once_ended()]


@dataclass
class _Worker:
    """A running worker, and the files that it reads and writes."""

    name: str
    process: subprocess.Popen[bytes]
    num_jobs: int
    results: Path
    errors: Path
    _seen: bytearray = field(default_factory=bytearray)

    def num_lines(self) -> int:
        """Complete lines it has written so far."""
        if self.results.exists():
            with self.results.open("rb") as stream:
                # only the bytes added since the last call
                stream.seek(len(self._seen))
                self._seen += stream.read()
        return self._seen.count(b"\n")

    def results_once_ended(self) -> list[dict[str, Any]]:
        """Its results, one a job.

        Raises:
            EnvironmentFault: It ended before it had all of them.
        """
        # without the line of the version
        num_results = self.num_lines() - 1
        if num_results != self.num_jobs:
            raise self.fault(f"ended after {max(num_results, 0)} of {self.num_jobs} utterances")
        return [json.loads(line) for line in self._seen.splitlines()]

    def fault(self, what: str) -> EnvironmentFault:
        """An error that names this worker and repeats the last line of its stderr."""
        lines = self.errors.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing on its stderr")
        return EnvironmentFault(
            f"Speech worker {self.name} (process {self.process.pid}) {what}: {last}",
            do="Run the command again; if it happens again, see `repbench doctor`",
        )


@contextlib.contextmanager
def _worker(
    name: str, jobs: Sequence[Mapping[str, object]], scratch: Path, command: WorkerCommand
) -> Iterator[_Worker]:
    stem = f"worker-{name.split()[0]}"
    listed, results, errors = (scratch / f"{stem}.{kind}" for kind in ("jobs", "results", "stderr"))
    listed.write_text("".join(json.dumps(job) + "\n" for job in jobs), encoding="utf-8")
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [*command.program, str(listed), str(results), str(os.getpid()), *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    try:
        yield _Worker(name, process, len(jobs), results, errors)
    finally:
        # On every way out; a process that has ended is not harmed by it.
        process.kill()
        process.wait()


def _watch(workers: Sequence[_Worker], total: int, progress: Progress | None, stall_seconds: float) -> None:
    """Wait until every worker has ended well."""
    num_lines, deadline = 0, time.monotonic() + stall_seconds
    while True:
        # Codes before lines: a worker that has ended by now has written all its lines, so the counts below are final.
        codes = [worker.process.poll() for worker in workers]
        for worker, code in zip(workers, codes, strict=True):
            if code:
                raise worker.fault(f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}")
        counts = [worker.num_lines() for worker in workers]
        if sum(counts) > num_lines:
            num_lines, deadline = sum(counts), time.monotonic() + stall_seconds
            if progress is not None:
                progress(sum(max(count - 1, 0) for count in counts), total)
        if all(code == 0 for code in codes):
            return
        if time.monotonic() > deadline:
            slowest = next(worker for worker, code in zip(workers, codes, strict=True) if code is None)
            raise slowest.fault(f"has given no result for {stall_seconds:g} s")
        time.sleep(_POLL_SECONDS)
