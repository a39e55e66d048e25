"""The pipeline: order, bounds and errors as without threads; batches side by side; what comes late from a device."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.benchmark.features import batch_work
from repbench.benchmark.features.batch_work import BatchWork
from repbench.benchmark.features.extraction import ExtractionOptions, extract, run_batches, table_index, take_each
from repbench.benchmark.features.forward import OnTheirWay, PaddedSounds, rounded
from repbench.benchmark.features.pipeline import Limits, Pipeline, Stages
from repbench.benchmark.features.shards import UnwrittenLayer, write_shard
from repbench.benchmark.features.store import GIB, FeatureStore, origin_for
from repbench.corpora.contract import Corpus
from repbench.errors import DataError, NonFiniteError, PluginError
from repbench.testing import Envelope, tone_corpus
from repbench.training.threads import threads
from repbench.upstream.contract import HiddenStates, runs_concurrently
from repbench.upstream.frontends import mel

CPU = torch.device("cpu")
OPTIONS = ExtractionOptions(batch_seconds=2.0, device=CPU)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("pipeline") / "tones", num_speakers=2)


class Work:
    """Numbers that are read and doubled; remembers what has begun, and in which threads."""

    def __init__(self, *, shares: Callable[[int], bool] = lambda number: True, num_bytes: int = 1) -> None:
        self.read, self.computed, self.threads = list[int](), list[int](), dict[int, str]()
        self.before_computing: Callable[[int], None] = lambda number: None
        self.stages = Stages(
            read=self._read,
            launch=self._launch,
            finish=lambda number: 2 * number,
            num_bytes=lambda number: num_bytes,
            may_share=shares,
        )

    def _read(self, number: int) -> int:
        self.read.append(number)
        if number < 0:
            raise DataError(f"number {number} cannot be read")
        return number

    def _launch(self, number: int) -> int:
        self.before_computing(number)
        self.computed.append(number)
        self.threads[number] = threading.current_thread().name
        return number

    def pipeline(self, workers: int = 2, launched: int = 1, ahead_bytes: float = 100) -> Pipeline[int, int, int, int]:
        limits = Limits(readers=2, workers=workers, launched=launched, ahead_bytes=ahead_bytes)
        return Pipeline(self.stages, limits)


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds, which others bring about."""
    for _ in range(round(seconds / 0.005)):
        if holds():
            return
        time.sleep(0.005)
    raise AssertionError("it never held")


def test_results_keep_the_order_of_the_items_whatever_ends_first() -> None:
    work, second_is_done = Work(), threading.Event()

    def first_waits(number: int) -> None:
        if number == 1:
            assert second_is_done.wait(10)
        if number == 2:
            second_is_done.set()

    work.before_computing = first_waits
    assert list(work.pipeline().results([1, 2, 3])) == [(1, 2), (2, 4), (3, 6)]
    assert work.computed[0] == 2
    assert all(name.startswith("compute") for name in work.threads.values())


@pytest.mark.parametrize(("ahead_bytes", "begun"), [(100, 9), (3, 4), (0, 2)])
def test_no_more_is_begun_than_the_bounds_allow_while_the_caller_is_busy(ahead_bytes: int, begun: int) -> None:
    work = Work()
    results = work.pipeline(ahead_bytes=ahead_bytes).results(range(100))
    next(results)
    until(lambda: len(work.read) >= begun)
    time.sleep(0.05)
    assert len(work.read) == begun, "the one that was given, and those ahead of it"
    results.close()  # type: ignore[attr-defined]
    assert len(work.read) <= begun


@pytest.mark.parametrize("shares", [True, False])
def test_an_error_is_raised_after_the_results_before_it(shares: bool) -> None:
    work = Work(shares=lambda number: shares)
    results = work.pipeline(launched=3).results([1, 2, -3, 4])
    assert [next(results), next(results)] == [(1, 2), (2, 4)]
    with pytest.raises(DataError, match="number -3 cannot be read"):
        next(results)
    assert shares or 4 not in work.computed


def test_an_error_of_what_is_launched_ahead_waits_for_its_turn() -> None:
    def fails(number: int) -> None:
        if number == 2:
            raise PluginError("number 2 fails")

    work = Work(shares=lambda number: False)
    work.before_computing = fails
    results = work.pipeline(launched=2).results([1, 2])
    assert next(results) == (1, 2)
    with pytest.raises(PluginError, match="number 2 fails"):
        next(results)


def test_what_may_not_share_is_computed_by_the_caller_with_nothing_beside_it() -> None:
    work, running = Work(shares=lambda number: number % 3 > 0), list[int]()

    def alone(number: int) -> None:
        running.append(number)
        assert number % 3 or running == [number]
        time.sleep(0.002)
        running.remove(number)

    work.before_computing = alone
    assert [result for _, result in work.pipeline().results(range(20))] == list(range(0, 40, 2))
    own = threading.current_thread().name
    assert [work.threads[number] == own for number in range(20)] == [number % 3 == 0 for number in range(20)]


def test_on_request_one_item_is_computed_after_the_other() -> None:
    work = Work()
    pipeline = work.pipeline()
    results = pipeline.results(range(40))
    next(results)
    assert not pipeline.was_alone
    pipeline.compute_alone()
    begun = len(work.computed)
    assert [result for _, result in results] == list(range(2, 80, 2))
    assert all(name == threading.current_thread().name for name in list(work.threads.values())[begun:])
    assert begun < 40


def test_on_request_what_was_launched_ahead_is_launched_again_alone() -> None:
    work = Work(shares=lambda number: False)
    work.before_computing = lambda number: until(lambda: len(work.read) == 3)  # so that the second is there in time
    pipeline = work.pipeline(launched=2)
    results = pipeline.results([1, 2, 3])
    assert next(results) == (1, 2)
    assert not pipeline.was_alone
    ahead = list(work.computed)
    pipeline.compute_alone()
    assert list(results) == [(2, 4), (3, 6)]
    assert (work.computed, pipeline.was_alone) == ([*ahead, 2, 3], True)


class Noting(Envelope):
    """An upstream that may be called from several threads, and notes in which it was."""

    runs_concurrently = True

    def __init__(self) -> None:
        super().__init__()
        self.calls = list[tuple[str, int]]()

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.calls.append((threading.current_thread().name, torch.get_num_threads()))
        return super().forward(waveforms, lengths)


class Inheriting(Noting):
    """An upstream that does not declare by itself what its base does."""


def test_batches_side_by_side_give_the_bits_of_one_after_the_other(tones: Corpus) -> None:
    upstream, alone = Noting(), Envelope()
    with threads(3):
        together = extract(upstream, tones.utterances, [0, 1], OPTIONS)
    one = extract(alone, tones.utterances, [0, 1], OPTIONS)
    assert torch.equal(together.frames, one.frames)
    assert {number for _, number in upstream.calls} == {1}
    assert all(name.startswith("compute") for name, _ in upstream.calls)


def test_front_ends_give_the_same_bits_with_any_number_of_threads(tones: Corpus) -> None:
    tables = []
    for number in (1, 2, 3):
        with threads(number):
            tables.append(extract(mel(), tones.utterances, [0], OPTIONS).frames)
    assert torch.equal(tables[0], tables[1])
    assert torch.equal(tables[0], tables[2])


@pytest.mark.parametrize(("most", "expected"), [(10**9, 1), (0, 3)], ids=["small", "large"])
def test_an_upstream_that_declares_nothing_is_called_by_the_caller_alone(
    tones: Corpus, monkeypatch: pytest.MonkeyPatch, most: int, expected: int
) -> None:
    monkeypatch.setattr(batch_work, "SMALL_MACS", most)
    upstream = Inheriting()
    assert not runs_concurrently(upstream)
    with threads(3):
        extract(upstream, tones.utterances[:6], [0], OPTIONS)
        assert torch.get_num_threads() == 3
    assert set(upstream.calls) == {(threading.current_thread().name, expected)}


def test_a_large_batch_is_computed_on_all_threads(tones: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_work, "SHARED_MACS", 0)
    upstream = Noting()
    with threads(3):
        extract(upstream, tones.utterances[:6], [0], OPTIONS)
    assert set(upstream.calls) == {(threading.current_thread().name, 3)}


@pytest.mark.parametrize(
    ("counts", "macs"), [((10,), 10 * (16 + 2 * 10 * 4 * 2)), ((10, 20), 2 * 20 * (16 + 2 * 20 * 4 * 2))]
)
def test_the_work_of_a_batch_is_that_of_its_padded_frames(
    tones: Corpus, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, ...], macs: int
) -> None:
    upstream = Noting()
    index = dataclasses.replace(table_index(upstream, tones.utterances[: len(counts)]), counts=counts)
    may_share = BatchWork(upstream, index, [0], OPTIONS, lambda number, frames: None).stages().may_share
    monkeypatch.setattr(batch_work, "SHARED_MACS", macs)
    assert may_share(range(len(counts)))
    monkeypatch.setattr(batch_work, "SHARED_MACS", macs - 1)
    assert not may_share(range(len(counts)))


class Crowded(Noting):
    """An upstream whose memory suffices for one batch at a time, and for two utterances in a batch."""

    runs_concurrently = True

    def __init__(self) -> None:
        super().__init__()
        self.sizes = list[int]()

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        if threading.current_thread() is not threading.main_thread():
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(lengths))
        if len(lengths) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(waveforms, lengths)


def test_where_batches_side_by_side_do_not_fit_they_are_computed_one_by_one_and_halved(tones: Corpus) -> None:
    upstream = Crowded()
    index = table_index(upstream, tones.utterances[:7])
    with threads(2):
        found = list(run_batches(upstream, index, [0], [[0, 1], [2, 3, 4, 5], [6]], OPTIONS))
    assert [list(batch) for batch, _ in found] == [[0, 1], [2, 3], [4, 5], [6]]
    assert upstream.sizes == [2, 4, 2, 2, 1]


class Sized(Noting):
    """Notes the frames of each batch, padding included."""

    runs_concurrently = True

    def __init__(self) -> None:
        super().__init__()
        self.frames = list[int]()

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        self.frames.append(states.layers.shape[1] * states.layers.shape[2])
        return states


def test_what_is_taken_of_each_utterance_is_of_its_frames_and_no_whole_table_is_kept(tones: Corpus) -> None:
    table = extract(Noting(), tones.utterances, [0, 1], OPTIONS)
    found = dict(take_each(Noting(), tones.utterances, [0, 1], OPTIONS, lambda number, frames: frames.sum(dim=1)))
    assert sorted(found) == [*range(len(tones.utterances))]
    for number, (start, count) in enumerate(table.starts().values()):
        expected = table.frames[:, start : start + count].sum(dim=1)  # (L, F, D) -> (L, D)
        torch.testing.assert_close(found[number], expected)


def test_batches_are_as_small_as_two_for_each_thread_must_be_within_the_memory(tones: Corpus) -> None:
    upstream = Sized()
    num_bytes = BatchWork(
        upstream, table_index(upstream, tones.utterances), [0], OPTIONS, lambda number, frames: None
    ).num_bytes
    with threads(2):
        options = dataclasses.replace(OPTIONS, batch_seconds=1000.0, ahead_bytes=12 * num_bytes([0]))
        assert len([*take_each(upstream, tones.utterances, [0], options, lambda number, frames: None)]) == len(
            tones.utterances
        )
    most = max(table_index(upstream, tones.utterances).counts)
    assert most < max(upstream.frames) <= 3 * most, "a batch of three utterances takes a quarter"


def test_a_sound_that_cannot_be_read_is_named_after_the_batches_before_it(tones: Corpus) -> None:
    broken = dataclasses.replace(tones.utterances[2], samples_sha256="0" * 64)
    utterances = [*tones.utterances[:2], broken, *tones.utterances[3:6]]
    index = table_index(Noting(), utterances)
    found = run_batches(Noting(), index, [0], [[0], [1], [3, 2], [4], [5]], OPTIONS)
    assert [next(found)[0], next(found)[0]] == [[0], [1]]
    with pytest.raises(DataError, match="not the one that the manifest was made of") as caught:
        next(found)
    assert caught.value.utterance == broken.id


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*/*.shard")}


def test_shards_are_the_same_bytes_with_any_number_of_threads(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repbench.benchmark.features.shard_writer.SHARD_BYTES", 5_000)
    for number, upstream in ((1, Envelope()), (3, Noting())):
        origin = origin_for(upstream, "f", "float32")
        store = FeatureStore(tmp_path / str(number), upstream, origin, name="x", quota_bytes=GIB, say=print)
        with threads(number):
            store.extract(tones.utterances, [0, 1], OPTIONS)
    assert len(shards(tmp_path / "1")) > 3
    assert shards(tmp_path / "1") == shards(tmp_path / "3")


def test_shards_are_written_beside_the_computing_and_are_there_at_the_end(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream, written = Inheriting(), list[Path]()

    def write_late(folder: Path, origin: Any, name: str, entries: Sequence[UnwrittenLayer], replaced: Any) -> Path:
        if not written:  # the next batch is computed meanwhile
            batches = {each.batch for each in entries}
            until(lambda: len(upstream.calls) > len(batches), 10)
        time.sleep(0.05)
        written.append(write_shard(folder, origin, name, entries, replaced))
        return written[-1]

    monkeypatch.setattr("repbench.benchmark.features.shard_writer.SHARD_BYTES", 5_000)
    monkeypatch.setattr("repbench.benchmark.features.store.write_shard", write_late)
    origin = origin_for(upstream, "f", "float32")
    store = FeatureStore(tmp_path, upstream, origin, name="x", quota_bytes=GIB, say=print)
    store.extract(tones.utterances, [0], OPTIONS)
    assert len(written) == len(shards(tmp_path)) > 1
    assert store.lacking(tones.utterances, [0]) == []


class Late:
    """Copies whose values are there only after `wait`, as those of a GPU."""

    def __init__(self) -> None:
        self.started = list[tuple[Tensor, Tensor]]()

    def start(self, values: Tensor) -> Tensor:
        copy = torch.full_like(values, 77)
        self.started.append((copy, values))
        return copy

    def wait(self) -> None:
        for copy, values in self.started:
            copy.copy_(values)


def on_their_way(layers: Tensor, lengths: Sequence[int], dtype: str = "float32") -> Tensor:
    states = HiddenStates(layers, torch.tensor(lengths))
    sounds = PaddedSounds.of([torch.zeros(640), torch.zeros(960)], ["a", "b"])
    late = OnTheirWay(states, [2, 0], getattr(torch, dtype), Late())
    return late.wait(Envelope().info, sounds, [2, 3])


def test_what_comes_late_is_what_would_have_come_at_once() -> None:
    layers = torch.randn(3, 2, 3, 4)
    kept = on_their_way(layers, [2, 3], "bfloat16")
    assert torch.equal(kept, layers[[2, 0]].bfloat16())


def test_what_breaks_the_contract_is_refused_late_with_the_same_words() -> None:
    layers = torch.randn(3, 2, 3, 4)
    with pytest.raises(
        PluginError, match="`num_frames` promises 3 frames for 960 samples, but `forward` gives 2"
    ) as one:
        on_their_way(layers, [2, 2])
    layers[1, 1, 0, 0] = torch.nan
    with pytest.raises(PluginError, match="hold NaN or infinity") as two:
        on_their_way(layers, [2, 3])
    assert one.value.utterance == two.value.utterance == "b"


def test_what_a_dtype_cannot_hold_comes_as_it_is_for_the_error_that_names_it() -> None:
    layers = torch.ones(3, 2, 3, 4)
    layers[0, 1, 2, 3] = 70_000
    kept = on_their_way(layers, [2, 3], "float16")
    assert kept.dtype == torch.float32
    with pytest.raises(NonFiniteError, match="A feature of 70000 is too large for float16"):
        rounded(kept[:, 1], "float16", "b")


SLOW = """
import pathlib, time
from repbench.testing import Envelope

class Slow(Envelope):
    runs_concurrently = {concurrently}

    def forward(self, waveforms, lengths):
        if len(waveforms) > 1:  # not the one that costs are counted on
            with pathlib.Path({mark!r}).open("a") as mark:
                mark.write("x")
            time.sleep({seconds})
        return super().forward(waveforms, lengths)

def slow(*, checkpoint=None, seed=0):
    return Slow().eval()

upstreams = {{"slow": slow}}
"""
"""An upstream that takes its time and leaves a mark for each batch."""


@contextlib.contextmanager
def started(folder: Path, corpus: Path, *, concurrently: bool, seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A run that computes features; killed at the end, if it still runs."""
    plugin, mark = folder / "slow.py", folder / "mark"
    plugin.write_text(SLOW.format(concurrently=concurrently, mark=str(mark), seconds=seconds))
    mark.unlink(missing_ok=True)
    command: list[str | Path] = [
        sys.executable, "-m", "repbench", "run", "--upstream", "slow", "--downstream", "speaker", "--plugin", plugin,
        "--corpus", corpus, "--out", folder / "runs", "--threads", "2", "--set", "extraction.batch_seconds=2",
        "--set", "probe.steps=5",
    ]  # fmt: skip
    variables = {**os.environ, "REPBENCH_CACHE": str(folder / "cache")}
    run = subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: mark.exists() or run.poll() is not None, 300)
        yield run
    finally:
        run.kill()
        run.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("concurrently", [True, False])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_fault_39_a_signal_ends_a_run_that_computes_features(
    tones: Corpus, tmp_path: Path, concurrently: bool, number: signal.Signals, code: int
) -> None:
    corpus = tones.utterances[0].audio.parents[1]
    with started(tmp_path, corpus, concurrently=concurrently, seconds=0.2) as run:
        run.send_signal(number)
        _, errors = run.communicate(timeout=300)
    assert (run.returncode, "Traceback" in errors) == (code, False), errors
    marks = (tmp_path / "mark").read_text()
    assert len(marks) < 8, "not all batches were computed after the signal"


@pytest.mark.slow
def test_fault_39_a_run_that_is_killed_goes_on_to_the_features_of_an_undisturbed_one(
    tones: Corpus, tmp_path: Path
) -> None:
    corpus, contents = tones.utterances[0].audio.parents[1], []
    for name, kills in (("killed", 2), ("undisturbed", 0)):
        folder = tmp_path / name
        folder.mkdir()
        for _ in range(kills):
            with started(folder, corpus, concurrently=True, seconds=0.2) as run:
                run.kill()
        with started(folder, corpus, concurrently=True, seconds=0) as run:
            _, errors = run.communicate(timeout=300)
        assert run.returncode == 0, errors
        (predictions,) = (folder / "runs").rglob("predictions.jsonl")
        record = json.loads((predictions.parent / "record.json").read_text())
        assert record["environment"]["threads"] == 2
        contents.append(predictions.read_bytes())
    assert contents[0] == contents[1]
