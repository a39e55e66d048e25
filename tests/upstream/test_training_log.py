"""The log of a training takes no file of another origin for its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.errors import UsageError
from repbench.upstream.pretraining.log import METRICS_FILE, TrainingLog


def test_fault_metrics_of_somebody_else_stay(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text("mine\n")
    with pytest.raises(UsageError, match=r"No training wrote this file.*metrics\.jsonl"):
        TrainingLog(tmp_path, 0)
    assert (tmp_path / METRICS_FILE).read_text() == "mine\n"


@pytest.mark.parametrize("left", ["", '{"st', '{"step": 1, "loss": 0.5}\n{"step": 2'])
def test_what_a_killed_training_left_is_its_own(left: str, tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text(left)
    with TrainingLog(tmp_path, 1) as log:
        log.numbers(2, {"loss": 0.25})
    kept = ['{"step": 1, "loss": 0.5}'] if "0.5" in left else []
    assert (tmp_path / METRICS_FILE).read_text().splitlines() == [*kept, '{"step": 2, "loss": 0.25}']
