"""Training on some frames of each utterance: which are drawn, what it leaves alone, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.benchmark.pipeline.setup import RunRequest
from repbench.benchmark.probing import batches
from repbench.benchmark.probing.batches import some_rows
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import run
from repbench.errors import UsageError
from repbench.testing import tone_corpus


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("count", "most"), [(3, 3), (2, 3), (1, 1)])
def test_of_few_frames_all_are_drawn(count: int, most: int) -> None:
    assert some_rows((7, count), most, generator()).tolist() == [*range(7, 7 + count)]


@pytest.mark.parametrize(("count", "most"), [(10, 5), (7, 5), (100, 1), (11, 10)])
def test_each_frame_is_drawn_with_the_same_odds_and_one_of_each_part(count: int, most: int) -> None:
    draws, own = torch.zeros(count), generator()
    for _ in range(4_000):
        rows = some_rows((50, count), most, own) - 50
        parts = torch.arange(most) * count / most
        assert bool((rows >= parts.floor()).all())
        assert bool((rows <= (parts + count / most).floor()).all())
        draws += torch.bincount(rows, minlength=count)
    torch.testing.assert_close(draws / 4_000, torch.full((count,), most / count), atol=0.05, rtol=0)


def request(folder: Path, *settings: str, **options: object) -> RunRequest:
    values = {"upstream": "mel", "downstream": "speaker", "head": "mlp1", **options}
    return RunRequest(
        **values,  # type: ignore[arg-type]
        corpus=str(folder / "corpus"), out=folder / "runs",
        protocol=load_protocol(assignments=("probe.steps=30", "probe.hidden_units=8", *settings)),
    )  # fmt: skip


def test_steps_read_so_many_frames_and_scores_are_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    tone_corpus(tmp_path / "corpus")
    read = list[int]()
    draw = batches.some_rows

    def noted(*given: Any) -> Tensor:
        rows = draw(*given)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(batches, "some_rows", noted)

    (whole,) = run(request(tmp_path))
    assert not read
    (some,) = run(request(tmp_path, "probe.frames_per_utterance=5"))

    assert set(read) == {5}
    written = json.loads(some.path.read_text(encoding="utf-8"))
    assert written["protocol"]["probe"]["frames_per_utterance"] == 5
    assert "frames_per_utterance" not in json.loads(whole.path.read_text(encoding="utf-8"))["protocol"]["probe"]
    assert some.record.n_scored == whole.record.n_scored

    (again,) = run(request(tmp_path / "again" / "..", "probe.frames_per_utterance=5"))
    assert again.record.metrics == some.record.metrics
    (in_windows,) = run(request(tmp_path, "probe.frames_per_utterance=5", "resources.road=recompute"))
    assert in_windows.record.metrics == some.record.metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "gru"}, r"`gru` does not take the mean over frames"),
        ({"downstream": "phone", "head": "linear"}, r"other answers than one an utterance"),
        ({"upstream": "mockingjay", "checkpoint": "random:tiny", "finetune": True}, r"trains on whole utterances"),
    ],
)
def test_where_some_frames_mean_nothing_they_are_refused(
    options: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    tone_corpus(tmp_path / "corpus")
    with pytest.raises(UsageError, match=message) as caught:
        run(request(tmp_path, "probe.frames_per_utterance=5", **options))
    assert caught.value.key == "probe.frames_per_utterance"
