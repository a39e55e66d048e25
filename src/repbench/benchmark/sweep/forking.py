"""Commands forked out of a process that has imported torch, `fork_server`; to their callers they are like others."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO, Final

SERVER: Final = "repbench.benchmark.sweep.fork_server"

START_SECONDS: Final = 60.0
"""Longest time until torch is imported; after it, or where the import ends the process, commands are not forked."""

END_SECONDS: Final = 2.0
"""Longest time until a process that is asked nothing more has ended by itself."""

Stream = int | IO[str]
"""`subprocess.PIPE`, `subprocess.DEVNULL`, or a file."""


class ForkServer:
    """A process of `repbench.benchmark.sweep.fork_server`; it runs one command at a time.

    Args:
        environment: Of the process and its commands.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._connection, theirs = socket.socketpair()
        # A file for stderr: each command repeats what was said at an import.
        with theirs, tempfile.TemporaryFile() as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", SERVER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
            )
        # Unbuffered, as `select` does not see what waits in a buffer of this process.
        self._answers = self._connection.makefile("rb", buffering=0)

    def is_ready(self) -> bool:
        """Whether it has imported everything; waits for that, up to `START_SECONDS`."""
        seen, _, _ = select.select([self._connection], [], [], START_SECONDS)
        return bool(seen) and self.line() == b"ready\n"

    def start(self, module: str, arguments: Sequence[str], streams: Sequence[Stream]) -> Forked:
        """Run a module as `python -m` does.

        Args:
            module: The module.
            arguments: Of the module.
            streams: For stdin, stdout and stderr.
        """
        with ExitStack() as theirs:
            ours: list[IO[str] | None] = []
            descriptors = []
            for number, stream in enumerate(streams):
                end, descriptor = _ends(stream, reads=number == 0, theirs=theirs)
                ours.append(end)
                descriptors.append(descriptor)
            request = json.dumps([module, *arguments]).encode() + b"\n"
            sent = socket.send_fds(self._connection, [request], descriptors)
            self._connection.sendall(request[sent:])
        try:
            return Forked(self, *ours)
        except BaseException:  # no thread can be started, so nobody would hear of its end
            self.kill()
            raise

    def line(self) -> bytes:
        """The next line of its answers; nothing where the process has ended."""
        try:
            return self._answers.readline()
        except ConnectionResetError:
            return b""

    def is_idle(self) -> bool:
        """Whether it waits for a command; one that was killed does not."""
        # Nothing is on its way from one that waits; at the end of a process, the end of its answers is.
        return not select.select([self._connection], [], [], 0)[0]

    def kill(self) -> None:
        """Send SIGKILL: it has nothing to put in order, and may be in the middle of an import."""
        self._process.kill()

    def end(self) -> None:
        """End the process, which has no command any more."""
        self._answers.close()
        self._connection.close()  # which it sees, if it waits for a command
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()


def _ends(stream: Stream, *, reads: bool, theirs: ExitStack) -> tuple[IO[str] | None, int]:
    """This process's end of a stream, if it has one, and the descriptor of the other, which `theirs` closes."""
    if stream == subprocess.DEVNULL:
        descriptor = os.open(os.devnull, os.O_RDONLY if reads else os.O_WRONLY)
        theirs.callback(os.close, descriptor)
        return None, descriptor
    if stream != subprocess.PIPE:
        assert not isinstance(stream, int)
        return None, stream.fileno()
    read, write = os.pipe()
    own, other = (write, read) if reads else (read, write)
    theirs.callback(os.close, other)
    return os.fdopen(own, "w" if reads else "r", encoding="utf-8", errors="replace"), other


class Forked:
    """A forked command, with what the callers of `subprocess.Popen` use of it.

    Attributes:
        stdin: Text stream to the command; None where it has no pipe, like the other two.
        stdout: Text stream from the command.
        stderr: Text stream from the command.
        returncode: The exit code, or minus the number of the signal that ended it; None while it runs.
    """

    def __init__(
        self, server: ForkServer, stdin: IO[str] | None, stdout: IO[str] | None, stderr: IO[str] | None
    ) -> None:
        self.stdin, self.stdout, self.stderr = stdin, stdout, stderr
        self.returncode: int | None = None
        self._server = server
        self._pid: int | None = None
        self._begun, self._ended = threading.Event(), threading.Event()
        # Held while a signal is sent, so that the id is still that of the command.
        self._lock = threading.Lock()
        threading.Thread(target=self._follow, daemon=True).start()

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once the command has ended.

        Raises:
            subprocess.TimeoutExpired: It did not within so many seconds.
        """
        if not self._ended.wait(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired("repbench", timeout)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self._begun.wait()
        with self._lock:
            if self.returncode is None and self._pid is not None:
                os.kill(self._pid, number)

    def _follow(self) -> None:
        begun = self._server.line()
        self._pid = int(begun) if begun else None
        self._begun.set()
        code = self._server.line() if begun else b""
        with self._lock:
            if code:
                self.returncode = int(code)
            else:  # the server was killed, and its command has nobody who waits for it
                with contextlib.suppress(ProcessLookupError):
                    if self._pid is not None:
                        os.kill(self._pid, signal.SIGKILL)
                self.returncode = -signal.SIGKILL
        self._ended.set()
