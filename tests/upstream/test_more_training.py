"""A training that goes on with more steps, and one that begins with the weights of another."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench import load_upstream
from repbench.benchmark.pipeline.pretrain import PretrainRequest, run_pretraining
from repbench.errors import IntegrityError, RunInUseError, UsageError
from repbench.testing import tone_corpus
from repbench.training.optimizers import build_optimizer
from repbench.upstream.checkpoints.factory import HEARD_FILE
from repbench.upstream.checkpoints.native import open_checkpoint, read_weights, save_weights
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.upstream import Mockingjay
from tests.upstream.goldens import GOLDEN
from tests.upstream.small_training import metrics_of, request, small_corpus
from tests.upstream.test_resume import Listening, Stopped, digests, stopped_after

RATE: dict[str, Any] = {"training__optimizer__learning_rate": 1e-3, "training__optimizer__warmup": 0.5}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("more") / "tones"
    small_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another corpus, of other sounds."""
    folder = tmp_path_factory.mktemp("more") / "others"
    tone_corpus(folder, num_speakers=4, sessions=1, per_session=4, salt="others")
    return folder


@pytest.fixture(scope="module")
def four_steps(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is complete after 4 steps."""
    run = tmp_path_factory.mktemp("more") / "run"
    run_pretraining(request("apc", tones, run, steps=4, **RATE))
    return run


def going_on(run: Path, four_steps: Path, tones: Path, *, steps: int = 8, **changed: Any) -> PretrainRequest:
    """A request to go on with a copy of the run of 4 steps."""
    shutil.copytree(four_steps, run)
    return request("apc", tones, run, steps=steps, resume=True, **RATE | changed)


def fields_of(run: Path, step: int) -> dict[str, Any]:
    return dict(open_checkpoint(run / "checkpoints" / f"step-{step:08d}").fields)


def weights_of(run: Path, step: int) -> dict[str, Tensor]:
    return read_weights(open_checkpoint(run / "checkpoints" / f"step-{step:08d}"))


# More steps.


def test_a_run_goes_on_with_more_steps_and_its_checkpoints_say_so(
    four_steps: Path, tones: Path, tmp_path: Path
) -> None:
    asked, listening = going_on(tmp_path / "run", four_steps, tones), Listening()
    assert run_pretraining(asked, listening).step == 8
    assert fields_of(tmp_path / "run", 8)["history"] == [
        {"event": "more steps", "step": 4, "steps_before": 4, "steps": 8}
    ]
    assert "history" not in fields_of(four_steps, 4)
    card = (tmp_path / "run/checkpoints/step-00000008/README.md").read_text()
    assert "Planned for 4 steps; from step 4 on for 8" in card
    assert json.loads((tmp_path / "run/run.json").read_text())["training"]["steps"] == 8
    (told,) = [line for line in listening.said if "planned for 4 steps" in line]
    assert "goes on from step 4 to 8, with the schedule of 8 steps: the learning rate goes on at 0.001" in told


def test_the_learning_rate_is_that_of_the_new_number_of_steps(four_steps: Path, tones: Path, tmp_path: Path) -> None:
    run_pretraining(going_on(tmp_path / "run", four_steps, tones))
    rates = [line["learning_rate"] for line in metrics_of(tmp_path / "run")]
    for planned, steps in ((4, range(4)), (8, range(4, 8))):
        _, multiplier = build_optimizer(
            "adamw", torch.nn.Linear(1, 1).named_parameters(), learning_rate=1e-3, betas=(0.9, 0.999), epsilon=None,
            weight_decay=0.0, warmup=0.5, total_steps=planned,
        )  # fmt: skip
        expected = [1e-3 * multiplier(step) for step in steps]
        assert rates[steps.start : steps.stop] == pytest.approx(expected)


def test_more_steps_that_were_interrupted_end_in_the_same_bytes(four_steps: Path, tones: Path, tmp_path: Path) -> None:
    often: dict[str, Any] = {"training__save_every": 2}
    first = request("apc", tones, tmp_path / "first", steps=4, **RATE | often)
    run_pretraining(first)
    runs = [shutil.copytree(tmp_path / "first", tmp_path / name) for name in ("whole", "stopped")]
    whole, stopped = (replace(first, out=run, steps=8, resume=True) for run in runs)
    run_pretraining(whole)
    with stopped_after(7), pytest.raises(Stopped):
        run_pretraining(stopped)
    run_pretraining(stopped)
    assert digests(runs[0], 8) == digests(runs[1], 8)
    assert fields_of(runs[0], 8)["history"] == fields_of(runs[1], 8)["history"]


@pytest.mark.parametrize(
    ("steps", "changed", "words"),
    [
        (3, {}, r"other settings: training\.steps: 4 -> 3 .*only its steps may become more"),
        (8, {"training__clip_norm": 2.0}, r"other settings: training\.clip_norm: 1\.0 -> 2\.0 \("),
    ],
)
def test_fewer_steps_and_other_settings_are_refused(
    four_steps: Path, tones: Path, tmp_path: Path, steps: int, changed: dict[str, Any], words: str
) -> None:
    asked = going_on(tmp_path / "run", four_steps, tones, steps=steps, **changed)
    with pytest.raises(RunInUseError, match=words):
        run_pretraining(asked)
    assert digests(tmp_path / "run", 4) == digests(four_steps, 4)


def test_a_run_that_went_on_is_that_of_the_new_number(four_steps: Path, tones: Path, tmp_path: Path) -> None:
    asked = going_on(tmp_path / "run", four_steps, tones)
    run_pretraining(asked)
    with pytest.raises(RunInUseError, match=r"training\.steps: 8 -> 4"):
        run_pretraining(replace(asked, steps=4))


# From a checkpoint.


def beginning(four_steps: Path, corpus: Path, run: Path, **changed: Any) -> PretrainRequest:
    return replace(request("apc", corpus, run, steps=2, **RATE | changed), from_checkpoint=four_steps)


def test_a_training_begins_with_the_weights_of_another_and_says_so(
    four_steps: Path, others: Path, tmp_path: Path
) -> None:
    still: dict[str, Any] = {"training__optimizer__learning_rate": 1e-12, "training__optimizer__weight_decay": 0.0}
    run_pretraining(beginning(four_steps, others, tmp_path / "run", **still))
    before, after = weights_of(four_steps, 4), weights_of(tmp_path / "run", 2)
    assert all(torch.allclose(before[name], after[name], atol=1e-9, rtol=0) for name in before)
    (event,) = fields_of(tmp_path / "run", 2)["history"]
    assert (event["event"], event["step"], event["corpus"]["name"]) == ("from", 4, "tones")
    assert event["checkpoint"] == str(four_steps / "checkpoints/step-00000004")
    assert event["fingerprint"] == load_upstream("apc", checkpoint=four_steps).fingerprint()
    card = (tmp_path / "run/checkpoints/step-00000002/README.md").read_text()
    assert "Began with the weights of" in card
    assert "step 4: trained on tones (" in card


def test_what_the_first_training_heard_stays_known(four_steps: Path, others: Path, tmp_path: Path) -> None:
    run_pretraining(beginning(four_steps, others, tmp_path / "run"))
    first, second = (load_upstream("apc", checkpoint=run).provenance for run in (four_steps, tmp_path / "run"))
    own = fields_of(tmp_path / "run", 2)["corpus"]["n_train"]
    assert first.heard < second.heard
    assert len(second.heard) == len(first.heard) + own
    assert any("its training began with the weights of" in note and "trained on tones" in note for note in second.notes)
    heard = (tmp_path / "run/checkpoints/step-00000002" / HEARD_FILE).read_text().split()
    assert set(heard) == second.heard


def test_history_is_carried_from_checkpoint_to_checkpoint(
    four_steps: Path, tones: Path, others: Path, tmp_path: Path
) -> None:
    run_pretraining(going_on(tmp_path / "more", four_steps, tones, steps=5))
    run_pretraining(beginning(tmp_path / "more", others, tmp_path / "run"))
    run_pretraining(replace(beginning(tmp_path / "more", others, tmp_path / "run"), steps=3, resume=True))
    history = fields_of(tmp_path / "run", 3)["history"]
    assert [each["event"] for each in history] == ["more steps", "from", "more steps"]
    run_pretraining(beginning(tmp_path / "run", tones, tmp_path / "again"))
    assert [each["event"] for each in fields_of(tmp_path / "again", 2)["history"]] == [
        "more steps", "from", "more steps", "from"
    ]  # fmt: skip


def test_a_training_that_began_from_a_checkpoint_is_resumed_with_it_alone(
    four_steps: Path, tones: Path, others: Path, tmp_path: Path
) -> None:
    often: dict[str, Any] = {"training__save_every": 1}
    whole, stopped = (beginning(four_steps, others, tmp_path / name, **often) for name in ("whole", "stopped"))
    run_pretraining(whole)
    with stopped_after(1), pytest.raises(Stopped):
        run_pretraining(stopped)
    with pytest.raises(RunInUseError, match=r"began with the weights of .*step-00000004 .*Say --from"):
        run_pretraining(replace(stopped, resume=True, from_checkpoint=None))
    run_pretraining(request("apc", tones, tmp_path / "other", steps=1, seed=5, **RATE))
    with pytest.raises(RunInUseError, match="from_fingerprint: "):
        run_pretraining(replace(stopped, resume=True, from_checkpoint=tmp_path / "other"))
    run_pretraining(replace(stopped, resume=True))
    assert digests(tmp_path / "whole", 2) == digests(tmp_path / "stopped", 2)


def test_killed_before_its_first_checkpoint_it_begins_with_the_same_weights(
    four_steps: Path, others: Path, tmp_path: Path
) -> None:
    whole, stopped = (beginning(four_steps, others, tmp_path / name) for name in ("whole", "stopped"))
    run_pretraining(whole)
    with stopped_after(1), pytest.raises(Stopped):
        run_pretraining(stopped)
    run_pretraining(replace(stopped, resume=True))
    assert digests(tmp_path / "whole", 2) == digests(tmp_path / "stopped", 2)


def test_the_models_settings_are_those_of_the_checkpoint_and_may_be_changed(
    four_steps: Path, others: Path, tmp_path: Path
) -> None:
    plain = PretrainRequest(
        upstream="apc", corpus=str(others), preset="tiny", steps=1, out=tmp_path / "plain", device="cpu",
        from_checkpoint=four_steps, assignments=("dropout=0.3", "training.batch_frames=90"),
    )  # fmt: skip
    run_pretraining(plain)
    assert fields_of(tmp_path / "plain", 1)["config"] == fields_of(four_steps, 4)["config"] | {"dropout": 0.3}
    with pytest.raises(IntegrityError, match="do not fit the model"):
        run_pretraining(replace(plain, out=tmp_path / "wider", assignments=("hidden_size=32",)))


def test_a_checkpoint_of_an_older_code_is_begun_with_and_what_it_learned_from_is_not_known(
    others: Path, tmp_path: Path
) -> None:
    asked = PretrainRequest(
        upstream="apc", corpus=str(others), preset="tiny", steps=1, out=tmp_path / "run", device="cpu",
        from_checkpoint=GOLDEN / "apc/apc_s3prl_full.ckpt",
    )  # fmt: skip
    run_pretraining(asked)
    (event,) = fields_of(tmp_path / "run", 1)["history"]
    assert (event["step"], event["corpus"]) == (None, None)
    notes = load_upstream("apc", checkpoint=tmp_path / "run").provenance.notes
    assert any("what those learned from is not known" in note for note in notes)


@pytest.mark.parametrize(
    ("upstream", "checkpoint", "words"),
    [
        ("apc", "random:tiny", r"Untrained weights are what a training begins with anyway \(key --from\)"),
        ("apc", "nowhere", r"no such file or folder \(file nowhere, key --from\)"),
        ("mel", "nowhere", "`mel` has no objective"),
    ],
)
def test_what_cannot_be_begun_with_is_refused(
    tones: Path, tmp_path: Path, upstream: str, checkpoint: str, words: str
) -> None:
    asked = PretrainRequest(
        upstream=upstream, corpus=str(tones), from_checkpoint=checkpoint, out=tmp_path, device="cpu"
    )
    with pytest.raises(UsageError, match=words):
        run_pretraining(asked)


def test_an_encoder_without_a_head_is_refused(tones: Path, tmp_path: Path) -> None:
    alone = Mockingjay(MockingjayConfig(hidden_size=16, num_heads=2, feed_forward_size=32), with_head=False)
    fields = {"upstream": "mockingjay", "config": alone.config}
    place = save_weights(tmp_path / "encoder", weights=alone.state_dict(), fields=fields).path
    asked = PretrainRequest(upstream="mockingjay", corpus=str(tones), from_checkpoint=place, device="cpu", out=tmp_path)
    with pytest.raises(UsageError, match="This Mockingjay has no head"):
        run_pretraining(asked)
    assert not (tmp_path / "run.json").exists(), "nothing was begun"


def test_the_folder_of_a_training_from_a_checkpoint_is_its_own(
    four_steps: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listening = Listening()
    done = run_pretraining(replace(beginning(four_steps, others, tmp_path), out=None), listening)
    fingerprint = load_upstream("apc", checkpoint=four_steps).fingerprint()
    assert done.run == Path(f"runs/pretrain/apc/tiny-seed0-from-{fingerprint[:8]}")
    assert any("the weights and the model's settings are those of" in line for line in listening.said)
    assert load_upstream("apc").provenance.checkpoint == str(done.checkpoint)
