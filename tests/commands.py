"""The command line as its users meet it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


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
    """Run `repbench` with an interpreter, by default that of the tests."""
    command = [str(python), "-W", "error", "-m", "repbench", *map(str, arguments)]
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)
