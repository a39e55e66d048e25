"""Several heads in one run: a record each, one extraction, and refusals that come first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from repbench.benchmark.pipeline.existing_records import identity_of
from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.benchmark.sweep.plan import jobs_of, load_plan
from repbench.errors import UsageError
from repbench.progress import Silence
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates
from tests.commands import repbench

QUICK = Protocol(
    probe=ProbeSettings(steps=20, batch_frames=256, batch_utterances=4, hidden_units=8, selection_points=2)
)
COUNTED = "py:tests.benchmark.test_several_heads:counted"

forwarded: list[int] = []
"""Utterances of each call of `Counted`."""


class Counted(Envelope):
    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        forwarded.append(len(lengths))
        return super().forward(waveforms, lengths)


def counted(*, checkpoint: str | None = None, seed: int = 0) -> Counted:
    return Counted()


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "tones"
    tone_corpus(folder, num_speakers=5, per_session=2)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    forwarded.clear()


def go(tones: Path, out: Path, **changes: Any) -> list[WrittenRecord]:
    request = RunRequest(upstream=COUNTED, downstream="phone", corpus=str(tones), out=out, protocol=QUICK)
    return run(replace(request, **changes))


def test_each_head_has_its_records_and_the_features_are_computed_once(tones: Path, tmp_path: Path) -> None:
    (alone,) = go(tones, tmp_path / "alone", head="linear")
    calls_of_one_head = list(forwarded)
    go(tones, tmp_path / "again", head="linear")
    calls_beside_extraction = len(forwarded) - len(calls_of_one_head)  # cost of the upstream, its invariance
    written = go(tones, tmp_path / "all", heads=("linear", "mlp1", "blstm", "linear"), seeds=(0, 1))
    assert [(each.record.head, each.record.seed) for each in written] == [
        ("linear", 0), ("linear", 1), ("mlp1", 0), ("mlp1", 1), ("blstm", 0), ("blstm", 1)
    ]  # fmt: skip
    assert len({each.path for each in written}) == 6
    assert written[0].record.metrics == alone.record.metrics
    assert len(forwarded) == len(calls_of_one_head) + 4 * calls_beside_extraction
    assert len(calls_of_one_head) > calls_beside_extraction, "the first run extracts"


def test_layers_heads_and_missing_records_go_together(tones: Path, tmp_path: Path) -> None:
    first = go(tones, tmp_path, layers=("0", "1"), heads=("linear", "mlp1"))
    assert [(each.record.layer, each.record.head) for each in first] == [
        ("0", "linear"), ("0", "mlp1"), ("1", "linear"), ("1", "mlp1")
    ]  # fmt: skip
    more = go(tones, tmp_path, layers=("0", "1"), heads=("linear", "mlp1", "conv"), missing_only=True)
    assert [each.path for each in more if each.record.head != "conv"] == [each.path for each in first]
    assert len(list(tmp_path.rglob("record.json"))) == 6
    assert len({identity_of(each.record) for each in more}) == 6


def test_a_head_that_does_not_fit_is_refused_before_any_is_trained(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no head `gru` for frame-classification"):
        go(tones, tmp_path, heads=("linear", "gru"))
    with pytest.raises(UsageError, match="its input would be constant"):
        go(tones, tmp_path, upstream="mel", downstream="speaker", heads=("mlp1", "linear"))
    with pytest.raises(UsageError, match="Give `head` or `heads`, not both"):
        go(tones, tmp_path, head="linear", heads=("mlp1",))
    assert not list(tmp_path.rglob("record.json"))
    assert not forwarded


def test_layer_norm_makes_the_mean_of_a_normalised_layer_worth_reading(tones: Path, tmp_path: Path) -> None:
    probe = QUICK.probe.model_copy(update={"layer_norm": True})
    protocol = QUICK.model_copy(update={"probe": probe})
    (written,) = go(tones, tmp_path, upstream="mel", downstream="speaker", head="linear", protocol=protocol)
    assert written.record.head == "linear"


def test_statistics_of_a_normalised_layer_have_a_note(tones: Path, tmp_path: Path) -> None:
    def notes(upstream: str, **changes: Any) -> list[str]:
        said: list[str] = []

        class Listed(Silence):
            def say(self, line: str) -> None:
                said.append(line)

        request = RunRequest(upstream=upstream, downstream="speaker", corpus=str(tones), out=tmp_path, protocol=QUICK)
        run(replace(request, **changes), Listed())
        return [line for line in said if "reads mean and deviation over time" in line]

    (note,) = notes("mel", heads=("mlp1", "statistics_mean"))
    assert "the head `statistics_mean` reads" in note
    assert "such as mel_no_cmvn, or probe.layer_norm=true" in note
    assert not notes("mel_no_cmvn", head="statistics_mean")
    assert not notes("mel", head="mlp1")
    normalised = QUICK.model_copy(update={"probe": QUICK.probe.model_copy(update={"layer_norm": True})})
    assert not notes("mel", head="statistics_mean", protocol=normalised)


def test_the_command_takes_several_heads(tones: Path, tmp_path: Path) -> None:
    finished = repbench(
        "run", "--upstream", "mel", "--downstream", "phone", "--corpus", str(tones), "--out", str(tmp_path / "runs"),
        "--head", "linear", "--head", "mlp1", "--set", "probe.steps=5", "--json",
    )  # fmt: skip
    assert finished.code == 0, finished.err
    assert [each["head"] for each in finished.json["results"]] == ["linear", "mlp1"]


def plan_of(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(f"upstreams: [mel]\ndownstreams: [phone, speaker]\ncorpora: [synthetic:tiny]\n{text}", "utf-8")
    return path


def test_a_plan_takes_several_heads_and_leaves_some_out(tmp_path: Path) -> None:
    path = plan_of(tmp_path, "layers: [last]\nheads: [mlp1, conv]\nexclude: [{downstream: phone, head: conv}]\n")
    (job,) = jobs_of(load_plan(path), tmp_path / "runs", path)
    assert [(pair.downstream, pair.head) for pair in job.pairs] == [
        ("phone", "mlp1"), ("speaker", "mlp1"), ("speaker", "conv")
    ]  # fmt: skip
    assert job.pairs[-1].name == "mel · speaker · synthetic:tiny · frozen · last · conv"
    assert "--head=conv" in job.pairs[-1].command()
    with pytest.raises(UsageError, match="give `head` or `heads`, not both"):
        load_plan(plan_of(tmp_path, "head: linear\nheads: [mlp1]\n"))
    with pytest.raises(UsageError, match="`mlp1` is given twice"):
        load_plan(plan_of(tmp_path, "heads: [mlp1, mlp1]\n"))
