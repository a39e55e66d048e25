"""`--dry-run`: refusals, records and a forecast, and nothing in the folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.dry_run import plan_run
from repbench.benchmark.pipeline.pretrain import PretrainRequest, plan_pretraining, run_pretraining
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import RunRequest, run
from repbench.cli import app
from repbench.errors import DataError, EnvironmentFault, RepbenchError, RunInUseError, UsageError
from repbench.locks import exclusive_lock
from repbench.testing import tone_corpus
from repbench.training.distributed import LOCK_FILE

FAST = ("probe.steps=20", "probe.hidden_units=8", "probe.selection_points=1")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dry") / "tones"
    tone_corpus(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))


def request_for(tones: Path, out: Path, *assignments: str, **options: Any) -> RunRequest:
    given = {"upstream": "mel", "downstream": "speaker", "device": "cpu", **options}
    return RunRequest(corpus=str(tones), out=out, protocol=load_protocol(assignments=[*FAST, *assignments]), **given)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"seeds": (0, 1), "label_fractions": (0.5, 1.0)},
        {"upstream": "mel_no_cmvn", "heads": ("linear", "mlp1"), "tune": True},
        {"conditions": ("noise:white:10",)},
        {"conditions": ("noise:white:10", "speed:3"), "matched": True},
        {"upstream": "apc", "checkpoint": "random", "layers": ("0", "last"), "seeds": (0, 1)},
        {"downstream": "phone", "controls": True},
        {"downstream": "abx"},
    ],
)
def test_the_records_foreseen_are_those_of_the_run(options: dict[str, Any], tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    request = request_for(tones, out, **options)

    planned = plan_run(request)

    assert not out.exists(), "a dry run makes no folder"
    written = [each.record for each in run(request)]
    foreseen = [
        (each.upstream, each.setting.layer, each.head, each.setting.fraction, each.setting.seed, each.setting.labels,
         each.setting.tuned, each.setting.condition)
        for each in planned.records
    ]  # fmt: skip
    made = [
        (each.upstream.name, each.layer, each.head, each.label_fraction, each.seed, each.protocol["labels"],
         each.protocol["probe"]["tune"], None if each.condition is None else each.condition.name)
        for each in written
    ]  # fmt: skip
    assert sorted(map(str, foreseen)) == sorted(map(str, made))
    assert len(planned.records) >= 1


def test_what_exists_is_told_from_what_is_missing(tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    (written,) = run(request_for(tones, out))
    before = sorted(out.rglob("*"))

    planned = plan_run(request_for(tones, out, seeds=(0, 1), missing_only=True))

    assert [each.existing for each in planned.records] == [written.path, None]
    assert sorted(out.rglob("*")) == before


def test_sound_that_is_stored_or_counted_does_not_go_through_the_model(tones: Path, tmp_path: Path) -> None:
    request = request_for(tones, tmp_path / "runs", upstream="mel_no_cmvn", heads=("linear", "mlp1"))

    first, second = plan_run(request).features
    assert first.missing_seconds == pytest.approx(first.seconds) != 0
    assert second.missing_seconds == 0, "the first head stores what the second reads"
    assert first.store_bytes is not None
    assert first.store_bytes > 0
    assert first.frames is not None
    assert first.memory_bytes == first.frames * first.layers * first.width * 4

    run(request)
    after = plan_run(request).features[0]
    assert (after.missing_seconds, after.store_bytes) == (0, 0)


def test_a_condition_counts_as_further_sound(tones: Path, tmp_path: Path) -> None:
    (clean,) = plan_run(request_for(tones, tmp_path / "runs")).features
    (both,) = plan_run(request_for(tones, tmp_path / "runs", conditions=("noise:white:10",))).features

    (name,) = both.utterances.keys() - clean.utterances.keys()
    assert name.startswith("test, noise:white")
    assert both.missing_seconds > clean.missing_seconds


@pytest.mark.parametrize(
    ("options", "assignments", "error", "words"),
    [
        ({"upstream": "mell"}, (), UsageError, "mell"),
        ({"layer": "7"}, (), UsageError, "layer"),
        ({"downstream": "sentiment", "corpus": "nowhere/at/all"}, (), DataError, "no manifest"),
        ({"finetune": True}, (), UsageError, "nothing to fine-tune"),
        ({"probe": Path("x"), "missing_only": True}, (), UsageError, "already trained"),
        ({"probe": Path("x")}, (), UsageError, "--dry-run"),
        ({}, ("resources.memory_gib=0.001",), EnvironmentFault, "does not fit"),
        ({"matched": True}, (), UsageError, "no condition"),
    ],
)
def test_what_a_run_refuses_is_refused(
    options: dict[str, Any], assignments: tuple[str, ...], error: type[RepbenchError], words: str, tones: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    request = request_for(tones, tmp_path / "runs", *assignments)
    with pytest.raises(error, match=words):
        plan_run(replace(request, **options))
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_written_is_refused(tones: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="ascii")
    with pytest.raises(EnvironmentFault):
        plan_run(request_for(tones, tmp_path / "file" / "runs"))


def test_the_command_prints_the_records_and_the_forecast(
    tones: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs"
    command = [
        "run",
        "--upstream=mel",
        "--downstream=speaker",
        f"--corpus={tones}",
        f"--out={out}",
        "--seed=0",
        "--seed=1",
    ]
    app([*command, "--dry-run", "--quiet"], standalone_mode=False)
    printed = capfd.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[-3:] for line in lines[1:3]] == [["would", "be", "written"]] * 2
    assert lines[-1] == f"2 records would be written below {out}; dry run"
    assert "(resources.road memory)" in printed.out
    assert not out.exists()

    app([*command, "--dry-run", "--json"], standalone_mode=False)
    fields = json.loads(capfd.readouterr().out)
    assert [each["seed"] for each in fields["records"]] == [0, 1]
    assert fields["features"][0]["trainings"] == 2


# pre-training


def pretraining(tones: Path, run: Path, **options: Any) -> PretrainRequest:
    given = {"preset": "tiny", "steps": 2, "device": "cpu", "assignments": ("training.min_frames=10",), **options}
    return PretrainRequest(upstream="apc", corpus=str(tones), out=run, **given)


def test_a_pretraining_is_foreseen_and_nothing_is_written(tones: Path, tmp_path: Path) -> None:
    folder = tmp_path / "apc"

    planned = plan_pretraining(pretraining(tones, folder))

    assert not folder.exists()
    assert (planned.steps, planned.resumes_at, planned.preset) == (2, None, "tiny")
    assert planned.utterances["train"] > 0
    done = run_pretraining(pretraining(tones, folder))
    weights = done.checkpoint / "model.safetensors"
    assert 4 * planned.parameters == pytest.approx(weights.stat().st_size, rel=0.1)
    files = sorted(folder.rglob("*"))
    again = plan_pretraining(pretraining(tones, folder, steps=4, resume=True))
    assert (again.resumes_at, again.steps) == (2, 4)
    assert sorted(folder.rglob("*")) == files


def test_what_a_pretraining_refuses_is_refused(tones: Path, tmp_path: Path) -> None:
    folder = tmp_path / "apc"
    with pytest.raises(UsageError, match="no objective"):
        plan_pretraining(replace(pretraining(tones, folder), upstream="mel", preset=None))
    with pytest.raises(DataError, match="No utterance of train"):
        plan_pretraining(pretraining(tones, folder, assignments=("training.min_frames=100000",)))
    assert not folder.exists()
    run_pretraining(pretraining(tones, folder))
    with pytest.raises(RunInUseError, match="holds a run at step 2"):
        plan_pretraining(pretraining(tones, folder))
    with (
        exclusive_lock(folder / LOCK_FILE, "trains here"),
        pytest.raises(RunInUseError, match=r"process \d+ on .* trains here"),
    ):
        plan_pretraining(pretraining(tones, folder, steps=4, resume=True))
