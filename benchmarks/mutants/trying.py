"""Run tests against mutants: each in a fork of a process that has imported everything once.

Nothing here may run a test outside of a fork: autograd's threads do not survive one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

SECONDS_AT_LEAST = 10.0
"""Before a mutant counts as one that does not end: the machine may be shared."""
TIMES_AS_LONG = 5.0
"""As its tests usually take, before it counts as one that does not end."""
ROOM_BYTES = 4 << 30
"""Memory that a mutant may take beyond what its process begins with."""

_COMPLAINTS = os.dup(2)
"""The terminal, where a fork that says nothing else says what went wrong."""

_WORK_FAILED = 70
_PR_SET_PDEATHSIG = 1

KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant.

    Attributes:
        verdict: killed, survived or timeout.
        by: The test that failed, if one did.
    """

    verdict: str
    by: str = ""


@dataclass(slots=True)
class Baseline:
    """What the tests do where nothing is changed.

    Attributes:
        failed: Tests that fail; there should be none.
        seconds: Of each test.
        runs: Function of the module -> tests that run it.
        spawns: Tests that start processes, of which it is not known what they run.
        at_import: Functions of the module that run before any test: when modules are imported, or tests are collected.
    """

    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    runs: dict[str, list[str]] = field(default_factory=dict)
    spawns: list[str] = field(default_factory=list)
    at_import: list[str] = field(default_factory=list)

    def tests_of(self, function: str) -> list[str]:
        """The tests that may notice a change of a function, the quickest first."""
        tests = {*self.runs.get(function, ()), *self.spawns}
        return sorted(tests, key=lambda name: (name in self.spawns, self.seconds[name]))


def in_fork(work: Callable[[Callable[[object], None]], None], *, seconds: float) -> list[Any] | None:
    """Run in a fork what is given a way to answer, once; whatever it started is killed when it has answered.

    Returns:
        The answer alone; empty if it died without one; None if it did not end in time.

    Raises:
        RuntimeError: The work itself raised an exception, which it has printed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        os.close(reader)
        try:
            _keep_to_itself()
            work(lambda answer: _write_all(writer, json.dumps(answer).encode("ascii") + b"\n"))
        except BaseException:
            _write_all(_COMPLAINTS, traceback.format_exc().encode("utf-8", "backslashreplace"))
            os._exit(_WORK_FAILED)
        os._exit(0)
    os.close(writer)
    said = _read_line(reader, time.monotonic() + seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == _WORK_FAILED:
        raise RuntimeError("what was to be done in a fork failed")
    return None if said is None else [json.loads(said)] if said.endswith(b"\n") else []


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _read_line(reader: int, until: float) -> bytes | None:
    """What is written until the line ends or the writer dies; None if neither happens in time."""
    said = b""
    try:
        while not said.endswith(b"\n"):
            if not select.select([reader], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            part = os.read(reader, 1 << 16)
            if not part:
                break
            said += part
    finally:
        os.close(reader)
    return said


def _keep_to_itself() -> None:
    """Say nothing, take no more memory than there is, and end with the process that forked this one."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def pytest_arguments(tests: Sequence[str], scratch: Path) -> list[str]:
    """Of a run of some files of tests, without what slows it down or leaves something behind."""
    quiet = ["-q", "-x", "--no-header", "--capture=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    return [*quiet, "-m", "not slow", f"--basetemp={scratch}", *tests]


class Trials:
    """A plugin of pytest that tries mutants in the place of running the tests once.

    Args:
        path: Of the module that is mutated.
        work: Is given these trials when the tests are collected.
    """

    def __init__(self, path: Path, work: Callable[[Trials], None]) -> None:
        self._path = str(path)
        self._work = work
        self._items: dict[str, pytest.Item] = {}
        self._failed: list[str] = []
        self._seen: set[str] = set()
        self._watching = False
        self._spawned = False
        self._killers: dict[str, int] = defaultdict(int)
        self.error: BaseException | None = None
        self.baseline = Baseline()
        sys.addaudithook(self._audit)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Gather which functions of the module run."""
        self._watching = True
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            self._watching = False

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename == self._path:
            self._seen.add(frame.f_code.co_qualname.partition(".<locals>")[0])

    def _audit(self, event: str, arguments: object) -> None:
        if self._watching and event in {"subprocess.Popen", "os.posix_spawn", "os.fork"}:
            self._spawned = True

    def seen(self) -> set[str]:
        """The functions that ran since it was asked last."""
        seen, self._seen = self._seen, set()
        return seen

    @pytest.hookimpl
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the mutants; pytest would swallow what goes wrong, so it is kept."""
        try:
            self._run(session)
        except BaseException as error:
            self.error = error
        return True

    def _run(self, session: pytest.Session) -> None:
        sys.setprofile(None)
        threading.setprofile(None)
        self._items = {item.nodeid: item for item in session.items}
        answer = in_fork(self._run_baseline, seconds=1800.0)
        if not answer:
            raise RuntimeError("the tests died, or did not end within half an hour")
        self.baseline = Baseline(**answer[0])
        self.baseline.at_import = sorted(self.seen())
        self._work(self)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember what failed."""
        if report.failed:
            self._failed.append(report.nodeid)

    def _run_baseline(self, tell: Callable[[object], None]) -> None:
        baseline = Baseline()
        runs: dict[str, set[str]] = defaultdict(set)
        by_file: dict[str, list[str]] = defaultdict(list)
        for name in self._items:
            by_file[name.partition("::")[0]].append(name)
        items, caches = list(self._items.values()), _caches()
        for item, following in zip(items, [*items[1:], None], strict=True):
            for cache in caches:  # a function whose result is kept would seem to run in its first test alone
                cache.cache_clear()
            set_up, baseline.seconds[item.nodeid] = self._run_watched(item, following)
            for function in self.seen():
                runs[function].add(item.nodeid)
            for function in set_up:  # of fixtures that other tests of the file may share
                runs[function].update(by_file[item.nodeid.partition("::")[0]])
            if self._spawned:
                baseline.spawns.append(item.nodeid)
        baseline.failed = self._failed
        baseline.runs = {function: sorted(names) for function, names in runs.items()}
        tell({each: getattr(baseline, each) for each in Baseline.__dataclass_fields__})

    def _run_watched(self, item: pytest.Item, following: pytest.Item | None) -> tuple[set[str], float]:
        """Run a test; gives the functions that its fixtures ran, and the seconds it took."""
        set_up: set[str] = set()
        self._spawned, started = False, time.monotonic()
        with self.watched(), _after_set_up(item, lambda: set_up.update(self.seen())):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return set_up, time.monotonic() - started

    def functions(self) -> list[FunctionType]:
        """All functions of the module that are alive."""
        alive = (each for each in gc.get_objects() if type(each) is FunctionType)
        return [each for each in alive if each.__code__.co_filename == self._path]

    def try_in_place(
        self, functions: Sequence[FunctionType], original: str, mutated: str, where: str
    ) -> Outcome | None:
        """Give one function the code of a mutant, in a fork, and run the tests that run it.

        Returns:
            None where a function cannot take the code, because it closes over other variables.
        """
        tests = sorted(self.baseline.tests_of(where), key=lambda name: -self._killers[name])
        if not tests:
            return Outcome(SURVIVED)
        swaps = _swaps(functions, codes_of(original, self._path), codes_of(mutated, self._path), where)
        if any(function.__code__.co_freevars != code.co_freevars for function, code in swaps):
            return None

        def work(tell: Callable[[object], None]) -> None:
            for function, code in swaps:
                function.__code__ = code
            items = [self._items[name] for name in tests]
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self._failed:
                    break
            tell(self._failed)

        usual = sum(self.baseline.seconds[name] for name in tests)
        outcome = _outcome(in_fork(work, seconds=SECONDS_AT_LEAST + TIMES_AS_LONG * usual))
        self._killers[outcome.by] += 1
        return outcome


@contextlib.contextmanager
def _after_set_up(item: pytest.Item, call: Callable[[], None]) -> Iterator[None]:
    run = item.runtest

    def told() -> None:
        call()
        run()

    item.runtest = told  # type: ignore[method-assign]
    try:
        yield
    finally:
        del item.runtest


Codes = dict[tuple[str, int], CodeType]
"""By qualified name and number."""


def codes_of(source: str, path: str) -> Codes:
    """The code of each function of a text that is not inside another; those of one name are numbered."""
    found: Codes = {}
    waiting = [compile(source, path, "exec", dont_inherit=True)]
    while waiting:
        for code in (each for each in waiting.pop(0).co_consts if isinstance(each, CodeType)):
            if "<" in code.co_qualname:
                continue
            number = sum(name == code.co_qualname for name, _ in found)
            found[code.co_qualname, number] = code
            waiting.append(code)
    return found


def _swaps(
    functions: Sequence[FunctionType], old: Codes, new: Codes, where: str
) -> list[tuple[FunctionType, CodeType]]:
    """The functions of a name, and the code that each is to have."""
    numbers = {(code.co_qualname, code.co_firstlineno): key for key, code in old.items()}
    named = [each for each in functions if each.__code__.co_qualname == where]
    if not named:
        raise RuntimeError(f"{where} was not found")
    return [(each, new[numbers[where, each.__code__.co_firstlineno]]) for each in named]


def _caches() -> list[Any]:
    """The functions of the package whose results are kept (`functools.lru_cache`)."""
    alive = (each for each in gc.get_objects() if type(each) is type(lru_cache(_caches)))
    return [each for each in alive if each.__wrapped__.__module__.startswith("repbench.")]


def try_from_disk(tests: Sequence[str], scratch: Path, usual_seconds: float) -> Outcome:
    """Import a mutant that stands on the disk, in a fork that has imported nothing of it, and run all its tests."""

    class Remembers:
        def __init__(self) -> None:
            self.failed: list[str] = []

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                self.failed.append(report.nodeid)

    def work(tell: Callable[[object], None]) -> None:
        remembers = Remembers()
        code = int(pytest.main(pytest_arguments(tests, scratch), plugins=[remembers]))
        tell(remembers.failed or ([f"pytest ended with {code}"] if code else []))

    return _outcome(in_fork(work, seconds=2 * SECONDS_AT_LEAST + TIMES_AS_LONG * usual_seconds))


def _outcome(answer: list[Any] | None) -> Outcome:
    """Of tests that answer with those that failed."""
    if answer is None:
        return Outcome(TIMEOUT)
    (failed,) = answer or [["the process died"]]
    return Outcome(KILLED, failed[0]) if failed else Outcome(SURVIVED)
