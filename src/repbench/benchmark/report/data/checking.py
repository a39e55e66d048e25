"""Reading and verifying records, in several processes where there are many.

Each process imports the statistics, so few records are read in this process alone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.reading import Run, read_run
from repbench.progress import Advance

FEW = 100
"""Number of records whose verification takes about as long as the start of a process."""

_AT_ONCE = 16
"""Records that a process receives at a time."""


def read_and_check(
    paths: Sequence[Path],
    root: Path | None = None,
    *,
    processes: int = 1,
    progress: Advance = lambda done, total: None,
) -> Iterator[Run | str]:
    """Each record with its verification and recomputed metrics, or the reason that it cannot be read, in order.

    Args:
        paths: Of the records.
        root: Folder that files are shown relative to.
        processes: Number of processes; with more than one, the main module must be importable, as that of a command
            is.
        progress: Called with the records done and all records.
    """
    for done, run in enumerate(_in_order(paths, root, processes), start=1):
        progress(done, len(paths))
        yield run


def _in_order(paths: Sequence[Path], root: Path | None, processes: int) -> Iterator[Run | str]:
    if processes < 2 or len(paths) <= FEW:
        evidence = Evidence()
        yield from (_checked(evidence, path, root) for path in paths)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # A fork of this process could deadlock on a lock that one of torch's threads holds; a server that has imported this
    # module forks without them, and faster than each process could import it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    workers = min(processes, len(paths) // FEW + 1)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_rarely_collect) as pool:
        yield from pool.map(partial(_in_worker, root=root), paths, chunksize=_AT_ONCE)


def _rarely_collect() -> None:
    """Collect garbage rarely: predictions are tens of thousands of tuples without cycles, and the search takes 1/8."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


_of_worker: list[Evidence] = []
"""One `Evidence` for each worker process, so that tasks are built once."""


def _in_worker(path: Path, root: Path | None) -> Run | str:
    if not _of_worker:
        _of_worker.append(Evidence())
    return _checked(_of_worker[0], path, root)


def _checked(evidence: Evidence, path: Path, root: Path | None) -> Run | str:
    run = read_run(path, root)
    if isinstance(run, str) or run.fault is not None:
        return run
    checked = evidence.checked(run)
    return replace(checked, is_checked=True, found=evidence.taken(path))
