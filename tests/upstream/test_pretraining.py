"""What a training does to the weights, what it writes down, and how it fails (FAULTS.md, rows 5, 38, 49)."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import repbench
from repbench.audio.kaldi import FBANK80
from repbench.benchmark.data.splits import divide
from repbench.benchmark.pipeline.pretrain import PretrainRequest, run_pretraining
from repbench.benchmark.protocol import SplitSettings, load_protocol
from repbench.cli import running
from repbench.configs.loader import preset_names
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.read import read_utterance
from repbench.errors import DataError, EnvironmentFault, NonFiniteError, PluginError, RepbenchError, UsageError
from repbench.progress import Silence
from repbench.testing import tone_corpus
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.checkpoints.factory import HEARD_FILE
from repbench.upstream.checkpoints.native import (
    list_checkpoints,
    newest_intact,
    open_checkpoint,
    read_training,
    read_weights,
)
from repbench.upstream.contract import Batch, Loss
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.pretraining import inputs
from repbench.upstream.pretraining.inputs import FreshInputs, KeptFrames, TrainingInputs
from repbench.upstream.pretraining.settings import CurriculumStage, TrainingSettings
from tests.commands import repbench as command
from tests.upstream.small_training import (
    Listener,
    WaveformListener,
    arguments,
    metrics_of,
    request,
    small_corpus,
    trainer,
    waveform_listener,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("pretraining") / "tones")


@pytest.fixture(scope="module")
def tones(corpus: Corpus) -> Path:
    return corpus.utterances[0].audio.parents[1]


def trained(asked: PretrainRequest) -> dict[str, Tensor]:
    """The weights that a training ends with."""
    return read_weights(open_checkpoint(run_pretraining(asked).checkpoint))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# learning


@pytest.mark.slow
@pytest.mark.parametrize(
    ("upstream", "task"), [("apc", {}), ("mockingjay", {"masking__proportion": 0.0})], ids=["apc", "mockingjay"]
)
def test_the_loss_on_held_out_utterances_falls(
    upstream: str, task: dict[str, Any], tones: Path, tmp_path: Path
) -> None:
    done = run_pretraining(request(upstream, tones, tmp_path, steps=60, training__dev_every=20, **task))
    losses = [line["dev_loss"] for line in metrics_of(tmp_path) if "dev_loss" in line]
    assert len(losses) == 3
    assert losses[2] < losses[1] < losses[0]
    assert done.dev_loss == losses[2] == open_checkpoint(done.checkpoint).fields["dev_loss"]


def test_two_trainings_of_one_seed_are_one(tones: Path, tmp_path: Path) -> None:
    one, again, other = (
        trained(request("mockingjay", tones, tmp_path / str(number), seed=seed))
        for number, seed in enumerate((0, 0, 1))
    )
    assert same(one, again)
    assert not same(one, other)


def test_looking_saving_and_logging_draw_nothing(tones: Path, tmp_path: Path) -> None:
    often: dict[str, Any] = {"training__dev_every": 1, "training__save_every": 1, "training__log_every": 1}
    seldom: dict[str, Any] = {"training__log_every": 100}
    one, other = (
        trained(request("mockingjay", tones, tmp_path / str(number), **each))
        for number, each in enumerate((often, seldom))
    )
    assert same(one, other)


def test_kept_and_fresh_features_give_the_identical_weights(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[str]()
    kinds: tuple[type, ...] = (KeptFrames, FreshInputs)
    for kind in kinds:

        def noted(*given: Any, kind: Callable[..., TrainingInputs] = kind) -> TrainingInputs:
            made.append(kind.__name__)
            return kind(*given)

        monkeypatch.setattr(inputs, kind.__name__, noted)
    kept = trained(request("apc", tones, tmp_path / "kept"))
    fresh = trained(request("apc", tones, tmp_path / "fresh", training__keep_features_gib=0.0))
    assert made == ["KeptFrames", "KeptFrames", "FreshInputs", "FreshInputs"]
    assert same(kept, fresh)


def test_a_step_of_two_batches_is_the_mean_over_both(corpus: Corpus, tmp_path: Path) -> None:
    single, double = Listener(), Listener()
    trainer(single, corpus.utterances, tmp_path / "1", steps=4).fit()
    trainer(double, corpus.utterances, tmp_path / "2", steps=2, accumulate=2).fit()
    assert len(single.batches) == len(double.batches) == 4
    for one, other in zip(single.batches, double.batches, strict=True):
        assert torch.equal(one.values, other.values)
    first = double.batches[:2]
    heard = torch.cat([row[:count] for each in first for row, count in zip(each.values, each.lengths, strict=True)])
    line = metrics_of(tmp_path / "2")[0]
    mean = heard.double().mean(dim=0)
    assert line["loss"] == pytest.approx(float(mean.sum()), rel=1e-6)
    assert line["gradient_norm"] == pytest.approx(float(mean.norm()), rel=1e-6)


def test_batches_of_unequal_sizes_weigh_by_their_frames(corpus: Corpus, tmp_path: Path) -> None:
    model = Listener()
    trainer(model, corpus.utterances, tmp_path, steps=1, accumulate=5, batch_frames=125).fit()  # 13 utterances
    sizes = [int(each.lengths.sum()) for each in model.batches]
    assert len(set(sizes)) == 2
    heard = torch.cat(
        [row[:count] for each in model.batches for row, count in zip(each.values, each.lengths, strict=True)]
    )
    assert metrics_of(tmp_path)[0]["loss"] == pytest.approx(float(heard.double().mean(dim=0).sum()), rel=1e-6)


def test_the_gradient_is_clipped_to_its_norm(corpus: Corpus, tmp_path: Path) -> None:
    weights = []
    for number, clip in enumerate((1e-3, 1e6)):
        model = Listener()
        settings = {"clip_norm": clip, "optimizer": {"name": "bertadam", "warmup": 0.0, "learning_rate": 0.1}}
        trainer(model, corpus.utterances, tmp_path / str(number), steps=1, **settings).fit()
        weights.append(read_training(list_checkpoints(tmp_path / str(number))[-1]))
    moments = [next(value for name, value in each.items() if name.endswith("exp_avg")) for each in weights]
    assert float(moments[0].norm()) == pytest.approx(1e-4, rel=1e-3), "0.1 of the gradient, whose norm is 0.001"
    assert float(moments[1].norm()) > 0.05


def test_the_stages_of_a_curriculum_are_heard_one_after_the_other(corpus: Corpus, tmp_path: Path) -> None:
    stages = (
        CurriculumStage(until=0.25, crop_frames=10),
        CurriculumStage(until=0.5, crop_frames=20, batch_frames=60),
        CurriculumStage(until=1.0),
    )
    model = Listener()
    trainer(model, corpus.utterances, tmp_path, steps=8, curriculum=stages).fit()
    assert [int(each.lengths.max()) for each in model.batches] == [10] * 2 + [20] * 2 + [40] * 4
    assert all(len(each.values) <= 3 for each in model.batches[2:])
    assert max(len(each.values) for each in model.batches[:2]) > 3


@pytest.mark.parametrize("ends", [(0.5,), (0.5, 0.5, 1.0), (0.7, 0.2, 1.0)])
def test_stages_that_do_not_follow_each_other_are_refused(ends: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must end one after the other, the last at 1"):
        TrainingSettings(curriculum=tuple(CurriculumStage(until=end) for end in ends))


@pytest.mark.parametrize("upstream", ["apc", "mockingjay"])
def test_bfloat16_trains_weights_that_stay_float32(upstream: str, tones: Path, tmp_path: Path) -> None:
    half, full = (
        trained(request(upstream, tones, tmp_path / precision, training__precision=precision))
        for precision in ("bf16", "fp32")
    )
    assert all(weight.dtype == torch.float32 for weight in half.values())
    assert not same(half, full)
    one, other = (metrics_of(tmp_path / precision)[0]["loss"] for precision in ("bf16", "fp32"))
    assert one == pytest.approx(other, rel=0.05)


@pytest.mark.parametrize("name", ["adamw", "adam", "bertadam", "adamw-with-schedule"])
def test_every_optimizer_trains(name: str, corpus: Corpus, tmp_path: Path) -> None:
    model = Listener()
    before = model.w.detach().clone()
    trainer(model, corpus.utterances, tmp_path, steps=3, optimizer={"name": name, "warmup": 0.5}).fit()
    assert not torch.equal(model.w.detach(), before)
    assert torch.equal(read_weights(list_checkpoints(tmp_path)[-1])["w"], model.w.detach())


def test_global_state_is_as_it_was(tones: Path, tmp_path: Path) -> None:
    def state() -> list[Any]:
        numpys = np.random.get_state(legacy=False)["state"]
        return [
            torch.get_rng_state().tolist(),
            random.getstate(),
            numpys["key"].tolist(),
            numpys["pos"],
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
        ]

    before = state()
    run_pretraining(request("mockingjay", tones, tmp_path, steps=3))
    assert state() == before


# other upstreams


def test_an_upstream_with_an_objective_on_waveforms_trains(corpus: Corpus, tmp_path: Path) -> None:
    model = WaveformListener()
    settings = {"batch_frames": 40_000, "crop_frames": 8_000, "min_frames": 400, "dev_every": 10}
    optimizer = {"learning_rate": 0.05, "warmup": 0.0, "weight_decay": 0.0}
    ended = trainer(model, corpus.utterances, tmp_path, steps=30, optimizer=optimizer, **settings).fit()
    losses = [line["dev_loss"] for line in metrics_of(tmp_path) if "dev_loss" in line]
    assert ended.dev_loss == losses[-1] < 0.5 * losses[0]


def test_a_strangers_upstream_trains_through_the_same_door(tones: Path, tmp_path: Path) -> None:
    name = f"py:{waveform_listener.__module__}:waveform_listener"
    settings = ("training.batch_frames=40000", "training.crop_frames=8000", "training.min_frames=400")
    done = repbench.pretrain(name, corpus=str(tones), out=tmp_path, steps=2, assignments=settings, device="cpu")
    assert (done.step, done.signal) == (2, None)
    assert open_checkpoint(done.checkpoint).fields["config"] == {}


@pytest.mark.parametrize("name", ["mel", "py:repbench.testing.fakes:envelope"])
def test_an_upstream_without_an_objective_is_refused(name: str, tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no objective, so it cannot be pre-trained") as refused:
        run_pretraining(PretrainRequest(upstream=name, corpus=str(tones), out=tmp_path / "run", device="cpu"))
    assert refused.value.exit_code == 2
    assert not (tmp_path / "run").exists(), "nothing was begun"


@pytest.mark.parametrize(
    "changed",
    [{"preset": "tiny"}, {"assignments": ("hidden_size=3",)}, {"preset": "tiny", "steps": 3}, {"from_checkpoint": "x"}],
    ids=lambda changed: " ".join(changed),
)
@pytest.mark.parametrize("name", ["mel", "py:repbench.testing.fakes:envelope"])
def test_it_is_the_objective_that_lacks_whatever_else_was_said(
    name: str, changed: dict[str, Any], tones: Path, tmp_path: Path
) -> None:
    asked = PretrainRequest(upstream=name, corpus=str(tones), out=tmp_path / "run", device="cpu", **changed)
    with pytest.raises(UsageError, match=r"has no objective, so it cannot be pre-trained .*Take mockingjay, apc"):
        run_pretraining(asked)


def test_a_model_without_presets_says_so(tones: Path, tmp_path: Path) -> None:
    name = f"py:{waveform_listener.__module__}:waveform_listener"
    asked = PretrainRequest(upstream=name, corpus=str(tones), out=tmp_path / "run", device="cpu", preset="tiny")
    with pytest.raises(UsageError, match=r"waveform_listener` has no presets .*Leave --preset out"):
        run_pretraining(asked)


def test_the_help_lists_the_presets_of_each_upstream() -> None:
    listed = " ".join(inspect.get_annotations(running.pretrain, eval_str=True)["preset"].__metadata__[0].help.split())
    for upstream in ("mockingjay", "apc"):
        assert f"{upstream}: {', '.join(preset_names(upstream))};" in listed


@pytest.mark.parametrize(("upstream", "usual"), [("apc", ApcConfig()), ("mockingjay", MockingjayConfig())])
def test_the_preset_base_is_the_defaults_whatever_is_usual_here(
    upstream: str, usual: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no runs here
    built = repbench.load_upstream(upstream, checkpoint="random", preset="base")
    assert built.settings == usual


@pytest.mark.parametrize(
    ("key", "told"),
    [("training__optimizer__lerning_rate", r"training\.optimizer\.lerning_rate"), ("hiden_size", "hiden_size")],
)
def test_a_setting_that_there_is_not_is_refused_by_its_whole_key(
    key: str, told: str, tones: Path, tmp_path: Path
) -> None:
    changed: dict[str, Any] = {key: 1}
    with pytest.raises(UsageError, match=f"unknown key `{told}`, did you mean"):
        run_pretraining(request("apc", tones, tmp_path / "run", **changed))


@pytest.mark.parametrize("betas", ["[0.9, 1.0]", "[-0.1, 0.9]"])
def test_a_decay_that_cannot_be_is_refused_before_anything_is_read(betas: str, tones: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"training\.optimizer\.betas"):
        run_pretraining(request("apc", tones, tmp_path / "run", training__optimizer__betas=betas))


def test_a_corpus_without_a_long_enough_utterance_is_said(tones: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No utterance of train has 5000 frames"):
        run_pretraining(request("apc", tones, tmp_path, training__min_frames=5000))


@pytest.mark.parametrize(("dev_seconds", "utterances"), [(1000.0, 3), (3.0, 2), (0.1, 1)])
def test_the_dev_loss_is_computed_on_dev_seconds(
    dev_seconds: float, utterances: int, corpus: Corpus, tmp_path: Path
) -> None:
    counts = list[int]()

    def loss(model: Listener, batch: Batch) -> Loss:
        if not model.training:
            counts.append(len(batch.lengths))
        return model.mean_energy(batch)

    trainer(Listener(loss), corpus.utterances, tmp_path, dev_seconds=dev_seconds).fit()
    assert sum(counts) == utterances


def test_held_out_utterances_may_all_be_too_short(corpus: Corpus, tmp_path: Path) -> None:
    learner = trainer(Listener(), corpus.utterances, tmp_path)
    learner.dev = []
    ended = learner.fit()
    assert (ended.step, ended.dev_loss) == (4, None)


def test_what_is_too_short_to_learn_from_is_said_and_not_called_heard(tmp_path: Path) -> None:
    corpus = tone_corpus(tmp_path / "tones")
    frames = {each.samples_sha256: FBANK80.num_frames(each.num_samples) for each in corpus.utterances}
    shortest = sorted(frames.values())[len(frames) // 2]
    said = _Said()
    wanted = request("apc", tmp_path / "tones", tmp_path / "run", steps=2, training__min_frames=shortest)
    done = run_pretraining(wanted, said)
    heard = (done.checkpoint / HEARD_FILE).read_text(encoding="utf-8").split()
    assert any("are left out: shorter than training.min_frames" in line for line in said.lines)
    assert heard
    assert all(frames[digest] >= shortest for digest in heard)


def test_a_stretch_that_teaches_nothing_is_refused_before_data_is_read(tones: Path, tmp_path: Path) -> None:
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("mockingjay", {"training__crop_frames": 1}, "training.crop_frames"),
        ("apc", {"training__min_frames": 3}, "training.min_frames"),
    )
    for name, changed, key in cases:
        with pytest.raises(UsageError, match=f"`{key}` must be at least"):
            run_pretraining(request(name, tones, tmp_path / "run", **changed))


class _Said(Silence):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


# what is written down


def test_the_log_has_a_line_for_each_logged_step(tones: Path, tmp_path: Path) -> None:
    run_pretraining(request("apc", tones, tmp_path, steps=12, training__log_every=5, training__dev_every=4))
    lines = metrics_of(tmp_path)
    assert [line["step"] for line in lines] == [4, 5, 8, 10, 12]
    for line in lines:
        dev = {"dev_loss"} if line["step"] in {4, 8, 12} else set()
        assert line.keys() == {"step", "loss", "learning_rate", "gradient_norm"} | dev, "nothing of the clock"
    rates = [line["learning_rate"] for line in lines]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] > 0


def test_what_an_objective_logs_is_logged(corpus: Corpus, tmp_path: Path) -> None:
    trainer(Listener(), corpus.utterances, tmp_path).fit()
    assert {line["pi"] for line in metrics_of(tmp_path)} == {3.14}


def test_tensorboard_shows_curves_speed_and_spectrograms(tones: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    run_pretraining(request("mockingjay", tones, tmp_path, steps=4, training__dev_every=2))
    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    tags = log.Tags()
    assert {"loss", "learning_rate", "gradient_norm", "frames_per_second", "dev_loss"} <= set(tags["scalars"])
    assert [event.step for event in log.Scalars("loss")] == [1, 2, 3, 4]
    assert [event.value for event in log.Scalars("loss")] == pytest.approx(
        [line["loss"] for line in metrics_of(tmp_path)]
    )
    assert all(event.value > 0 for event in log.Scalars("frames_per_second"))
    image = log.Images("spectrograms")[-1]
    assert image.step == 4
    assert image.height == 3 * 160 + 2 * 2, "masked, predicted and true, a line between"
    assert image.encoded_image_string.startswith(b"\x89PNG")


def test_a_checkpoint_says_what_it_is_and_what_it_heard(corpus: Corpus, tones: Path, tmp_path: Path) -> None:
    done = run_pretraining(request("apc", tones, tmp_path, steps=2))
    train = divide(corpus, "speaker-disjoint", SplitSettings()).train
    heard = (done.checkpoint / "heard.txt").read_text().split()
    assert heard == sorted({each.samples_sha256 for each in train})
    assert 0 < len(heard) < len(corpus.utterances)
    fields = open_checkpoint(done.checkpoint).fields
    assert (fields["upstream"], fields["preset"], fields["seed"], fields["step"]) == ("apc", "tiny", 0, 2)
    assert fields["corpus"]["fingerprint"] == corpus.fingerprint
    assert fields["config"]["hidden_size"] == 16
    assert fields["training"]["steps"] == 2
    card = (done.checkpoint / "README.md").read_text()
    for word in ("# apc, step 2", "tones", "8 utterances", "CC0-1.0", "arXiv:1904.03240", f"{done.dev_loss:.4f}"):
        assert word in card


def test_what_was_trained_is_loaded_as_it_was(tones: Path, tmp_path: Path) -> None:
    done = run_pretraining(request("apc", tones, tmp_path, steps=2))
    of_run, of_checkpoint = (
        repbench.load_upstream("apc", checkpoint=str(place)) for place in (tmp_path, done.checkpoint)
    )
    assert of_run.fingerprint() == of_checkpoint.fingerprint()
    assert of_run.provenance.heard == set((done.checkpoint / "heard.txt").read_text().split())
    assert not of_run.training


@pytest.mark.slow
def test_a_record_on_what_was_heard_in_pretraining_says_so(corpus: Corpus, tones: Path, tmp_path: Path) -> None:
    run_pretraining(request("apc", tones, tmp_path / "run", steps=2))
    train = {each.id for each in divide(corpus, "speaker-disjoint", SplitSettings()).train}
    quick = load_protocol("default", None, ["probe.steps=20"])
    told = {}
    for task in ("speaker", "phone"):
        [record] = repbench.evaluate(
            "apc",
            task,
            checkpoint=str(tmp_path / "run"),
            corpus=str(tones),
            out=tmp_path / task,
            protocol=quick,
            device="cpu",
        )
        told[task] = [warning for warning in record.corpus.warnings if "in its pre-training" in warning]
    assert len(train) == 8
    assert [warning.partition(" of ")[0] for warning in told["speaker"]] == ["apc learned from 2"]
    assert told["phone"] == [], "its test speakers were never heard"


@pytest.mark.slow
def test_the_command_prints_one_object(tones: Path, tmp_path: Path) -> None:
    done = command(*arguments(request("apc", tones, tmp_path, steps=2)), "--json")
    assert done.code == 0, done.err
    assert done.json["step"] == 2
    assert Path(done.json["checkpoint"]) == tmp_path / "checkpoints" / "step-00000002"
    assert "step 2 of 2: loss" in done.err


# failing


@pytest.mark.parametrize("keep", [4.0, 0.0])
def test_one_nan_sample_stops_the_training_before_the_weights(
    keep: float, corpus: Corpus, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = divide(corpus, "speaker-disjoint", SplitSettings()).train[3].id

    def read(utterance: Utterance, rate_hz: int) -> Tensor:
        samples = read_utterance(utterance, rate_hz)
        if utterance.id == bad:
            samples[5000] = torch.nan
        return samples

    monkeypatch.setattr(inputs, "read_utterance", read)
    asked = request("apc", tones, tmp_path, steps=20, training__save_every=1, training__keep_features_gib=keep)
    with pytest.raises(NonFiniteError, match=rf"is nan in step [1-4], over .*{bad}") as stopped:
        run_pretraining(asked)
    assert stopped.value.exit_code == 6
    for checkpoint in list_checkpoints(tmp_path):
        for tensor in (*read_weights(checkpoint).values(), *read_training(checkpoint).values()):
            assert tensor.isfinite().all()


def test_weights_that_overflow_are_never_saved(tones: Path, tmp_path: Path) -> None:
    asked = request("apc", tones, tmp_path, steps=20, training__save_every=1, training__optimizer__learning_rate=1e38)
    with pytest.raises(NonFiniteError):
        run_pretraining(asked)
    newest = newest_intact(tmp_path, pytest.fail)
    assert newest is None or all(weight.isfinite().all() for weight in read_weights(newest).values())


def full_host(model: Listener, batch: Batch) -> Loss:
    raise MemoryError


def full_allocator(model: Listener, batch: Batch) -> Loss:
    torch.empty(1 << 50)
    raise AssertionError("a PiB was there")


def full_gpu(model: Listener, batch: Batch) -> Loss:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


@pytest.mark.parametrize("fail", [full_host, full_allocator, full_gpu])
@pytest.mark.parametrize("when", ["training", "dev"])
def test_a_lack_of_memory_is_said_with_batch_and_longest_utterance(
    fail: Callable[[Listener, Batch], Loss], when: str, corpus: Corpus, tmp_path: Path
) -> None:
    def loss(model: Listener, batch: Batch) -> Loss:
        return fail(model, batch) if model.training == (when == "training") else model.mean_energy(batch)

    with pytest.raises(EnvironmentFault, match=r"Out of memory with \d utterances? of up to \d+ frames") as stopped:
        trainer(Listener(loss), corpus.utterances, tmp_path).fit()
    assert stopped.value.exit_code == 7
    assert stopped.value.utterance in {each.id for each in corpus.utterances}
    assert "batch_frames" in str(stopped.value.do)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), StopIteration()])
def test_another_error_of_an_objective_is_the_plugins_and_no_lack_of_memory(
    error: Exception, corpus: Corpus, tmp_path: Path
) -> None:
    def loss(model: Listener, batch: Batch) -> Loss:
        raise error

    with pytest.raises(PluginError, match=f"The plugin failed: {type(error).__name__}"):
        trainer(Listener(loss), corpus.utterances, tmp_path).fit()


@pytest.mark.parametrize(
    "answer",
    [None, Loss(torch.tensor(1.0)), Loss(torch.ones(2, requires_grad=True))],
    ids=["none", "constant", "vector"],
)
def test_an_objective_that_gives_no_loss_with_gradient_is_the_plugins_fault(
    answer: Any, corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=r"The plugin failed|must return a Loss") as refused:
        trainer(Listener(lambda model, batch: answer), corpus.utterances, tmp_path).fit()
    assert refused.value.exit_code == 5
    assert refused.value.key == "envelope"


@pytest.mark.parametrize("keep", [4.0, 0.0])
def test_a_sound_that_cannot_be_read_ends_the_training(
    keep: float, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(utterance: Utterance, rate_hz: int) -> Tensor:
        if utterance.id == corpus.utterances[2].id:
            raise DataError("This is no sound", utterance=utterance.id)
        return read_utterance(utterance, rate_hz)

    monkeypatch.setattr(inputs, "read_utterance", read)
    with pytest.raises(DataError, match="This is no sound"):
        trainer(Listener(), corpus.utterances, tmp_path, keep_features_gib=keep, steps=20).fit()


def test_nothing_to_score_is_said(corpus: Corpus, tmp_path: Path) -> None:
    def loss(model: Listener, batch: Batch) -> Loss:
        return Loss(value=model.w.sum() * 0, weight=0.0)

    with pytest.raises(RepbenchError, match="Nothing was scored in step 1"):
        trainer(Listener(loss), corpus.utterances, tmp_path).fit()
