"""Tests the newest releases that the version ranges allow, without the lock, in an environment of its own.

Usage: python tools/canary.py [--project DIR|WHEEL] [--environment DIR] [--extra NAME] [--lock FILE] [--check COMMAND]
                              [--only-newer] [--limit-seconds N]

Needs the standard library alone. It installs the project with its newest dependencies, runs each check in that
environment, and ends with one line: the outcome, and which releases are newer than those of the lock. Exit code 0 if
all checks passed, else 1. The output of the checks is in `canary.log` in the environment's folder.

With `--only-newer` the checks after the first are left out where no release is newer: whoever has just tested the lock
would test the same packages twice. With `--limit-seconds` all checks together end after that time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from pathlib import Path

CHECKS = ("repbench doctor", "python -m pytest -q --numprocesses auto --maxprocesses 8")
LAST_LINES = 3


def installed(python: Path) -> dict[str, str]:
    """The version of each package of an environment, by its normalised name."""
    told = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    ).stdout
    return {normalised(row["name"]): row["version"] for row in json.loads(told)}


def normalised(name: str) -> str:
    """As a registry compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(file: Path) -> dict[str, set[str]]:
    """The versions of each package in a lock: more than one where they differ by Python or platform."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", file.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(normalised(name), set()).add(version)
    return found


def changes(found: dict[str, str], lock: dict[str, set[str]]) -> list[str]:
    """`name old -> new` for each package whose version is none of the lock's."""
    return [
        f"{name} {'/'.join(sorted(lock[name]))} -> {version}"
        for name, version in sorted(found.items())
        if name in lock and version.partition("+")[0] not in {each.partition("+")[0] for each in lock[name]}
    ]


def run(
    command: Sequence[str | Path], log: Path, folder: Path, environment: dict[str, str], deadline: float | None = None
) -> tuple[bool, str]:
    """Whether a command ended well, and the last line that it printed; all that it printed goes to the log.

    At the deadline, a time of `time.monotonic`, it is killed with the processes that it started.

    Raises:
        subprocess.TimeoutExpired: It was still running then.
    """
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {shlex.join(map(str, command))}\n")
        stream.flush()
        begin = stream.tell()
        child = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
    with log.open(encoding="utf-8", errors="replace") as stream:
        stream.seek(begin)
        lines = [line.rstrip("\n") for line in stream if line.strip()]
    return child.returncode == 0, " / ".join(lines[-1:] if child.returncode == 0 else lines[-LAST_LINES:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--project", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--environment", type=Path, default=Path("build/canary"))
    parser.add_argument("--extra", default="dev")
    parser.add_argument("--lock", type=Path, default=Path(__file__).parents[1] / "locks" / "dev.txt")
    parser.add_argument("--check", action="append")
    parser.add_argument("--only-newer", action="store_true")
    parser.add_argument("--limit-seconds", type=float)
    arguments = parser.parse_args()

    started = time.monotonic()
    folder = arguments.environment.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    python, log = folder / "bin" / "python", folder / "canary.log"
    environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    project = f"{arguments.project.resolve()}" + (f"[{arguments.extra}]" if arguments.extra else "")
    ok, said = run([python, "-m", "pip", "install", "--quiet", "--no-compile", project], log, folder, environment)
    failures = [] if ok else [f"install: {said}"]
    passed = []
    newer = changes(installed(python), locked(arguments.lock))
    checks: list[str] = list(arguments.check or CHECKS) if ok else []
    left_out = checks[1:] if arguments.only_newer and not newer else []
    deadline = None if arguments.limit_seconds is None else time.monotonic() + arguments.limit_seconds
    unfinished = ""
    for check in checks[: len(checks) - len(left_out)]:
        here = arguments.project if arguments.project.is_dir() else folder
        name = check.partition(" -q")[0]
        try:
            ok, said = run(shlex.split(check), log, here, environment, deadline)
        except subprocess.TimeoutExpired:
            unfinished = f"{name} was stopped after {arguments.limit_seconds:g} s"
            break
        if ok:
            passed.append(said)
        else:
            failures.append(f"{name}: {said}")
    # The last line of tests sums them up; that of another check is one of many.
    outcome = f"ok: {checks[0]} passed" if left_out else f"ok: {passed[-1] if passed else 'installed'}"
    if unfinished:
        outcome = f"unfinished: {unfinished}"
    if failures:
        outcome = f"BROKEN: {'; '.join(failures)}"
    beside = f"newer than the lock: {', '.join(newer)}" if newer else "nothing is newer than the lock"
    if left_out:
        beside += ", so its tests were not repeated"
    print(f"canary {outcome} ({time.monotonic() - started:.0f} s; Python {sys.version.split()[0]}; {beside})")
    return 1 if failures or unfinished else 0


if __name__ == "__main__":
    sys.exit(main())
