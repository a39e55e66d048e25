"""Records read and verified, in several processes where there are many of them.

A process more costs the import of the statistics, so a few records are read in the one there is.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from repbench.benchmark.report.data.evidence import Evidence
from repbench.benchmark.report.data.reading import Run, read_run

FEW = 100
"""So many records take about as long as a process to start."""

_AT_ONCE = 16
"""Records that a process is handed together."""


def read_and_check(paths: Sequence[Path], root: Path | None = None, *, processes: int = 1) -> Iterator[Run | str]:
    """Each record with its verdict and what was measured for it, in the order of the paths; or why it is none.

    Args:
        paths: Of the records.
        root: Where their files are seen from.
        processes: Among which the work is divided; with more than one, the module that was started must be one that can
            be imported, as that of a command can.
    """
    if processes < 2 or len(paths) <= FEW:
        evidence = Evidence()
        yield from (_checked(evidence, path, root) for path in paths)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    workers = min(processes, len(paths) // FEW + 1)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_rarely_collect) as pool:
        yield from pool.map(partial(_in_worker, root=root), paths, chunksize=_AT_ONCE)


def _rarely_collect() -> None:
    """Predictions are tens of thousands of tuples that make no cycles: looking for some takes an eighth of the time."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


_of_worker: list[Evidence] = []
"""Tasks are made once a process."""


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
