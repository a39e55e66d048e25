"""The locks: every package with version and hash, no address, and what `pyproject.toml` asks for; and the canary."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from tests.fake_wheels import wheel

ROOT = Path(__file__).parents[1]
LOCKS = {lock: ROOT / "locks" / f"{lock}.txt" for lock in ("build", "demo", "dev", "bench")}


def name_of(requirement: str) -> str:
    """The normalised name that a requirement begins with."""
    (name,) = re.findall(r"^[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def packages(lock: str) -> set[str]:
    """The names in a lock."""
    text = LOCKS[lock].read_text(encoding="utf-8")
    return {name_of(line) for line in text.splitlines() if re.match(r"[A-Za-z]", line)}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_version_and_hashes_and_no_address(lock: str) -> None:
    text = LOCKS[lock].read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=[A-Za-z])", text)
    assert entries[0] == ""
    for entry in entries[1:]:
        assert re.match(r"[\w.-]+==[\w.!]+( ; [^\\]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+\Z", entry), entry
    assert "://" not in text


@pytest.mark.parametrize(("lock", "extras"), [("demo", {"demo"}), ("dev", {"dev"}), ("bench", {"bench"})])
def test_a_lock_holds_all_that_the_project_asks_for(lock: str, extras: set[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    asked, waiting = list(project["dependencies"]), [*extras]
    while waiting:
        for requirement in optional[waiting.pop()]:
            inner = re.fullmatch(r"repbench\[([\w,-]+)\]", requirement)
            if inner:
                waiting += inner[1].split(",")
            else:
                asked.append(requirement)
    assert {name_of(requirement) for requirement in asked} <= packages(lock)


def test_the_locks_agree() -> None:
    versions: dict[tuple[str, str], set[str]] = {}
    for lock in ("build", "demo", "dev"):
        for line in LOCKS[lock].read_text(encoding="utf-8").splitlines():
            if found := re.match(r"([\w.-]+)==(\S+)( ; [^\\]*)? ", line):
                versions.setdefault((found[1], found[3] or ""), set()).add(found[2])
    assert not {name: found for name, found in versions.items() if len(found) > 1}


FINE = "def works(): return True\n"
BROKEN = "raise OSError('undefined symbol: aoti_torch_abi')\n"


@pytest.mark.slow
def test_a_broken_release_is_told_by_the_canary_and_not_noticed_by_the_lock(tmp_path: Path) -> None:
    """A folder in the place of a registry comes to hold a broken newer release of what a small project needs."""
    index = tmp_path / "index"
    first = wheel(index, "needed", "1.0", {"needed.py": FINE})
    project = wheel(tmp_path, "small", "1.0", {"small.py": "import needed"}, requires=("needed>=1.0",))
    lock = tmp_path / "lock.txt"
    lock.write_text(f"needed==1.0 \\\n    --hash=sha256:{hashlib.sha256(first.read_bytes()).hexdigest()}\n")
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}

    def canary(*options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, str(ROOT / "tools" / "canary.py"), "--project", str(project), "--extra", "",
            "--environment", str(tmp_path / "canary"), "--lock", str(lock), "--check", "python -c 'import small'",
            *options,
        ]  # fmt: skip
        return subprocess.run(command, env=offline, capture_output=True, text=True, timeout=300, cwd=tmp_path)

    def locked_works() -> bool:
        venv.create(tmp_path / "locked", clear=True)
        python = str(tmp_path / "locked" / "bin" / "python")
        for arguments in (["--require-hashes", "-r", str(lock)], ["--no-deps", str(project)]):
            command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", *arguments]
            subprocess.run(command, env=offline, check=True, timeout=120)
        return subprocess.run([python, "-c", "import small"], check=False).returncode == 0

    tests = ("--check", "python -c 'import time; print(1, flush=True); time.sleep(600)'", "--limit-seconds", "5")
    before = canary(*tests, "--only-newer")
    assert (before.returncode, before.stdout.count("canary ok: python -c 'import small' passed (")) == (0, 1), before
    assert "nothing is newer than the lock, so its tests were not repeated)" in before.stdout
    stopped = canary(*tests)
    assert (stopped.returncode, stopped.stdout.count("canary unfinished: ")) == (1, 1), stopped.stdout
    assert "time.sleep(600)' was stopped after 5 s" in stopped.stdout
    assert "nothing is newer than the lock)" in stopped.stdout
    wheel(index, "needed", "1.0.1", {"needed.py": BROKEN})
    after = canary("--only-newer")
    assert after.returncode == 1
    assert re.fullmatch(
        r"canary BROKEN: python -c 'import small': .*OSError: undefined symbol: aoti_torch_abi "
        r"\(\d+ s; Python \S+; newer than the lock: needed 1\.0 -> 1\.0\.1\)\n",
        after.stdout,
    ), after.stdout
    assert locked_works()
