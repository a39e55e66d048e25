"""The command line as its users meet it: in a process of its own."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from repbench.foreign_plugins import NO_FOREIGN_PLUGINS

# Starts of the names of variables that Python, the linker or a library of `command_server.py` reads when it begins.
# Not KMP_, which scikit-learn sets in the process of the tests: the OpenMP of torch does not read it.
READ_AT_START = (
    "CUDA_", "FORCE_COLOR", "GITHUB_ACTIONS", "GOMP_", "LANG", "LC_", "LD_", "MALLOC_", "MKL_", "MPL", "NPY_", "NUMPY_",
    "OMP_", "OPENBLAS_", "PYDANTIC_", "PYTHON", "PYTORCH_", "PY_COLORS", "SCIPY_", "TERMINAL_WIDTH", "TORCH_",
    "TRITON_", "TZ", "_TYPER",
)  # fmt: skip


class Finished(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What `--json` printed: one object, nothing else."""
        return json.loads(self.out)


def repbench(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    python: str | Path = sys.executable,
    fresh: bool = False,
) -> Finished:
    """Run `repbench` with an interpreter, by default that of the tests; a `PYTHONPATH` of `env` goes before theirs.

    Args:
        fresh: Start the interpreter, instead of forking one that has imported torch and repbench: for what depends on
            the start.
    """
    environment = {**os.environ, **_on_own_path(env or {})}
    words = [str(word) for word in arguments]
    if not fresh and str(python) == sys.executable:
        finished = next(_SERVERS).run(words, environment, timeout)
        if finished is not None:
            return finished
    command = [str(python), "-W", "error", "-m", "repbench", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    return Finished(ended.returncode, ended.stdout, ended.stderr)


class _Server:
    """The process of `command_server.py` that belongs to this one, started for the first command.

    It takes one command at a time, and none that would find another interpreter than it has: another variable of those
    that are read at the start, a module on its path that is imported already or would be before all others, or a
    distribution there with more than plugins of repbench: a library may read its entry points when it is imported.
    """

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._imported: frozenset[str] = frozenset()
        self._environment = _completed(os.environ)  # before any test changes it

    def run(self, arguments: list[str], environment: Mapping[str, str], timeout: float) -> Finished | None:
        """How a command ended; None if it needs an interpreter of its own.

        Raises:
            subprocess.TimeoutExpired: It was killed after `timeout` seconds.
        """
        if not self._one.acquire(blocking=False):
            return None
        try:
            process = self._process or self._start()
            path = [part for part in _path_of(environment) if part not in _path_of(self._environment)]
            if process.poll() is not None or not self._stands_for(environment, [Path.cwd(), *path]):
                return None
            return self._ask(process, arguments, environment, path, timeout)
        finally:
            self._one.release()

    def _start(self) -> subprocess.Popen[bytes]:
        # Unbuffered: a line that waited in a buffer of this process would be none that `select` sees.
        self._process = process = subprocess.Popen(
            [sys.executable, "-W", "error", str(Path(__file__).with_name("command_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=self._environment,
        )
        atexit.register(self._end, process)
        self._imported = frozenset(json.loads(self._line(process)))
        return process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)

    def _stands_for(self, environment: Mapping[str, str], path: list[Path]) -> bool:
        if _read_at_start(_completed(environment)) != _read_at_start(self._environment):
            return False
        distributions = [each for part in path for kind in ("dist", "egg") for each in part.glob(f"*.{kind}-info")]
        if not all(_is_plugin_alone(each) for each in distributions):
            return False
        first = self._imported | {"sitecustomize", "usercustomize"}
        names = {each.name.partition(".")[0] for part in path if part.is_dir() for each in part.iterdir()}
        return not first & names

    def _ask(
        self,
        process: subprocess.Popen[bytes],
        arguments: list[str],
        environment: Mapping[str, str],
        path: list[Path],
        timeout: float,
    ) -> Finished:
        assert process.stdin is not None
        assert process.stdout is not None
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            request = {
                "arguments": arguments,
                "environment": dict(environment),
                "folder": str(Path.cwd()),
                "path": [str(part) for part in path],
                "out": out.name,
                "err": err.name,
            }
            process.stdin.write(json.dumps(request).encode() + b"\n")
            command = int(self._line(process))
            late = not select.select([process.stdout], [], [], timeout)[0]
            if late:
                os.kill(command, signal.SIGKILL)
            code = int(self._line(process))
            if late:
                raise subprocess.TimeoutExpired(["repbench", *arguments], timeout, out.read(), err.read())
            return Finished(code, out.read(), err.read())

    @staticmethod
    def _line(process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        return process.stdout.readline()


def _path_of(environment: Mapping[str, str]) -> list[Path]:
    return [Path(part).absolute() for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]


def _is_plugin_alone(distribution: Path) -> bool:
    """Whether it is named and its entry points are of repbench alone, in lines without a fault."""
    metadata, points = distribution / "METADATA", distribution / "entry_points.txt"
    if not (metadata.is_file() and points.is_file() and re.search(rb"^Name: \w+$", metadata.read_bytes(), re.M)):
        return False
    lines = points.read_bytes().split(b"\n")
    return all(re.fullmatch(rb"|\[repbench\.\w+\]|[\w-]+ = [\w.]+:\w+", line) for line in lines)


def _completed(environment: Mapping[str, str]) -> dict[str, str]:
    """With what a command sets before it imports anything."""
    return {**NO_FOREIGN_PLUGINS, **environment}


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables; not the path of imports, which a forked process takes."""
    return {name: environment[name] for name in environment if name.startswith(READ_AT_START) and name != "PYTHONPATH"}


# In turns, so that two commands that follow each other have different seeds of their hashes, as any two processes have.
_SERVERS = itertools.cycle((_Server(), _Server()))


def _on_own_path(env: Mapping[str, str]) -> dict[str, str]:
    own = os.environ.get("PYTHONPATH")
    if own is None or "PYTHONPATH" not in env:
        return dict(env)
    return {**env, "PYTHONPATH": os.pathsep.join([env["PYTHONPATH"], own])}


def refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing in this process reach a network; its own workers it may reach."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError("something asked for the network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


_NO_NETWORK = """
import socket

def refuse(*_, **__):
    raise RuntimeError("something asked for the network")

def connect(self, address, _connect=socket.socket.connect):
    return _connect(self, address) if self.family == socket.AF_UNIX else refuse()

socket.socket.connect = socket.socket.connect_ex = connect
socket.getaddrinfo = socket.create_connection = refuse
"""


def offline(folder: Path) -> dict[str, str]:
    """The environment in which a process, and those that it starts, cannot reach any network.

    Args:
        folder: An empty one of its own, for what Python imports at its start.
    """
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(_NO_NETWORK)
    return {**_on_own_path({"PYTHONPATH": str(folder)}), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
