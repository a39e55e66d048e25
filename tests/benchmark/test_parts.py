"""Parts of one extraction together store what a single run stores, bit for bit, and a run then computes nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from repbench.benchmark.features.extraction import ExtractionOptions
from repbench.benchmark.features.parts import ExtractionPart, PartedStore, batches_of
from repbench.benchmark.features.shards import current_entries, read_index
from repbench.benchmark.features.store import GIB, FeatureStore, origin_for
from repbench.benchmark.pipeline.extract_part import PartRequest, StoredPart, extract_part
from repbench.benchmark.protocol import load_protocol
from repbench.benchmark.run import RunRequest, run
from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import EnvironmentFault, UsageError
from repbench.progress import Silence
from repbench.testing import Envelope, tone_corpus
from repbench.upstream.contract import HiddenStates
from tests.commands import repbench

SETTINGS = ["probe.steps=10", "extraction.batch_seconds=5"]
"""Some four utterances in a batch."""

PLUGIN = """
import os, time
from repbench.testing.fakes import Envelope
from repbench.upstream.contract import HiddenStates

class Crowded(Envelope):
    def forward(self, waveforms, lengths):
        with open(os.environ["COUNTED"], "a") as file:
            file.write("".join(f"{length}\\n" for length in lengths.tolist()))
        time.sleep(float(os.environ.get("LINGER", "0")))
        states = super().forward(waveforms, lengths)
        valid = states.layers.abs().sum(-1, keepdim=True) > 0
        return HiddenStates(states.layers + valid * 1e-9 * lengths.sum(), states.lengths)

def crowded(*, checkpoint=None, seed=0):
    return Crowded().eval()
"""
"""An envelope whose last digits depend on the whole batch, as those of matrix products do."""


class Crowded(Envelope):
    """An envelope whose last digits depend on the whole batch, and which counts."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heard = 0
        self.eval().requires_grad_(False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """As the envelope."""
        self.num_heard += len(lengths)
        states = super().forward(waveforms, lengths)
        valid = states.layers.abs().sum(-1, keepdim=True) > 0
        return HiddenStates(states.layers + valid * 1e-9 * lengths.sum(), states.lengths)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("parts") / "tones", num_speakers=4)


def opened(kind: type[Any], folder: Path, upstream: Envelope, gib: float = 20.0) -> Any:
    origin = origin_for(upstream, upstream.fingerprint(), "float32")
    return kind(folder, upstream, origin, name="crowded", quota_bytes=gib * GIB, say=lambda line: None)


OPTIONS = ExtractionOptions(batch_seconds=5.0, device=torch.device("cpu"))


def contents(cache: Path) -> dict[tuple[str, int], tuple[str, str]]:
    """From sound and layer to the batch that computed it and the hash of its features."""
    shards = [read_index(path) for path in (cache / "features").glob("*/*.shard")]
    return {key: (entries[0][1].batch, entries[0][1].sha256) for key, entries in current_entries(shards).items()}


def filled(folder: Path, part: str, extractions: Sequence[Sequence[Utterance]], layers: Sequence[int] = (0, 1)) -> int:
    """The number of utterances that a part computes."""
    upstream = Crowded()
    store: PartedStore = opened(PartedStore, folder, upstream)
    batches = batches_of(ExtractionPart.of(part), store.batches(extractions, 5.0), 16_000)
    num_missing = store.fill(batches, layers, OPTIONS)
    assert upstream.num_heard >= num_missing
    return upstream.num_heard


# which part


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/2/3", "", "٢/٣"])
def test_what_names_no_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"number from 1 to the number of parts.*key --shard"):
        ExtractionPart.of(text)


def test_the_parts_divide_the_batches_and_have_nearly_the_same_seconds(tones: Corpus, tmp_path: Path) -> None:
    store: PartedStore = opened(PartedStore, tmp_path, Crowded())
    batches = store.batches([tones.utterances], 5.0)
    parts = [batches_of(ExtractionPart(number, 3), batches, 16_000) for number in (1, 2, 3)]

    assert sorted(each for part in parts for each in map(str, part)) == sorted(map(str, batches))
    seconds = [sum(len(batch) * max(each.seconds for each in batch) for batch in part) for part in parts]
    longest = max(len(batch) * max(each.seconds for each in batch) for batch in batches)
    assert max(seconds) - min(seconds) <= longest


# what is stored


def test_parts_store_the_bits_of_single_extractions_of_several_splits(tones: Corpus, tmp_path: Path) -> None:
    every = list(tones.utterances)
    extractions = [every[:13], every[13:20], every[20:27], every[5:30], every]  # two tasks, whose splits overlap
    single: FeatureStore = opened(FeatureStore, tmp_path / "single" / "features", Crowded())
    for utterances in extractions:
        single.extract(utterances, (0, 1), OPTIONS)
    for part in ("3/3", "1/3", "2/3"):
        filled(tmp_path / "parts" / "features", part, extractions)

    assert len(contents(tmp_path / "single")) == 2 * len(every)
    assert contents(tmp_path / "parts") == contents(tmp_path / "single")
    late = Crowded()
    again: FeatureStore = opened(FeatureStore, tmp_path / "parts" / "features", late)
    for utterances in extractions:
        again.extract(utterances, (0, 1), OPTIONS)
    assert late.num_heard == 0


def test_a_part_that_is_stored_is_not_computed_again_and_another_layer_is_computed_in_the_same_batches(
    tones: Corpus, tmp_path: Path
) -> None:
    num_first = filled(tmp_path / "a" / "features", "1/2", [tones.utterances], (0,))
    assert num_first > 0
    assert filled(tmp_path / "a" / "features", "1/2", [tones.utterances], (0,)) == 0
    assert filled(tmp_path / "a" / "features", "1/2", [tones.utterances], (0, 1)) == num_first
    filled(tmp_path / "b" / "features", "1/2", [tones.utterances], (0, 1))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_part_that_cannot_be_stored_is_refused_before_it_is_computed(tones: Corpus, tmp_path: Path) -> None:
    upstream = Crowded()
    store: PartedStore = opened(PartedStore, tmp_path, upstream, gib=1e-6)

    with pytest.raises(EnvironmentFault, match=r"takes no more.*Make room"):
        store.fill(store.batches([tones.utterances], 5.0), (0, 1), OPTIONS)
    assert upstream.num_heard == 0


# the command


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "crowded_upstream.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    monkeypatch.setenv("COUNTED", str(tmp_path / "counted"))
    return {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "plugins"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
        "COUNTED": str(tmp_path / "counted"),
    }


CROWDED = "py:crowded_upstream:crowded"


def part_of(corpus: Path, part: str, **changes: Any) -> StoredPart:
    given = {
        "upstream": CROWDED,
        "downstreams": ("phone", "speaker"),
        "corpus": str(corpus),
        "layers": ("weighted",),
        "part": ExtractionPart.of(part),
        "protocol": load_protocol(assignments=SETTINGS),
    }
    return extract_part(PartRequest(**{**given, **changes}), Silence())


def runs_of(corpus: Path, out: Path) -> list[Any]:
    """Both tasks, one after the other: their metrics."""
    metrics = []
    for downstream in ("phone", "speaker"):
        request = RunRequest(
            upstream=CROWDED,
            downstream=downstream,
            corpus=str(corpus),
            layer="weighted",
            protocol=load_protocol(assignments=SETTINGS),
            out=out,
        )
        (written,) = run(request)
        metrics.append(written.record.metrics)
    return metrics


def test_after_its_parts_a_run_computes_nothing_and_stores_and_scores_as_a_single_run(
    tones: Corpus, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tones.utterances[0].audio.parents[1]
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "single"))
    single = runs_of(corpus, tmp_path / "a")
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "parts"))
    done = [part_of(corpus, f"{number}/4") for number in (1, 2, 3, 4)]
    assert sum(each.num_computed for each in done) == len(tones.utterances)
    assert contents(tmp_path / "parts") == contents(tmp_path / "single")
    before = contents(tmp_path / "parts")

    assert runs_of(corpus, tmp_path / "b") == single
    assert contents(tmp_path / "parts") == before
    assert part_of(corpus, "1/1").num_computed == 0


def test_what_a_part_cannot_store_is_refused(
    tones: Corpus, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tones.utterances[0].audio.parents[1]
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=r"key --downstream"):
        part_of(corpus, "1/2", downstreams=())
    with pytest.raises(UsageError, match=r"key extraction.store_gib"):
        part_of(corpus, "1/2", protocol=load_protocol(assignments=["extraction.store_gib=0"]))
    with pytest.raises(UsageError, match=r"has no layer `9`"):
        part_of(corpus, "1/2", layers=("9",))


def test_the_command_takes_audio_files_or_a_part(tones: Corpus, tmp_path: Path) -> None:
    corpus = tones.utterances[0].audio.parents[1]
    sound = tones.utterances[0].audio
    mel = ("extract", "--upstream", "mel")
    environment = {"REPBENCH_CACHE": str(tmp_path / "cache")}
    both = repbench(*mel, "--shard", "1/2", sound)
    assert (both.code, "with audio files, not with --shard (key AUDIO)" in both.err) == (2, True)
    unfit = repbench(*mel, sound, "--out", tmp_path / "x", "--downstream", "phone")
    assert (unfit.code, "with --shard, not with audio files (key --downstream)" in unfit.err) == (2, True)
    alone = repbench(*mel)
    assert (alone.code, "Missing argument 'AUDIO'" in alone.err) == (2, True)
    done = repbench(*mel, "--shard", "2/2", "--corpus", corpus, "--downstream", "phone", "--json", env=environment)
    assert (done.code, done.json["shard"]) == (0, "2/2"), done.err
    assert 0 < done.json["computed"] == done.json["utterances"] < len(tones.utterances)


# several processes


def started(corpus: Path, part: str, environment: dict[str, str], cache: Path, **more: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "repbench", "extract", "--upstream", CROWDED, "--corpus", str(corpus), "--downstream",
        "phone", "--downstream", "speaker", "--layer", "weighted", "--shard", part,
        *(f"--set={each}" for each in SETTINGS),
    ]  # fmt: skip
    env = {**os.environ, **environment, "REPBENCH_CACHE": str(cache), **more}
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def ended(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for processes that are to end well."""
    errors = [worker.communicate(timeout=300)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers), errors


@pytest.mark.slow
def test_two_processes_on_one_part_do_no_harm(
    tones: Corpus, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tones.utterances[0].audio.parents[1]
    ended([started(corpus, "1/1", environment, tmp_path / "both", LINGER="0.05") for _ in range(2)])
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "single"))
    part_of(corpus, "1/1")

    assert contents(tmp_path / "both") == contents(tmp_path / "single")
    verified = repbench("cache", "verify", env={"REPBENCH_CACHE": str(tmp_path / "both")})
    assert verified.code == 0, verified.err


@pytest.mark.slow
def test_workers_killed_at_random_moments_leave_the_bits_of_a_single_run(
    tones: Corpus, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tones.utterances[0].audio.parents[1]
    chance, num_killed, counted = random.Random(0), 0, Path(environment["COUNTED"])
    for _ in range(4):
        workers = [started(corpus, f"{number}/2", environment, tmp_path / "killed", LINGER="0.1") for number in (1, 2)]
        lines = len(counted.read_bytes().splitlines()) if counted.exists() else 0
        wanted = lines + chance.randint(1, 40)  # utterances through the upstream, of both workers
        while any(worker.poll() is None for worker in workers):
            if counted.exists() and len(counted.read_bytes().splitlines()) >= wanted:
                break
            time.sleep(0.02)
        for worker in workers:
            num_killed += worker.poll() is None
            worker.send_signal(signal.SIGKILL)
            worker.communicate(timeout=60)
    assert num_killed >= 2
    ended([started(corpus, f"{number}/2", environment, tmp_path / "killed") for number in (1, 2)])
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "single"))
    single = runs_of(corpus, tmp_path / "a")

    assert contents(tmp_path / "killed") == contents(tmp_path / "single")
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path / "killed"))
    assert runs_of(corpus, tmp_path / "b") == single
