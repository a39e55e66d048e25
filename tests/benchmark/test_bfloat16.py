"""A processor that multiplies slowly in bfloat16 is not used for it without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repbench.benchmark.pipeline.pretrain import PretrainRequest, run_pretraining
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import RunRequest, run
from repbench.progress import Silence
from repbench.testing import tone_corpus
from repbench.training import bfloat16
from repbench.training.bfloat16 import note_on_bfloat16

CPU = torch.device("cpu")


class Told(Silence):
    """A reporter that keeps the lines about bfloat16."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines += [line] if "bfloat16" in line else []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16, "_seconds", lambda dtype: 7.5 if dtype == torch.bfloat16 else 0.1)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones") / "corpus"
    tone_corpus(folder)
    return folder


def test_the_factor_is_that_of_products_of_the_processor(slow: None) -> None:
    note = note_on_bfloat16(CPU, "training.precision=fp32")
    assert note is not None
    assert note.startswith("this processor takes 75 times as long for products in bfloat16 as in float32: training.p")
    assert note_on_bfloat16(torch.device("cuda"), "…") is None


def test_nothing_is_said_where_it_is_not_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bfloat16, "_seconds", lambda dtype: 1.4 if dtype == torch.bfloat16 else 1.0)
    assert note_on_bfloat16(CPU, "…") is None


def test_both_products_are_measured() -> None:
    assert all(0 < bfloat16._seconds(dtype) < 60 for dtype in (torch.float32, torch.bfloat16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("upstream", "precision", "told"), [("apc", "bfloat16", 1), ("apc", "float32", 0), ("mel", "bfloat16", 0)]
)
def test_a_run_says_so_for_a_model_that_multiplies(
    slow: None, tones: Path, tmp_path: Path, upstream: str, precision: str, told: int
) -> None:
    protocol = load_protocol("default", None, ["probe.steps=2", f"extraction.precision={precision}"])
    request = RunRequest(
        upstream=upstream, downstream="speaker", corpus=str(tones), protocol=protocol, out=tmp_path,
        checkpoint="random:tiny" if upstream == "apc" else None,
    )  # fmt: skip
    reporter = Told()
    run(request, reporter)
    assert len(reporter.lines) == told
    assert all("75 times" in line and "extraction.precision=float32 is faster" in line for line in reporter.lines)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "told"), [("bf16", 1), ("fp32", 0)])
def test_a_pretraining_says_so(slow: None, tones: Path, tmp_path: Path, precision: str, told: int) -> None:
    reporter = Told()
    assignments = (f"training.precision={precision}",)
    request = PretrainRequest(
        upstream="apc", corpus=str(tones), preset="tiny", assignments=assignments, steps=2, out=tmp_path / "run"
    )
    run_pretraining(request, reporter)
    assert len(reporter.lines) == told
    assert all("training.precision=fp32 is faster" in line for line in reporter.lines)
