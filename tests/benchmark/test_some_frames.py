"""Training on some frames of each utterance: what it leaves alone, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from repbench.benchmark.pipeline.setup import RunRequest
from repbench.benchmark.probing import batches
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import run
from repbench.errors import UsageError
from repbench.testing import tone_corpus


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

    (tmp_path / "again").mkdir()
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
