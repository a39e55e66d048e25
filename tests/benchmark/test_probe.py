"""Probes: what they see, how they are selected, that no batch or order plays a part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from repbench.benchmark.data.dataset import LabelledSplits, label_splits
from repbench.benchmark.features.extraction import ExtractionOptions, extract, layer_indices, length_batches
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import Probe, ProbeShape, encoded_probe, load_probe, statistics_of
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, TrainedProbe, selection_steps, train_probes
from repbench.benchmark.protocol import ProbeSettings, SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.contract import Downstream, FramePrediction
from repbench.downstream.phone import Phone
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, IntegrityError, NonFiniteError, PluginError, UsageError
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates, Upstream
from repbench.upstream.frontends import mel

CPU = torch.device("cpu")
SETTINGS = ProbeSettings(steps=60, batch_frames=256, hidden_units=16, selection_points=3)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("tones") / "corpus")


def features(upstream: Upstream, examples: tuple[Utterance, ...], seconds: float = 30.0) -> FeatureTable:
    layers = range(len(upstream.info.layer_names))
    return extract(upstream, examples, list(layers), ExtractionOptions(batch_seconds=seconds, device=CPU))


def plan_of(corpus: Corpus, task: Downstream) -> LabelledSplits:
    return label_splits(corpus, task, SplitSettings(), excludes=lambda each: None)


def trained(
    upstream: Upstream,
    corpus: Corpus,
    task: Downstream,
    *,
    head: str = "linear",
    mix: str = "mean",
    settings: ProbeSettings = SETTINGS,
    seed: int = 0,
) -> tuple[TrainedProbe, Predictor, LabelledSplits]:
    plan = plan_of(corpus, task)
    train = features(upstream, tuple(example.utterance for example in plan.train))
    dev = features(upstream, tuple(example.utterance for example in plan.dev))
    predictor = Predictor(task, plan.classes, upstream.info)
    shape = ProbeShape(
        head=head, pools=predictor.pools, num_layers=len(train.frames), width=upstream.info.width,
        hidden_units=settings.hidden_units, classes=plan.classes, mix=mix,
    )  # fmt: skip
    shared = ProbeTraining(
        predictor=predictor, shape=shape, train=train, dev=dev, statistics=statistics_of(train), settings=settings
    )
    ((result,),) = train_probes(shared, [ProbeJob(train=plan.train, dev=plan.dev, seed=seed)])
    return result, predictor, plan


@pytest.mark.parametrize(("task", "head"), [(Phone(), "linear"), (Speaker(), "mlp1")])
def test_mel_hears_the_tones_and_the_hum(tones: Corpus, task: Downstream, head: str) -> None:
    settings = SETTINGS.model_copy(update={"steps": 300, "learning_rate": 1e-2, "hidden_units": 256})
    result, predictor, plan = trained(mel(), tones, task, head=head, settings=settings)
    examples = plan.test.open()
    table = features(mel(), tuple(example.utterance for example in examples))
    measured = task.measure(predictor.predict(result.probe, LabelledFeatures(table, examples)), plan.classes)
    value = measured["accuracy"].value
    assert value is not None
    assert value > 0.85


def test_the_score_depends_on_no_batch_size_and_no_order(tones: Corpus) -> None:
    result, predictor, plan = trained(mel(), tones, Phone())
    examples = plan.test.open()
    utterances = tuple(example.utterance for example in examples)
    answers = [
        predictor.predict(result.probe, LabelledFeatures(features(mel(), order, seconds), asked))
        for order, asked, seconds in (
            (utterances, examples, 0.1),
            (utterances, examples, 1000.0),
            (utterances[::-1], examples[::-1], 3.0),
        )
    ]
    assert answers[0] == answers[1] == answers[2][::-1]


def test_two_upstreams_of_different_hop_answer_the_same_questions(tones: Corpus) -> None:
    totals = []
    for upstream in (mel(), Envelope(hop_samples=320), Envelope(hop_samples=100)):
        result, predictor, plan = trained(upstream, tones, Phone(), settings=SETTINGS.model_copy(update={"steps": 3}))
        examples = plan.test.open()
        table = features(upstream, tuple(example.utterance for example in examples))
        predictions = predictor.predict(result.probe, LabelledFeatures(table, examples))
        totals.append([
            (each.id, sum(count for *_, count in each.confusion), each.reference_length)
            for each in predictions
            if isinstance(each, FramePrediction)
        ])  # fmt: skip
    assert totals[0] == totals[1] == totals[2]
    assert sum(asked for _, asked, _ in totals[0]) > 500


def test_the_same_seed_gives_the_same_probe_whatever_the_global_state(tones: Corpus) -> None:
    torch.manual_seed(1)
    first, _, _ = trained(Envelope(), tones, Speaker(), head="mlp1", mix="weighted")
    torch.manual_seed(2)
    again, _, _ = trained(Envelope(), tones, Speaker(), head="mlp1", mix="weighted")
    other, _, _ = trained(Envelope(), tones, Speaker(), head="mlp1", mix="weighted", seed=1)
    state = first.probe.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.probe.state_dict().items())
    assert not torch.equal(state["head.output.weight"], other.probe.state_dict()["head.output.weight"])
    assert first.selection == again.selection


def test_a_weighted_mix_learns_its_weights_and_a_mean_does_not(tones: Corpus) -> None:
    weighted, _, _ = trained(Envelope(), tones, Phone(), mix="weighted")
    mean, _, _ = trained(Envelope(), tones, Phone())
    assert weighted.probe.layer_logits.abs().max() > 0
    assert not mean.probe.layer_logits.any()


def test_the_best_point_on_dev_is_kept_and_the_whole_grid_is_told(tones: Corpus) -> None:
    result, _, _ = trained(mel(), tones, Phone())
    values = [point["dev_value"] for point in result.selection.grid]
    assert [point["step"] for point in result.selection.grid] == [20, 40, 60]
    best = values.index(max(values))
    assert result.selection.chosen["step"] == result.selection.grid[best]["step"]
    assert result.selection.dev_value == max(values)


def test_inputs_are_standardised_and_a_constant_dimension_is_not_blown_up() -> None:
    frames = torch.randn(1, 500, 3) * torch.tensor([1.0, 5.0, 0.0]) + 7
    table = FeatureTable(frames, (500,), ("u",))
    mean, std = statistics_of(table)
    assert std[0, 0, 2] == pytest.approx(1e-3 * float(frames[0, :, 0].std(correction=0)), rel=1e-3)
    standard = (frames - mean) / std
    torch.testing.assert_close(standard.mean(dim=1), torch.zeros(1, 3), rtol=0, atol=1e-2)
    assert torch.isfinite(statistics_of(FeatureTable(torch.ones(1, 5, 3), (5,), ("u",)))[1]).all()


def test_few_moving_dimensions_are_standardised_all_the_same() -> None:
    frames = torch.zeros(1, 500, 5)
    frames[..., 0] = 0.01 * torch.randn(500)
    _, std = statistics_of(FeatureTable(frames, (500,), ("u",)))
    assert std[0, 0, 0] == pytest.approx(float(frames[0, :, 0].std(correction=0)), rel=1e-4)


def test_an_exploding_probe_stops_with_its_step(tones: Corpus) -> None:
    with pytest.raises(NonFiniteError, match=r"loss is (nan|inf) at step \d+"):
        trained(mel(), tones, Phone(), head="mlp2", settings=SETTINGS.model_copy(update={"learning_rate": 1e30}))


def test_selection_points_are_even_and_end_with_the_last_step() -> None:
    assert selection_steps(1000, 10) == tuple(range(100, 1001, 100))
    assert selection_steps(3, 10) == (1, 2, 3)


def test_a_saved_probe_comes_back_with_its_facts(tones: Corpus, tmp_path: Path) -> None:
    result, _, _ = trained(mel(), tones, Phone())
    (tmp_path / "p").write_bytes(encoded_probe(result.probe, {"layer": "last"}))
    probe, facts = load_probe(tmp_path / "p")
    assert facts == {"layer": "last"}
    assert probe.shape == result.probe.shape
    assert torch.equal(probe.head.output.weight, result.probe.head.output.weight)


@pytest.mark.parametrize("damage", [lambda b: b[:40], lambda b: b"", lambda b: b"<html>", lambda b: b[:-8]])
def test_a_damaged_probe_is_refused(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    shape = ProbeShape(
        head="linear", pools=False, num_layers=1, width=2, hidden_units=2, classes=("a", "b"), mix="mean"
    )
    (tmp_path / "p").write_bytes(encoded_probe(Probe(shape, torch.Generator().manual_seed(0)), {}))
    (tmp_path / "p").write_bytes(damage((tmp_path / "p").read_bytes()))
    with pytest.raises(IntegrityError, match="not a whole probe"):
        load_probe(tmp_path / "p")


@pytest.mark.parametrize(("layer", "expected"), [("last", (1,)), ("first", (0,)), ("1", (1,)), ("energy", (0,)),
                                                 ("mean", (0, 1)), ("weighted", (0, 1))])  # fmt: skip
def test_layers_are_found_by_word_number_and_name(layer: str, expected: tuple[int, ...]) -> None:
    assert layer_indices(Envelope().info, layer) == expected


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"envelope has no layer `7`.*0 to 1"):
        layer_indices(Envelope().info, "7")


def test_batches_are_of_like_length_and_within_the_budget() -> None:
    lengths = [5, 100, 7, 60, 6, 300]
    batches = list(length_batches(lengths, 120))
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 120 or len(batch) == 1 for batch in batches)


class _Broken(Envelope):
    """An upstream that lies in one way."""

    def __init__(self, lie: str) -> None:
        super().__init__()
        self.lie = lie

    def num_frames(self, num_samples: int) -> int:
        return super().num_frames(num_samples) + (self.lie == "frames")

    def forward(self, waveforms: torch.Tensor, lengths: torch.Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        layers = states.layers.clone()
        if self.lie == "nan":
            layers[0, 0, 0, 0] = float("nan")
        if self.lie == "layers":
            layers = layers[:1]
        if self.lie == "raises":
            raise RuntimeError("boom")
        if self.lie == "tuple":
            return layers, states.lengths  # type: ignore[return-value]
        return HiddenStates(layers, states.lengths)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("nan", "NaN or infinity.*utterance s"),
        ("layers", "must have the shape"),
        ("frames", "must have the shape"),
        ("raises", "The plugin failed: RuntimeError: boom"),
        ("tuple", "must return HiddenStates.*returned a tuple"),
    ],
)
def test_an_upstream_that_breaks_its_contract_is_named(tones: Corpus, lie: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        features(_Broken(lie), tones.utterances[:2])


def test_a_sound_that_is_not_what_the_manifest_says_is_refused(tones: Corpus) -> None:
    changed = dataclasses.replace(tones.utterances[0], num_samples=tones.utterances[0].num_samples - 1)
    with pytest.raises(DataError, match=r"The sound has \d+ samples at 16000 Hz, but the manifest has"):
        features(mel(), (changed,))


def test_an_utterance_is_scored_with_one_thread_of_its_own(tones: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    result, predictor, plan = trained(mel(), tones, Speaker(), head="mlp1")
    table = features(mel(), tuple(example.utterance for example in plan.dev))
    threads, scores = [], Probe.scores

    def seen(*arguments: Any) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return scores(*arguments)

    monkeypatch.setattr(Probe, "scores", seen)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predictor.predict(result.probe, LabelledFeatures(table, plan.dev))
        assert (set(threads), torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)
