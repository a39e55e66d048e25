"""The feature store: stored features are not computed again, and no wrong feature is ever read."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import functools
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

from repbench.benchmark.features import allocation, maintenance, shard_writer, store
from repbench.benchmark.features.extraction import ExtractionOptions, extract
from repbench.benchmark.features.store import FeatureStore, origin_for
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.protocol import ExtractionSettings, ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest, WrittenRecord, run
from repbench.corpora import manifest
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.open import open_corpus
from repbench.errors import DataError, EnvironmentFault, NonFiniteError, UsageError
from repbench.progress import Silence
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates
from tests.commands import repbench

CPU = torch.device("cpu")
ENVELOPE = "py:repbench.testing.fakes:envelope"
PROBE = ProbeSettings(steps=40, batch_frames=256, hidden_units=32, selection_points=4)
BATCH_SECONDS = 5.0
"""Some four utterances: a shard of several, a corpus of several batches."""


class Listening(Envelope):
    """An envelope that counts the utterances of its batches."""

    def __init__(self, *, hop_samples: int = 320) -> None:
        super().__init__(hop_samples=hop_samples)
        self.num_heard = 0
        self.eval().requires_grad_(False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """As the envelope."""
        self.num_heard += len(lengths)
        return super().forward(waveforms, lengths)


class Said(Silence):
    """Remembers every line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep it."""
        self.lines.append(line)

    def of_store(self) -> list[str]:
        """What was said of the store."""
        return [line for line in self.lines if "features" in line]


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("store") / "tones", num_speakers=3)


def stored(
    folder: Path,
    utterances: Sequence[Utterance],
    layers: Sequence[int] = (0, 1),
    *,
    upstream: Envelope | None = None,
    dtype: str = "float32",
    precision: str = "float32",
    gib: float = 20.0,
    batch_seconds: float = BATCH_SECONDS,
    say: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[FeatureTable, int]:
    """The features through a store in `folder`, and the number of utterances that were computed."""
    upstream = upstream or Listening()
    origin = origin_for(upstream, upstream.fingerprint(), dtype, precision)
    features = FeatureStore(
        folder, upstream, origin, name="envelope", quota_bytes=gib * store.GIB, say=say or _nothing_is_said
    )
    before = getattr(upstream, "num_heard", 0)
    options = ExtractionOptions(batch_seconds=batch_seconds, device=CPU, dtype=dtype, precision=precision)
    table = features.extract(utterances, layers, options, progress=progress)
    return table, getattr(upstream, "num_heard", 0) - before


def computed(utterances: Sequence[Utterance], layers: Sequence[int] = (0, 1), dtype: str = "float32") -> FeatureTable:
    options = ExtractionOptions(batch_seconds=BATCH_SECONDS, device=CPU, dtype=dtype)
    return extract(Listening(), utterances, layers, options)


def _nothing_is_said(line: str) -> None:
    raise AssertionError(line)


def same(one: FeatureTable, other: FeatureTable) -> bool:
    return (one.ids, one.counts) == (other.ids, other.counts) and torch.equal(one.frames, other.frames)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.shard"))


def go(corpus: Path, out: Path, reporter: Said, upstream: str = ENVELOPE, **extraction: Any) -> WrittenRecord:
    protocol = Protocol(probe=PROBE, extraction=ExtractionSettings(batch_seconds=BATCH_SECONDS, **extraction))
    request = RunRequest(
        upstream=upstream, downstream="phone", corpus=str(corpus), layer="weighted", out=out, protocol=protocol
    )
    (written,) = run(request, reporter)
    return written


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("upstream", [ENVELOPE, "mel"])
def test_cached_uncached_and_streamed_runs_give_identical_scores(
    upstream: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    tone_corpus(tmp_path / "c")
    said = Said()
    uncached, cached, off = (
        go(tmp_path / "c", tmp_path, said, upstream, dtype=dtype, store_gib=gib) for gib in (20.0, 20.0, 0.0)
    )
    assert said.of_store() == []
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "other"))
    streamed = go(tmp_path / "c", tmp_path, said, upstream, dtype=dtype, store_gib=1e-6)
    (line,) = said.of_store()
    assert "quota of 1e-06 GiB (extraction.store_gib): features are streamed, not stored" in line
    assert not shards(tmp_path / "other" / "features")
    for other in (cached, off, streamed):
        assert other.record.metrics == uncached.record.metrics
        assert other.record.selection == uncached.record.selection
    assert uncached.record.protocol["extraction"]["dtype"] == dtype


def test_a_second_run_hears_nothing(tones: Corpus, tmp_path: Path) -> None:
    first, heard = stored(tmp_path, tones.utterances)
    assert heard == len(tones.utterances)
    again, heard = stored(tmp_path, tones.utterances)
    assert heard == 0
    assert same(first, again)
    assert same(first, computed(tones.utterances))
    told: list[tuple[int, int]] = []
    few, heard = stored(tmp_path, tones.utterances[5:2:-1], [1], progress=lambda *done: told.append(done))
    assert (heard, told, few.ids) == (0, [(3, 3)], tuple(each.id for each in tones.utterances[5:2:-1]))


def test_only_the_layers_asked_for_are_computed_stored_and_read(tones: Corpus, tmp_path: Path) -> None:
    _, heard = stored(tmp_path, tones.utterances, [1])
    assert heard == len(tones.utterances)
    (held,) = maintenance.stored_features(tmp_path)
    assert (held.layers, held.utterances, held.names) == ((1,), len(tones.utterances), ("envelope",))
    size = store.bytes_below(tmp_path)
    both, heard = stored(tmp_path, tones.utterances, [1, 0])
    assert heard == len(tones.utterances)
    assert maintenance.stored_features(tmp_path)[0].layers == (0, 1)
    assert store.bytes_below(tmp_path) < 2.2 * size
    assert same(both, computed(tones.utterances, [1, 0]))


def test_what_was_stored_before_an_interrupt_is_not_computed_again(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 1)
    done_before = []

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            done_before.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, tones.utterances, progress=interrupt)
    table, heard = stored(tmp_path, tones.utterances)
    assert heard == len(tones.utterances) - done_before[0] > 0
    assert same(table, computed(tones.utterances))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("else", encoding="utf-8")


def cut(path: Path, num_bytes: int) -> None:
    os.truncate(path, num_bytes if num_bytes >= 0 else path.stat().st_size + num_bytes)


def zero(path: Path, share: int) -> None:
    num_bytes = path.stat().st_size // share
    path.write_bytes(bytes(num_bytes) + path.read_bytes()[num_bytes:])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a bit of the features": lambda path: flip(path, 200),
    "a bit of the index": lambda path: flip(path, -200),
    "a bit of the footer": lambda path: flip(path, -20),
    "a bit of the start": lambda path: flip(path, 3),
    "cut off in the middle": lambda path: cut(path, path.stat().st_size // 2),
    "cut off by a byte": lambda path: cut(path, -1),
    "empty": lambda path: cut(path, 0),
    "zeroed": lambda path: zero(path, 1),
    "a third zeroed": lambda path: zero(path, 3),
    "a folder": replace_by_folder,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fault_27_a_damaged_entry_is_noticed_recomputed_and_said_once(
    damage: str, dtype: str, tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 1)
    first, _ = stored(tmp_path, tones.utterances, dtype=dtype)
    assert len(shards(tmp_path)) > 3
    DAMAGES[damage](shards(tmp_path)[1])
    assert maintenance.verify(tmp_path)[1]
    said = Said()
    again, heard = stored(tmp_path, tones.utterances, dtype=dtype, say=said.say)
    assert same(first, again)
    assert 0 < heard < len(tones.utterances)
    (line,) = said.lines
    assert "damaged" in line
    assert "computed again" in line
    once_more, heard = stored(tmp_path, tones.utterances, dtype=dtype)
    assert heard == 0
    assert same(first, once_more)
    assert maintenance.verify(tmp_path)[1] == []


def test_fault_27_an_entry_computed_again_is_the_one_that_was_lost(tones: Corpus, tmp_path: Path) -> None:
    class Sociable(Listening):
        """Its features depend on who is in the batch, as those of a large matrix product do in their last digits."""

        def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
            """As the envelope, and a little more."""
            states = super().forward(waveforms, lengths)
            return HiddenStates(states.layers * (1 + 1e-6 * float(lengths.sum())), states.lengths)

    first, _ = stored(tmp_path, tones.utterances, upstream=Sociable())
    flip(shards(tmp_path)[0], 200)
    again, heard = stored(tmp_path, tones.utterances, upstream=Sociable(), say=Said().say)
    assert 1 < heard < len(tones.utterances)
    assert same(first, again)
    few = tones.utterances[:7]
    alone, _ = stored(tmp_path / "few", few[:5], upstream=Sociable())
    more, heard = stored(tmp_path / "few", few, upstream=Sociable())
    assert heard == 2, "what others share a batch with now does not make them be computed again"
    assert torch.equal(more.frames[:, : alone.frames.shape[1]], alone.frames)


def with_another_weight(upstream: Envelope) -> None:
    with torch.no_grad():
        upstream.projection[0, 0] += 1e-6


def other_rate(upstream: Envelope) -> None:
    upstream.info = dataclasses.replace(upstream.info, sample_rate_hz=8_000)


@pytest.mark.parametrize(
    ("hop_samples", "change", "layers", "dtype"),
    [
        pytest.param(320, with_another_weight, (1,), "float32", id="a weight"),
        pytest.param(160, None, (1,), "float32", id="a setting"),
        pytest.param(320, other_rate, (1,), "float32", id="the rate of the upstream"),
        pytest.param(320, None, (0,), "float32", id="the layer"),
        pytest.param(320, None, (1,), "float16", id="the dtype"),
    ],
)
def test_fault_28_another_model_layer_or_dtype_misses(
    hop_samples: int,
    change: Callable[[Envelope], None] | None,
    layers: tuple[int, ...],
    dtype: str,
    tones: Corpus,
    tmp_path: Path,
) -> None:
    stored(tmp_path, tones.utterances[:3], [1])
    upstream = Listening(hop_samples=hop_samples)
    if change is not None:
        change(upstream)
    assert stored(tmp_path, tones.utterances[:3], layers, upstream=upstream, dtype=dtype)[1] == 3


@pytest.mark.parametrize(("first", "second"), [("float16", "bfloat16"), ("bfloat16", "float16")])
def test_fault_28_a_dtype_of_the_same_size_misses(first: str, second: str, tones: Corpus, tmp_path: Path) -> None:
    stored(tmp_path, tones.utterances[:3], dtype=first)
    table, heard = stored(tmp_path, tones.utterances[:3], dtype=second)
    assert heard == 3
    assert same(table, computed(tones.utterances[:3], dtype=second))


def test_fault_28_features_of_coarser_products_are_not_taken_for_exact_ones(tones: Corpus, tmp_path: Path) -> None:
    stored(tmp_path, tones.utterances[:3], precision="bfloat16")
    assert stored(tmp_path, tones.utterances[:3])[1] == 3
    assert stored(tmp_path, tones.utterances[:3], precision="bfloat16")[1] == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_a_shard_in_the_folder_of_another_origin_is_not_read(tones: Corpus, tmp_path: Path) -> None:
    stored(tmp_path, tones.utterances[:3], dtype="bfloat16")
    (foreign,) = shards(tmp_path)
    stored(tmp_path, tones.utterances[:1], dtype="float16")
    (folder,) = {path.parent for path in shards(tmp_path)} - {foreign.parent}
    shutil.copy(foreign, folder)
    table, heard = stored(tmp_path, tones.utterances[:3], dtype="float16")
    assert heard == 2
    assert same(table, computed(tones.utterances[:3], dtype="float16"))


@pytest.mark.parametrize(
    "change", [{"samples_sha256": "0" * 64}, {"sample_rate_hz": 16_001}], ids=lambda each: min(each)
)
def test_fault_28_another_sound_misses(change: dict[str, Any], tones: Corpus, tmp_path: Path) -> None:
    stored(tmp_path, tones.utterances[:1])
    other = dataclasses.replace(tones.utterances[0], **change)
    with pytest.raises(DataError, match="manifest"):  # what was not found is read, and is not what is promised here
        stored(tmp_path, [other])


@pytest.mark.parametrize(("sample_rate_hz", "computed"), [(16_000, 0), (8_000, 2)])
def test_fault_28_another_resampler_misses_what_was_resampled(
    sample_rate_hz: int, computed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tone_corpus(tmp_path / "c", num_speakers=1, sample_rate_hz=sample_rate_hz)
    stored(tmp_path / "f", corpus.utterances[:2])
    assert stored(tmp_path / "f", corpus.utterances[:2])[1] == 0
    monkeypatch.setattr("repbench.benchmark.features.store.RESAMPLER", "another")
    assert stored(tmp_path / "f", corpus.utterances[:2])[1] == computed


HITS: dict[str, Callable[[Utterance], None]] = {
    "its modification time": lambda each: os.utime(each.audio, (0, 2**31)),
    "nothing at all": lambda each: None,
}


@pytest.mark.parametrize("change", HITS)
def test_fault_28_the_same_content_hits(change: str, tones: Corpus, tmp_path: Path) -> None:
    stored(tmp_path, tones.utterances[:1])
    HITS[change](tones.utterances[0])
    assert stored(tmp_path, tones.utterances[:1])[1] == 0


def test_fault_28_the_same_sound_elsewhere_hits_and_a_changed_one_misses(tmp_path: Path) -> None:
    corpus = tone_corpus(tmp_path / "c", num_speakers=1)
    stored(tmp_path / "f", corpus.utterances)
    shutil.move(tmp_path / "c", tmp_path / "moved")
    moved = manifest.move(tmp_path / "moved", tmp_path / "moved")
    assert moved.utterances[0].audio != corpus.utterances[0].audio
    assert stored(tmp_path / "f", moved.utterances)[1] == 0
    samples, rate = soundfile.read(moved.utterances[0].audio)
    soundfile.write(moved.utterances[0].audio, samples * 0.99, rate)
    upstream = Listening()
    with pytest.raises(DataError, match=f"not the one that the manifest.*{moved.utterances[0].id}"):
        stored(tmp_path / "g", moved.utterances, upstream=upstream)


def test_fault_28_two_models_with_the_same_name_do_not_share(tones: Corpus, tmp_path: Path) -> None:
    other = Listening()
    with_another_weight(other)
    one, _ = stored(tmp_path, tones.utterances)
    two, heard = stored(tmp_path, tones.utterances, upstream=other)
    assert heard == len(tones.utterances)
    assert not torch.equal(one.frames, two.frames)
    assert [held.names for held in maintenance.stored_features(tmp_path)] == [("envelope",), ("envelope",)]


def in_children(function: str, *arguments: object) -> None:
    """Call a function of this module in a process of its own, whose forks are quick."""
    code = f"from tests.benchmark.test_store import {function}; {function}(*{arguments!r})"
    here = Path(__file__).parents[2]
    # A fork does not take the threads of OpenMP along, and would wait for them for ever.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=env, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr


def fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return child


def digest(table: FeatureTable) -> str:
    return hashlib.sha256(table.frames.numpy().tobytes()).hexdigest()


def four_at_once(corpus: str, folder: str, locks: bool) -> None:
    utterances = open_corpus(corpus).utterances
    expected = digest(computed(utterances))
    shard_writer.SHARD_BYTES = 1
    if not locks:
        fcntl.flock = lambda *ignored: None
    waits, goes = os.pipe()

    def work() -> None:
        os.close(goes)
        os.read(waits, 1)
        assert digest(stored(Path(folder), utterances)[0]) == expected

    children = [fork(work) for _ in range(4)]
    os.close(goes)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0, 0, 0]
    assert stored(Path(folder), utterances)[1] == 0
    assert not list(Path(folder).glob("*/.tmp-*"))
    assert maintenance.verify(Path(folder))[1] == []


@pytest.mark.parametrize("locks", [True, False], ids=["with locks", "where locks do nothing"])
def test_fault_29_four_processes_on_one_empty_cache_all_finish_right(tmp_path: Path, locks: bool) -> None:
    tone_corpus(tmp_path / "c", num_speakers=3)
    in_children("four_at_once", str(tmp_path / "c"), str(tmp_path / "f"), locks)


def die_in_flush(number: int) -> None:
    """Kill this process when it is about to flush a file or folder for the nth time."""
    real, calls = os.fsync, itertools.count(1)

    def flush(fd: Any) -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        real(fd)

    os.fsync = flush


def kill_in_mid_write(corpus: str, folder: str, times: int) -> None:
    """Kill writers: one after the other in their first flushes, which are known to be in mid-write, then at random."""
    utterances = open_corpus(corpus).utterances
    expected = digest(computed(utterances))
    shard_writer.SHARD_BYTES = 1
    draw = random.Random(0)
    left_unfinished = []

    def work(flush: int) -> None:
        if flush in FLUSHES:
            die_in_flush(flush)
        while True:
            stored(Path(folder), utterances)
            maintenance.clear(Path(folder))

    for time_ in range(times):
        child = fork(functools.partial(work, time_ + 1))
        if time_ + 1 not in FLUSHES:
            time.sleep(draw.uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        left_unfinished.append(len(list(Path(folder).glob("*/.tmp-*"))))
        assert maintenance.verify(Path(folder))[1] == []
        assert digest(stored(Path(folder), utterances)[0]) == expected
        assert not list(Path(folder).glob("*/.tmp-*"))
        maintenance.clear(Path(folder))
    assert left_unfinished[: len(FLUSHES)] == [1, 0, 1], "a kill did not come in the middle of a write"


FLUSHES = (1, 2, 3)
"""In which a writer is killed: of the first shard, of its folder when the shard has its name, of the second shard."""


@pytest.mark.parametrize("times", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_fault_1_a_kill_in_mid_write_leaves_no_bad_shard(tmp_path: Path, times: int) -> None:
    tone_corpus(tmp_path / "c", num_speakers=3)
    in_children("kill_in_mid_write", str(tmp_path / "c"), str(tmp_path / "f"), times)


def test_a_file_that_someone_is_writing_is_left_alone(tones: Corpus, tmp_path: Path) -> None:
    stored(tmp_path, tones.utterances[:2])
    folder = shards(tmp_path)[0].parent
    host = os.uname().nodename
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    files = {
        "mine": folder / f".tmp-{os.getpid()}@{host}-abcdefgh-x.shard",
        "dead": folder / f".tmp-{gone.pid}@{host}-abcdefgh-x.shard",
        "elsewhere": folder / f".tmp-{gone.pid}@not-{host}-abcdefgh-x.shard",
    }
    for path in files.values():
        path.write_bytes(b"unfinished")
    assert stored(tmp_path, tones.utterances[:2])[1] == 0
    assert [name for name, path in files.items() if path.exists()] == ["mine", "elsewhere"]


def test_fault_2_a_disk_too_small_is_foreseen(tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda folder: 2**20)
    said = Said()
    table, _ = stored(tmp_path, tones.utterances, say=said.say)
    assert same(table, computed(tones.utterances))
    (line,) = said.lines
    assert "do not fit the disk, which has 1.0 MiB free: features are streamed, not stored" in line
    assert not shards(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE])
def test_fault_2_a_write_that_fails_ends_the_storing_not_the_run(
    number: int, tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shard_writer, "SHARD_BYTES", 1)
    monkeypatch.setattr(os, "fsync", fail)
    said = Said()
    table, _ = stored(tmp_path, tones.utterances, say=said.say)
    assert same(table, computed(tones.utterances))
    (line,) = said.lines
    assert line.startswith("note: the feature store cannot be written to")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_fault_32_a_run_works_where_the_cache_may_not_be_written(tmp_path: Path) -> None:
    tone_corpus(tmp_path / "c", num_speakers=6)
    closed = tmp_path / "closed"
    closed.write_text("a file where the cache should be", encoding="utf-8")
    done = repbench(
        "run", "--upstream", ENVELOPE, "--downstream", "phone", "--corpus", tmp_path / "c", "--out", tmp_path / "runs",
        "--set", "probe.steps=5", env={"REPBENCH_CACHE": str(closed / "cache")},
    )  # fmt: skip
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if "cannot be written" in line]
    assert line.endswith("features are streamed, not stored")


def read_as_somebody_else(corpus: str, folder: str) -> None:
    utterances = open_corpus(corpus).utterances
    expected = digest(stored(Path(folder), utterances[:4])[0])
    said: list[str] = []

    def work() -> None:
        os.setgid(65534)
        os.setuid(65534)
        table, heard = stored(Path(folder), utterances[:4])
        assert (heard, digest(table)) == (0, expected)
        table, heard = stored(Path(folder), utterances[:6], say=said.append)
        assert (heard, len(said), "cannot be written" in said[0]) == (2, 1, True)
        assert digest(table) == digest(computed(utterances[:6]))

    assert os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_fault_32_another_users_cache_is_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tone_corpus(Path(folder) / "c", num_speakers=1)
        in_children("read_as_somebody_else", f"{folder}/c", f"{folder}/f")


def test_a_table_too_large_for_memory_lies_in_a_file(
    tones: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allocation, "MAPPED_BYTES", 0)
    one, _ = stored(tmp_path, tones.utterances)
    two, _ = stored(tmp_path, tones.utterances)
    assert same(one, two)
    assert same(one, computed(tones.utterances))
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert sum(str(tmp_path) in line for line in mapped.splitlines()) == 2
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(shards(tmp_path))


def test_a_feature_too_large_for_its_dtype_is_refused(tones: Corpus, tmp_path: Path) -> None:
    loud = Listening()
    with torch.no_grad():
        loud.projection.mul_(1e6)
    with pytest.raises(NonFiniteError, match=r"too large for float16 \(utterance s.*key extraction.dtype\)"):
        stored(tmp_path, tones.utterances, upstream=loud, dtype="float16")
    stored(tmp_path, tones.utterances, upstream=loud, dtype="bfloat16")


@pytest.mark.parametrize("fits", [2, 1, 0])
def test_fault_49_a_batch_too_large_for_the_memory_is_halved(fits: int, tones: Corpus, tmp_path: Path) -> None:
    class Forgetful(Listening):
        """Has room for so many utterances."""

        def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
            """As the envelope, if they fit."""
            if len(lengths) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(waveforms, lengths)

    if not fits:
        with pytest.raises(EnvironmentFault, match=r"memory does not suffice for this utterance.*utterance s"):
            stored(tmp_path, tones.utterances, upstream=Forgetful())
        return
    table, heard = stored(tmp_path, tones.utterances, upstream=Forgetful())
    assert heard == len(tones.utterances)
    torch.testing.assert_close(table.frames, computed(tones.utterances).frames)


def test_the_cache_is_listed_verified_and_cleared(tones: Corpus, tmp_path: Path) -> None:
    place = {"REPBENCH_CACHE": str(tmp_path)}
    folder = tmp_path / "features"
    assert repbench("cache", "list", "--json", env=place).json["upstreams"] == []
    stored(folder, tones.utterances)
    stored(folder, tones.utterances[:3], [1], upstream=Listening(hop_samples=160), dtype="float16")
    listed = repbench("cache", "list", "--json", env=place).json
    sizes = sorted((row["utterances"], row["layers"], row["dtype"], row["names"]) for row in listed["upstreams"])
    assert sizes == [(3, [1], "float16", ["envelope"]), (len(tones.utterances), [0, 1], "float32", ["envelope"])]
    assert listed["bytes"] == store.bytes_below(folder)
    whole = repbench("cache", "verify", env=place)
    assert (whole.code, f"{2 * len(tones.utterances) + 3} entries, 0 damaged" in whole.out) == (0, True)
    flip(shards(folder)[0], 100)
    damaged = repbench("cache", "verify", "--json", env=place)
    (fault,) = damaged.json["damaged"]
    assert (damaged.code, fault["file"], fault["layer"] in {0, 1}) == (4, str(shards(folder)[0]), True)
    assert fault["sound"].split("@")[0] in {each.samples_sha256 for each in tones.utterances}
    said = repbench("cache", "verify", env=place)
    assert (said.code, fault["sound"] in said.err, "error: 1 stored" in said.err) == (4, True, True)
    one = Listening().fingerprint()
    assert repbench("cache", "clear", "--upstream", "nobody", env=place).code == 2
    before = [path.read_bytes() for path in shards(folder)]
    tried = repbench("cache", "clear", "--upstream", one[:10], "--dry-run", env=place)
    assert " files would be removed, " in tried.out
    assert repbench("cache", "clear", "--dry-run", "--json", env=place).json["files"] == len(before)
    assert [path.read_bytes() for path in shards(folder)] == before
    assert repbench("cache", "clear", "--upstream", one[:10], env=place).code == 0
    assert [held.utterances for held in maintenance.stored_features(folder)] == [3]
    assert repbench("cache", "clear", "--json", env=place).json["files"] == 1
    assert not list(folder.iterdir())


def test_an_ambiguous_fingerprint_clears_nothing(tones: Corpus, tmp_path: Path) -> None:
    stored(tmp_path, tones.utterances[:2])
    with pytest.raises(UsageError, match="No upstreams"):
        maintenance.clear(tmp_path, "xyz")
    with pytest.raises(UsageError, match="begins with ``"):
        maintenance.clear(tmp_path, "")
    assert shards(tmp_path)
