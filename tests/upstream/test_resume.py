"""A training that was stopped goes on as if it had not been (FAULTS.md, rows 3, 4, 6, 13, 30, 31)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import repbench
from repbench.benchmark.pipeline.pretrain import PretrainRequest, run_pretraining
from repbench.errors import IntegrityError, RunInUseError
from repbench.testing import tone_corpus
from repbench.training.batching import derived_seed
from repbench.upstream.checkpoints.native import (
    list_checkpoints,
    newest_intact,
    open_checkpoint,
    read_training,
    read_weights,
    save_checkpoint,
)
from repbench.upstream.pretraining import saved_state, trainer
from tests.upstream.small_training import (
    BATCHES_PER_EPOCH,
    arguments,
    metrics_of,
    request,
    small_corpus,
)

STEPS = 100
EDGE = 2 * BATCHES_PER_EPOCH
STOPS = (1, EDGE - 1, EDGE, EDGE + 1, 37)
SAVED = {*STOPS, 12, 38, 90}
"""Steps of which the uninterrupted run has checkpoints, beside its last."""

SETTINGS: dict[str, Any] = {
    "training__keep_last": STEPS,
    "training__dev_every": 10,
    "training__curriculum": "[]",
    "training__optimizer__warmup": 0.1,
}
FOREVER = 1_000_000


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "tones"
    small_corpus(folder)
    return folder


def asked_of(tones: Path, run: Path, **changed: Any) -> PretrainRequest:
    return request("mockingjay", tones, run, steps=STEPS, **SETTINGS | changed)


@pytest.fixture(scope="module")
def uninterrupted(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 100 steps with checkpoints of the steps that the tests ask for."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    taken = trainer.Trainer._step

    def step(self: trainer.Trainer, *given: Any) -> Any:
        if self.step in SAVED:
            self.save()
        return taken(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", step)
        run_pretraining(asked_of(tones, run))
    assert [checkpoint.step for checkpoint in list_checkpoints(run)] == sorted({*SAVED, STEPS})
    return run


def killed_at(step: int, uninterrupted: Path, run: Path) -> Path:
    """The run folder as a kill some steps after the checkpoint of `step` leaves it."""
    shutil.copytree(uninterrupted, run, ignore=shutil.ignore_patterns("step-*", "events.*"))
    name = f"step-{step:08d}"
    shutil.copytree(uninterrupted / "checkpoints" / name, run / "checkpoints" / name)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == json.loads(lines[-1])["step"], "one a step"
    (run / "metrics.jsonl").write_text("".join(lines[: step + 3]) + '{"step": ')
    return run


def digests(run: Path, step: int = STEPS) -> dict[str, str]:
    """SHA-256 of what must not depend on interruptions."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    files = (folder / "model.safetensors", folder / "training.safetensors", folder / "README.md", run / "metrics.jsonl")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


# the same bytes


@pytest.mark.slow
def test_resumed_in_another_process_it_ends_as_if_it_had_not_stopped(
    tones: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    runs = [killed_at(step, uninterrupted, tmp_path / str(step)) for step in STOPS]
    code = (
        "import sys; from pathlib import Path; "
        "from repbench.benchmark.pipeline.pretrain import run_pretraining; "
        "from tests.upstream.test_resume import asked_of\n"
        "for run in sys.argv[2:]: run_pretraining(asked_of(Path(sys.argv[1]), Path(run), resume=True))"
    )
    subprocess.run([sys.executable, "-c", code, tones, *runs], check=True, timeout=120)
    for run in runs:
        assert digests(run) == digests(uninterrupted), f"stopped at {run.name}"


@pytest.mark.slow
def test_the_batches_heard_are_the_same_in_the_same_order(
    tones: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = list[tuple[int, str]]()
    told = trainer.Trainer._loss

    def loss(self: trainer.Trainer, batch: Any, number: int, ids: Any) -> Any:
        values = hashlib.sha256(batch.values.numpy().tobytes()).hexdigest()
        heard.append((number, f"{' '.join(ids)} {values}"))
        return told(self, batch, number, ids)

    monkeypatch.setattr(trainer.Trainer, "_loss", loss)
    run_pretraining(replace(asked_of(tones, tmp_path / "whole"), steps=20))
    whole, heard[:] = list(heard), []
    run_pretraining(asked_of(tones, killed_at(7, uninterrupted, tmp_path / "run"), resume=True))
    assert [number for number, _ in whole] == list(range(20))
    assert heard[:13] == whole[7:]


def without(name: str, number: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def dropped(state: dict[str, Tensor]) -> dict[str, Tensor]:
        found = [key for key in state if key.endswith(f".{name}")]
        assert found
        return state | {key: torch.full_like(state[key], number) for key in found}

    return dropped


@pytest.mark.parametrize(
    "dropped",
    [lambda state: state, without("exp_avg", 0.0), without("exp_avg_sq", 1e-4), without("step", 1.0)],
    ids=["nothing", "mean", "mean square", "step counters"],
)
def test_each_part_of_the_optimizer_is_needed(
    dropped: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    request: pytest.FixtureRequest,
    tones: Path,
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(saved_state, "read_training", lambda checkpoint: dropped(read_training(checkpoint)))
    run = killed_at(90, uninterrupted, tmp_path / "run")
    run_pretraining(asked_of(tones, run, resume=True))
    same = digests(run)["model.safetensors"] == digests(uninterrupted)["model.safetensors"]
    assert same == (request.node.callspec.id == "nothing")


@pytest.mark.parametrize("purpose", ["order", "epoch", "dropout", "objective"])
def test_each_draw_depends_on_the_number_of_the_batch(
    purpose: str, tones: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted_anew(seed: int, *names: object) -> int:
        return derived_seed(seed, *names, "after the stop") if names[0] == purpose else derived_seed(seed, *names)

    for module in (trainer, sys.modules["repbench.training.batching"]):
        monkeypatch.setattr(module, "derived_seed", counted_anew)
    run = killed_at(90, uninterrupted, tmp_path / "run")
    run_pretraining(asked_of(tones, run, resume=True))
    assert digests(run)["model.safetensors"] != digests(uninterrupted)["model.safetensors"]


def test_the_place_in_the_order_is_needed(
    tones: Path, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered = trainer.Trainer._numbered
    monkeypatch.setattr(trainer.Trainer, "_numbered", lambda self, stages, step: numbered(self, stages, 0))
    run = killed_at(90, uninterrupted, tmp_path / "run")
    run_pretraining(asked_of(tones, run, resume=True))
    assert digests(run)["model.safetensors"] != digests(uninterrupted)["model.safetensors"]


@pytest.mark.parametrize("name", ["adam", "bertadam", "adamw-with-schedule"])
def test_every_optimizer_goes_on(name: str, tones: Path, tmp_path: Path) -> None:
    changed = {"training__optimizer__name": name, "training__save_every": 7, "training__keep_last": 9}
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_pretraining(replace(asked_of(tones, whole, **changed), steps=20))
    killed_at(7, whole, run)
    run_pretraining(replace(asked_of(tones, run, resume=True, **changed), steps=20))
    assert digests(run, 20) == digests(whole, 20)


@pytest.mark.parametrize("stop", [3, 4, 5, 7])
def test_a_curriculum_goes_on_at_its_stage(stop: int, tones: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    asked = replace(asked_of(tones, whole, training__save_every=1, training__batch_frames=200), steps=20)
    own = tuple(each for each in asked.assignments if not each.startswith("training.curriculum"))
    asked = replace(asked, assignments=own)  # the stages of tiny: they end after 4, 6, 9 and 20 steps
    with stopped_after(12), pytest.raises(Stopped):
        run_pretraining(asked)
    killed_at(stop, whole, run)
    with stopped_after(12), pytest.raises(Stopped):
        run_pretraining(replace(asked, out=run, resume=True))
    assert digests(run, 12) == digests(whole, 12)


def test_a_finished_run_is_said_to_be_finished(tones: Path, uninterrupted: Path) -> None:
    before = digests(uninterrupted)
    done = run_pretraining(asked_of(tones, uninterrupted, resume=True))
    assert (done.step, done.checkpoint.name, done.signal) == (STEPS, f"step-{STEPS:08d}", None)
    assert digests(uninterrupted) == before


def test_resume_begins_where_there_is_nothing(tones: Path, tmp_path: Path) -> None:
    assert run_pretraining(replace(asked_of(tones, tmp_path / "new", resume=True), steps=2)).step == 2


# signals


@contextmanager
def training_in_a_child(asked: PretrainRequest) -> Iterator[subprocess.Popen[str]]:
    """`repbench pretrain` in a process of its own, once it has taken some steps."""
    command = [sys.executable, "-W", "error", "-m", "repbench", *arguments(asked)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        try:
            said = list[str]()
            for line in child.stderr:
                said.append(line)
                if line.startswith("step "):
                    break
            else:
                raise AssertionError("".join(said))
            yield child
        finally:
            child.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_training_with_a_checkpoint_and_another_changes_nothing(
    number: signal.Signals, code: int, tones: Path, tmp_path: Path
) -> None:
    run, changed = tmp_path / "run", {"training__dev_every": 5, "training__save_every": 1000}
    steps = 4000
    asked = replace(asked_of(tones, run, **changed), steps=steps)
    with training_in_a_child(asked) as child:
        child.send_signal(number)
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert child.returncode == code, err
    assert "stopped by a signal after a checkpoint; go on with --resume" in err
    assert "Traceback" not in err
    [checkpoint] = list_checkpoints(run)
    assert 5 <= checkpoint.step < steps
    assert out.strip() == f"{checkpoint.path}: step {checkpoint.step}"
    assert not list(run.rglob(".tmp-*"))

    # On with it to a step that the uninterrupted one reaches too.
    reached = checkpoint.step + 10
    whole = tmp_path / "whole"
    for folder, resume in ((run, True), (whole, False)):
        with stopped_after(reached), pytest.raises(Stopped):
            run_pretraining(replace(asked, out=folder, resume=resume))
    assert metrics_of(run) == metrics_of(whole)
    assert metrics_of(run)[-1]["step"] == reached


class Stopped(Exception):  # noqa: N818 - not an error of anything
    """The training has come far enough for a test."""


@contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    """Inside, a training ends before the step `steps`, as by a kill: without a checkpoint."""
    taken = trainer.Trainer._step

    def step(self: trainer.Trainer, *given: Any) -> Any:
        if self.step == steps:
            raise Stopped
        return taken(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", step)
        yield


def test_signals_at_a_step_that_is_saved_anyway_and_within_the_save_leave_the_same_log(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, saved = trainer.Trainer._step, save_checkpoint

    def step(self: trainer.Trainer, *given: Any) -> Any:
        if self.step == 11:
            os.kill(os.getpid(), signal.SIGTERM)
        return taken(self, *given)

    def save(*given: Any, **named: Any) -> Any:
        for again in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), again)
        return saved(*given, **named)

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    whole = replace(asked_of(tones, tmp_path / "whole", training__save_every=12, training__log_every=5), steps=24)
    run_pretraining(whole)
    asked = replace(whole, out=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", step)
        patch.setattr(trainer, "save_checkpoint", save)
        done = run_pretraining(asked)
    assert (done.step, done.signal) == (12, signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert run_pretraining(replace(asked, resume=True)).step == 24
    assert digests(tmp_path / "run", 24) == digests(tmp_path / "whole", 24)


# whose folder it is


def test_a_run_that_is_there_is_not_written_over(tones: Path, uninterrupted: Path) -> None:
    before = digests(uninterrupted)
    with pytest.raises(RunInUseError, match=r"holds a run at step 100 of 100 .*Say --resume") as refused:
        run_pretraining(asked_of(tones, uninterrupted))
    assert refused.value.exit_code == 8
    assert digests(uninterrupted) == before


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"training__optimizer__learning_rate": 0.5}, r"training\.optimizer\.learning_rate: [\d.]+ -> 0\.5"),
        ({"hidden_size": 32}, "config.hidden_size: 16 -> 32"),
        ({"seed": 7}, "seed: 0 -> 7"),
        ({"training__clip_norm": 2.0, "masking__consecutive": 4},
         r"config\.masking\.consecutive: 3 -> 4; training\.clip_norm: 1\.0 -> 2\.0"),
    ],
    ids=["learning_rate", "hidden_size", "seed", "two"],
)  # fmt: skip
def test_a_run_with_other_settings_is_refused_with_what_differs(
    changed: dict[str, Any], difference: str, tones: Path, uninterrupted: Path
) -> None:
    with pytest.raises(RunInUseError, match=rf"a run with other settings: {difference} \(") as refused:
        run_pretraining(asked_of(tones, uninterrupted, resume=True, **changed))
    assert refused.value.exit_code == 8


def test_a_run_on_another_corpus_is_refused(tones: Path, uninterrupted: Path, tmp_path: Path) -> None:
    tone_corpus(tmp_path / "salted", num_speakers=4, sessions=1, per_session=4, salt="other")
    with pytest.raises(RunInUseError, match=r"another corpus: its fingerprint was [0-9a-f]{16} and is [0-9a-f]{16} "):
        run_pretraining(asked_of(tmp_path / "salted", uninterrupted, resume=True))


def test_checkpoints_without_their_run_are_refused(tones: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = killed_at(37, uninterrupted, tmp_path / "run")
    (run / "run.json").unlink()
    with pytest.raises(RunInUseError, match=r"holds checkpoints but no run .*run\.json is missing"):
        run_pretraining(asked_of(tones, run, resume=True))


def test_a_run_file_that_is_no_json_is_corrupt(tones: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = killed_at(37, uninterrupted, tmp_path / "run")
    (run / "run.json").write_text('{"seed": ')
    with pytest.raises(IntegrityError, match="corrupt"):
        run_pretraining(asked_of(tones, run, resume=True))


@pytest.mark.slow
def test_a_second_training_in_the_folder_is_refused_until_the_first_is_killed(tones: Path, tmp_path: Path) -> None:
    changed = {"training__dev_every": 5, "training__save_every": 5, "training__keep_last": 2}
    asked = replace(asked_of(tones, tmp_path, **changed), steps=FOREVER)
    with training_in_a_child(asked) as child:
        with pytest.raises(RunInUseError) as refused:
            run_pretraining(replace(asked, resume=True))
        assert child.poll() is None, "refused while the first trains on"
        assert f"process {child.pid} on {socket.gethostname()} trains here" in str(refused.value)
        assert refused.value.exit_code == 8
        while not list_checkpoints(tmp_path):
            time.sleep(0.01)
        child.kill()
        child.communicate(timeout=60)
    at = list_checkpoints(tmp_path)[-1].step
    with stopped_after(at + 10), pytest.raises(Stopped):
        run_pretraining(replace(asked, resume=True))
    assert list_checkpoints(tmp_path)[-1].step > at
    assert not list(tmp_path.rglob(".tmp-*"))


# what was damaged


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


class Listening:
    """A reporter that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[int, int], None]]:
        yield lambda done, total: None

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.mark.parametrize("file", ["model.safetensors", "training.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("newest", [38, STEPS])
def test_resume_falls_back_from_a_truncated_checkpoint_with_a_warning(
    file: str, newest: int, tones: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    run = killed_at(37, uninterrupted, tmp_path / "run")
    name = f"step-{newest:08d}"
    shutil.copytree(uninterrupted / "checkpoints" / name, run / "checkpoints" / name)
    truncate(run / "checkpoints" / name / file)
    listening = Listening()
    done = run_pretraining(asked_of(tones, run, resume=True), listening)
    warnings = [line for line in listening.said if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "corrupt" in warnings[0]
    assert name in warnings[0]
    assert done.step == STEPS
    assert digests(run) == digests(uninterrupted)


def test_a_checkpoint_that_was_named_is_never_replaced_by_another(uninterrupted: Path, tmp_path: Path) -> None:
    run = killed_at(37, uninterrupted, tmp_path / "run")
    shutil.copytree(uninterrupted / "checkpoints/step-00000038", run / "checkpoints/step-00000038")
    truncate(run / "checkpoints/step-00000038/model.safetensors")
    for place in (run, run / "checkpoints/step-00000038"):
        with pytest.raises(IntegrityError, match="corrupt") as refused:
            repbench.load_upstream("mockingjay", checkpoint=str(place))
        assert refused.value.exit_code == 4
    assert repbench.load_upstream("mockingjay", checkpoint=str(run / "checkpoints/step-00000037")).info.width == 16


def test_the_time_of_a_file_says_nothing(tones: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = killed_at(37, uninterrupted, tmp_path / "run")
    shutil.copytree(uninterrupted / "checkpoints/step-00000012", run / "checkpoints/step-00000012")
    later = time.time() + 10 * 365 * 86_400
    for place in ((run / "checkpoints/step-00000012"), *(run / "checkpoints/step-00000012").iterdir()):
        os.utime(place, (later, later))
    newest = newest_intact(run, pytest.fail)
    assert newest is not None
    assert newest.step == 37
    loaded = repbench.load_upstream("mockingjay", checkpoint=str(run))
    weights = read_weights(open_checkpoint(uninterrupted / "checkpoints/step-00000037"))
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    run_pretraining(asked_of(tones, run, resume=True))
    assert digests(run) == digests(uninterrupted)


def test_the_run_file_says_all_that_the_numbers_depend_on(uninterrupted: Path) -> None:
    fields = json.loads((uninterrupted / "run.json").read_text())
    assert fields.keys() == {"schema", "started", "upstream", "seed", "config", "training", "corpus"}
