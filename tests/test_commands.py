"""Commands that are forked by `command_server.py` are those of an interpreter of their own."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.commands import Finished, repbench
from tests.fake_distributions import install

_STARTED = "import os, sys; print('of', os.getppid(), 'torch' in sys.modules, file=sys.stderr)\n"
"""A plugin file whose line tells the process that started the command, and what was imported before."""


def _with_plugin(folder: Path, *more: str, body: str = _STARTED, **options: object) -> Finished:
    plugin = folder / "plugin.py"
    plugin.write_text(body)
    words = ["run", "--plugin", plugin, "--upstream", "none", "--downstream", "phone", *more]
    return repbench(*words, **options)  # type: ignore[arg-type]


def _parent_and_torch(finished: Finished) -> tuple[int, bool]:
    (line,) = [line for line in finished.err.splitlines() if line.startswith("of ")]
    return int(line.split()[1]), line.endswith("True")


def test_a_command_is_forked_unless_it_asks_for_its_own_start(tmp_path: Path) -> None:
    forked, other, fresh = (_with_plugin(tmp_path, fresh=fresh) for fresh in (False, False, True))
    assert [_parent_and_torch(each)[1] for each in (forked, other, fresh)] == [True, True, False]
    assert _parent_and_torch(fresh)[0] == os.getpid()
    servers = {_parent_and_torch(each)[0] for each in (forked, other)}
    assert len(servers) == 2
    assert os.getpid() not in servers
    assert (forked.code, forked.out) == (fresh.code, fresh.out) == (5, "")
    told = [[line for line in each.err.splitlines() if not line.startswith("of ")] for each in (forked, fresh)]
    assert told[0] == told[1]


def test_folder_variables_and_path_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "mine_alone.py").write_text("")
    monkeypatch.chdir(tmp_path)
    body = (
        "import os, sys, mine_alone\n"
        "print('at', os.getcwd(), os.environ['REPBENCH_CACHE'], sys.path[:2], sys.stdin.read(), file=sys.stderr)\n"
    )
    env = {"PYTHONPATH": str(site), "REPBENCH_CACHE": "elsewhere"}
    told = [_with_plugin(tmp_path, body=body, env=env, fresh=fresh).err for fresh in (False, True)]
    assert told[0] == told[1]
    assert f"at {tmp_path} elsewhere {[str(tmp_path), str(site)]}" in told[0]


@pytest.mark.parametrize("name", ["torch.py", "numpy", "sitecustomize.py", "foreign-1.0.dist-info"])
def test_what_would_be_imported_before_a_library_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "site").mkdir()
    place = tmp_path / "site" / name
    if place.suffix == ".py":
        place.write_text("")
    else:
        place.mkdir()
    told = _with_plugin(tmp_path, env={"PYTHONPATH": str(tmp_path / "site")})
    assert _parent_and_torch(told)[0] == os.getpid()


@pytest.mark.parametrize(
    ("points", "forked"),
    [
        ("[repbench.upstreams]\nmine = mine_alone:build\n", True),
        ("[torch.backends]\nmine = mine_alone:build\n", False),
        ("[repbench.upstreams]\nmine: mine_alone\n", False),
    ],
)
def test_a_distribution_of_plugins_alone_is_found_after_the_fork(tmp_path: Path, points: str, forked: bool) -> None:
    install(tmp_path / "site", "mine", points, modules={"mine_alone": ""})
    env = {"PYTHONPATH": str(tmp_path / "site")}
    assert _parent_and_torch(_with_plugin(tmp_path, env=env))[1] == forked
    if forked:
        assert "mine_alone" in repbench("run", "--upstream", "mine", "--downstream", "phone", env=env).err


def test_a_command_calls_its_exit_handlers_and_says_what_it_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    body = (
        "import atexit, sys, threading, time\n"
        "atexit.register(print, 'handler', file=sys.stderr)\n"
        "threading.Thread(target=lambda: (time.sleep(0.5), print('thread', file=sys.stderr))).start()\n"
        f"left = [open({str(tmp_path / 'a')!r})]; left.append(left); del left\n"
    )
    told = [_with_plugin(tmp_path, body=body, fresh=fresh) for fresh in (False, True)]
    for each in told:
        assert each.code == 5
        assert each.err.index("thread") < each.err.index("handler")
        assert "unclosed file" in each.err


def test_variables_that_are_read_at_the_start_have_an_interpreter_that_read_them(tmp_path: Path) -> None:
    assert _parent_and_torch(_with_plugin(tmp_path, env={"OMP_NUM_THREADS": "7"}))[0] == os.getpid()


def test_what_libraries_set_in_the_process_of_the_tests_is_no_reason(tmp_path: Path) -> None:
    env = {"KMP_INIT_AT_FORK": "FALSE", "TORCHINDUCTOR_CACHE_DIR": "/nowhere", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    assert _parent_and_torch(_with_plugin(tmp_path, env=env))[1]


def test_a_signal_is_the_code_and_a_late_command_is_killed(tmp_path: Path) -> None:
    ended = _with_plugin(tmp_path, body=f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert ended.code == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        _with_plugin(tmp_path, body="import time; time.sleep(300)", timeout=3)
    # The server goes on, and so does the other one.
    assert [repbench("--version").code for _ in range(2)] == [0, 0]
