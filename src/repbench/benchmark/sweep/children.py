"""The child processes of a sweep, which end with it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final, Protocol

from repbench.benchmark.sweep.forking import ForkServer, Stream
from repbench.errors import Terminated

GRACE_SECONDS: Final = 10.0
"""Longest time between the signal to end and SIGKILL."""

_FORKS: Final = sys.platform == "linux"  # a process of macOS may not live on after a fork without `exec`


_Environment = frozenset[tuple[str, str]]
"""The variables of processes that can be forked out of one."""


class Stopped(Exception):  # noqa: N818 - read as "the work was stopped"
    """The child processes are being ended, and no other starts."""


class Child(Protocol):
    """What is used of a child process, as `subprocess.Popen` has it."""

    stdin: IO[str] | None
    stdout: IO[str] | None
    stderr: IO[str] | None

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the number of the signal that ended it; None while it runs."""
        ...

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; raises `subprocess.TimeoutExpired` if it has not in time."""
        ...

    def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    def kill(self) -> None:
        """Send SIGKILL."""
        ...


class Children:
    """The running child processes; all are ended at the end of the block.

    Where the system allows it, they are forked out of a process that has imported torch, one for each environment and
    command at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[Child] = set()
        self._servers: set[ForkServer] = set()
        self._idle: dict[_Environment, list[ForkServer]] = {}
        self._unforkable: set[_Environment] = set()
        self._stopped = False

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *fault: object) -> None:
        self.stop()

    @contextlib.contextmanager
    def started(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream,
        stderr: Stream,
    ) -> Iterator[Child]:
        """A child process that runs a module, as `python -m` does; it has ended when the block ends.

        Args:
            module: The module.
            arguments: Of the module.
            environment: Of the process.
            stdin: `subprocess.PIPE`, `subprocess.DEVNULL`, or a file.
            stdout: The same.
            stderr: The same.

        Raises:
            Stopped: `stop` was called.
        """
        with self._server(environment) as server:
            with self._lock:
                # Under the lock: a child that starts after `stop` has listed the running ones would outlive the sweep.
                if self._stopped:
                    raise Stopped
                child: Child
                if server is not None:
                    child = server.start(module, arguments, (stdin, stdout, stderr))
                else:
                    child = subprocess.Popen(
                        [sys.executable, "-m", module, *arguments],
                        text=True,
                        encoding="utf-8",
                        errors="replace",
                        env=dict(environment),
                        stdin=stdin,
                        stdout=stdout,
                        stderr=stderr,
                    )
                self._running.add(child)
            try:
                yield child
                child.wait()
            except BaseException:
                child.terminate()
                end([child])
                raise
            finally:
                with self._lock:
                    self._running.discard(child)

    @contextlib.contextmanager
    def _server(self, environment: Mapping[str, str]) -> Iterator[ForkServer | None]:
        """A server that nobody else has until the end of the block; None where commands cannot be forked."""
        key = frozenset(environment.items())
        with self._lock:
            if self._stopped:
                raise Stopped
            idle = self._idle.setdefault(key, [])
            server = idle.pop() if idle else None
        if server is not None and not server.is_idle():  # somebody killed it
            self._end(server)
            server = None
        server = server or self._new_server(key)
        try:
            yield server
        finally:
            if server is not None:
                with self._lock:
                    keeps = not self._stopped and server.is_idle()
                    if keeps:
                        idle.append(server)
                if not keeps:
                    self._end(server)

    def _new_server(self, key: _Environment) -> ForkServer | None:
        """A server with this environment; None where it cannot import what it is for."""
        if not _FORKS or key in self._unforkable:
            return None
        with self._lock:
            if self._stopped:
                raise Stopped
            server = ForkServer(dict(key))
            self._servers.add(server)
        if server.is_ready():
            return server
        server.kill()
        self._end(server)
        self._unforkable.add(key)
        return None

    def _end(self, server: ForkServer) -> None:
        with self._lock:
            self._servers.discard(server)
        server.end()

    def stop(self) -> None:
        """End every child process, without interruption by a second signal."""
        with _undisturbed():
            with self._lock:
                self._stopped = True
                running = list(self._running)
            for child in running:
                child.terminate()
            end(running)
            with self._lock:
                idle = [server for servers in self._idle.values() for server in servers]
                self._idle.clear()
                # Those that are still importing; whoever waits for one ends it.
                for server in self._servers.difference(idle):
                    server.kill()
            for server in idle:
                self._end(server)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped


def end(children: Sequence[Child]) -> None:
    """Wait for processes that have received SIGTERM or are about to exit; kill those that do not end."""
    deadline = time.monotonic() + GRACE_SECONDS
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def threads_over(children: Children, count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that wait for children; an exception in the block ends the children, and so the threads."""
    with ThreadPoolExecutor(count) as threads:
        try:
            yield threads
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM unwinds the stack, so that no child outlives this process."""

    def leave(signum: int, frame: object) -> None:
        raise Terminated(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Inside, the main thread ignores SIGINT and SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, signal.SIG_IGN) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
