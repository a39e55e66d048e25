"""Completion in shells, by their own protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repbench.cli import completion
from repbench.configs.loader import preset_names
from repbench.registry import registry

SHELLS = ("bash", "zsh", "fish")


def completed(shell: str, line: str) -> list[str]:
    """What a shell gets for a command line, whose last word is completed."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_REPBENCH_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    command = [sys.executable, "-W", "error", "-m", "repbench"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    if shell == "zsh":
        return [each.split('"')[1] for each in done.stdout.splitlines() if '"' in each]
    return [each.split("\t")[0] for each in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_the_names(shell: str) -> None:
    assert completed(shell, "repbench run --upstream mock") == ["mockingjay"]
    assert "pretrain" in completed(shell, "repbench p")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("repbench run --downstream speak", ["speaker"]),
        ("repbench run --head mlp", ["mlp1", "mlp2"]),
        ("repbench run --corpus synth", ["synthetic"]),
        ("repbench run --upstream hf", ["hf:"]),
        ("repbench run --preset s", ["s3prl", "superb"]),
        ("repbench run --layer wei", ["weighted"]),
        ("repbench pretrain mocki", ["mockingjay"]),
        ("repbench pretrain apc --preset ", ["base", "mockingjay2020", "tiny"]),
        ("repbench pretrain mockingjay --preset la", ["large"]),
        ("repbench corpus prepare libris", ["librispeech"]),
        ("repbench list up", ["upstreams"]),
        ("repbench check head conv", ["conv"]),
        ("repbench check downstream diari", ["diarization"]),
        ("repbench report --fig", ["--figures"]),
    ],
)
def test_names_are_completed(line: str, expected: list[str]) -> None:
    assert completed("bash", line) == expected


def test_the_lists_are_those_of_the_commands() -> None:
    assert completion.protocols("") == preset_names()
    assert completion.heads("") == sorted({entry.name for entry in registry().entries("head")})


def test_completion_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['repbench']\n"
        "import repbench.cli\n"
        "try:\n    repbench.cli.main()\n"
        "except SystemExit as end:\n    code = end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'sklearn', 'soundfile'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if code or heavy else 0)"
    )
    line = "repbench run --upstream a"
    environment = {
        **os.environ, "_REPBENCH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "3",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "apc" in done.stdout.split()


def installed(home: Path, shell: str, option: str) -> subprocess.CompletedProcess[str]:
    """`repbench OPTION SHELL` in a home of its own; a shell that is not installed is not detected, so it is named."""
    environment = {**os.environ, "HOME": str(home), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-W", "error", "-m", "repbench", option, shell]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_shown_and_installed(shell: str, tmp_path: Path) -> None:
    shown = installed(tmp_path, shell, "--show-completion")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"_REPBENCH_COMPLETE=complete_{shell}" in shown.stdout

    done = installed(tmp_path, shell, "--install-completion")
    assert done.returncode == 0, done.stderr
    written = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_REPBENCH_COMPLETE" in text for text in written), "something below the home sets it up"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_what_was_installed(tmp_path: Path) -> None:
    """The installed function itself, as bash calls it."""
    assert installed(tmp_path, "bash", "--install-completion").returncode == 0
    (script,) = (tmp_path / ".bash_completions").glob("repbench.sh")
    (tmp_path / "bin").mkdir()
    launcher = tmp_path / "bin" / "repbench"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m repbench "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
    code = (
        f"source {script}; COMP_WORDS=(repbench run --downstream inten); COMP_CWORD=3; "
        '_repbench_completion repbench; echo "${COMPREPLY[*]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("intent\n", "")
