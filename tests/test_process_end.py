"""A program that ends at once ends as any other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BODY = """
import atexit, sys, threading, time

class Torn:
    def __del__(self):
        sys.stderr.write("torn down\\n")

kept = Torn()
kept.self = kept
atexit.register(lambda: sys.stderr.write("handler\\n"))
threading.Thread(target=lambda: (time.sleep(0.3), sys.stderr.write("thread\\n"))).start()
sys.stdout.write("waits in the buffer")
"""


def _ended(last: str, *options: str, at_once: bool = True) -> subprocess.CompletedProcess[str]:
    head = "from repbench.process_end import ends_at_once\nwith ends_at_once():\n    " if at_once else ""
    return subprocess.run(
        [sys.executable, *options, "-c", f"{BODY}\n{head}{last}\n"], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("last", "code", "told"),
    [
        ("pass", 0, []),
        ("sys.exit()", 0, []),
        ("sys.exit(7)", 7, []),
        ("sys.exit(-1)", 255, []),
        ("sys.exit('a text')", 1, ["a text"]),
        ("1 / 0", 1, ["ZeroDivisionError: division by zero"]),
    ],
)
def test_code_threads_handlers_and_streams_are_those_of_python(last: str, code: int, told: list[str]) -> None:
    at_once, slowly = _ended(last), _ended(last, at_once=False)
    assert (at_once.returncode, at_once.stdout) == (slowly.returncode, slowly.stdout) == (code, "waits in the buffer")
    lines = [line for line in at_once.stderr.splitlines() if not line.startswith((" ", "Traceback"))]
    leaves = not told  # after an error Python ends it
    assert lines == [*told, "thread", "handler", *([] if leaves else ["torn down"])]
    assert slowly.stderr.splitlines()[-1] == "torn down"


def test_what_cannot_be_written_is_the_code_of_python() -> None:
    for at_once in (True, False):
        ended = _ended("sys.stdout = open('/dev/full', 'w'); print(1); sys.exit(0)", at_once=at_once)
        assert (ended.returncode, "No space left on device" in ended.stderr) == (120, True)


@pytest.mark.parametrize(("options", "tears_down"), [((), False), (("-W", "error"), True)])
def test_the_program_ends_at_once_unless_warnings_are_asked_for(
    tmp_path: Path, options: tuple[str, ...], tears_down: bool
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(BODY)
    command = [sys.executable, *options, "-m", "repbench", "run", "--plugin", str(plugin)]
    ended = subprocess.run(
        [*command, "--upstream", "none", "--downstream", "phone"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 5
    assert ended.stderr.splitlines()[1:] == ["thread", "handler", *(["torn down"] if tears_down else [])]
