"""Many probes in one pass: each is what it would be alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from repbench.benchmark.data.dataset import LabelledSplits, label_splits
from repbench.benchmark.data.shuffled_labels import with_shuffled_labels
from repbench.benchmark.data.subsets import subset
from repbench.benchmark.features.extraction import ExtractionOptions, extract
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing.fused_adam import FusedAdam
from repbench.benchmark.probing.prediction import Predictor
from repbench.benchmark.probing.probe import ProbeShape, statistics_of
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, TrainedProbe, selection_steps, train_probes
from repbench.benchmark.protocol import ProbeSettings, SplitSettings
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream, Measurement, Prediction, problem_of
from repbench.downstream.phone import Phone
from repbench.downstream.speaker import Speaker
from repbench.errors import NonFiniteError
from repbench.testing import Envelope, tone_corpus

SETTINGS = ProbeSettings(steps=60, batch_frames=200, batch_utterances=4, hidden_units=16, selection_points=3)
RATES = (1e-3, 1e-2, 3e-2)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("tones") / "corpus")


@dataclasses.dataclass
class Class:
    """All that probes of one task on `Envelope` are trained with."""

    task: Downstream
    plan: LabelledSplits
    train: FeatureTable
    dev: FeatureTable

    @classmethod
    def on(cls, corpus: Corpus, task: Downstream) -> Class:
        plan = label_splits(corpus, task, SplitSettings(), excludes=lambda each: None)
        options = ExtractionOptions(batch_seconds=30.0, device=torch.device("cpu"))
        tables = [
            extract(Envelope(), [each.utterance for each in part], [0, 1], options) for part in (plan.train, plan.dev)
        ]
        return cls(task, plan, *tables)

    def job(self, seed: int = 0, fraction: float = 1.0, layers: slice = slice(1, 2)) -> ProbeJob:
        train = subset(self.plan.train, fraction, problem=problem_of(self.task), seed=seed, salt="test")
        return ProbeJob(train=train, dev=self.plan.dev, layers=layers, seed=seed)

    def teach(
        self,
        jobs: list[ProbeJob],
        head: str = "linear",
        mix: str = "mean",
        rates: tuple[float, ...] = RATES,
        settings: ProbeSettings = SETTINGS,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[list[TrainedProbe]]:
        return train_probes(self.shared(head, mix, rates, settings, jobs[0].layers), jobs, progress)

    def shared(
        self,
        head: str = "linear",
        mix: str = "mean",
        rates: tuple[float, ...] = RATES,
        settings: ProbeSettings = SETTINGS,
        layers: slice = slice(1, 2),
    ) -> ProbeTraining:
        predictor = Predictor(self.task, self.plan.classes, Envelope().info)
        shape = ProbeShape(
            head=head, pools=predictor.pools, num_layers=len(self.train.frames[layers]), width=4,
            hidden_units=settings.hidden_units, classes=self.plan.classes, mix=mix,
        )  # fmt: skip
        return ProbeTraining(
            predictor=predictor, shape=shape, train=self.train, dev=self.dev, statistics=statistics_of(self.train),
            settings=settings, learning_rates=rates,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "head", "mix"),
    [
        (Phone(), "linear", "mean"),
        (Phone(), "mlp2", "mean"),
        (Phone(), "mlp1", "weighted"),
        (Speaker(), "mlp1", "mean"),
        (Speaker(), "mlp2", "weighted"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.info.name,
)
def test_each_of_many_is_what_it_would_be_alone(tones: Corpus, task: Downstream, head: str, mix: str) -> None:
    room = Class.on(tones, task)
    layers = slice(0, 2) if mix == "weighted" else slice(1, 2)
    jobs = [room.job(seed, fraction, layers) for seed in (0, 1, 2) for fraction in (0.1, 0.5, 1.0)]
    if mix == "mean":
        jobs += [room.job(seed, layers=slice(0, 1)) for seed in (0, 1)]
    together = room.teach(jobs, head, mix)
    assert [len(row) for row in together] == [len(RATES)] * len(jobs)
    for number, (job, row) in enumerate(zip(jobs, together, strict=True)):
        # All rates of the first job, and one rate of each other.
        for place in range(len(RATES)) if number == 0 else [number % len(RATES)]:
            trained = row[place]
            ((alone,),) = room.teach([job], head, mix, (RATES[place],))
            assert trained.selection.chosen == alone.selection.chosen
            assert trained.selection.grid == alone.selection.grid
            tolerance = 1e-5 if head == "linear" else 0.0  # of one matrix: they share a product
            for name, tensor in alone.probe.state_dict().items():
                torch.testing.assert_close(trained.probe.state_dict()[name], tensor, rtol=0.0, atol=tolerance, msg=name)


def test_seeds_rates_and_parts_of_the_labels_differ(tones: Corpus) -> None:
    room = Class.on(tones, Phone())
    jobs = [room.job(0), room.job(1), room.job(0, 0.5), room.job(0, layers=slice(0, 1))]
    weights = [each.probe.state_dict()["head.output.weight"] for row in room.teach(jobs) for each in row]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == len(jobs) * len(RATES)


@pytest.mark.parametrize("head", ["linear", "mlp2"])
def test_the_gradient_of_each_probe_is_clipped_to_its_norm(
    tones: Corpus, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    norms = list[float]()
    taken = FusedAdam.step

    def step(descent: FusedAdam) -> None:
        gradients = [each.grad.flatten() for each in descent.parameters if each.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))
        taken(descent)

    monkeypatch.setattr(FusedAdam, "step", step)
    room = Class.on(tones, Phone())
    for clip in (None, 1e-3):
        norms.clear()
        room.teach([room.job()], head, settings=SETTINGS.model_copy(update={"clip_norm": clip, "steps": 3}))
        assert len(norms) == 3 * len(RATES)
        if clip is None:
            assert min(norms) > 0.01, "there is something to clip"
        else:
            assert norms == pytest.approx([clip] * len(norms), rel=1e-3)


@pytest.mark.parametrize("head", ["linear", "mlp2"])  # in one product, and in products of their own
def test_a_rate_that_explodes_leaves_the_others_as_they_were(tones: Corpus, head: str) -> None:
    room = Class.on(tones, Phone())
    rates = (1e-3, 1e38) if head == "linear" else (1e-3, 1e30)
    ((calm,),) = room.teach([room.job()], head, rates=rates[:1])
    (row,) = room.teach([room.job()], head, rates=rates)
    assert [each.selection.dev_value is None for each in row] == [False, True]
    assert row[1].selection.chosen["learning_rate"] == rates[1]
    assert row[0].selection.grid == calm.selection.grid
    for name, tensor in calm.probe.state_dict().items():
        tolerance = 1e-5 if head == "linear" else 0.0
        torch.testing.assert_close(row[0].probe.state_dict()[name], tensor, rtol=0.0, atol=tolerance, msg=name)
    with pytest.raises(NonFiniteError, match=r"at step \d+"):
        room.teach([room.job()], head, rates=(rates[1] / 2, rates[1]))


class Counted(Phone):
    """The phone task without its short cut: every selection builds the predictions and measures them."""

    primary_of = None  # type: ignore[assignment]

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        assert len({prediction.id for prediction in predictions}) == len(predictions) > 1
        return super().measure(predictions, classes)


class Indifferent(Counted):
    """Finds every answer equally good."""

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        return dict.fromkeys(self.info.metrics, Measurement(value=0.5))


def test_of_equal_points_the_earliest_is_kept(tones: Corpus) -> None:
    room = Class.on(tones, Indifferent())
    ((trained,),) = room.teach([room.job()], rates=(1e-2,))
    assert [point["step"] for point in trained.selection.grid] == [20, 40, 60]
    assert trained.selection.chosen == {"learning_rate": 1e-2, "step": 20}
    short = SETTINGS.model_copy(update={"steps": 20, "selection_points": 1})
    ((alone,),) = room.teach([room.job()], rates=(1e-2,), settings=short)
    assert torch.equal(trained.probe.head.output.weight, alone.probe.head.output.weight)


def test_every_step_of_every_lesson_is_told(tones: Corpus) -> None:
    room = Class.on(tones, Phone())
    told: list[tuple[int, int]] = []
    settings = SETTINGS.model_copy(update={"steps": 3, "selection_points": 3})
    room.teach([room.job(0), room.job(1)], settings=settings, progress=lambda *done: told.append(done))
    assert told == [(step, 6) for step in range(1, 7)]


def test_features_are_standardised_unless_that_is_turned_off(tones: Corpus) -> None:
    room = Class.on(tones, Phone())
    for standardise in (True, False):
        settings = SETTINGS.model_copy(update={"steps": 1, "standardise": standardise})
        ((trained,),) = room.teach([room.job()], rates=(1e-2,), settings=settings)
        expected = statistics_of(room.train)[1][1:2] if standardise else torch.ones(1, 1, 4)
        assert torch.equal(trained.probe.std, expected)


def test_dev_may_be_looked_at_after_every_step() -> None:
    assert selection_steps(4, 4) == selection_steps(4, 9) == (1, 2, 3, 4)


def test_selection_by_counts_is_selection_by_predictions(tones: Corpus) -> None:
    quick, slow = Class.on(tones, Phone()), Class.on(tones, Counted())
    fast, sure = quick.teach([quick.job()]), slow.teach([slow.job()])
    assert [each.selection for each in fast[0]] == [each.selection for each in sure[0]]


def test_shuffled_labels_are_as_frequent_and_true_of_nothing(tones: Corpus, tmp_path: Path) -> None:
    for task in (Phone(), Speaker()):
        plan = label_splits(tones, task, SplitSettings(), excludes=lambda each: None)
        dealt = with_shuffled_labels(plan.train, problem=problem_of(task), seed=0, salt="s")
        assert [each.utterance for each in dealt] == [each.utterance for each in plan.train]

        def labels(examples: object) -> list[str]:
            assert isinstance(examples, tuple)
            return [
                label
                for each in examples
                for label in ([each.labels] if isinstance(each.labels, str) else [phone.label for phone in each.labels])
            ]

        assert sorted(labels(dealt)) == sorted(labels(plan.train))
        agreeing = sum(a == b for a, b in zip(labels(dealt), labels(plan.train), strict=True)) / len(labels(dealt))
        frequencies = [labels(dealt).count(label) / len(labels(dealt)) for label in set(labels(dealt))]
        assert agreeing < sum(share**2 for share in frequencies) + 0.15
        assert (
            with_shuffled_labels(plan.train, problem=problem_of(task), seed=0, salt="s")
            == dealt
            != with_shuffled_labels(plan.train, problem=problem_of(task), seed=1, salt="s")
        )
