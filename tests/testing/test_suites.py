"""What a plugin author writes: five lines, run by pytest in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import repbench.testing

PLUGIN = """
import dataclasses
from repbench.downstream.speaker import Speaker as Tiny
from repbench.testing.fakes import Envelope

class Model(Envelope):
    pass

def my_model(*, checkpoint=None, seed=0):
    return Model()

class Late(Envelope):
    def __init__(self):
        super().__init__()
        self.info = dataclasses.replace(self.info, first_center_samples=2000)

def my_late_model(*, checkpoint=None, seed=0):
    return Late()
"""


def run_pytest(folder: Path, source: str) -> tuple[int, str]:
    (folder / "my_plugin.py").write_text(PLUGIN)
    (folder / "test_mine.py").write_text(source)
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-rfs",
        "-p",
        "no:cacheprovider",
        "test_mine.py",
    ]
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path}
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_five_lines_are_a_suite(tmp_path: Path) -> None:
    code, out = run_pytest(
        tmp_path,
        "from my_plugin import my_model\n"
        "from repbench.testing import UpstreamSuite\n"
        "\n"
        "class TestMyModel(UpstreamSuite):\n"
        "    factory = my_model\n",
    )

    assert code == 0, out
    assert re.search(r"21 passed, 1 skipped", out), out
    assert "not applicable: it was not loaded from a file" in out


@pytest.mark.slow
def test_a_broken_promise_is_a_failed_test_with_its_name(tmp_path: Path) -> None:
    code, out = run_pytest(
        tmp_path,
        "from my_plugin import my_late_model\n"
        "from repbench.testing import UpstreamSuite\n"
        "\n"
        "class TestLate(UpstreamSuite):\n"
        "    factory = my_late_model\n",
    )

    assert code == 1
    assert "1 failed, 20 passed, 1 skipped" in out, out
    assert "test_mine.py::TestLate::test_promise[hop-and-first-centre]" in out
    assert "`first_center_samples` is 2000, but an impulse is seen as if it were 160" in out


@pytest.mark.slow
def test_tasks_have_their_suite(tmp_path: Path) -> None:
    code, out = run_pytest(
        tmp_path,
        "from my_plugin import Tiny\n"
        "from repbench.testing import DownstreamSuite\n"
        "\n"
        "class TestTiny(DownstreamSuite):\n"
        "    factory = Tiny\n",
    )

    assert code == 0, out
    assert "10 passed, 1 skipped" in out, out


@pytest.mark.slow
def test_a_suite_that_could_try_nothing_fails(tmp_path: Path) -> None:
    code, out = run_pytest(
        tmp_path,
        "from repbench.downstream.sentiment import Sentiment\n"
        "from repbench.testing import DownstreamSuite\n"
        "\n"
        "class TestMood(DownstreamSuite):\n"
        "    factory = Sentiment\n"
        "    options = {'attribute': 'mood'}\n",
    )

    assert code == 1
    assert "it could not be tried: the corpus tones has no label for it" in out, out


@pytest.mark.slow
def test_a_factory_without_a_name_is_held_to_all_but_the_worker(tmp_path: Path) -> None:
    code, out = run_pytest(
        tmp_path,
        "from my_plugin import Model\n"
        "from repbench.testing import UpstreamSuite\n"
        "\n"
        "class TestNameless(UpstreamSuite):\n"
        "    factory = lambda *, checkpoint=None, seed=0: Model()\n",
    )

    assert code == 0, out
    assert "its factory has no name by which another process could find it" in out


@pytest.mark.slow
def test_the_fakes_need_no_pytest() -> None:
    code = "import sys, repbench.testing; repbench.testing.Envelope; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Suite'"):
        repbench.testing.Suite  # noqa: B018
