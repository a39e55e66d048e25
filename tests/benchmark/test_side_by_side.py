"""Probes of every head are what they would be alone, whatever stands beside them, and after saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from repbench.benchmark import run
from repbench.benchmark.data.dataset import LabelledSplits, label_splits
from repbench.benchmark.features.extraction import ExtractionOptions, extract
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import ProbeShape, encoded_probe, load_probe, statistics_of
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, TrainedProbe, train_probes
from repbench.benchmark.protocol import ProbeSettings, SplitSettings
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream
from repbench.downstream.phone import Phone
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.downstream.speaker import Speaker
from repbench.testing import Envelope, tone_corpus

SETTINGS = ProbeSettings(steps=12, batch_frames=128, batch_utterances=4, hidden_units=8, selection_points=3)
RATES = (1e-3, 3e-2)
SEEDS = (0, 1)

CASES: list[tuple[Downstream, str, str, dict[str, object]]] = [
    (Phone(), "linear", "mean", {"clip_norm": 0.05}),
    (Speaker(), "linear", "mean", {}),
    (Phone(), "concat9", "mean", {}),
    (Phone(), "mlp2", "raw", {"dropout": 0.2, "clip_norm": 0.05, "optimizer": "adam"}),
    (Phone(), "mlp1", "raw", {"clip_norm": 0.05, "standardise": False}),
    (Speaker(), "gru", "weighted", {"standardise": False}),
    (Speaker(), "project_mean", "weighted", {"clip_norm": 0.05}),
    (Phone(), "blstm", "weighted", {"clip_norm": 0.05}),
    (Phone(), "conv", "mean", {"layer_norm": True, "dropout": 0.2}),
    (Speaker(), "attentive_mean", "weighted", {}),
    (Speaker(), "statistics_mean", "mean", {"layer_norm": True}),
    (Speaker(), "linear", "mean", {"layer_norm": True}),
    (PhoneCTC(), "ctc", "weighted", {"clip_norm": 0.05}),
    (PhoneCTC(), "project_ctc", "raw", {}),
]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("beside") / "corpus", num_speakers=5, per_session=2)


def assert_like(tensor: torch.Tensor, alone: torch.Tensor, *, exactly: bool) -> None:
    """Probes of one matrix share a product, which rounds as it likes; others have products of their own."""
    tolerance = 0.0 if exactly else 1e-5
    torch.testing.assert_close(tensor, alone, rtol=0.0, atol=tolerance)


def table_of(examples: tuple[object, ...], plan: LabelledSplits) -> FeatureTable:
    utterances = [example.utterance for example in (*plan.train, *plan.dev) if example in examples]
    options = ExtractionOptions(batch_seconds=30.0, device=torch.device("cpu"))
    return extract(Envelope(), utterances, [0, 1], options)


class Given:
    """A task, its features, and a way to train probes on them."""

    def __init__(self, corpus: Corpus, task: Downstream, head: str, mix: str, changes: dict[str, object]) -> None:
        self.plan = label_splits(corpus, task, SplitSettings(), excludes=lambda each: None)
        self.train, self.dev = table_of(self.plan.train, self.plan), table_of(self.plan.dev, self.plan)
        self.predictor = Predictor(task, self.plan.classes, Envelope().info)
        self.settings = SETTINGS.model_copy(update=changes)
        self.shape = ProbeShape(
            head=head, pools=self.predictor.pools, num_layers=2, width=4, hidden_units=8, classes=self.plan.classes,
            mix=mix, dropout=self.settings.dropout, layer_norm=self.settings.layer_norm,
        )  # fmt: skip

    def probes(self, seeds: tuple[int, ...], rates: tuple[float, ...]) -> list[list[TrainedProbe]]:
        jobs = [ProbeJob(train=self.plan.train, dev=self.plan.dev, seed=seed) for seed in seeds]
        shared = ProbeTraining(
            predictor=self.predictor, shape=self.shape, train=self.train, dev=self.dev,
            statistics=statistics_of(self.train), settings=self.settings, learning_rates=rates,
        )  # fmt: skip
        return train_probes(shared, jobs)


@pytest.mark.parametrize(
    ("task", "head", "mix", "changes"), CASES, ids=[f"{case[0].info.name}-{case[1]}" for case in CASES]
)
def test_each_probe_is_what_it_would_be_alone_and_is_the_same_again_from_disk(
    tones: Corpus, tmp_path: Path, task: Downstream, head: str, mix: str, changes: dict[str, object]
) -> None:
    given = Given(tones, task, head, mix, changes)
    together = given.probes(SEEDS, RATES)
    for seed, row in zip(SEEDS, together, strict=True):
        for rate, beside in zip(RATES, row, strict=True):
            torch.manual_seed(seed + 10)
            ((alone,),) = given.probes((seed,), (rate,))
            assert alone.selection.chosen == beside.selection.chosen
            one_matrix = beside.probe.head.is_one_matrix and mix == "mean"
            for name, tensor in alone.probe.state_dict().items():
                assert_like(beside.probe.state_dict()[name], tensor, exactly=not one_matrix)
    states = [probe.probe.state_dict()["head.output.weight"] for row in together for probe in row]
    assert len({float(state.sum()) for state in states}) == 4

    (tmp_path / "probe").write_bytes(encoded_probe(together[0][1].probe, {}))
    again, _ = load_probe(tmp_path / "probe")
    labelled = LabelledFeatures(given.dev, given.plan.dev)
    assert given.predictor.predict(again, labelled) == given.predictor.predict(together[0][1].probe, labelled)


def test_frames_without_a_label_count_for_nothing_where_whole_utterances_are_drawn(tones: Corpus) -> None:
    given = Given(tones, Phone(), "conv", "mean", {})
    without_first = tuple(replace(each, labels=each.labels[1:]) for each in given.plan.train)
    given.plan = replace(given.plan, train=without_first)
    ((trained,),) = given.probes((0,), (1e-3,))
    assert trained.selection.dev_value is not None


@pytest.mark.parametrize(
    ("num_jobs", "grid", "title"),
    [
        (1, (), "probe"),
        (5, (), "5 probes, side by side"),
        (1, (1e-4, 1e-2, 1e-1), "1 probe at 3 learning rates and the default, side by side"),
        (2, (1e-3, 1e-2), "2 probes at 2 learning rates, side by side"),
    ],
)
def test_the_stage_of_training_counts_the_grid_as_it_was_given(
    num_jobs: int, grid: tuple[float, ...], title: str
) -> None:
    assert run._title(num_jobs, grid, default=1e-3) == title
