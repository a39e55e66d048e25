"""torchaudio beside torch: what is advised follows from what was tried, and it is no one's loss but `torchaudio:`'s."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import repbench
from repbench import torch_pairs
from repbench.errors import EnvironmentFault
from repbench.testing import tone_corpus
from repbench.torch_pairs import NEWEST, TRIED, fitting, import_torchaudio, torchaudio_cure, without_broken_torchaudio
from tests.fake_wheels import wheel
from tests.test_doctor import FINE

ROOT = Path(__file__).parents[1]
BROKEN = "raise OSError('undefined symbol: torch_exception')"


def lay(folder: Path, source: str, version: str = "2.11.1") -> None:
    """A torchaudio of one file, with metadata."""
    (folder / "torchaudio.py").write_text(source)
    (folder / f"torchaudio-{version}.dist-info").mkdir()
    (folder / f"torchaudio-{version}.dist-info" / "METADATA").write_text(f"Name: torchaudio\nVersion: {version}\n")


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation in which torchaudio cannot be imported, in this process."""
    lay(tmp_path, BROKEN)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("torch", "cure"),
    [
        ("2.11.0+cu130", "pip install 'torchaudio==2.11.0'"),
        ("2.12.1", "pip install 'torchaudio==2.11.0'"),
        ("2.14.1", "pip install 'torchaudio==2.11.1'"),
        ("2.15.0+cu132", "pip install 'torchaudio==2.11.1'"),
        ("3.0.1", f"None was tried with torch 3.0: pip install 'torch=={NEWEST}.*' 'torchaudio==2.11.1'"),
        ("2.15.0+cpu", "It has to be a CPU build as torch is: take it from the index that this torch came from"),
    ],
)
def test_the_cure_is_a_pair_that_was_tried(torch: str, cure: str) -> None:
    assert torchaudio_cure(torch) == cure


def test_the_page_shows_the_pairs_that_were_tried() -> None:
    page = (ROOT / "docs" / "design" / "0001-torch-pair.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+\.\d+) \| (\w+) \| (\w+) \|$", page, re.MULTILINE)
    assert {torch: {"2.11.0": old == "works", "2.11.1": new == "works"} for torch, old, new in rows} == TRIED
    assert all(fitting(torch) for torch in TRIED)


def test_a_broken_torchaudio_is_one_line_with_both_versions_and_the_cure(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_pairs, "version_of", {"torch": "2.11.0", "torchaudio": "2.11.1"}.get)
    with pytest.raises(EnvironmentFault) as caught:
        import_torchaudio("torchaudio.pipelines")
    assert caught.value.line() == (
        "torchaudio 2.11.1 cannot be imported with torch 2.11.0: OSError: undefined symbol: torch_exception "
        "(key torchaudio). pip install 'torchaudio==2.11.0'."
    )


def test_packages_find_no_torchaudio_where_it_is_broken(broken: Path) -> None:
    with without_broken_torchaudio():
        assert importlib.util.find_spec("torchaudio") is None
    assert importlib.util.find_spec("torchaudio") is not None, "it is hidden for a while, and not for all"


def told(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that finds what lies in `folder` first."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "REPBENCH_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "repbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["broken", "absent"])
def test_without_torchaudio_only_its_bundles_are_out_of_reach(tmp_path: Path, kind: str) -> None:
    if kind == "broken":
        lay(tmp_path, BROKEN)
    else:  # as if it were not installed: neither its metadata nor a module of that name is found
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\nfrom importlib import metadata\nsys.modules['torchaudio'] = None\nfound = metadata.version\n"
            "def version(name):\n    if name == 'torchaudio':\n        raise metadata.PackageNotFoundError(name)\n"
            "    return found(name)\nmetadata.version = version\n"
        )
    tone_corpus(tmp_path / "c", sample_rate_hz=44_100)
    run = ["run", "--downstream", "phone", "--corpus", "c", "--set", "probe.steps=20"]

    resampled = told(tmp_path, *run, "--upstream", "mel")
    assert (resampled.returncode, "torchaudio" in resampled.stderr) == (0, False), resampled.stderr
    bundle = told(tmp_path, *run, "--upstream", "torchaudio:HUBERT_BASE", "--checkpoint", "random")
    assert bundle.returncode == 7
    (line,) = bundle.stderr.strip().splitlines()
    assert "torchaudio" in line
    assert "torch is " in line or "with torch" in line
    assert "undefined symbol" in line or "not installed" in line


PLANTED = {
    "a torchaudio that cannot be imported": ("torchaudio", "2.11.0", BROKEN),
    "no torchaudio": ("torchaudio", None, ""),
    "a torch that is too old": ("torch", "2.9.1", FINE["torch"].replace("2.15.0", "2.9.1")),
    "a torch that cannot be imported": ("torch", "2.15.2", BROKEN),
    "a soxr that cannot be imported": ("soxr", "0.9", BROKEN),
    "a soundfile that cannot be imported": ("soundfile", "0.9", BROKEN),
}
"""What is planted: name, version and source of the package; None: it is not installed."""

SOUND = {
    "torch": ("2.15.0", FINE["torch"]),
    "torchaudio": ("2.11.1", FINE["torchaudio"]),
    "soxr": ("1.0", "__version__ = '1.0'\nresample = lambda samples, *_: samples[:160]\n"),
    "soundfile": (
        "1.0",
        "__version__ = __libsndfile_version__ = '1.0'\n"
        "write = lambda *_, **__: None\nread = lambda *_: ([0.0] * 4, 1)\n",
    ),
    "numpy": ("2.0", "zeros = lambda length, dtype: [0.0] * length\n"),
}
"""Stand-ins for packages of hundreds of megabytes, as a registry holds them."""


@pytest.mark.slow
def test_every_cure_of_the_doctor_cures(tmp_path: Path) -> None:
    """In an environment of its own, with pip and a folder in the place of a registry, each cure word for word."""
    index = tmp_path / "index"
    for name, (version, source) in SOUND.items():
        wheel(index, name, version, {f"{name}.py": source})
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "repbench.pth").write_text(f"{Path(repbench.__file__).parents[1]}\n")
    offline = {"PATH": f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    offline |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def pip(*arguments: str) -> None:
        command = [python, "-m", "pip", *arguments]
        done = subprocess.run(command, env=offline, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    def rows() -> dict[str, dict[str, str]]:
        code = "import json; from repbench.doctor import examine; print(json.dumps(examine().as_dict()))"
        done = subprocess.run([python, "-c", code], env=offline, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        return {row["name"]: row for row in told["checks"] + told["extras"]}

    pip("install", "--quiet", *SOUND)
    assert {name: row["status"] for name, row in rows().items() if name in {"torch", "resampling", "torchaudio"}} == {
        "torch": "ok", "resampling": "ok", "torchaudio": "ok"
    }  # fmt: skip
    for case, (name, planted, source) in PLANTED.items():
        pip("uninstall", "--quiet", "--yes", name)
        if planted is not None:
            pip("install", "--quiet", "--no-deps", str(wheel(tmp_path / case, name, planted, {f"{name}.py": source})))
        check = {"soxr": "resampling"}.get(name, name)
        row = rows()[check]
        assert row["status"] in {"broken", "missing"}, case
        command = shlex.split(row["cure"].partition(", or ")[0])
        assert command[:2] == ["pip", "install"], case
        pip(*command[1:])
        assert rows()[check]["status"] == "ok", (case, row["cure"])
