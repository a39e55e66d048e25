"""The command line as its users meet it: in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest


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
) -> Finished:
    """Run `repbench` with an interpreter, by default that of the tests; a `PYTHONPATH` of `env` goes before theirs."""
    command = [str(python), "-W", "error", "-m", "repbench", *map(str, arguments)]
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **_on_own_path(env or {})}
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


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
