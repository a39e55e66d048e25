"""Children of a sweep that are forked out of a process with torch imported: what tells them from others is the time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from repbench.benchmark.sweep import children as children_module
from repbench.benchmark.sweep.children import Child, Children, Stopped
from repbench.benchmark.sweep.fork_server import LIBRARIES
from repbench.benchmark.sweep.forking import SERVER

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are forked on Linux alone")


class Ended(NamedTuple):
    """How a module ended."""

    code: int
    out: str
    err: str


class Modules:
    """A folder of modules that children can import."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        own = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([str(folder), *([own] if own else [])])
        self.environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "GIVEN": "given"}

    def write(self, name: str, text: str) -> None:
        """A module with this text."""
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")

    def run(self, children: Children, name: str, *arguments: str, **more: str) -> Ended:
        """Run a module."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            environment = {**self.environment, **more}
            with children.started(name, arguments, environment=environment, stdout=out, stderr=err) as child:
                code = child.wait()
            out.seek(0)
            err.seek(0)
            return Ended(code, out.read(), err.read())


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    return Modules(tmp_path_factory.mktemp("modules"))


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    with Children() as children:
        yield children


def state_of(process: int) -> str:
    """The letter of a process's state; "" if there is none."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def servers_of(process: int) -> set[int]:
    """The ids of the running servers that a process started."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (place / "cmdline").read_text()
        except OSError:  # it ended meanwhile
            continue
        if int(parent) == process and SERVER in command and state != "Z":
            found.add(int(place.name))
    return found


@pytest.mark.slow
def test_a_module_runs_as_by_the_interpreter_and_finds_torch_imported(modules: Modules, children: Children) -> None:
    modules.write(
        "tells",
        """
import atexit, os, sys
loaded = sorted({"torch", "numpy", "repbench.benchmark.run"} & set(sys.modules))
atexit.register(print, "the last words")
print(__name__, sys.argv[1:], loaded, os.getcwd() == sys.path[0], sys.stdin.read() == "", flush=True)
print("to stderr", file=sys.stderr)
sys.exit(3)
""",
    )
    forked = modules.run(children, "tells", "a b", "--c=d")

    assert forked.code == 3
    assert forked.out.splitlines() == ["__main__ ['a b', '--c=d'] ['numpy', 'torch'] True True", "the last words"]
    assert forked.err == "to stderr\n"


def test_no_command_finds_anything_of_the_one_before(modules: Modules, children: Children) -> None:
    """The module is edited between the two, the generators of the libraries have other states."""
    text = "import os, random, numpy, torch\nprint(os.environ.pop('GIVEN'), {}, random.random(), numpy.random.rand(), "
    texts = [text.format(number) + "torch.rand(()).item())" for number in (1, 2)]
    said = []
    for each in texts:
        modules.write("draws", each)
        said.append(modules.run(children, "draws").out.split())

    assert len(servers_of(os.getpid())) == 1, "both are forked out of one process"
    assert [each[:2] for each in said] == [["given", "1"], ["given", "2"]]
    assert all(first != second for first, second in zip(said[0][2:], said[1][2:], strict=True))


@pytest.mark.slow
def test_another_environment_has_another_process(modules: Modules) -> None:
    modules.write("tells", "import os, torch; print(os.environ['OMP_NUM_THREADS'], torch.get_num_threads())")

    before = servers_of(os.getpid())
    with Children() as children:
        said = [modules.run(children, "tells", OMP_NUM_THREADS=each).out for each in ("1", "2", "1")]
        new = servers_of(os.getpid()) - before

    assert said == ["1 1\n", "2 2\n", "1 1\n"]
    assert len(new) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("import sys; sys.exit('a reason')", 1),
        ("import os; os._exit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", 130),
        ("raise ValueError('a fault')", 1),
    ],
)
def test_it_ends_as_other_processes_do(modules: Modules, children: Children, text: str, code: int) -> None:
    modules.write("ends", text)
    command = [sys.executable, "-m", "ends"]
    alone = subprocess.run(command, env=modules.environment, capture_output=True, text=True, check=False)

    forked = modules.run(children, "ends")
    again = modules.run(children, "ends")

    assert forked.code == again.code == alone.returncode
    assert forked.code == code or alone.returncode == -signal.SIGINT
    assert forked.err.splitlines()[-1:] == alone.stderr.splitlines()[-1:]


@pytest.mark.slow
def test_the_end_of_the_block_ends_commands_and_their_servers(modules: Modules) -> None:
    modules.write("waits", "import time; print('begun', flush=True); time.sleep(600)")
    before = servers_of(os.getpid())
    running: list[Child] = []

    def interrupted(children: Children) -> None:
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with children.started("waits", (), environment=modules.environment, **options) as child:
            running.append(child)
            assert child.stdout is not None
            with child.stdout:
                assert child.stdout.readline() == "begun\n"
            assert servers_of(os.getpid()) > before
            raise KeyError

    with Children() as children, pytest.raises(KeyError):
        interrupted(children)

    assert [child.returncode for child in running] == [-signal.SIGTERM]
    assert servers_of(os.getpid()) == before
    with pytest.raises(Stopped), children.started("waits", (), environment={}, stdout=-3, stderr=-3):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_the_last_line_before_a_crash_is_heard(tmp_path: Path, variables: dict[str, str]) -> None:
    modules = Modules(tmp_path)
    modules.environment.pop("PYTHONUNBUFFERED", None)
    modules.write("crashes", "import os, sys; print('a reason', file=sys.stderr); print('lost'); os._exit(9)")
    command = [sys.executable, "-m", "crashes"]
    environment = modules.environment | variables
    alone = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    with Children() as children:
        forked = modules.run(children, "crashes", **variables)

    assert forked == Ended(alone.returncode, alone.stdout, alone.stderr)
    assert forked.err == "a reason\n"


@pytest.mark.slow
def test_what_an_import_says_is_said_by_each_command(tmp_path: Path) -> None:
    modules = Modules(tmp_path)
    modules.write("sitecustomize", "import sys; print('a warning', file=sys.stderr)")
    modules.write("says", "import sys; print('its own', file=sys.stderr)")

    with Children() as children:
        said = [modules.run(children, "says").err for _ in range(2)]
        assert servers_of(os.getpid())

    assert said == ["a warning\nits own\n"] * 2


@pytest.mark.slow
def test_a_folder_that_comes_later_is_seen(tmp_path: Path) -> None:
    modules = Modules(tmp_path)
    late = tmp_path / "late"
    path = os.pathsep.join([str(late), modules.environment["PYTHONPATH"]])
    modules.write("looks", "import importlib.util; print(importlib.util.find_spec('lateone') is not None)")

    with Children() as children:
        before = modules.run(children, "looks", PYTHONPATH=path)
        late.mkdir()
        (late / "lateone.py").touch()
        after = modules.run(children, "looks", PYTHONPATH=path)

    assert (before.out, after.out) == ("False\n", "True\n")


@pytest.mark.parametrize(
    "site",
    [
        """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch.nn":
            raise ImportError("no torch.nn here")
sys.meta_path.insert(0, Finder())
""",
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
    ],
    ids=["torch fails midway", "a thread"],
)
@pytest.mark.slow
def test_where_torch_fails_midway_or_a_thread_runs_nothing_is_forked(tmp_path: Path, site: str) -> None:
    modules = Modules(tmp_path)
    modules.write("sitecustomize", site)
    modules.write("needs", "import torch; print('torch')")
    command = [sys.executable, "-m", "needs"]
    alone = subprocess.run(command, env=modules.environment, capture_output=True, text=True, check=False)

    before = servers_of(os.getpid())
    with Children() as children:
        ended = modules.run(children, "needs")
        assert servers_of(os.getpid()) == before

    assert (ended.code, ended.out) == (alone.returncode, alone.stdout)
    assert ended.err.splitlines()[-1:] == alone.stderr.splitlines()[-1:]


@pytest.mark.slow
def test_a_sweep_whose_stderr_is_closed_makes_its_records(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        'upstreams: [mel]\ndownstreams: [phone]\ncorpora: ["synthetic:tiny"]\nset: [probe.steps=20]\n', encoding="utf-8"
    )
    command = f"{sys.executable} -m repbench sweep {plan} --out {tmp_path / 'runs'} --json 2>&-"
    done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert len(json.loads(done.stdout)["made"]) == 1


def test_what_speaks_through_pipes_is_answered(modules: Modules, children: Children) -> None:
    modules.write("echoes", "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)")
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with children.started("echoes", (), environment=modules.environment, **options) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdin, child.stdout:
            for word in ("one\n", "zwölf\n"):
                child.stdin.write(word)
                child.stdin.flush()
                assert child.stdout.readline() == word.upper()

    assert child.returncode == 0


@pytest.mark.slow
def test_a_command_whose_server_is_killed_counts_as_killed(modules: Modules, children: Children) -> None:
    modules.write("waits", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with children.started("waits", (), environment=modules.environment, **options) as child:
        assert child.stdout is not None
        with child.stdout:
            process = int(child.stdout.readline())
        (server,) = servers_of(os.getpid())
        os.kill(server, signal.SIGKILL)
        assert child.wait(30) == -signal.SIGKILL

    deadline = time.monotonic() + 30
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{process}").exists(), "nobody waits for it, so it is killed too"
    modules.write("says", "print('again')")
    assert modules.run(children, "says").out == "again\n", "by another server"
    (server,) = servers_of(os.getpid())
    os.kill(server, signal.SIGKILL)
    while state_of(server) not in {"Z", ""}:  # until its files are closed
        time.sleep(0.05)
    assert modules.run(children, "says").out == "again\n", "by a third one"


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["import os; os._exit(4)", "import time; time.sleep(600)", "raise SystemExit"])
def test_where_an_import_ends_or_holds_the_server_commands_are_processes_of_their_own(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, before = Modules(tmp_path), servers_of(os.getpid())
    monkeypatch.setattr("repbench.benchmark.sweep.forking.START_SECONDS", 5.0)
    modules.write(LIBRARIES[0], fault)
    modules.write("tells", "import sys; print('torch' in sys.modules)")

    with Children() as children:
        ended = [modules.run(children, "tells") for _ in range(2)]
        assert servers_of(os.getpid()) == before

    assert ended == [Ended(0, "False\n", "")] * 2


@pytest.mark.slow
def test_a_library_that_cannot_be_imported_is_the_trouble_of_the_command(tmp_path: Path) -> None:
    modules = Modules(tmp_path)
    modules.write("soundfile", "raise ImportError('no sound')")
    modules.write("hears", "import soundfile")

    with Children() as children:
        ended = modules.run(children, "hears")

    assert ended.code == 1
    assert ended.err.splitlines()[-1] == "ImportError: no sound"


def test_where_the_system_cannot_fork_they_are_processes_of_their_own(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children_module, "_FORKS", False)
    modules.write("tells", "import sys; print('torch' in sys.modules)")

    with Children() as children:
        assert modules.run(children, "tells") == Ended(0, "False\n", "")
