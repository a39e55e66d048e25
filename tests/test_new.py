"""`repbench new`: which names will do, what is written, and that it is a package that works as it stands."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from repbench.errors import EnvironmentFault, UsageError
from repbench.scaffold import PluginKind, new_package, refuse_name
from repbench.testing import tone_corpus
from tests import fake_distributions
from tests.commands import repbench

TINY = Path(__file__).parent.parent / "examples" / "repbench-tiny-plugin"
QUICK = ("--set", "probe.steps=20", "--set", "probe.hidden_units=8")


def test_help_names_the_command() -> None:
    alone = repbench("new")

    assert "  new " in repbench("--help").out
    assert (alone.code, alone.err) == (0, "")
    assert "  upstream " in alone.out
    assert "  downstream " in alone.out


@pytest.mark.parametrize("name", ["my-model", "My.Model_2", "x", "wav2vec", "repbench-mine", "phone"])
def test_a_good_name_will_do(name: str) -> None:
    refuse_name("upstream", name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "A name is made of ASCII letters"),
        ("my model", "A name is made of ASCII letters"),
        ("hf:model", "A name is made of ASCII letters"),
        ("../model", "A name is made of ASCII letters"),
        ("2model", "A name is made of ASCII letters"),
        ("model-", "A name is made of ASCII letters"),
        ("modèle", "A name is made of ASCII letters"),
        ("model\n", "A name is made of ASCII letters"),
        ("mel", "`mel` is the name of a built-in upstream"),
        ("Mel-No-CMVN", "`Mel-No-CMVN` is the name of a built-in upstream"),
        ("hf", "`hf` is a reserved prefix"),
        ("PY", "`PY` is a reserved prefix"),
        ("class", "`class` is a keyword of Python"),
        ("repbench", "`repbench` is the name of an installed distribution"),
        ("scikit_learn", "`scikit_learn` is the name of an installed distribution"),
        ("sklearn", "`sklearn` is the name of an installed module"),
        ("json", "`json` is the name of an installed module"),
    ],
)
def test_a_name_that_will_not_do_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        new_package("upstream", name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_built_in_task_keeps_its_name() -> None:
    with pytest.raises(UsageError, match="`phone-ctc` is the name of a built-in downstream"):
        refuse_name("downstream", "phone-ctc")


def test_the_name_of_an_installed_plugin_or_module_is_refused(tmp_path: Path) -> None:
    fake_distributions.install(
        tmp_path / "site", "theirs", "[repbench.upstreams]\nmy-own = theirs:own\n", modules={"their_module": ""}
    )
    env = {"PYTHONPATH": str(tmp_path / "site")}

    plugin = repbench("new", "upstream", "My_Own", "--out", tmp_path, env=env)
    module = repbench("new", "upstream", "their-module", "--out", tmp_path, env=env)
    task = repbench("new", "downstream", "my-own", "--out", tmp_path, env=env)

    assert (plugin.code, module.code, task.code) == (2, 2, 0)
    assert plugin.err.startswith("error: `My_Own` is the name of another upstream, of `theirs` (key My_Own)")
    assert module.err.startswith("error: `their_module` is the name of an installed module")


@pytest.mark.parametrize("kind", ["upstream", "downstream", "head"])
def test_the_files_of_a_package(kind: PluginKind, tmp_path: Path) -> None:
    done = repbench("new", kind, "My-Own.thing", "--out", tmp_path / "new", "--json")

    folder = tmp_path / "new" / "My-Own.thing"
    names = ["pyproject.toml", "README.md", "src/my_own_thing.py", "tests/test_my_own_thing.py"]
    assert done.code == 0, done.err
    assert done.json == {"files": [str(folder / name) for name in names]}
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(folder / name for name in names)
    assert list((tmp_path / "new").iterdir()) == [folder]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((group, points),) = project["entry-points"].items()
    assert (project["name"], group, list(points)) == ("My-Own.thing", f"repbench.{kind}s", ["My-Own.thing"])
    for path in folder.rglob("*.*"):
        assert "$" + "{" not in path.read_text()


@pytest.mark.parametrize("kind", ["upstream", "downstream", "head"])
def test_the_code_of_a_package_is_tidy(kind: PluginKind, tmp_path: Path) -> None:
    new_package(kind, "my-own", tmp_path)

    settings = ["--config", str(TINY.parent.parent / "pyproject.toml")]
    for command in (["check", *settings], ["format", "--check", *settings]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=tmp_path / "my-own", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_already_is_left_alone(make: object, tmp_path: Path) -> None:
    assert callable(make)
    make(tmp_path / "mine")

    done = repbench("new", "upstream", "mine", "--out", tmp_path)

    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"error: There is something of this name already (file {tmp_path / 'mine'}). "
        "Choose another name or --out DIR.\n"
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


def test_a_package_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """The first files fit under the limit, the module does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(EnvironmentFault, match="No space left"):
            new_package("upstream", "mine", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EnvironmentFault, match="Cannot write here"):
        new_package("downstream", "mine", tmp_path / "file")


def run_in(
    folder: Path, *command: str, env: Mapping[str, str], python: str | Path = sys.executable
) -> subprocess.CompletedProcess[str]:
    """`python -m …` elsewhere; what it prints is in the message should it fail."""
    done = subprocess.run(
        [str(python), "-m", *command], cwd=folder, capture_output=True, text=True, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def environment_of_its_own(folder: Path) -> Path:
    """The interpreter of a virtual environment that also sees all that the tests see."""
    venv.create(folder, with_pip=False)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "of_the_tests.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder / "bin" / "python"


BUILDS_WHEELS = tuple(map(int, metadata.version("setuptools").split(".")[:2])) >= (70, 1)
"""Whether the setuptools of the tests makes wheels alone; where it does not, pip fetches one that does."""

PLAINLY = ("--quiet", "--no-deps", *(("--no-index", "--no-build-isolation") if BUILDS_WHEELS else ()))


def install(package: Path, site: Path) -> dict[str, str]:
    """Install a package into a folder of its own, and say by which environment it is found."""
    run_in(package, "pip", "install", *PLAINLY, "--target", str(site), ".", env={})
    return {"PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def listed(plural: str, env: Mapping[str, str], python: str | Path = sys.executable) -> dict[str, tuple[str, str]]:
    """From each name to its origin and version."""
    rows = repbench("list", plural, "--json", env=env, python=python).json["plugins"]
    return {each["name"]: (each["origin"], each["version"]) for each in rows}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["upstream", "downstream"])
def test_the_life_of_a_package(kind: PluginKind, tmp_path: Path) -> None:
    """WrittenRecord, tested, installed, listed, checked, run, reported with its provenance, uninstalled, gone."""
    tones, runs, python = tmp_path / "tones", tmp_path / "runs", environment_of_its_own(tmp_path / "venv")
    tone_corpus(tones)
    new_package(kind, "my-own", tmp_path)
    assert "passed" in run_in(tmp_path / "my-own", "pytest", "-q", "-W", "error", env={}).stdout
    run_in(tmp_path / "my-own", "pip", "install", *PLAINLY, ".", env={}, python=python)
    (module,) = (tmp_path / "venv").glob("lib/python*/site-packages/my_own.py")

    assert listed(f"{kind}s", {}, python)["my-own"] == ("my-own", "0.1.0")
    checked = repbench("check", kind, "my-own", "--json", python=python)
    assert checked.code == 0, checked.out

    pair = {"upstream": "mel", "downstream": "phone", kind: "my-own"}
    run = [f"--{each}={name}" for each, name in pair.items()]
    done = repbench("run", *run, "--corpus", tones, "--out", runs, "--json", *QUICK, python=python)
    assert done.code == 0, done.err
    (record,) = done.json["results"]
    sha256 = hashlib.sha256(module.read_bytes()).hexdigest()
    assert record[kind]["name"] == "my-own"
    assert record[kind]["origin"] == {"distribution": "my-own", "version": "0.1.0", "file_sha256": sha256}
    if kind == "upstream":
        assert record["certificate"] == checked.json["certificate"]["id"]

    report = repbench("report", runs, "--out", tmp_path / "report", "--format", "md,json,html", python=python)
    assert report.code == 0, report.err
    origin = f"my-own 0.1.0, file {sha256[:12]}"
    (cell,) = json.loads((tmp_path / "report" / "results.json").read_text())["cells"]
    assert f"my-own of {origin}" in cell["origins"]
    for name in ("report.md", "index.html"):
        assert origin in (tmp_path / "report" / name).read_text()

    run_in(tmp_path, "pip", "uninstall", "--yes", "my-own", env={}, python=python)
    assert not module.exists()
    assert "my-own" not in listed(f"{kind}s", {}, python)
    gone = repbench("run", *run, "--corpus", tones, "--out", runs, python=python)
    assert (gone.code, f"There is no {kind} `my-own`" in gone.err) == (2, True)


@pytest.mark.slow
def test_the_life_of_a_head(tmp_path: Path) -> None:
    """Its tests pass, it is installed, listed, checked and run, and its record names the package."""
    tones, python = tmp_path / "tones", environment_of_its_own(tmp_path / "venv")
    tone_corpus(tones, num_speakers=3)
    new_package("head", "my-own", tmp_path)
    assert "passed" in run_in(tmp_path / "my-own", "pytest", "-q", "-W", "error", env={}).stdout
    run_in(tmp_path / "my-own", "pip", "install", *PLAINLY, ".", env={}, python=python)

    assert listed("heads", {}, python)["my-own"] == ("my-own", "0.1.0")
    assert repbench("check", "head", "my-own", python=python).code == 0
    run = ("run", "--upstream", "mel", "--downstream", "speaker", "--head", "my-own", "--corpus", tones)
    done = repbench(*run, "--out", tmp_path / "runs", "--json", *QUICK, python=python)
    assert done.code == 0, done.err
    (record,) = done.json["results"]
    assert (record["head"], record["head_origin"]["distribution"]) == ("my-own", "my-own")

    run_in(tmp_path, "pip", "uninstall", "--yes", "my-own", env={}, python=python)
    gone = repbench(*run, python=python)
    assert (gone.code, "There is no head `my-own` for utterance-classification" in gone.err) == (2, True)


@pytest.mark.slow
def test_the_example_is_a_package_too(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "tiny", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    assert "passed" in run_in(tmp_path / "tiny", "pytest", "-q", "-W", "error", env={}).stdout

    env = install(tmp_path / "tiny", tmp_path / "site")

    assert listed("upstreams", env)["loudness"] == ("repbench-tiny-plugin", "1.0")
    assert listed("downstreams", env)["long-or-short"] == ("repbench-tiny-plugin", "1.0")


@pytest.mark.slow
def test_the_upstream_of_the_template_reads_its_checkpoint(tmp_path: Path) -> None:
    """Weights saved from one seed are those that are read, wherever they lie."""
    new_package("upstream", "my-own", tmp_path)
    env = {"PYTHONPATH": str(tmp_path / "my-own" / "src")}
    save = (
        "from my_own import log_band_energies as b; from safetensors.torch import save_file; "
        "save_file(b(seed=3).state_dict(), 'w.safetensors'); print(b(seed=3).fingerprint(), b(seed=0).fingerprint())"
    )
    done = subprocess.run(
        [sys.executable, "-c", save], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **env}
    )
    third, first = done.stdout.split()
    target, weights = "py:my_own:log_band_energies", str(tmp_path / "w.safetensors")

    checked = repbench("check", "upstream", target, "--checkpoint", weights, "--json", env=env)

    assert checked.code == 0, checked.out
    certificate = checked.json["certificate"]
    assert certificate["fingerprint"] == third != first
    statuses = {each["id"]: each["status"] for each in certificate["results"]}
    assert statuses["fingerprint-not-of-path"] == "passed"
