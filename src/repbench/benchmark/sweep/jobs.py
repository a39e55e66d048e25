"""A job: the pairs of one upstream and one corpus, one after the other, each in a separate process.

A pair that crashes or runs out of memory ends its own process alone. The pairs of a job run in sequence, so that the
first stores the features and the others read them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from repbench.benchmark.sweep.children import GRACE_SECONDS, Child, Children, Stopped, ended_by_sigterm
from repbench.errors import EnvironmentFault, PluginError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCall:
    """One call of `repbench run`; fields as its options.

    Attributes:
        label: Name of the upstream in the output.
        mode: frozen or finetune.
        plugins: Files that are plugins without packaging.
        timeout_min: Minutes after which it is ended; None: no limit. Not an option of `repbench run`.
    """

    upstream: str
    checkpoint: str | None
    label: str
    downstream: str
    corpus: str
    mode: str
    layer: str
    label_fractions: tuple[float, ...]
    seeds: tuple[int, ...]
    head: str | None
    preset: str
    assignments: tuple[str, ...]
    tune: bool
    controls: bool
    device: str
    allow_excluded: int
    out: str
    plugins: tuple[str, ...] = ()
    timeout_min: float | None = None
    conditions: tuple[str, ...] = ()
    matched: bool = False
    by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name in the output."""
        return " · ".join(filter(None, (self.label, self.downstream, self.corpus, self.mode, self.layer, self.head)))

    def command(self, store_layers: Sequence[str] = ()) -> list[str]:
        """Its command line, without `repbench run`."""
        options: dict[str, object] = {
            "--upstream": self.upstream,
            "--downstream": self.downstream,
            "--corpus": self.corpus,
            "--layer": self.layer,
            "--preset": self.preset,
            "--device": self.device,
            "--allow-excluded": self.allow_excluded,
            "--out": self.out,
        }
        options |= {"--checkpoint": self.checkpoint} if self.checkpoint is not None else {}
        options |= {"--head": self.head} if self.head is not None else {}
        repeated = [
            # `repr` is the shortest text that reads back as the same double: another fraction would be another record.
            *(("--label-fraction", repr(fraction)) for fraction in self.label_fractions),
            *(("--seed", str(seed)) for seed in self.seeds),
            *(("--set", each) for each in self.assignments),
            *(("--condition", each) for each in self.conditions),
            *(("--by", each) for each in self.by),
            *(("--store-layer", layer) for layer in store_layers),
            *(("--plugin", file) for file in self.plugins),
        ]
        flags = {
            "--finetune": self.mode == "finetune",
            "--tune": self.tune,
            "--controls": self.controls,
            "--matched": self.matched,
        }
        return [
            # With `=`, because a value that begins with a dash would be read as an option.
            *(f"{option}={value}" for option, value in (*options.items(), *repeated)),
            *(flag for flag, given in flags.items() if given),
            "--missing-only",
            "--json",
        ]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> RunCall:
        """A pair from the fields of its JSON object."""
        lists = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
        return cls(**{**fields, **lists})


@dataclass(frozen=True, slots=True)
class Job:
    """The pairs of one upstream and one corpus.

    Attributes:
        pairs: In the order in which they run.
    """

    pairs: tuple[RunCall, ...]

    @property
    def name(self) -> str:
        """Its name in the output."""
        return f"{self.pairs[0].label} · {self.pairs[0].corpus}"

    def without(self, done: Sequence[RunCall]) -> Job | None:
        """The job without the given pairs; None if no pair is left."""
        left = tuple(pair for pair in self.pairs if pair not in done)
        return Job(left) if left else None

    def on(self, device: str | None) -> Job:
        """The job on a device; None: that of the plan."""
        return self if device is None else Job(tuple(replace(pair, device=device) for pair in self.pairs))

    def as_json(self) -> str:
        """The job as JSON, for a child process."""
        return json.dumps([asdict(pair) for pair in self.pairs])

    @classmethod
    def of_json(cls, text: str) -> Job:
        """A job from what `as_json` wrote."""
        return cls(tuple(RunCall.of(fields) for fields in json.loads(text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a pair.

    Attributes:
        pair: The pair.
        exit_code: As `repbench run` gives it.
        records: Paths of its records.
        error: The last line of its errors; "" if it did not fail.
        seconds: Wall time.
    """

    pair: RunCall
    exit_code: int
    records: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0


def run_job(
    job: Job,
    children: Children,
    say: Callable[[str], None],
    environment: Mapping[str, str],
    device: str | None = None,
) -> list[Outcome]:
    """Run the pairs of a job one after the other.

    Args:
        job: The job.
        children: The processes that end with the sweep.
        say: Receives each line of theirs.
        environment: Of the processes.
        device: Device in place of the plan's; None: the plan's.

    Returns:
        The outcome of each pair, failures included.
    """
    outcomes = []
    for pair, store_layers in _with_layers_to_store(job.pairs):
        if children.stopped:
            break
        with contextlib.suppress(Stopped):
            outcomes.append(_run(pair, store_layers, children, say, environment, device))
    return outcomes


def run_job_elsewhere(text: str) -> list[dict[str, Any]]:
    """Run a job, given as JSON, on a node of a cluster; the outcomes as plain values."""

    with ended_by_sigterm(), Children() as children:
        return [asdict(outcome) for outcome in run_job(Job.of_json(text), children, to_stderr, os.environ)]


def to_stderr(line: str) -> None:
    """Write a line where a cluster keeps its log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def outcome_of(fields: Mapping[str, Any]) -> Outcome:
    """An outcome from the plain values of `run_job_elsewhere`."""
    return Outcome(**{**fields, "pair": RunCall.of(fields["pair"])})


def _with_layers_to_store(pairs: Sequence[RunCall]) -> Iterator[tuple[RunCall, tuple[str, ...]]]:
    """Each pair with the layers of later pairs of its task, which the first pair stores together with its own."""
    seen: set[str] = set()
    for pair in pairs:
        others = [each.layer for each in pairs if each.downstream == pair.downstream and each.mode == "frozen"]
        first = pair.mode == "frozen" and pair.downstream not in seen
        seen |= {pair.downstream} if first else set()
        yield pair, tuple(dict.fromkeys(each for each in others if each != pair.layer)) if first else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command of repbench ended.

    Attributes:
        output: What it printed to stdout.
        exit_code: As repbench gives it.
        error: The line of its error; "" if it did not fail.
        seconds: Wall time.
    """

    output: str = ""
    exit_code: int = 0
    error: str = ""
    seconds: float = 0.0


def run_command(
    name: str,
    arguments: Sequence[str],
    timeout_min: float | None,
    children: Children,
    say: Callable[[str], None],
    environment: Mapping[str, str],
) -> Ran:
    """Run a command of repbench in a process of its own.

    Args:
        name: Its name in the output.
        arguments: Of `repbench`.
        timeout_min: Minutes after which it is ended; None: no limit.
        children: The processes that end with the sweep.
        say: Receives each line of its stderr.
        environment: Of the process.

    Raises:
        Stopped: The processes are being ended.
    """
    limit_seconds = None if timeout_min is None else timeout_min * 60
    started = time.monotonic()
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            with children.started(
                "repbench", arguments, environment=environment, stdout=printed, stderr=subprocess.PIPE
            ) as child:
                errors = _ErrorLines(child, lambda line: say(f"[{name}] {line}"))
                child.wait(limit_seconds)
            last = errors.last()
            printed.seek(0)
            output = printed.read()
    except OSError as error:
        fault = EnvironmentFault(f"The process cannot be started: {error.strerror}", do="Run it again")
        return Ran(exit_code=fault.exit_code, error=fault.line())
    except subprocess.TimeoutExpired:
        what, do = f"It did not end within {timeout_min:g} min, and was ended", "Run it alone, or give it more time"
        fault = EnvironmentFault(what, key="pair_timeout_min", do=do)
        return Ran(exit_code=fault.exit_code, error=fault.line(), seconds=time.monotonic() - started)
    if children.stopped:
        raise Stopped
    seconds = time.monotonic() - started
    code = child.wait()
    if code < 0:
        what = f"The process was ended by {signal.Signals(-code).name}{_HINTS.get(-code, '')}"
        fault = EnvironmentFault(what, do="Run it alone to see more")
        return Ran(exit_code=fault.exit_code, error=fault.line(), seconds=seconds)
    if code:
        line = last.removeprefix("error: ") or f"exit code {code}, without an error message"
        return Ran(exit_code=code, error=line, seconds=seconds)
    return Ran(output=output, seconds=seconds)


def _run(
    pair: RunCall,
    store_layers: Sequence[str],
    children: Children,
    say: Callable[[str], None],
    environment: Mapping[str, str],
    device: str | None,
) -> Outcome:
    placed = pair if device is None else replace(pair, device=device)
    arguments = ["run", *placed.command(store_layers)]
    ran = run_command(pair.name, arguments, pair.timeout_min, children, say, environment)
    if ran.exit_code:
        return Outcome(pair=pair, exit_code=ran.exit_code, error=ran.error, seconds=ran.seconds)
    return _outcome(pair, ran)


class _ErrorLines:
    """The stderr of a child, forwarded line by line.

    A separate thread reads it while the child is waited for, because processes that the child started may outlive it
    and keep its stderr open.
    """

    def __init__(self, child: Child, say: Callable[[str], None]) -> None:
        self._child = child
        self._say = say
        self._last = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stderr is not None
        with self._child.stderr as lines:
            for line in lines:
                self._last = line.strip() or self._last
                self._say(line.rstrip())

    def last(self) -> str:
        """The last line of a child that has ended; "" if it wrote none."""
        # With a limit: a grandchild can keep stderr open for ever.
        self._reader.join(GRACE_SECONDS)
        return self._last


def _outcome(pair: RunCall, ran: Ran) -> Outcome:
    """The outcome of a pair that ended well."""
    try:
        # The last line alone: a plugin may have printed before it.
        records = tuple(map(str, json.loads(ran.output.rstrip("\n").rpartition("\n")[2])["records"]))
    except (ValueError, KeyError, TypeError) as error:
        unread = PluginError(
            "Something printed to stdout besides the JSON of --json", key=pair.name, do="Let the plugin print to stderr"
        )
        line = f"{unread.line()} {error}"
        return Outcome(pair=pair, exit_code=unread.exit_code, error=line, seconds=ran.seconds)
    return Outcome(pair=pair, exit_code=0, records=records, seconds=ran.seconds)


_HINTS: dict[int, str] = {signal.SIGKILL: ", perhaps for lack of memory"}
