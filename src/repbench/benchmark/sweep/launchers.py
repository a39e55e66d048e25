"""Launchers of jobs: processes of this machine, or a SLURM cluster through submitit."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repbench.benchmark.sweep.children import Children, Stopped, threads_over
from repbench.benchmark.sweep.devices import Slots
from repbench.benchmark.sweep.jobs import Job, Outcome, outcome_of, run_job, run_job_elsewhere
from repbench.benchmark.sweep.parts import PartCall, run_part, run_part_elsewhere
from repbench.errors import EnvironmentFault, UsageError

if TYPE_CHECKING:
    from repbench.benchmark.sweep.plan import Slurm

JOBS_FOLDER = ".slurm"
"""Below the folder of the records: the submitted jobs and their logs."""
POLL_SECONDS = 15.0
"""Seconds between two queries of the queue for jobs that left no result."""

Say = Callable[[str], None]
Launch = Generator[list[Outcome], None, None]
"""The outcomes of one job after the other, as jobs end."""


@dataclass(frozen=True, slots=True)
class PartedJob:
    """A job and the parts in which its features are extracted first; without parts, its first pair extracts them."""

    job: Job
    parts: tuple[PartCall, ...] = ()


def launch_here(jobs: Sequence[PartedJob], slots: Slots, children: Children, say: Say) -> Launch:
    """Run the jobs on this machine, as many at a time as there are slots; each when its parts have ended."""

    def run_pairs(job: Job) -> list[Outcome]:
        with slots.taken() as slot:
            if slot.name:
                say(f"{job.name}: on {slot.name}")
            return run_job(job, children, say, slot.environment, slot.device)

    def extract(part: PartCall) -> list[Outcome]:
        with slots.taken() as slot, contextlib.suppress(Stopped):
            if slot.name:
                say(f"{part.name}: on {slot.name}")
            if note := run_part(part, children, say, slot.environment, slot.device):
                say(note)
        return []

    with threads_over(children, slots.count) as threads:
        left = [(each.job, {threads.submit(extract, part) for part in each.parts}) for each in jobs if each.parts]
        waiting = {threads.submit(run_pairs, each.job) for each in jobs if not each.parts}
        while waiting or left:
            done, _ = wait(waiting.union(*(parts for _, parts in left)), return_when=FIRST_COMPLETED)
            waiting -= done
            ready = [job for job, parts in left if parts <= done]
            left = [(job, parts - done) for job, parts in left if not parts <= done]
            waiting |= {threads.submit(run_pairs, job) for job in ready}
            for each in done:
                if outcomes := each.result():
                    yield outcomes


def launch_on_cluster(jobs: Sequence[PartedJob], out: Path, settings: Slurm, say: Say) -> Launch:
    """Submit each job through submitit and collect the outcomes; first its parts, as an array.

    Raises:
        EnvironmentFault: submitit is not installed, or this machine has no SLURM.
        UsageError: SLURM refuses the settings.
    """
    cluster = _Cluster(_executor(out, settings), settings, say)
    polled = time.monotonic()
    try:
        cluster.submit(jobs)
        while cluster.submitted or cluster.parts:
            for each in [each for each in cluster.parts if _has_result(each, settings)]:
                cluster.end_part(each)
            for each in [each for each in cluster.submitted if _has_result(each, settings)]:
                yield _collected(each, cluster.submitted.pop(each))
            if settings.executor == "slurm" and time.monotonic() - polled > POLL_SECONDS:
                for each, state in _gone([*cluster.parts, *cluster.submitted]).items():
                    if each in cluster.parts:
                        cluster.end_part(each, state)
                    else:
                        job = cluster.submitted.pop(each)
                        # It can have written its result between the last look and its end.
                        yield _collected(each, job) if _has_result(each, settings) else _lost(each, job, state)
                polled = time.monotonic()
            if cluster.submitted or cluster.parts:
                time.sleep(1)
    finally:
        for each in (*cluster.parts, *cluster.submitted):
            with contextlib.suppress(OSError):
                each.cancel(check=False)


class _Cluster:
    """What is submitted and has not ended.

    Attributes:
        submitted: From each submitted job to the job.
        parts: From each submitted part to the job that waits for it.
    """

    def __init__(self, executor: Any, settings: Slurm, say: Say) -> None:
        self._executor = executor
        self._settings = settings
        self._say = say
        self.submitted: dict[Any, Job] = {}
        self.parts: dict[Any, Job] = {}

    def submit(self, jobs: Iterable[PartedJob]) -> None:
        """Submit jobs, or their parts where they have some.

        Raises:
            UsageError: SLURM refuses the settings.
        """
        import submitit

        try:
            for each in jobs:
                if each.parts:
                    self._submit_parts(each)
                else:
                    self._submit_job(each.job)
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise UsageError(f"SLURM refuses the job: {_last(error)}", key="slurm") from error

    def end_part(self, part: Any, state: str = "") -> None:
        """Count a part as ended, and submit its job after the last one.

        Args:
            part: The part.
            state: Its last state where it left no result; the pairs then compute what is not stored.
        """
        job = self.parts.pop(part)
        if note := self._note_on(part, job, state):
            self._say(note)
        if job not in self.parts.values():
            self.submit([PartedJob(job)])

    def _note_on(self, part: Any, job: Job, state: str) -> str:
        if _has_result(part, self._settings):
            try:
                return str(part.result())
            except Exception as error:  # submitit raises what the job raised, or that it left no result
                state = _last(error)
        return f"note: {job.name}: the SLURM job {part.job_id} of a part ended without a result: {state}"

    def _submit_parts(self, parted: PartedJob) -> None:
        texts = [part.as_json() for part in parted.parts]
        for each in self._executor.map_array(run_part_elsewhere, texts):
            self.parts[each] = parted.job
        ids = [each.job_id for each in self.parts if self.parts[each] is parted.job]
        self._say(f"{parted.job.name}: features in {len(ids)} parts, submitted as {ids[0]} to {ids[-1]}")

    def _submit_job(self, job: Job) -> None:
        each = self._executor.submit(run_job_elsewhere, job.as_json())
        self.submitted[each] = job
        self._say(f"{job.name}: submitted as {each.job_id}, log {each.paths.stderr}")


def _executor(out: Path, settings: Slurm) -> Any:
    try:
        import submitit
    except ImportError as error:
        what = "The package submitit is not installed"
        raise EnvironmentFault(what, key="--launcher", do="Run `pip install 'repbench[slurm]'`") from error
    if settings.executor == "slurm" and shutil.which("sbatch") is None:
        what = "There is no `sbatch` on this machine, so there is no SLURM to submit to"
        raise EnvironmentFault(what, key="--launcher", do="Take --launcher local, or log in to the cluster")
    for handler in list(logging.getLogger("submitit").handlers):
        logging.getLogger("submitit").removeHandler(handler)  # it writes to stdout, which belongs to --json
    folder = (out / JOBS_FOLDER).absolute()
    executor = submitit.AutoExecutor(folder=folder, cluster=settings.executor)
    executor.update_parameters(**_parameters(settings))
    return executor


def _parameters(settings: Slurm) -> dict[str, Any]:
    """The settings under the names of submitit, where those of SLURM begin with `slurm_`."""
    parameters: dict[str, Any] = {"name": "repbench", "timeout_min": settings.timeout_min}
    shared = {"cpus_per_task": settings.cpus_per_task, "mem_gb": settings.mem_gb}
    own = {
        "slurm_partition": settings.partition,
        "slurm_gres": settings.gres,
        "slurm_account": settings.account,
        "slurm_setup": list(settings.setup) or None,
    }
    return parameters | {key: value for key, value in {**shared, **own}.items() if value is not None}


def _collected(submitted: Any, job: Job) -> list[Outcome]:
    try:
        return [outcome_of(each) for each in submitted.result()]
    except Exception as error:  # submitit raises what the job raised, or that it left no result
        return _lost(submitted, job, _last(error))


def _lost(submitted: Any, job: Job, why: str) -> list[Outcome]:
    """Failures of all pairs of a job that ended without a result, even of pairs whose records exist."""
    what = f"The SLURM job {submitted.job_id} ended without a result: {why}"
    fault = EnvironmentFault(what, file=submitted.paths.stderr, do="Read its log, and sweep again")
    return [Outcome(pair=pair, exit_code=fault.exit_code, error=fault.line()) for pair in job.pairs]


def _has_result(submitted: Any, settings: Slurm) -> bool:
    """Whether a job left its result. submitit itself would query the job accounting, which not every cluster has."""
    return bool(submitted.paths.result_pickle.exists() if settings.executor == "slurm" else submitted.done())


def _gone(submitted: Iterable[Any]) -> dict[Any, str]:
    """The jobs that have left the queue, with their last state."""
    states = {each: _state(each) for each in submitted}
    return {each: state for each, state in states.items() if state in _ENDED}


def _state(submitted: Any) -> str:
    command = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={submitted.job_id}"]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        return "gone" if "Invalid job id" in finished.stderr else "unknown"
    return finished.stdout.strip() or "gone"


_ENDED = {
    "gone", "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"
}  # fmt: skip


def _last(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
