"""Fine-tuning: what is trained, kept, said and refused, and how it goes on (FAULTS.md, rows 3, 4, 5, 30, 49)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from repbench.benchmark.data.dataset import label_splits
from repbench.benchmark.features import extraction
from repbench.benchmark.finetuning import trainer
from repbench.benchmark.finetuning.network import Network, load_network
from repbench.benchmark.finetuning.prediction import predictions_of
from repbench.benchmark.finetuning.trainer import Finetuner
from repbench.benchmark.pipeline.pretrain import run_pretraining
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.protocol import ExtractionSettings, SplitSettings
from repbench.benchmark.records.record import read_predictions
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora.open import open_corpus
from repbench.downstream.phone import Phone
from repbench.errors import EnvironmentFault, IntegrityError, NonFiniteError, RunInUseError, UsageError
from repbench.registry import registry
from repbench.testing import Envelope, tone_corpus
from repbench.training.batching import derived_seed, padded
from repbench.upstream.checkpoints.native import list_checkpoints, open_checkpoint, read_training, read_weights
from repbench.upstream.pretraining import saved_state
from tests.benchmark.small_finetuning import ENVELOPE, QUICK, arguments, outcome, request, states, tensors_differ
from tests.upstream import small_training

STEPS = int(QUICK["steps"])


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetuning") / "tones"
    small_training.small_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Mockingjay of 16 units, with dropout, after two steps of pre-training."""
    run_folder = tmp_path_factory.mktemp("pretrained") / "run"
    return str(run_pretraining(small_training.request("mockingjay", tones, run_folder, steps=2)).checkpoint)


@pytest.fixture(scope="module")
def uninterrupted(tones: Path, checkpoint: str, tmp_path_factory: pytest.TempPathFactory) -> WrittenRecord:
    asked = request("mockingjay", tones, tmp_path_factory.mktemp("whole"), checkpoint=checkpoint)
    (written,) = run(asked)
    return written


# what is trained, and what is said


def test_the_whole_network_is_trained_and_the_record_says_so(checkpoint: str, uninterrupted: WrittenRecord) -> None:
    record, folder = uninterrupted.record, uninterrupted.path.parent
    assert (record.mode, record.layer, record.head) == ("finetune", "last", "linear")
    assert record.test_accesses == 1
    assert [point["step"] for point in record.selection.grid] == [3, 6, 9, 12]
    assert record.selection.dev_value == max(point["dev_value"] for point in record.selection.grid)
    assert record.protocol["finetune"]["steps"] == STEPS
    assert record.cost.train_seconds > 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "network.safetensors", "predictions.jsonl", "record.json"
    ]  # fmt: skip
    before, after = read_weights(open_checkpoint(Path(checkpoint))), load_network(folder / "network.safetensors")
    unread = [name for name in before if name.startswith(("head.", "encoder.output_norms.0."))]
    read = sorted(before.keys() - set(unread))
    assert all(tensors_differ(before, after.upstream, read)), "every weight that the answer depends on"
    assert not any(tensors_differ(before, after.upstream, unread))
    assert not torch.equal(after.probe.std, torch.ones_like(after.probe.std))
    assert not states(folder.parents[3]), "nothing is left of a training that is finished"


def test_the_record_says_the_precision_that_computed_it(tones: Path, tmp_path: Path) -> None:
    asked = request(ENVELOPE, tones, tmp_path, finetune__steps=2)
    lower = asked.protocol.extraction.model_copy(update={"precision": "bfloat16"})
    (written,) = run(replace(asked, protocol=asked.protocol.model_copy(update={"extraction": lower})))
    assert written.record.environment.precision == "float32"
    assert written.record.protocol["extraction"]["precision"] == "float32"


@pytest.mark.slow
def test_a_frozen_upstream_stays_as_it_was_and_has_the_same_fingerprint(
    tones: Path, checkpoint: str, uninterrupted: WrittenRecord, tmp_path: Path
) -> None:
    (frozen,) = run(replace(request("mockingjay", tones, tmp_path, checkpoint=checkpoint), finetune=False))
    assert frozen.record.mode == "frozen"
    assert frozen.record.upstream == uninterrupted.record.upstream
    assert not (frozen.path.parent / "network.safetensors").exists()


def test_training_raises_the_score_of_a_random_network(tones: Path, tmp_path: Path) -> None:
    few, many = (
        run(request(ENVELOPE, tones, tmp_path, finetune__steps=steps, finetune__learning_rate=1e-2))[0]
        for steps in (1, 60)
    )
    value = many.record.primary.value
    assert value is not None
    assert value > (few.record.primary.value or 0) + 0.1


@pytest.mark.parametrize(("task", "layer"), [("speaker", "weighted"), ("sentiment", "mean"), ("phone", "weighted")])
def test_each_task_and_mix_is_trained(task: str, layer: str, tones: Path, tmp_path: Path) -> None:
    (written,) = run(request(ENVELOPE, tones, tmp_path, downstream=task, layer=layer, finetune__steps=8))
    network = load_network(written.path.parent / "network.safetensors")
    assert network.probe.shape.num_layers == 2
    assert bool(network.probe.layer_logits.any()) == (layer == "weighted")
    assert not torch.equal(network.upstream["projection"], Envelope().projection)
    assert len(read_predictions(written.path.parent / "predictions.jsonl")) == written.record.n_scored


@pytest.mark.slow
def test_fractions_and_seeds_give_what_they_give_alone(tones: Path, checkpoint: str, tmp_path: Path) -> None:
    def asked(out: Path, **changed: Any) -> RunRequest:
        return request("mockingjay", tones, out, checkpoint=checkpoint, finetune__steps=4, **changed)

    together = run(asked(tmp_path / "all", label_fractions=(0.5, 1.0), seeds=(0, 1)))
    settings = [(each.record.label_fraction, each.record.seed) for each in together]
    assert settings == [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1)]
    for (fraction, seed), written in zip(settings, together, strict=True):
        (alone,) = run(asked(tmp_path / "alone", label_fractions=(fraction,), seeds=(seed,)))
        assert outcome(alone.path) == outcome(written.path)
    assert len({outcome(each.path)["weights"] for each in together}) == 4


def test_the_controls_are_fine_tuned_too(tones: Path, checkpoint: str, tmp_path: Path) -> None:
    written = run(request("mockingjay", tones, tmp_path, checkpoint=checkpoint, controls=True, finetune__steps=2))
    assert [each.record.mode for each in written] == ["finetune"] * 3
    assert [each.record.protocol["labels"] for each in written] == ["given", "shuffled", "given"]
    assert written[2].record.upstream.checkpoint == f"random:{checkpoint}"


def test_the_gradient_of_the_whole_network_is_clipped_to_its_norm(tones: Path, tmp_path: Path) -> None:
    norms = list[float]()

    def note(optimizer: torch.optim.Optimizer, given: Any, named: Any) -> None:
        every = [each.grad.flatten() for group in optimizer.param_groups for each in group["params"]]
        norms.append(float(torch.cat(every).norm()))

    hook = register_optimizer_step_pre_hook(note)
    try:
        for clip in (1e6, 1e-3):
            norms.clear()
            changed = {"finetune__clip_norm": clip, "finetune__steps": 2, "finetune__selection_points": 1}
            run(request(ENVELOPE, tones, tmp_path / str(clip), device="cpu", **changed))
            assert len(norms) == 2
            if clip == 1e6:
                assert min(norms) > 0.01, "there is something to clip"
            else:
                assert norms == pytest.approx([clip, clip], rel=1e-3)
    finally:
        hook.remove()


def test_some_utterances_spread_over_train_standardise_the_input_of_the_head(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, extract = list[int](), extraction.extract

    def counted(upstream: Any, utterances: Any, *given: Any, **named: Any) -> Any:
        counts.append(len(utterances))
        return extract(upstream, utterances, *given, **named)

    monkeypatch.setattr(trainer, "extract", counted)
    for most in (3, 1000):
        run(request(ENVELOPE, tones, tmp_path, finetune__steps=1, finetune__statistics_utterances=most))
    assert counts == [3, 8]


# what is kept


def with_dev_values(values: dict[int, float], patch: pytest.MonkeyPatch) -> dict[int, dict[str, Tensor]]:
    """Dev is worth what is said after each step; returns the weights that were there, as they come."""
    seen: dict[int, dict[str, Tensor]] = {}
    steps = iter(values)

    def value(self: Finetuner) -> float:
        step = next(steps)
        seen[step] = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        return values[step]

    patch.setattr(Finetuner, "_dev_value", value)
    return seen


def test_it_stops_early_and_keeps_the_best_point_of_dev(
    tones: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {2: 0.1, 4: 0.9, 6: 0.9, 8: 0.5, 10: 0.8, 12: 0.95}
    seen = with_dev_values(values, monkeypatch)
    changed = {"finetune__selection_points": 6, "finetune__patience": 3}
    (written,) = run(request("mockingjay", tones, tmp_path, checkpoint=checkpoint, **changed))
    selection = written.record.selection
    assert [point["step"] for point in selection.grid] == [2, 4, 6, 8, 10], "three in a row were not better than 0.9"
    assert (selection.chosen, selection.dev_value) == ({"step": 4}, 0.9)
    network = load_network(written.path.parent / "network.safetensors")
    kept = {f"upstream.{name}": tensor for name, tensor in network.upstream.items()}
    assert not any(tensors_differ(kept, seen[4], list(kept)))
    assert any(tensors_differ(kept, seen[6], list(kept)))


def test_a_fine_tuned_network_scores_another_corpus_with_and_without_its_checkpoint(
    tones: Path, checkpoint: str, uninterrupted: WrittenRecord, tmp_path: Path
) -> None:
    tone_corpus(tmp_path / "other", num_speakers=3, per_session=2, salt="other")
    source = uninterrupted.path.parent
    plain = RunRequest(
        upstream="mockingjay", downstream="phone", corpus=str(tmp_path / "other"), out=tmp_path, probe=source
    )
    (rebuilt,) = run(plain)
    (began_with,) = run(replace(plain, checkpoint=checkpoint))
    assert rebuilt.record.mode == "finetune"
    assert rebuilt.record.n_scored == 12
    assert rebuilt.record.upstream == uninterrupted.record.upstream
    assert rebuilt.record.metrics == began_with.record.metrics
    (again,) = run(replace(plain, probe=rebuilt.path))
    assert again.record.metrics == rebuilt.record.metrics

    with pytest.raises(UsageError, match=r"already trained \(key --finetune\)"):
        run(replace(plain, finetune=True))
    with pytest.raises(IntegrityError, match="fine-tuned from another `mockingjay`"):
        run(replace(plain, checkpoint="random:tiny"))
    spoilt = tmp_path / "spoilt"
    shutil.copytree(source, spoilt)
    content = bytearray((spoilt / "network.safetensors").read_bytes())
    content[-5] ^= 1
    (spoilt / "network.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match="not those that were written"):
        run(replace(plain, probe=spoilt))
    (spoilt / "network.safetensors").write_bytes(content[:-100])
    with pytest.raises(IntegrityError, match="not a whole network"):
        run(replace(plain, probe=spoilt))


def test_the_saved_network_answers_as_it_did(tones: Path, uninterrupted: WrittenRecord) -> None:
    saved = load_network(uninterrupted.path.parent / "network.safetensors")
    upstream = saved.build(registry().find("upstream", "mockingjay").entry, None, None, 0)
    network = Network(upstream, saved.probe, (len(upstream.info.layer_names) - 1,))
    plan = label_splits(open_corpus(str(tones)), Phone(), SplitSettings(), excludes=lambda utterance: None)
    predictor = Predictor(Phone(), plan.classes, upstream.info)
    answers = predictions_of(network, predictor, plan.test.open(), ExtractionSettings(), device=torch.device("cpu"))
    assert answers == read_predictions(uninterrupted.path.parent / "predictions.jsonl")


# what is refused


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer": "all"}, "Each layer would need its own fine-tuning.*--layer"),
        ({"tune": True}, "Fine-tuning takes its rates from the protocol.*--tune"),
        ({"upstream": "mel", "checkpoint": None}, "`mel` has no weights: there is nothing to fine-tune"),
        ({"upstream": "precomputed", "checkpoint": None}, "Frames that are read from a corpus have no weights"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_before_data_is_read(
    changed: dict[str, Any], message: str, checkpoint: str, tmp_path: Path
) -> None:
    asked = request("mockingjay", tmp_path / "there is no corpus here", tmp_path / "out", checkpoint=checkpoint)
    with pytest.raises(UsageError, match=message):
        run(replace(asked, **changed))


def test_fault_5_a_nan_ends_it_before_the_weights_change(tones: Path, tmp_path: Path) -> None:
    upstream = "py:tests.benchmark.small_finetuning:cracked"
    with pytest.raises(NonFiniteError, match=r"is nan in step (\d+), over (s\d-\d\d) ") as stopped:
        run(request(upstream, tones, tmp_path, finetune__selection_points=STEPS))
    found = re.search(r"in step (\d+), over (\S+) ", str(stopped.value))
    assert found is not None
    assert stopped.value.utterance == found[2]
    (folder,) = states(tmp_path)
    saved = list_checkpoints(folder)
    assert [each.step for each in saved[-1:]] == ([int(found[1]) - 1] if int(found[1]) > 1 else [])
    for each in saved:
        assert all(bool(torch.isfinite(tensor).all()) for tensor in read_weights(each).values())


def test_fault_49_a_lack_of_memory_names_the_longest_utterance(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"Out of memory with \d utterances of up to 1\.\d s") as stopped:
        run(request("py:tests.benchmark.small_finetuning:greedy", tones, tmp_path))
    assert stopped.value.utterance is not None
    assert "finetune.batch_seconds" in str(stopped.value)


def test_fault_30_two_processes_do_not_share_a_state(
    tones: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request("mockingjay", tones, tmp_path, checkpoint=checkpoint, finetune__steps=2)
    taken = Finetuner._step

    def step(self: Finetuner, *given: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(Finetuner, "_step", taken)
            with pytest.raises(RunInUseError, match=f"process {os.getpid()} on .* trains here"):
                run(asked)
            run(replace(asked, seeds=(1,)))  # another setting has another state
        return taken(self, *given)

    monkeypatch.setattr(Finetuner, "_step", step)
    assert len(run(asked)) == 1


# how it goes on


class Stopped(Exception):  # noqa: N818 - not an error of anything
    """The training has come far enough for a test."""


@contextmanager
def stopped_after(steps: int) -> Iterator[None]:
    """Inside, a training ends before the step `steps`, as by a kill: its state is that of the last point."""
    taken = Finetuner._step

    def step(self: Finetuner, *given: Any) -> Any:
        if self.step == steps:
            raise Stopped
        return taken(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finetuner, "_step", step)
        yield


def killed_at(step: int, tones: Path, checkpoint: str, out: Path, **changed: Any) -> RunRequest:
    """What was asked of a training that was killed before a step."""
    asked = request("mockingjay", tones, out, checkpoint=checkpoint, **changed)
    with stopped_after(step), pytest.raises(Stopped):
        run(asked)
    return asked


@pytest.mark.slow
def test_fault_4_killed_and_gone_on_with_in_another_process_it_ends_as_if_it_had_not_stopped(
    tones: Path, checkpoint: str, uninterrupted: WrittenRecord, tmp_path: Path
) -> None:
    outs = [tmp_path / str(step) for step in (1, 3, 7, 11)]
    for out in outs:
        killed_at(int(out.name), tones, checkpoint, out)
    assert [bool(list_checkpoints(states(out)[0])) for out in outs] == [False, True, True, True]
    code = (
        "import sys; from pathlib import Path; from repbench.benchmark.run import run; "
        "from tests.benchmark.small_finetuning import request\n"
        "for out in sys.argv[3:]: run(request('mockingjay', Path(sys.argv[1]), Path(out), checkpoint=sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, tones, checkpoint, *outs], check=True, timeout=300)
    for out in outs:
        (record,) = out.rglob("record.json")
        assert outcome(record) == outcome(uninterrupted.path), f"stopped at {out.name}"
        assert not states(out)


def test_fault_3_a_signal_ends_it_after_the_step_with_its_state_and_is_passed_on(
    tones: Path, checkpoint: str, uninterrupted: WrittenRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request("mockingjay", tones, tmp_path, checkpoint=checkpoint)
    taken = Finetuner._step

    def step(self: Finetuner, *given: Any) -> Any:
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return taken(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(Finetuner, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            run(asked)
    (folder,) = states(tmp_path)
    assert [each.step for each in list_checkpoints(folder)] == [3, 5]
    (written,) = run(asked)
    assert outcome(written.path) == outcome(uninterrupted.path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_fault_3_the_command_line_says_how_to_go_on(
    number: signal.Signals, code: int, tones: Path, checkpoint: str, tmp_path: Path
) -> None:
    changed = {"finetune__steps": 100_000, "finetune__selection_points": 50_000}
    asked = request("mockingjay", tones, tmp_path, checkpoint=checkpoint, **changed)
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
            child.send_signal(number)
            child.send_signal(number)
            out, err = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == code, err
    assert (out, "Traceback" in err) == ("", False)
    (folder,) = states(tmp_path)
    step = list_checkpoints(folder)[-1].step
    assert f"stopped after step {step}; the same command goes on from {folder}" in err


def without(name: str, number: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def dropped(state: dict[str, Tensor]) -> dict[str, Tensor]:
        found = [key for key in state if key.startswith("optimizer.") and key.endswith(f".{name}")]
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
    checkpoint: str,
    uninterrupted: WrittenRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = killed_at(10, tones, checkpoint, tmp_path)
    monkeypatch.setattr(saved_state, "read_training", lambda saved: dropped(read_training(saved)))
    (written,) = run(asked)
    same = outcome(written.path)["weights"] == outcome(uninterrupted.path)["weights"]
    assert same == (request.node.callspec.id == "nothing")


@pytest.mark.parametrize("purpose", ["order", "epoch", "dropout"])
def test_each_draw_depends_on_the_number_of_the_step(
    purpose: str,
    tones: Path,
    checkpoint: str,
    uninterrupted: WrittenRecord,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = killed_at(10, tones, checkpoint, tmp_path)

    def counted_anew(seed: int, *names: object) -> int:
        return derived_seed(seed, *names, "after the stop") if names[0] == purpose else derived_seed(seed, *names)

    for module in (trainer, sys.modules["repbench.training.batching"]):
        monkeypatch.setattr(module, "derived_seed", counted_anew)
    (written,) = run(asked)
    assert outcome(written.path)["weights"] != outcome(uninterrupted.path)["weights"]


def test_what_was_best_before_the_stop_stays_the_best(
    tones: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {3: 0.9, 6: 0.5, 9: 0.4, 12: 0.95}
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        with_dev_values(values, patch)
        asked = killed_at(7, tones, checkpoint, out, finetune__patience=2)
    with monkeypatch.context() as patch:
        with_dev_values({9: 0.4, 12: 0.95}, patch)
        (resumed,) = run(asked)
    with monkeypatch.context() as patch:
        with_dev_values(values, patch)
        (whole,) = run(replace(asked, out=tmp_path / "whole"))
    assert resumed.record.selection.chosen == {"step": 3}
    assert [point["step"] for point in resumed.record.selection.grid] == [3, 6, 9], "the patience is at its end"
    assert outcome(resumed.path) == outcome(whole.path)


def test_a_setting_that_is_done_is_not_trained_again_when_a_later_one_was_killed(
    tones: Path, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request("mockingjay", tones, tmp_path / "run", checkpoint=checkpoint, seeds=(0, 1), finetune__steps=4)
    taken, seeds = Finetuner._step, list[int]()

    def step(self: Finetuner, *given: Any) -> Any:
        seeds.append(self.seed)
        if len(seeds) == 6:
            raise Stopped
        return taken(self, *given)

    monkeypatch.setattr(Finetuner, "_step", step)
    with pytest.raises(Stopped):
        run(asked)
    written = run(asked)
    assert seeds == [0, 0, 0, 0, 1, 1, 1, 1, 1], "killed in the second step of seed 1, and on from its first"
    whole = run(replace(asked, out=tmp_path / "whole"))
    assert [outcome(each.path) for each in written] == [outcome(each.path) for each in whole]


# several processes


@pytest.mark.slow
def test_two_processes_follow_one(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    still = small_training.request(
        "mockingjay", tones, tmp_path / "pt", steps=2, hidden_dropout=0.0, attention_dropout=0.0
    )
    checkpoint = str(run_pretraining(still).checkpoint)
    # Two utterances in a batch, or one, of which the second process has none.
    asked = request("mockingjay", tones, tmp_path / "two", checkpoint=checkpoint, finetune__batch_seconds=2.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2",
                "--master-addr", "127.0.0.1", "--master-port", str(port)]  # fmt: skip
    finished = subprocess.run(
        [*launcher, "-m", "repbench", *arguments(asked), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    shares = list[int]()

    def counted(sounds: list[Tensor]) -> tuple[Tensor, Tensor]:
        shares.append(len(sounds))
        return padded(sounds)

    monkeypatch.setattr(trainer, "padded", counted)
    (alone,) = run(replace(asked, out=tmp_path / "one"))
    assert set(shares) == {1, 2}
    (two,) = (tmp_path / "two").rglob("record.json")
    one, other = (load_network(path.parent / "network.safetensors") for path in (alone.path, two))
    for here, there in ((one.upstream, other.upstream), (one.probe.state_dict(), other.probe.state_dict())):
        for name, weight in here.items():
            assert float((there[name] - weight).abs().max()) < 1e-5, name
    # Only the leader speaks and writes.
    assert finished.stdout.count('"records"') == 1
    assert len(re.findall(r"^step 12 of 12: loss", finished.stderr, re.MULTILINE)) == 1
