"""The doctor: what it says of broken plugins and of a broken installation, and that nothing can hold it up."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import soxr
import torch

from repbench import doctor
from repbench.doctor import CheckRow, Diagnosis, PluginRow, examine
from repbench.torch_pairs import OLDEST
from tests.fake_distributions import install, registry_of

OF_THE_TESTS = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
"""Where the tests find modules, as it was before any of them changed it."""

FINE = {
    "torch": """
__version__ = "2.15.0"
zeros = lambda length: [0.0] * length
class cuda:
    is_available = staticmethod(lambda: False)
""",
    "torchaudio": """
import sys, types
__version__, __path__ = "2.11.1", []
for name in ("functional", "pipelines"):
    globals()[name] = sys.modules[f"torchaudio.{name}"] = types.ModuleType(name)
functional.resample = lambda samples, source_hz, target_hz: samples * 2
""",
}
"""Stand-ins for modules that take seconds to import."""

PLUGINS = {
    "raises": ("raise ValueError('no weights')", "ValueError: no weights"),
    "syntax": ("def broken(:", "SyntaxError: invalid syntax"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "needs": ("import surely_not_installed", "ModuleNotFoundError: No module named 'surely_not_installed'"),
    "lacks": ("other = 1", "AttributeError: module 'doctor_lacks' has no attribute 'model'"),
    "absent": (None, "ModuleNotFoundError: No module named 'doctor_absent'"),
    "quits": ("import os; os._exit(0)", "importing it ended the process with status 0"),
    "crashes": ("import os; os.abort()", "importing it killed the process with SIGABRT"),
    "pi": ("model = 3.14", "`doctor_pi:model` is of float, which is no factory: it cannot be called"),
    "speaks": ("import os, sys; print('bye', file=sys.stderr, flush=True); os._exit(4)", "with status 4: bye"),
}
"""A module's source, None for a module that is not there, and the reason the doctor gives."""


def lay_modules(folder: Path, **sources: str) -> None:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)


def diagnose(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, timeout_s: float = 60.0, fakes: dict[str, str] | None = None
) -> Diagnosis:
    """Examine what lies in `folder`, which the children see before everything that is installed."""
    lay_modules(folder, **(FINE if fakes is None else fakes))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *OF_THE_TESTS]))
    return examine(timeout_s, plugins=registry_of(folder))


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diagnosis]:
    """One examination of every kind of broken plugin, a careless one, a sound one, and a malformed distribution."""
    folder = tmp_path_factory.mktemp("patients")
    for case, (source, _) in PLUGINS.items():
        install(
            folder,
            f"dist-{case}",
            f"[repbench.upstreams]\n{case} = doctor_{case}:model\n",
            modules={} if source is None else {f"doctor_{case}": source},
        )
    install(
        folder,
        "careless",
        "[repbench.corpora]\ncareless = doctor_careless:C\n",
        modules={"doctor_careless": "import os\nos.chdir('/')\nprint('hello')\nclass C:\n    open = print\n"},
    )
    install(folder, "soundly", "[repbench.downstreams]\ngood = math:floor\n")
    install(folder, "malformed", "[repbench.upstreams]\nnonsense\n")
    for name in ("one-of-two", "other-of-two"):
        install(folder, name, "[repbench.upstreams]\nsame = math:floor\n")
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield diagnose(folder, monkeypatch)


def row(diagnosis: Diagnosis, name: str) -> PluginRow:
    return next(plugin for plugin in diagnosis.plugins if plugin.name == name)


@pytest.mark.parametrize("case", PLUGINS)
def test_fault_33_the_doctor_names_plugin_reason_and_cure(patients: Diagnosis, case: str) -> None:
    found = row(patients, case)

    assert (found.status, found.distribution, found.version) == ("broken", f"dist-{case}", "1.0")
    assert PLUGINS[case][1] in str(found.reason)
    assert f"pip uninstall dist-{case}" in str(found.cure)


def test_fault_33_broken_plugins_disturb_no_other(patients: Diagnosis) -> None:
    good = row(patients, "good")

    assert (good.status, good.reason, good.cure, good.changed) == ("ok", None, None, ())
    assert (patients.healthy, patients.exit_code) == (False, 5)
    assert {check.name: check.status for check in patients.checks}["torch"] == "ok"


def test_fault_34_the_doctor_names_a_malformed_distribution(patients: Diagnosis) -> None:
    (problem,) = patients.problems

    assert problem.distribution == "malformed"
    assert "entry_points.txt cannot be read" in problem.reason


def test_fault_36_the_doctor_reports_side_effects(patients: Diagnosis) -> None:
    assert (row(patients, "careless").status, row(patients, "careless").changed) == ("ok", ("working directory",))
    (note,) = [note for note in patients.notes if note.distribution == "careless"]
    assert note.reason.endswith("`careless` changed global state, which was put back: working directory")
    assert note.cure == "Ask its authors to do this where it is needed, not on import"


def test_fault_35_the_doctor_names_clashes(patients: Diagnosis) -> None:
    clashes = {note.distribution: (note.reason, note.cure) for note in patients.notes if "shared" in note.reason}

    assert clashes["one-of-two"] == (
        "the upstream `same`: name shared with `other-of-two`",
        "Name it `one-of-two:same`",
    )
    assert clashes.keys() == {"one-of-two", "other-of-two"}


def test_a_diagnosis_can_be_written_as_json(patients: Diagnosis) -> None:
    written = json.loads(json.dumps(patients.as_dict()))

    assert list(written) == ["healthy", "exit_code", "plugins", "checks", "extras", "problems", "notes"]
    assert [plugin["name"] for plugin in written["plugins"]] == [plugin.name for plugin in patients.plugins]
    assert written["problems"][0]["distribution"] == "malformed"


@pytest.mark.slow
def test_fault_33_a_plugin_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"""
        import pathlib, subprocess, time
        sleeper = subprocess.Popen(["sleep", "600"])
        pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(sleeper.pid))
        time.sleep(600)
    """
    install(tmp_path, "hanging", "[repbench.upstreams]\nhangs = doctor_hangs:m\n", modules={"doctor_hangs": source})

    found = row(diagnose(tmp_path, monkeypatch, timeout_s=3.0), "hangs")

    assert (found.status, found.reason) == ("broken", "importing it did not end within 3 s")
    assert ended(int((tmp_path / "pid").read_text()))


def ended(pid: int) -> bool:
    """Whether the process is gone, or a zombie that waits for its new parent, within five seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] if Path("/proc").exists() else ""
            os.kill(pid, 0)
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_plugin_that_leaves_a_thread_behind_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\nm = print\n"
    install(tmp_path, "threads", "[repbench.upstreams]\nthreads = doctor_thread:m\n", modules={"doctor_thread": source})

    assert row(diagnose(tmp_path, monkeypatch), "threads").status == "ok"


def test_builtins_share_a_child_until_one_brings_it_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "pids"
    modules = {
        name: f"import os\nwith open({str(log)!r}, 'a') as log: log.write(f'{name} {{os.getpid()}}\\n')\nm = print\n"
        for name in ("doctor_one", "doctor_two")
    }
    points = "[repbench.upstreams]\none = doctor_one:m\ntwo = doctor_two:m\n"
    install(tmp_path, "repbench", points, modules=modules)

    assert diagnose(tmp_path, monkeypatch).healthy
    together = [line.split() for line in log.read_text().splitlines()]
    assert len({pid for _, pid in together}) == 1

    (tmp_path / "doctor_two.py").write_text("import os; os._exit(9)\n")
    apart = diagnose(tmp_path, monkeypatch)
    assert row(apart, "one").status == "ok"
    assert row(apart, "two").reason == "importing it ended the process with status 9"
    assert row(apart, "two").cure == "Reinstall repbench: pip install --force-reinstall repbench"


def test_two_children_at_most_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        source = f"""
            import pathlib, time
            started = time.monotonic()
            time.sleep(0.4)
            pathlib.Path({str(tmp_path / f"span{number}")!r}).write_text(f"{{started}} {{time.monotonic()}}")
            m = print
        """
        module = f"doctor_slow{number}"
        install(tmp_path, f"slow{number}", f"[repbench.upstreams]\ns = {module}:m\n", modules={module: source})

    assert diagnose(tmp_path, monkeypatch).healthy
    spans = [tuple(map(float, path.read_text().split())) for path in tmp_path.glob("span*")]
    assert len(spans) == 4
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) == 2


@pytest.mark.slow
def test_this_installation_stands_on_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = diagnose(tmp_path, monkeypatch, fakes={})

    checks = {check.name: check for check in found.checks}
    assert list(checks) == ["python", "torch", "device", "soundfile", "resampling"]
    assert [check.status for check in found.checks] == ["ok"] * 5
    assert checks["torch"].detail == f"torch {torch.__version__}"
    assert re.fullmatch(r"cpu: no CUDA device|cuda: .+ \(CUDA [\d.]+\)", checks["device"].detail)
    assert re.fullmatch(r"soundfile \S+, libsndfile \S+", checks["soundfile"].detail)
    assert checks["resampling"].detail == f"soxr {soxr.__version__}"
    assert (found.healthy, found.exit_code) == (True, 0)


@pytest.mark.parametrize(
    ("module", "source", "name", "detail"),
    [
        ("torch", "raise ImportError('libtorch.so: not found')", "torch", "ImportError: libtorch.so: not found"),
        ("torch", "import os; os.abort()", "torch", "killed the process with SIGABRT"),
        (
            "torch",
            "__version__ = '2.9.1'\nclass cuda:\n    is_available = bool",
            "torch",
            "torch 2.9.1 is older than 2.11",
        ),
        ("soxr", "raise ImportError('libsoxr.so: not found')", "resampling", "ImportError: libsoxr.so: not found"),
        ("soxr", "__version__, resample = '1', lambda *_: [0.0] * 161", "resampling", "became 161 at 16,000 Hz"),
        ("soundfile", "raise OSError('sndfile library not found')", "soundfile", "OSError: sndfile library not found"),
    ],
)
def test_what_repbench_stands_on_is_told_when_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, name: str, detail: str
) -> None:
    found = diagnose(tmp_path, monkeypatch, fakes=FINE | {module: source})

    check = next(check for check in found.checks if check.name == name)
    assert check.status == "broken"
    assert detail in check.detail
    assert "pip install" in str(check.cure)
    assert (found.healthy, found.exit_code) == (False, 7)


def extra_torchaudio(found: Diagnosis) -> CheckRow:
    return next(extra for extra in found.extras if extra.name == "torchaudio")


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("raise OSError('undefined symbol: torch_exception')", "OSError: undefined symbol: torch_exception"),
        ("import os; os.abort()", "importing it killed the process with SIGABRT"),
        (FINE["torchaudio"].replace("* 2", "* 3"), "800 samples at 8,000 Hz became 2400 at 16,000 Hz"),
    ],
)
def test_a_torchaudio_that_does_not_work_is_told_and_disables_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, detail: str
) -> None:
    found = diagnose(tmp_path, monkeypatch, fakes=FINE | {"torchaudio": source})

    assert detail in extra_torchaudio(found).detail
    assert "torchaudio" in str(extra_torchaudio(found).cure)
    assert (extra_torchaudio(found).status, found.healthy, found.exit_code) == ("broken", True, 0)


def test_torchaudio_is_judged_by_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = extra_torchaudio(diagnose(tmp_path, monkeypatch))
    assert (sound.status, sound.detail) == ("ok", "torchaudio 2.11.1 with torch 2.15.0")


def test_an_unsupported_python_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PYTHONS", ((3, 98), (3, 99)))

    found = diagnose(tmp_path, monkeypatch)

    assert found.checks[0].status == "broken"
    assert found.checks[0].cure == "Install repbench under Python 3.98 to 3.99"
    assert found.exit_code == 7


def test_a_missing_extra_is_told_and_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "slurm", ("surely_not_installed", "json"))

    found = diagnose(tmp_path, monkeypatch)

    slurm = next(extra for extra in found.extras if extra.name == "slurm")
    assert (slurm.status, slurm.detail) == ("missing", "not installed: surely_not_installed")
    assert slurm.cure == "pip install 'repbench[slurm]'"
    assert found.healthy


def test_the_doctor_knows_what_the_package_declares() -> None:
    declared = metadata.metadata("repbench")
    (oldest, newest) = doctor.PYTHONS

    bounds = {f">={oldest[0]}.{oldest[1]}", f"<{newest[0]}.{newest[1] + 1}"}
    assert set(str(declared["Requires-Python"]).split(",")) == bounds
    assert {*doctor.EXTRAS, "torchaudio"} <= set(declared.get_all("Provides-Extra") or ())
    (torch,) = (line for line in metadata.requires("repbench") or () if re.match(r"torch[<>=]", line))
    assert f">={OLDEST}" in torch
