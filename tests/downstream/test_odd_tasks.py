"""Tasks that say nothing, or end loops that are not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from repbench.benchmark.run import RunRequest, run
from repbench.corpora.contract import Utterance
from repbench.downstream.contract import Labels
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, PluginError
from repbench.testing import tone_corpus


class EndsTheLoop(Speaker):
    def labels(self, utterance: Utterance) -> Labels:
        if utterance.id == "s1-03":
            raise StopIteration
        return super().labels(utterance)


class AsksNothing(Speaker):
    def labels(self, utterance: Utterance) -> None:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("EndsTheLoop", PluginError, "The plugin failed: StopIteration:.*utterance s1-03"),
        ("AsksNothing", DataError, "No utterance of tones can train"),
    ],
)
def test_fault_38_no_utterance_is_lost_in_silence(
    tmp_path: Path, task: str, error: type[Exception], message: str
) -> None:
    tone_corpus(tmp_path / "tones", num_speakers=3, per_session=2)
    request = RunRequest(
        upstream="mel", downstream=f"py:{__name__}:{task}", corpus=str(tmp_path / "tones"), out=tmp_path / "runs"
    )

    with pytest.raises(error, match=message):
        run(request)

    assert list((tmp_path / "runs").rglob("record.json")) == []
