"""`repbench convert` and `--checkpoint` on files of older codes, through the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench import load_upstream
from tests.commands import repbench

GOLDEN = Path(__file__).parent.parent / "golden"


class _Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize(
    ("file", "name", "width"),
    [
        ("mockingjay_legacy/mockingjay_dr3_mel.ckpt", "mockingjay", 160),
        ("mockingjay_s3prl/s3prl_mj_online.ckpt", "mockingjay", 80),
        ("apc/apc_original_noprenet.pt", "apc", 80),
        ("apc/apc_s3prl_full.ckpt", "apc", 80),
    ],
)
def test_a_converted_checkpoint_says_what_the_original_says(file: str, name: str, width: int, tmp_path: Path) -> None:
    out = tmp_path / "converted"
    finished = repbench("convert", GOLDEN / file, "--out", out, "--json")
    assert (finished.code, finished.json["upstream"]) == (0, name)
    original, converted = load_upstream(name, checkpoint=str(GOLDEN / file)), load_upstream(name, checkpoint=str(out))
    spec = torch.randn(2, 40, width, generator=torch.Generator().manual_seed(0))
    assert torch.equal(original.hidden_states(spec), converted.hidden_states(spec))
    assert torch.equal(original.prediction(spec), converted.prediction(spec))
    assert original.fingerprint() == converted.fingerprint()


def test_what_a_bare_state_dict_cannot_tell_is_given(tmp_path: Path) -> None:
    file = GOLDEN / "apc" / "apc_original_noprenet.pt"
    finished = repbench(
        "convert", file, "--out", tmp_path / "plain", "--set", "residual=false", "--set", "time_shift=5"
    )
    assert finished.code == 0
    assert "residual" in finished.err
    config = load_upstream("apc", checkpoint=str(tmp_path / "plain")).config
    assert (config["residual"], config["time_shift"]) == (False, 5)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "non-zip"])
def test_fault_9_a_malicious_pickle_runs_nothing_by_checkpoint_and_by_convert(zipped: bool, tmp_path: Path) -> None:
    canary, file = tmp_path / "CANARY", tmp_path / "evil.ckpt"
    content = {"Mockingjay": {"weight": torch.ones(2)}, "Settings": _Malicious(canary)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    by_checkpoint = repbench(
        "run", "--upstream", "mockingjay", "--downstream", "phone", "--checkpoint", file, "--out", tmp_path / "runs"
    )
    by_convert = repbench("convert", file, "--out", tmp_path / "converted")
    for finished in (by_checkpoint, by_convert):
        assert finished.code == 4
        assert "needs code to load: posix.system" in finished.err
        assert len(finished.err.splitlines()) == 1
        assert "weights_only" not in finished.err
    assert not canary.exists()


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for place, words in ((tmp_path, "a folder"), (tmp_path / "missing.ckpt", "no such file")):
        finished = repbench("convert", place, "--out", tmp_path / "out")
        assert finished.code == 2
        assert words in finished.err


def test_an_output_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine", encoding="utf-8")
    finished = repbench("convert", GOLDEN / "apc" / "apc_original_noprenet.pt", "--out", out)
    assert finished.code == 2
    assert [each.name for each in out.iterdir()] == ["precious.txt"]
