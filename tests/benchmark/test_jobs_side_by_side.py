"""Jobs of probes in threads, and probes that read means of utterances."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing import training
from repbench.benchmark.probing.job_threads import CountedSteps, StoppedError, in_threads, jobs_at_once
from repbench.benchmark.probing.means import reads_means
from repbench.benchmark.probing.probe import Probe, ProbeShape, scores_side_by_side
from repbench.benchmark.probing.training import TrainedProbe
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream
from repbench.downstream.heads.workers import worker_threads
from repbench.downstream.phone import Phone
from repbench.downstream.speaker import Speaker
from repbench.errors import NonFiniteError
from repbench.testing import tone_corpus
from tests.benchmark.test_training import SETTINGS, Class, Counted

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("threads") / "corpus")


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def weights_of(rows: list[list[TrainedProbe]]) -> list[torch.Tensor]:
    return [tensor for row in rows for each in row for tensor in each.probe.state_dict().values()]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "head"), [(Phone(), "linear"), (Speaker(), "mlp1"), (Speaker(), "linear")])
def test_jobs_in_threads_are_what_they_are_one_after_the_other(
    tones: Corpus, threads: int, task: Downstream, head: str
) -> None:
    room = Class.on(tones, task)
    jobs = [room.job(seed) for seed in (0, 1, 2)]  # two in threads, and one whose steps the threads share
    together = room.teach(jobs, head)
    assert torch.get_num_threads() == threads
    torch.set_num_threads(1)
    for mine, alone in zip(weights_of(together), weights_of(room.teach(jobs, head)), strict=True):
        assert torch.equal(mine, alone)


def test_progress_counts_the_steps_of_all_threads(tones: Corpus, threads: int) -> None:
    room = Class.on(tones, Phone())
    told: list[tuple[int, int]] = []
    settings = SETTINGS.model_copy(update={"steps": 3, "selection_points": 3})
    room.teach([room.job(0), room.job(1)], settings=settings, progress=lambda *done: told.append(done))
    assert told == [(step, 6) for step in range(1, 7)]


def test_a_job_that_diverges_ends_those_in_other_threads(tones: Corpus, threads: int) -> None:
    room = Class.on(tones, Phone())
    with pytest.raises(NonFiniteError, match="loss is"):
        room.teach([room.job(0), room.job(1)], rates=(1e38,))
    assert torch.get_num_threads() == threads


def test_what_is_thrown_into_one_thread_stops_the_others() -> None:
    counted = CountedSteps(lambda done, total: None, 2)
    begun, ended = threading.Event(), list[str]()

    def work(name: str) -> None:
        if name == "fails":
            begun.wait(60)
            raise ValueError(name)
        begun.set()
        try:
            while True:
                counted.step()
        except StoppedError:
            ended.append(name)
            raise

    with pytest.raises(ValueError, match="fails"):
        in_threads(work, ["fails", "goes on"], 2, counted.stopped)
    assert ended == ["goes on"]


def test_a_task_of_others_is_never_called_by_two_threads(tones: Corpus, threads: int) -> None:
    def at_once(task: Downstream, batch_bytes: int = 1) -> int:
        room = Class.on(tones, task)
        shared = room.shared()
        return jobs_at_once(shared.predictor, shared.shape, CPU, batch_bytes)

    assert at_once(Phone()) == threads
    assert at_once(Counted()) == 1
    assert at_once(Phone(), batch_bytes=2**40) == 1


@pytest.mark.parametrize(("head", "mix"), [("linear", "mean"), ("linear", "weighted"), ("project_mean", "raw")])
def test_a_probe_on_means_is_that_on_all_frames(
    tones: Corpus, monkeypatch: pytest.MonkeyPatch, head: str, mix: str
) -> None:
    room = Class.on(tones, Speaker())
    jobs = [room.job(layers=slice(0, 2))]
    read: list[torch.Size] = []

    def seen(probes: object, standard: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        read.append(standard.shape)
        return scores_side_by_side(probes, standard, counts)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "scores_side_by_side", seen)
    on_means = room.teach(jobs, head, mix, (1e-3,))
    assert read[0] == (2, SETTINGS.batch_utterances, 4)
    monkeypatch.setattr(training, "reads_means", lambda probe: False)
    on_frames = room.teach(jobs, head, mix, (1e-3,))
    assert [each.selection for row in on_means for each in row] == [each.selection for row in on_frames for each in row]
    for mine, theirs in zip(weights_of(on_means), weights_of(on_frames), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.0, atol=1e-5)


def test_dropout_reads_all_frames(tones: Corpus) -> None:
    room = Class.on(tones, Speaker())
    for head, dropout, expected in (("linear", 0.0, True), ("linear", 0.1, False), ("mlp1", 0.0, False)):
        shape = ProbeShape(
            head=head, pools=True, num_layers=1, width=4, hidden_units=8, classes=room.plan.classes, mix="mean",
            dropout=dropout,
        )  # fmt: skip
        probe = Probe(shape, torch.Generator().manual_seed(0))
        assert reads_means(probe) is expected


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_standardised_as_they_are_gathered_are_those_standardised_at_once(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = ProbeShape(
        head="linear", pools=False, num_layers=2, width=4, hidden_units=8, classes=("a", "b"), mix="mean"
    )
    probe = Probe(shape, generator)
    probe.set_statistics(torch.randn(2, 1, 4, generator=generator), torch.rand(2, 1, 4, generator=generator) + 0.5)
    table = FeatureTable(torch.randn(2, 7_000, 4, generator=generator), (7_000,), ("a",))
    kept, rows = table.frames.clone(), torch.randperm(7_000, generator=generator)[:6_000]  # more tiles than parts
    with worker_threads(threads):
        gathered = table.gather(rows, finish=probe.standardise_)
        spans = table.gather_spans([(5_000, 1_000), (0, 3), (4_000, 2_000)], finish=probe.standardise_)
    assert torch.equal(gathered, probe.standardised(table.frames[:, rows]))
    parts = table.frames[:, 5_000:6_000], table.frames[:, :3], table.frames[:, 4_000:6_000]
    assert torch.equal(spans, probe.standardised(torch.cat(parts, dim=1)))
    assert torch.equal(table.frames, kept)


def test_threads_to_come_are_given_as_many_threads_of_torch_as_before(threads: int) -> None:
    assert in_threads(lambda _: torch.get_num_threads(), [0, 1], 2, threading.Event()) == [1, 1]
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == threads


def test_means_of_one_layer_are_not_those_of_another(tones: Corpus) -> None:
    room = Class.on(tones, Speaker())
    jobs = [room.job(layers=slice(layer, layer + 1)) for layer in (0, 1)]
    alone = [row for job in jobs for row in room.teach([job])]
    assert all(map(torch.equal, weights_of(room.teach(jobs)), weights_of(alone)))
