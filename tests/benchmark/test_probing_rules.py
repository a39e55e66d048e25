"""Rules of training and scoring probes, on three utterances of a few frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing import training
from repbench.benchmark.probing.means import UtteranceMeans
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import Probe, ProbeShape, statistics_of
from repbench.benchmark.probing.training import (
    ProbeJob,
    ProbeTraining,
    Selection,
    TrainedProbe,
    _batch_bytes,
    _ProbeGroup,
    _ProbeRun,
    selection_steps,
    train_probes,
)
from repbench.benchmark.protocol import ProbeSettings
from repbench.corpora.contract import Phone as Segment
from repbench.corpora.contract import Utterance
from repbench.downstream.contract import Downstream, LabelledUtterance
from repbench.downstream.phone import Phone
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.downstream.problems.frames import FrameClassification
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, NonFiniteError
from repbench.testing import Envelope

CPU = torch.device("cpu")
CLASSES = {"phone": ("AA", "IY", "sil"), "speaker": ("a", "b", "c")}
COUNTS = (5, 4, 6)


class Counted(Phone):
    """The phone task without its short cut."""

    primary_of = None  # type: ignore[assignment]


class CountedSpeaker(Speaker):
    """The speaker task without its short cut."""

    primary_of = None  # type: ignore[assignment]


class Afar(FeatureTable):
    """A table that is read anew for each pass."""

    is_at_hand = False

    def of_layers(self, layers: slice) -> Afar:
        return Afar(self.frames[layers], self.counts, self.ids)


def predictor_of(task: Downstream) -> Predictor:
    return Predictor(task, CLASSES[task.info.name], Envelope().info)


def example(task: Downstream, number: int, count: int) -> LabelledUtterance:
    """Half of its frames are AA and half of them IY; its speaker is one of three."""
    utterance = Utterance(
        id=f"u{number}", audio=Path("/nowhere"), sample_rate_hz=16_000, num_samples=(count - 1) * 320 + 400,
        samples_sha256=str(number), speaker="abc"[number % 3], group="g",
    )  # fmt: skip
    if isinstance(task, Phone):
        return LabelledUtterance(utterance, (Segment(0.0, 0.04, "AA"), Segment(0.04, 9.0, "IY")))
    return LabelledUtterance(utterance, "abc"[number % 3])


def labelled(task: Downstream, counts: Sequence[int] = COUNTS, kind: type[FeatureTable] = FeatureTable) -> Any:
    """Frames (2, N, 4) far from zero."""
    frames = 10 + 3 * torch.randn(2, sum(counts), 4, generator=torch.Generator().manual_seed(3))
    table = kind(frames, tuple(counts), tuple(f"u{number}" for number in range(len(counts))))
    return LabelledFeatures(table, tuple(example(task, number, count) for number, count in enumerate(counts)))


def shape_of(task: Downstream, **changes: Any) -> ProbeShape:
    facts: dict[str, Any] = {"head": "linear", "num_layers": 2, "width": 4, "hidden_units": 8, "mix": "mean"}
    return ProbeShape(**(facts | {"pools": predictor_of(task).pools, "classes": CLASSES[task.info.name]} | changes))


def shared_by(
    task: Downstream,
    rates: tuple[float, ...] = (),
    train: type[FeatureTable] = FeatureTable,
    dev: type[FeatureTable] = FeatureTable,
    device: torch.device = CPU,
    shape: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[ProbeTraining, ProbeJob]:
    learnt, chosen = labelled(task, kind=train), labelled(task, kind=dev)
    shared = ProbeTraining(
        predictor=predictor_of(task), shape=shape_of(task, **(shape or {})), train=learnt.table, dev=chosen.table,
        statistics=statistics_of(learnt.table), settings=ProbeSettings(**settings), learning_rates=rates, device=device,
    )  # fmt: skip
    return shared, ProbeJob(train=learnt.examples, dev=chosen.examples)


def group_of(shared: ProbeTraining, job: ProbeJob) -> _ProbeGroup:
    return _ProbeGroup(shared, job, UtteranceMeans(shared.train), UtteranceMeans(shared.dev))


def said(*blocks: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Scores (R, N, C) of each block in turn, whatever its frames."""
    waiting = iter(blocks)
    return lambda frames, counts: next(waiting)


def sure(*classes: int) -> Tensor:
    return torch.eye(3)[list(classes)]


# dev


def test_utterances_are_scored_together_up_to_4096_frames() -> None:
    counts = (4000, 96, 5000, 1, 4095, 1, 5000, 1)
    blocks = predictor_of(Speaker()).dev_set(labelled(Speaker(), counts), CPU).blocks
    expected = [[4000, 96], [5000], [1, 4095], [1], [5000], [1]]
    assert [block.counts.tolist() for block in blocks] == expected
    assert [span for block in blocks for span in block.spans][:4] == [(0, 4000), (4000, 96), (4096, 5000), (9096, 1)]
    assert [[each.id for each in block.examples] for block in blocks][:3] == [["u0", "u1"], ["u2"], ["u3", "u4"]]
    assert [block.reference.tolist() for block in blocks][:3] == [[0, 1], [2], [0, 1]]
    assert [block.places.tolist() for block in blocks][:3] == [[0, 1], [0], [0, 1]]
    assert predictor_of(Speaker()).dev_set(LabelledFeatures(labelled(Speaker()).table, ()), CPU).blocks == ()


def test_the_rows_of_an_utterance_come_after_those_before_it() -> None:
    asked = predictor_of(Phone())
    given = labelled(Phone(), (5, 5, 5))
    (block,) = asked.dev_set(given, CPU).blocks
    reference, places = asked.problem.counted(asked.problem.reference(asked.context, given.examples[0], 5))
    assert set(places.tolist()) == {0, 1, 2, 3, 4}
    assert block.places.tolist() == [*places, *(places + 5), *(places + 10)]
    assert block.reference.tolist() == [*reference] * 3
    assert block.reference.dtype == block.places.dtype == torch.int64
    (plain,) = predictor_of(Counted()).dev_set(given, CPU).blocks
    assert (plain.reference.dtype, len(plain.reference)) == (torch.int64, 0)
    assert (plain.places.dtype, len(plain.places)) == (torch.int64, 0)


def test_each_probe_has_its_value_and_one_that_is_not_finite_has_none() -> None:
    for task in (Speaker(), CountedSpeaker()):
        asked = predictor_of(task)
        dev = asked.dev_set(labelled(task, (3000, 1000, 2000)), CPU)
        broken = sure(0, 1)
        broken[1, 2] = torch.nan
        first = torch.stack([sure(0, 1), sure(0, 0), sure(2, 2), broken])
        second = torch.stack([sure(2), sure(2), sure(0), sure(2)])
        assert asked.primaries(said(first, second), dev) == [1.0, pytest.approx(2 / 3), 0.0, None]


def test_counts_are_by_reference_and_by_estimated_class() -> None:
    asked = predictor_of(Speaker())
    (block,) = asked.dev_set(labelled(Speaker()), CPU).blocks
    counts = asked._add_confusions(None, block, torch.stack([sure(0, 0, 1), sure(0, 0, 0)]))
    assert counts.tolist() == [[[1, 0, 0], [1, 0, 0], [0, 1, 0]], [[1, 0, 0]] * 3]
    assert asked._add_confusions(counts, block, torch.stack([sure(0, 0, 0)] * 2)) is counts, "one matrix of all blocks"
    assert counts.tolist() == [[[2, 0, 0], [2, 0, 0], [1, 1, 0]], [[2, 0, 0]] * 3]


@pytest.mark.parametrize(("quick", "slow"), [(Phone(), Counted()), (Speaker(), CountedSpeaker())])
def test_what_is_counted_is_what_the_predictions_say(quick: Downstream, slow: Downstream) -> None:
    rows = 3 if isinstance(quick, Speaker) else sum(COUNTS)
    scores = torch.randn(4, rows, 3, generator=torch.Generator().manual_seed(0))
    values = [
        predictor.primaries(said(scores), predictor.dev_set(labelled(quick), CPU))
        for predictor in (predictor_of(quick), predictor_of(slow))
    ]
    assert values[0] == values[1]
    assert len(set(values[0])) > 1


def test_an_undefined_value_names_the_metric_and_the_utterances() -> None:
    class Undefined(Speaker):
        def primary_of(self, confusion: object) -> None:
            return None

    asked = predictor_of(Undefined())
    with pytest.raises(DataError, match="accuracy is undefined on the 3 dev utterances"):
        asked.primaries(said(sure(0, 1, 2)[None]), asked.dev_set(labelled(Speaker()), CPU))


@pytest.mark.parametrize(("task", "better", "worse"), [(Speaker(), 0.6, 0.4), (PhoneCTC(), 0.4, 0.6)])
def test_better_is_above_or_below_as_the_metric_says_and_equal_is_not(
    task: Downstream, better: float, worse: float
) -> None:
    asked = Predictor(task, ("AA", "IY"), Envelope().info)
    assert asked.better(worse, None) is True
    assert [asked.better(value, 0.5) for value in (better, 0.5, worse)] == [True, False, False]


def test_a_reference_is_kept_for_the_next_probe_on_the_same_utterance() -> None:
    made: list[tuple[str, int]] = []

    class Recorded(FrameClassification):
        def reference(self, context: Any, example: LabelledUtterance, num_rows: int) -> Any:
            made.append((example.id, num_rows))
            return super().reference(context, example, num_rows)

    asked = predictor_of(Phone())
    asked.problem = Recorded()
    first, second, _ = labelled(Phone(), (5, 5, 5)).examples
    for each, rows in ((first, 5), (first, 5), (first, 6), (second, 6), (second, 6), (first, 6)):
        asked.prediction(each, torch.zeros(rows, 3))
    assert made == [("u0", 5), ("u0", 6), ("u1", 6), ("u0", 6)]


@pytest.mark.parametrize("task", [Phone(), Speaker()])
def test_a_probe_predicts_without_dropout_and_only_from_finite_scores(task: Downstream) -> None:
    asked, given = predictor_of(task), labelled(task)
    probe = Probe(shape_of(task, head="mlp1", dropout=0.5), torch.Generator().manual_seed(0))
    told = asked.predict(probe, given)
    assert not probe.training
    assert [each.id for each in told] == ["u0", "u1", "u2"]
    places = given.table.starts()
    for own, each in zip(told, given.examples, strict=True):
        start, count = places[each.id]
        scores = probe(given.table.frames[:, start : start + count], torch.tensor([count])).detach()
        assert own == asked.prediction(each, scores)
    with torch.no_grad():
        probe.head.output.bias[1] = torch.nan
    with pytest.raises(NonFiniteError, match="scores hold NaN or infinity"):
        asked.predict(probe, given)


# training


def test_a_job_has_seed_0_and_a_probe_took_no_time_unless_that_is_said() -> None:
    assert ProbeJob(train=(), dev=()).seed == 0
    probe = Probe(shape_of(Speaker()), torch.Generator())
    assert TrainedProbe(probe, Selection((), {}, None)).seconds == 0.0


@pytest.mark.parametrize(
    ("most", "train", "dev", "in_threads", "beside"),
    [
        (2, FeatureTable, FeatureTable, ([0, 1, 2, 3], 2), [2, 2, 2, 2, 1]),
        (3, FeatureTable, FeatureTable, ([0, 1, 2], 3), [3, 3, 3, 1, 1]),
        (8, FeatureTable, FeatureTable, ([0, 1, 2, 3, 4], 5), [5] * 5),
        (1, FeatureTable, FeatureTable, ([], 1), [1] * 5),
        (2, Afar, FeatureTable, ([], 1), [1] * 5),
        (2, FeatureTable, Afar, ([], 1), [1] * 5),
    ],
)
def test_jobs_that_are_left_over_are_trained_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, most: int, train: Any, dev: Any, in_threads: Any, beside: list[int]
) -> None:
    threaded: list[tuple[list[Any], int]] = []
    told: list[tuple[int, int]] = []

    class Group:
        def __init__(self, shared: ProbeTraining, job: ProbeJob, *means: UtteranceMeans) -> None:
            self.seed = job.seed

        def steps(self) -> list[int]:
            return [1, 2]

        def trained(self, beside: int) -> tuple[int, int]:
            return self.seed, beside

    def run(work: Callable[[Any], Any], items: Sequence[Any], count: int, stopped: object) -> list[Any]:
        threaded.append(([item.seed for item in items], count))
        return [work(item) for item in items]

    monkeypatch.setattr(training, "_ProbeGroup", Group)
    monkeypatch.setattr(training, "in_threads", run)
    monkeypatch.setattr(training, "jobs_at_once", lambda *facts: most)
    shared, _ = shared_by(Speaker(), train=train, dev=dev, steps=2)
    jobs = [ProbeJob(train=(), dev=(), seed=seed) for seed in range(5)]
    assert train_probes(shared, jobs, lambda *done: told.append(done)) == [*zip(range(5), beside, strict=True)]  # type: ignore[comparison-overlap]
    assert threaded == [in_threads]
    assert told == [(step, 10) for step in range(1, 11)]


def test_the_memory_of_a_step_is_twice_that_of_its_widest_layer() -> None:
    asked: dict[str, Any] = {"batch_frames": 7, "batch_utterances": 5}
    assert _batch_bytes(shared_by(Phone(), **asked)[0]) == 2 * 4 * 2 * 7 * 8
    assert _batch_bytes(shared_by(Phone(), shape={"hidden_units": 3}, **asked)[0]) == 2 * 4 * 2 * 7 * 4
    assert _batch_bytes(shared_by(Speaker(), **asked)[0]) == 2 * 4 * 2 * (5 * 6) * 8
    shared, _ = shared_by(Speaker(), **asked)
    shared.train.counts = ()
    assert _batch_bytes(shared) == 0


def test_points_are_spread_evenly_and_the_last_step_is_one() -> None:
    assert selection_steps(10, 3) == (3, 7, 10)
    assert selection_steps(2, 9) == (1, 2)
    assert selection_steps(16, 4) == (4, 8, 12, 16)


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize(
    ("task", "head", "clip"), [(Phone(), "linear", 0.05), (Phone(), "linear", None), (Speaker(), "linear", 0.05)]
)
def test_a_step_is_one_of_adamw_on_the_clipped_gradient_of_the_batch(
    task: Downstream, head: str, clip: float | None, standardise: bool
) -> None:
    shared, job = shared_by(
        task, (0.1,), steps=3, batch_frames=99, batch_utterances=99, weight_decay=0.2, clip_norm=clip,
        standardise=standardise, selection_points=1, learning_rate=5.0, shape={"head": head},
    )  # fmt: skip
    ((trained,),) = train_probes(shared, [job])

    alone = Probe(shared.shape, torch.Generator().manual_seed(0))
    if standardise:
        assert shared.statistics is not None
        alone.set_statistics(*shared.statistics)
    learnt = [each for each in alone.parameters() if each.requires_grad]
    descent = torch.optim.AdamW(learnt, lr=0.1, weight_decay=0.2)
    targets = torch.cat([
        shared.predictor.targets(each, count) for each, count in zip(job.train, COUNTS, strict=True)
    ])  # fmt: skip
    frames = labelled(task).table.frames
    for _ in range(3):
        descent.zero_grad()
        torch.nn.functional.cross_entropy(alone(frames, torch.tensor(COUNTS)), targets).backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(learnt, clip)
        descent.step()
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(trained.probe.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    measured = task.measure(shared.predictor.predict(trained.probe, labelled(task)), CLASSES[task.info.name])
    expected = measured[task.info.primary_metric].value
    assert expected is not None
    assert trained.selection == Selection(
        ({"learning_rate": 0.1, "step": 3, "dev_value": expected},), {"learning_rate": 0.1, "step": 3}, expected
    )


def test_the_rate_is_that_of_the_settings_unless_others_are_given() -> None:
    for rates, expected in (((), [0.25]), ((0.1, 0.2), [0.1, 0.2])):
        shared, job = shared_by(Speaker(), rates, steps=1, learning_rate=0.25)
        (row,) = train_probes(shared, [job])
        assert [each.selection.chosen["learning_rate"] for each in row] == expected


@pytest.mark.parametrize("task", [Phone(), Speaker()])
@pytest.mark.parametrize("rates", [(0.3,), (0.3, 0.01)])
def test_dev_that_is_read_once_at_the_end_selects_what_it_selects_at_each_point(
    task: Downstream, rates: tuple[float, ...]
) -> None:
    rows = []
    for kind in (FeatureTable, Afar):
        shared, job = shared_by(task, rates, dev=kind, steps=12, selection_points=6, batch_frames=4, batch_utterances=2)
        (row,) = train_probes(shared, [job])
        rows.append(row)
    assert [each.selection for each in rows[0]] == [each.selection for each in rows[1]]
    assert [point["step"] for point in rows[1][0].selection.grid] == [2, 4, 6, 8, 10, 12]
    assert len({point["dev_value"] for point in rows[1][0].selection.grid}) > 1
    for one, other in zip(*rows, strict=True):
        assert torch.equal(one.probe.head.output.weight, other.probe.head.output.weight)


def test_dev_that_is_read_anew_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = list[int]()

    def spans(table: Afar, groups: Iterable[Sequence[tuple[int, int]]]) -> Iterator[Tensor]:
        passes.append(len(table.ids))
        return FeatureTable.spans(table, groups)

    monkeypatch.setattr(Afar, "spans", spans)
    shared, job = shared_by(Phone(), dev=Afar, steps=4, selection_points=2)
    train_probes(shared, [job])
    assert passes == [3]


def test_a_probe_drops_in_each_step_and_not_where_it_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, job = shared_by(Phone(), (0.1, 0.2), steps=4, selection_points=2)
    group = group_of(shared, job)
    clock = iter([10.0, 16.0])
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    modes = [(step, [run.probe.training for run in group._runs]) for step in group.steps()]
    assert modes == [(1, [True] * 2), (2, [False] * 2), (3, [True] * 2), (4, [False] * 2)]
    assert [each.seconds for each in group.trained(3)] == [1.0, 1.0]


def test_probes_learn_where_the_device_is() -> None:
    shared, job = shared_by(Phone(), device=torch.device("meta"))
    (run,) = group_of(shared, job)._runs
    assert run.probe.mean.is_meta
    assert len(run.optimizer.parameters) == 2, "the weights and biases, and not the mix that is not learnt"


def test_a_diverged_probe_is_out_of_the_selection_and_a_worse_point_is_not_kept() -> None:
    shared, job = shared_by(Speaker(), (0.1, 0.2))
    group = group_of(shared, job)
    broken, sound = group._runs
    state = {"bias": torch.zeros(1)}
    group._select(2, [None, 0.5], [{}, state])
    state["bias"] += 1
    group._select(4, [0.9, 0.4], [{}, {}])
    group._select(6, [0.9, 0.5], [{}, {}])
    assert (broken.diverged_at, broken.grid, broken.best) == (2, [], {})
    assert (sound.value, sound.step, sound.best) == (0.5, 2, {"bias": torch.zeros(1)})
    assert sound.grid == [
        {"learning_rate": 0.2, "step": step, "dev_value": value} for step, value in ((2, 0.5), (4, 0.4), (6, 0.5))
    ]
    with pytest.raises(NonFiniteError, match="scores on dev are NaN or infinite at step 8"):
        group._select(8, [None, None], [{}, {}])


def test_training_ends_where_the_loss_of_no_rate_is_finite() -> None:
    for head in ("linear", "mlp1"):
        shared, job = shared_by(Phone(), (1e38, 1e-3), steps=6, selection_points=2, shape={"head": head})
        ((broken, calm),) = train_probes(shared, [job])
        assert (broken.selection.dev_value, broken.probe.training) == (None, False)
        assert [point["step"] for point in calm.selection.grid] == [3, 6]
        shared, job = shared_by(Phone(), (1e38,), steps=6, selection_points=1, shape={"head": head})
        with pytest.raises(NonFiniteError, match=r"The probe's loss is (nan|inf) at step [23] "):
            train_probes(shared, [job])


def test_a_probe_diverges_at_the_first_step_that_is_not_finite() -> None:
    run = _ProbeRun(Probe(shape_of(Speaker()), torch.Generator()), 0.1, ProbeSettings())
    assert (run.is_finite(True, 5), run.diverged_at) == (True, None)
    assert (run.is_finite(False, 5), run.diverged_at) == (False, 5)
    assert (run.is_finite(False, 7), run.diverged_at) == (False, 5)
    assert [run.is_finite(True, step) for step in (4, 5, 6)] == [True, False, False]
    assert (run.is_finite(False, 3), run.diverged_at) == (False, 3)
    trained = run.trained(2.0)
    assert (trained.selection, trained.seconds) == (Selection((), {"learning_rate": 0.1, "step": 3}, None), 2.0)
    assert not trained.probe.training


def test_a_probe_is_that_of_its_best_point() -> None:
    run = _ProbeRun(Probe(shape_of(Speaker()), torch.Generator()), 0.1, ProbeSettings())
    run.value, run.step = 0.5, 20
    run.best = {name: torch.full_like(tensor, 7) for name, tensor in run.probe.state_dict().items()}
    trained = run.trained(1.0)
    assert (trained.selection, trained.seconds) == (Selection((), {"learning_rate": 0.1, "step": 20}, 0.5), 1.0)
    assert not trained.probe.training
    np.testing.assert_array_equal(trained.probe.head.output.bias.detach(), [7.0] * 3)
