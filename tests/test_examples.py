"""The examples run as they stand, on an untrained network and on a checkpoint of the released code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RELEASED = ROOT / "tests" / "golden" / "mockingjay_legacy" / "mockingjay_dr3_mel.ckpt"


def example(name: str, *arguments: str | Path, folder: Path) -> str:
    command = [sys.executable, "-W", "error", ROOT / "examples" / name, *arguments]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ.copy())
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout


def test_hidden_states_are_extracted_from_a_released_checkpoint(tmp_path: Path) -> None:
    printed = example("extract_hidden_states.py", RELEASED, folder=tmp_path).splitlines()
    assert printed == [
        "every layer: (2, 2, 81, 48)",
        "last layer: (2, 81, 48)",
        "untiled: (2, 2, 27, 48)",
        "restored: (2, 81, 160)",
        "from waveforms: (3, 2, 27, 48)",
    ]


@pytest.mark.parametrize("checkpoint", ["random:tiny", RELEASED], ids=["untrained", "released"])
def test_fine_tuning_lowers_the_loss(checkpoint: str | Path, tmp_path: Path) -> None:
    first, last = (
        float(line.rpartition(" ")[2]) for line in example("fine_tune.py", checkpoint, folder=tmp_path).splitlines()
    )
    assert last < first / 2
