"""Launchers of jobs: processes of this machine, or a SLURM cluster through submitit."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repbench.benchmark.sweep.jobs import Children, Job, Outcome, outcome_of, run_job, run_job_elsewhere, threads_over
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


def launch_here(
    jobs: Sequence[Job], at_once: int, children: Children, say: Say, environment: Mapping[str, str]
) -> Launch:
    """Run the jobs on this machine, `at_once` at a time."""
    with threads_over(children, at_once) as threads:
        waiting = {threads.submit(run_job, job, children, say, environment) for job in jobs}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()


def launch_on_cluster(jobs: Sequence[Job], out: Path, settings: Slurm, say: Say) -> Launch:
    """Submit each job through submitit and collect the outcomes.

    Raises:
        EnvironmentFault: submitit is not installed, or this machine has no SLURM.
        UsageError: SLURM refuses the settings.
    """
    submitted = _submit(jobs, out, settings, say)
    polled = time.monotonic()
    try:
        while submitted:
            for each in [each for each in submitted if _has_result(each, settings)]:
                yield _collected(each, submitted.pop(each))
            if submitted and settings.executor == "slurm" and time.monotonic() - polled > POLL_SECONDS:
                for each, state in _gone(submitted).items():
                    job = submitted.pop(each)
                    # It can have written its result between the last look and its end.
                    yield _collected(each, job) if _has_result(each, settings) else _lost(each, job, state)
                polled = time.monotonic()
            if submitted:
                time.sleep(1)
    finally:
        for each in submitted:
            with contextlib.suppress(OSError):
                each.cancel(check=False)


def _submit(jobs: Sequence[Job], out: Path, settings: Slurm, say: Say) -> dict[Any, Job]:
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
    submitted: dict[Any, Job] = {}
    try:
        for job in jobs:
            each = executor.submit(run_job_elsewhere, job.as_json())
            submitted[each] = job
            say(f"{job.name}: submitted as {each.job_id}, log {each.paths.stderr}")
    except BaseException as error:
        for each in submitted:
            each.cancel(check=False)
        if isinstance(error, submitit.core.utils.FailedJobError | submitit.core.utils.FailedSubmissionError):
            raise UsageError(f"SLURM refuses the job: {_last(error)}", key="slurm") from error
        raise
    return submitted


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
