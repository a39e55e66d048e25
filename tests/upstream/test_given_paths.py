"""A path that no file can have is the fault of the option that gave it, not of the model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repbench import load_upstream
from repbench.errors import EnvironmentFault, UsageError
from repbench.upstream.checkpoints.given_path import given_path
from tests.commands import repbench

LONG = "a" * 5_000


@pytest.mark.parametrize(
    ("upstream", "checkpoint", "option"),
    [
        ("mockingjay", LONG, "--checkpoint"),
        ("apc", f"random:{LONG}", "--checkpoint"),
        (f"hf:{LONG}", None, "--upstream"),
        ("hf:.", LONG, "--checkpoint"),
        (f"features:{LONG}", None, "--upstream"),
        ("py:torch.nn:Identity", LONG, "--checkpoint"),
        ("py:torch.nn:Identity", f"{LONG}.yaml", "--checkpoint"),
        ("torchaudio:HUBERT_BASE", LONG, "--checkpoint"),
    ],
)
def test_a_name_that_is_too_long_is_refused_by_its_option(upstream: str, checkpoint: str | None, option: str) -> None:
    if upstream.startswith("torchaudio"):
        pytest.importorskip("torchaudio")
    with pytest.raises(UsageError, match=rf"The name `(random:)?a{{40,60}}…` is too long .*key {option}") as caught:
        load_upstream(upstream, checkpoint=checkpoint)
    assert len(str(caught.value.line())) < 300


@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
def test_other_faults_of_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"zero byte .*--checkpoint"):
        given_path("a\0b", "--checkpoint")
    assert given_path(tmp_path / "absent" / "file", "--checkpoint") == tmp_path / "absent" / "file"

    def denied(path: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(EnvironmentFault, match=r"Permission denied .*--checkpoint"):
        given_path(tmp_path, "--checkpoint")


@pytest.mark.slow
def test_the_command_line_says_so_in_one_line(tmp_path: Path) -> None:
    found = repbench("extract", "--upstream", "mockingjay", "--checkpoint", LONG, "--out", tmp_path, tmp_path / "a.wav")
    assert (found.code, found.err.count("\n")) == (2, 1)
