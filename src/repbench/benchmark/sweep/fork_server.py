"""A process that has imported torch and forks for each command, without the seconds that an import takes.

`python -m repbench.benchmark.sweep.fork_server N` answers on the socket with the file descriptor N: first `ready`;
then, for each request, the id of the forked process and, at its end, how it ended. A request is a line of JSON with the
module and its arguments, and the descriptors of the three standard streams. `forking` asks it.

Only libraries of others are imported before the fork: a command imports the modules of repbench and of plugins itself,
as they are when it begins. It ends as Python ends, with its exit handlers. Where a library cannot be imported, this
process ends, and a process of its own tells why. Its stderr is a file that it can read.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Final, NamedTuple

from repbench.foreign_plugins import keep_out
from repbench.process_end import ends_at_once

LIBRARIES: Final = ("numpy", "pydantic", "safetensors.torch", "soundfile", "torch", "typer", "yaml")
"""What nearly every command imports. None starts a thread of Python at its import."""

_STREAMS: Final = 3
_HEEDED: Final = frozenset({signal.SIGINT, signal.SIGTERM})
"""Signals that end a command; this process ends when nobody asks any more."""


class Request(NamedTuple):
    """What a forked process is to do.

    Attributes:
        module: Run as by `python -m`.
        arguments: Of the module.
        streams: File descriptors of stdin, stdout and stderr.
    """

    module: str
    arguments: Sequence[str]
    streams: Sequence[int]


def main() -> None:
    """Import, then answer requests; in a forked process, run a command."""
    # Kept for the commands: a shell without job control lets what it starts in the background ignore SIGINT.
    handlers = {each: signal.signal(each, signal.SIG_IGN) for each in _HEEDED}
    keep_out()
    try:
        for library in LIBRARIES:
            importlib.import_module(library)
    except BaseException:  # of any kind; a process of its own meets and tells it
        os._exit(1)
    if threading.active_count() > 1:  # a forked process would have no such thread, but its locks
        os._exit(1)
    gc.freeze()  # or the first collection of a forked process would copy what it shares with this one
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        request = _serve(connection)
    if request is None:
        os._exit(0)  # without the handlers of libraries, which have nothing to put in order
    said = _said_so_far()
    _take_streams(request.streams)
    os.write(2, said)
    sys.argv = [request.module, *request.arguments]
    for each, handler in handlers.items():
        signal.signal(each, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
    _draw_anew()
    importlib.invalidate_caches()  # folders may have come, or other files into them
    with ends_at_once():
        runpy.run_module(request.module, run_name="__main__", alter_sys=True)


def _take_streams(descriptors: Sequence[int]) -> None:
    """Put other files below the standard streams.

    Each gets a new object: that of a stream remembers whether its file can be sought in, which a pipe cannot.
    """
    for number, (name, descriptor) in enumerate(zip(("stdin", "stdout", "stderr"), descriptors, strict=True)):
        before = getattr(sys, name)
        os.dup2(descriptor, number)
        os.close(descriptor)
        raw = io.FileIO(number, "w" if number else "r", closefd=False)
        # Without a buffer where Python was told to have none: what a crash leaves in one is lost.
        unbuffered = isinstance(before.buffer, io.RawIOBase)
        stream = io.TextIOWrapper(
            raw if unbuffered else io.BufferedWriter(raw) if number else io.BufferedReader(raw),
            encoding=before.encoding,
            errors=before.errors,
            newline="\n",
            line_buffering=before.line_buffering,
            write_through=before.write_through,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _said_so_far() -> bytes:
    """What libraries wrote to stderr when they were imported: each command says it, as one that imports them does."""
    sys.stderr.flush()
    return os.pread(2, 1 << 20, 0)


def _draw_anew() -> None:
    """Seed the generators of numpy and torch, as each process begins with its own; Python's does that by itself."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()


def _serve(connection: socket.socket) -> Request | None:
    """Fork for each request, until nobody asks any more; in a forked process, its request."""
    ended: int | None = None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side was killed
        connection.sendall(b"ready\n")
        while True:
            request = _received(connection)
            if ended is not None:
                os.waitpid(ended, 0)
            if request is None:
                return None
            # A signal for the command waits until the forked process can heed it.
            signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
            process = os.fork()
            if process == 0:
                return request
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
            for descriptor in request.streams:
                os.close(descriptor)
            connection.sendall(b"%d\n" % process)
            connection.sendall(b"%d\n" % _exit_code_of(process))
            ended = process
    return None


def _received(connection: socket.socket) -> Request | None:
    received, streams, *_ = socket.recv_fds(connection, 1 << 16, _STREAMS)
    while received and not received.endswith(b"\n"):
        more = connection.recv(1 << 16)
        received = received + more if more else b""
    if not received:
        return None
    module, *arguments = json.loads(received)
    return Request(module, arguments, streams)


def _exit_code_of(process: int) -> int:
    """How a process ended, as `subprocess` has it; its id belongs to no other process before the next request."""
    found = os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert found is not None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


if __name__ == "__main__":
    main()
