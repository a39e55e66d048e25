"""From a plan to its records: read the plan, make the inventory and the forecast, run the jobs, summarise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repbench.benchmark.sweep.children import Children
from repbench.benchmark.sweep.devices import Slots
from repbench.benchmark.sweep.forecast import Forecast, environment_for, forecast
from repbench.benchmark.sweep.jobs import Job, Outcome, RunCall
from repbench.benchmark.sweep.launchers import Launch, PartedJob, launch_here, launch_on_cluster
from repbench.benchmark.sweep.pair_inventory import PairInventory
from repbench.benchmark.sweep.parts import PartCall, parts_of
from repbench.benchmark.sweep.plan import SweepPlan, jobs_of, load_plan
from repbench.errors import UsageError
from repbench.files import ensure_writable
from repbench.locks import exclusive_lock
from repbench.progress import Reporter, Silence

LOCK_FILE = "sweep.lock"

LAUNCHERS = ("local", "slurm")
Status = Literal["ok", "failed", "already there"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRequest:
    """The arguments of `repbench sweep`.

    Attributes:
        plan: The YAML file.
        out: Folder under which each record gets its own.
        launcher: local or slurm.
        jobs: Number of jobs at a time on this machine; None: one, or one for each of `devices`.
        devices: Devices that the jobs on this machine take in turn, `cpu` or `cuda:N`; empty: the plan's device.
        dry_run: Whether to stop after the forecast.
        threads: Threads of all jobs of this machine together; None: as many as processors may be used.
    """

    plan: Path
    out: Path = Path("runs")
    launcher: str = "local"
    jobs: int | None = None
    devices: tuple[str, ...] = ()
    dry_run: bool = False
    threads: int | None = None

    @property
    def at_once(self) -> int:
        """Number of jobs at a time on this machine."""
        return self.jobs or len(self.devices) or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSummary:
    """The state of a pair after the sweep.

    Attributes:
        pair: The pair.
        status: ok: records were made; already there: none was missing.
        made: Paths of the records that this sweep made.
        existing: Paths of those that existed before.
        exit_code: That of `repbench run`.
        error: The line of its error; "" if it did not fail.
    """

    pair: RunCall
    status: Status
    made: tuple[str, ...]
    existing: tuple[str, ...]
    exit_code: int
    error: str

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "upstream": self.pair.upstream,
            "checkpoint": self.pair.checkpoint,
            "label": self.pair.label,
            "downstream": self.pair.downstream,
            "corpus": self.pair.corpus,
            "mode": self.pair.mode,
            "layer": self.pair.layer,
            "head": self.pair.head,
            "status": self.status,
            "records": [*self.existing, *self.made],
            "exit_code": self.exit_code,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The result of a sweep; a dry run has no rows."""

    forecast: Forecast
    rows: tuple[PairSummary, ...]

    @property
    def exit_code(self) -> int:
        """The highest of all pairs."""
        return max((row.exit_code for row in self.rows), default=0)

    def line(self) -> str:
        """The number of pairs of each status."""
        counts = Counter(row.status for row in self.rows)
        return ", ".join(f"{counts[status]} {status}" for status in ("ok", "already there", "failed"))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "records": [path for row in self.rows for path in (*row.existing, *row.made)],
            "made": [path for row in self.rows for path in row.made],
            "failed": [row.as_dict() for row in self.rows if row.status == "failed"],
            "pairs": [row.as_dict() for row in self.rows],
            "forecast": self.forecast.as_dict(),
            "exit_code": self.exit_code,
        }


def sweep(request: SweepRequest, reporter: Reporter | None = None) -> Swept:
    """Make the records of a plan that do not exist below `out` yet.

    A pair that fails does not stop the others; the rows hold the result of each.

    Raises:
        UsageError: The plan is invalid.
        RunInUseError: Another sweep writes below `out`.
        EnvironmentFault: `out` cannot be written to, or there is no SLURM.
    """
    reporter = reporter or Silence()
    if request.launcher not in LAUNCHERS:
        do = f"Choose {' or '.join(LAUNCHERS)}"
        raise UsageError(f"There is no launcher `{request.launcher}`", key="--launcher", do=do)
    if request.threads is not None and request.launcher != "local":
        do = "Set `slurm.cpus_per_task` in the plan: a job computes on as many threads as it gets processors"
        raise UsageError("Threads are those of this machine, not of a cluster", key="--threads", do=do)
    plan = load_plan(request.plan)
    _refuse_devices(request, plan)
    jobs = jobs_of(plan, request.out, request.plan)
    ensure_writable(request.out)
    alone = nullcontext() if request.dry_run else exclusive_lock(request.out / LOCK_FILE, "sweeps here")
    with alone, Children() as children:
        for job in jobs:
            reporter.say(f"{job.name}: {'; '.join(_described(pair) for pair in job.pairs)}")
        limit_seconds = plan.look_timeout_min * 60
        slots = Slots(request.devices, request.at_once, environment_for(request.at_once, request.threads))
        expected = forecast(jobs, slots, children, limit_seconds=limit_seconds)
        for line in expected.lines(len(jobs) if request.launcher == "slurm" else min(request.at_once, len(jobs))):
            reporter.say(line)
        if request.dry_run:
            return Swept(forecast=expected, rows=())
        left = left_to_do(jobs, expected)
        # Where nothing is missing, no launcher has to be installed.
        outcomes = _outcomes(_launch(request, plan, left, expected, children, reporter), left, reporter) if left else {}
    return Swept(
        forecast=expected,
        rows=tuple(_row(pair, expected.pairs[pair], outcomes.get(pair)) for job in jobs for pair in job.pairs),
    )


def _described(pair: RunCall) -> str:
    how = "" if pair.mode == "frozen" else f"{pair.mode}, "
    head = "" if pair.head is None else f", head {pair.head}"
    return f"{pair.downstream} ({how}layer {pair.layer}{head})"


def left_to_do(jobs: Sequence[Job], expected: Forecast) -> list[Job]:
    """The jobs without pairs whose records all exist. A pair with controls stays: only its run knows which it needs.

    Jobs whose inventory took too long come last: they may hang again, and the others do not wait for them.
    """
    complete = [pair for pair, each in expected.pairs.items() if each.complete and not pair.controls]
    left = [left for job in jobs if (left := job.without(complete)) is not None]
    return sorted(left, key=lambda job: any(expected.pairs[pair].timed_out for pair in job.pairs))


def _refuse_devices(request: SweepRequest, plan: SweepPlan) -> None:
    if not request.devices:
        return
    if request.launcher != "local":
        do = "Leave it out, and give `slurm: {gres: gpu:1}` in the plan"
        raise UsageError("A cluster gives each job its devices", key="--devices", do=do)
    if plan.device != "auto":
        what = f"The plan has the device `{plan.device}`"
        raise UsageError(what, key="--devices", do="Leave `device` out of the plan, or --devices out of the command")


def _launch(
    request: SweepRequest,
    plan: SweepPlan,
    jobs: Sequence[Job],
    expected: Forecast,
    children: Children,
    reporter: Reporter,
) -> Launch:
    parted = [PartedJob(job, tuple(_parts(job, plan, expected))) for job in jobs]
    if request.launcher == "slurm":
        return launch_on_cluster(parted, request.out, plan.slurm, reporter.say)
    num_processes = sum(max(1, len(each.parts)) for each in parted)
    at_once = min(request.at_once, num_processes)
    return launch_here(
        parted, Slots(request.devices, at_once, environment_for(at_once, request.threads)), children, reporter.say
    )


def _parts(job: Job, plan: SweepPlan, expected: Forecast) -> list[PartCall]:
    """The parts of the extraction of a job, where the store lacks something."""
    lacks = any(expected.pairs[pair].missing_sound_seconds for pair in job.pairs)
    return parts_of(job, plan.shards) if lacks else []


def _outcomes(launched: Launch, jobs: Sequence[Job], reporter: Reporter) -> dict[RunCall, Outcome]:
    outcomes: dict[RunCall, Outcome] = {}
    try:
        with closing(launched):
            for outcome in (each for job in launched for each in job):
                outcomes[outcome.pair] = outcome
                word = f"failed ({outcome.exit_code})" if outcome.exit_code else "done"
                reporter.say(f"{outcome.pair.name}: {word} after {outcome.seconds:.0f} s")
    except BaseException:
        num_pairs = sum(len(job.pairs) for job in jobs)
        reporter.say(f"stopped: {len(outcomes)} of {num_pairs} pairs ended; the same command does the rest")
        raise
    return outcomes


def _row(pair: RunCall, before: PairInventory, outcome: Outcome | None) -> PairSummary:
    paths = outcome.records if outcome is not None else ()
    made = tuple(path for path in paths if path not in before.records)
    code = outcome.exit_code if outcome is not None else 0
    status: Status = "failed" if code else "ok" if made else "already there"
    error = outcome.error if outcome is not None else ""
    return PairSummary(pair=pair, status=status, made=made, existing=before.records, exit_code=code, error=error)
