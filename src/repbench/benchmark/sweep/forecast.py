"""What a sweep will cost, from a look at each job; rough, and said to be."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from repbench.benchmark.sweep.inventory import Seen, View
from repbench.benchmark.sweep.jobs import Children, Job, RunCall, threads_over


@dataclass(frozen=True, slots=True)
class Unseen:
    """Why nothing can be said of a job, and whether that is because the look took too long."""

    why: str
    hung: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What is there, and what the rest will cost.

    Attributes:
        seen: What there is of each pair.
        extract_seconds: Sound that has to go through the upstreams.
        work_seconds: About what starting, extracting and training will take, one after the other; None where nothing
            is known of some of it.
        unknown: Why not, in words.
    """

    seen: Mapping[RunCall, Seen]
    extract_seconds: float
    work_seconds: float
    unknown: tuple[str, ...]

    @property
    def asked(self) -> int:
        """Records of pairs of which that can be said."""
        return sum(each.asked or 0 for each in self.seen.values())

    @property
    def existing(self) -> int:
        """Records that are there."""
        return sum(len(each.records) for each in self.seen.values())

    def lines(self, jobs: int) -> list[str]:
        """In words."""
        missing = self.asked - self.existing
        lines = [f"{self.asked} records are asked, {self.existing} are there, {missing} are missing"]
        if missing:
            lines.append(
                f"{self.extract_seconds / 3600:.2f} h of sound go through an upstream; about "
                f"{duration(self.work_seconds / jobs)} with {jobs} job{'s' if jobs > 1 else ''} at a time"
            )
        return [*lines, *(f"not in the forecast: {each}" for each in self.unknown)]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "records_asked": self.asked,
            "records_existing": self.existing,
            "extract_hours": self.extract_seconds / 3600,
            "about_seconds": self.work_seconds,
            "unknown": list(self.unknown),
        }


def forecast(
    jobs: Sequence[Job], at_once: int, children: Children, environment: Mapping[str, str], *, limit_seconds: float
) -> Forecast:
    """Look at every job, several at once, each in a process of its own.

    Args:
        jobs: What is looked at.
        at_once: How many looks at a time.
        children: Whose processes they are.
        environment: Of the processes.
        limit_seconds: How long a look may take; nothing is known of a job whose look takes longer.
    """
    with threads_over(children, at_once) as threads:
        views = list(threads.map(lambda job: _look(job, children, environment, limit_seconds), jobs))
    seen = {pair: each for job, view in zip(jobs, views, strict=True) for pair, each in _seen(job, view).items()}
    trained = [seconds for each in seen.values() for seconds in each.train_seconds]
    work, unknown = 0.0, [f"{pair.name}: {each.error}" for pair, each in seen.items() if each.asked is None]
    missing = {pair: each for pair, each in seen.items() if each.asked is not None and not each.complete}
    num_missing = sum((each.asked or 0) - len(each.records) for pair, each in missing.items() if pair.mode == "frozen")
    for job, view in zip(jobs, views, strict=True):
        if isinstance(view, View):
            work += view.start_seconds * sum(pair in missing for pair in job.pairs)
            work += view.extract_macs / view.macs_per_second if view.macs_per_second else 0.0
    if trained:
        work += num_missing * statistics.fmean(trained)
    elif num_missing:
        unknown.append("training the probes, because no record tells yet what one takes here")
    if any(pair.mode == "finetune" for pair in missing):
        unknown.append("fine-tuning")
    if any(pair.controls for pair in missing):
        unknown.append("the controls")
    extract_seconds = sum(view.extract_seconds for view in views if isinstance(view, View))
    return Forecast(seen=seen, extract_seconds=extract_seconds, work_seconds=work, unknown=tuple(unknown))


def _seen(job: Job, view: View | Unseen) -> dict[RunCall, Seen]:
    if isinstance(view, Unseen):
        return {pair: Seen(error=view.why, hung=view.hung) for pair in job.pairs}
    return dict(zip(job.pairs, view.pairs, strict=True))


def _look(job: Job, children: Children, environment: Mapping[str, str], limit_seconds: float) -> View | Unseen:
    """What there is of a job, or why that cannot be said."""
    command = [sys.executable, "-m", "repbench.benchmark.sweep.inventory"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        with children.started(command, env=dict(environment), **pipes) as child:
            printed, said = child.communicate(job.as_json(), timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        for pipe in (child.stdin, child.stdout, child.stderr):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        return Unseen(f"the look did not end within {duration(limit_seconds)} (look_timeout_min)", hung=True)
    last = said.strip().rpartition("\n")[2]
    if child.returncode != 0:
        return Unseen(last or f"the look ended with {child.returncode}")
    try:
        return View.of_json(printed.rstrip("\n").rpartition("\n")[2])
    except (ValueError, KeyError, TypeError):
        return Unseen(f"the look ended without an answer{f': {last}' if last else ''}")


def environment_for(at_once: int) -> dict[str, str]:
    """The environment of children of which `at_once` share the cores of this machine."""
    environment = dict(os.environ)
    if at_once > 1:
        allowed = environment.get("OMP_NUM_THREADS", "")
        cores = int(allowed) if allowed.isdigit() else len(os.sched_getaffinity(0))
        environment["OMP_NUM_THREADS"] = str(max(1, cores // at_once))
    return environment


def duration(seconds: float) -> str:
    """A duration to the precision that a forecast has."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
