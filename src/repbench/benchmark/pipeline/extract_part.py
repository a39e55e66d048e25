"""`repbench extract --shard`: store the features that runs will read, in parts that several processes compute."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repbench.benchmark import environment
from repbench.benchmark.data.labelled_folds import label_corpus
from repbench.benchmark.features.extraction import ExtractionOptions
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.features.parts import ExtractionPart, PartedStore, batches_of
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.features.source import exclusions, notes_of
from repbench.benchmark.features.store import GIB, origin_for
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.loading.upstreams import build_upstream, say_side_effects
from repbench.benchmark.pipeline.setup import (
    RunRequest,
    content_of,
    in_windows_of,
    layers_read,
    module_of,
    open_corpus_of,
)
from repbench.benchmark.protocol import Protocol
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.contract import problem_of
from repbench.errors import UsageError, plugin_faults
from repbench.files import ensure_writable
from repbench.progress import Reporter
from repbench.registry import registry
from repbench.training.distributed import local_device
from repbench.upstream.adapters.corpus_features import FrameReader
from repbench.upstream.checkpoints.untrained import is_untrained
from repbench.upstream.contract import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRequest:
    """The arguments of `repbench extract --shard`; fields as those of `RunRequest`.

    Attributes:
        downstreams: Tasks of the runs, in the order in which they run.
        layers: Layers of the runs; empty: the protocol's.
        seeds: Seeds of the runs, each of which is another network where the upstream is untrained.
        part: The part to compute.
    """

    upstream: str
    downstreams: tuple[str, ...]
    part: ExtractionPart
    checkpoint: str | None = None
    corpus: str = "synthetic"
    layers: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    protocol: Protocol = field(default_factory=Protocol)
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """What a part came to.

    Attributes:
        part: The part.
        num_utterances: Utterances of the part.
        num_computed: Those that were not stored yet.
        seconds: Seconds of sound of the part, without padding.
        store: Folder of the feature store.
    """

    part: ExtractionPart
    num_utterances: int
    num_computed: int
    seconds: float
    store: Path

    def line(self) -> str:
        """In words."""
        return (
            f"part {self.part}: {self.num_utterances} utterances, {self.seconds:.0f} s of sound, "
            f"{self.num_computed} computed; stored below {self.store}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "shard": str(self.part),
            "utterances": self.num_utterances,
            "computed": self.num_computed,
            "seconds": self.seconds,
            "store": str(self.store),
        }


def extract_part(request: PartRequest, reporter: Reporter) -> StoredPart:
    """Compute and store the features of one part of what the runs of some tasks read.

    When all parts are stored, `repbench run` with the same upstream, corpus, tasks and protocol computes none, and
    reads the bits that it would have computed with an empty store.

    Raises:
        UsageError: There is nothing to store, or an option is wrong.
        DataError: The corpus lacks what a task needs.
        PluginError: The upstream or a task breaks its contract.
        EnvironmentFault: The store cannot take the features.
    """
    if not request.downstreams:
        do = "Give the tasks of the runs: the batches of a run follow from its splits"
        raise UsageError("A part of the features of no task is empty", key="--downstream", do=do)
    if not request.protocol.extraction.store_gib:
        what = "Nothing is stored, so there is nothing to share"
        raise UsageError(what, key="extraction.store_gib", do="Give it a value above 0")
    ensure_writable(store_folder())
    corpus = open_corpus_of(_run_request(request, request.downstreams[0]), reporter)
    seeds = request.seeds if is_untrained(request.checkpoint) else request.seeds[:1]
    done = [_store_part(replace(request, seeds=(seed,)), corpus, reporter) for seed in seeds]
    return replace(
        done[0],
        num_utterances=sum(each.num_utterances for each in done),
        num_computed=sum(each.num_computed for each in done),
        seconds=sum(each.seconds for each in done),
    )


def _run_request(request: PartRequest, downstream: str) -> RunRequest:
    return RunRequest(
        upstream=request.upstream,
        downstream=downstream,
        checkpoint=request.checkpoint,
        corpus=request.corpus,
        seeds=request.seeds,
        protocol=request.protocol,
        device=request.device,
    )


def _store_part(request: PartRequest, corpus: Corpus, reporter: Reporter) -> StoredPart:
    """The part of one network."""
    entry = registry().find("upstream", request.upstream).entry
    say_side_effects(entry, reporter.say)
    upstream = build_upstream(entry, request.checkpoint, request.seeds[0], corpus=lambda: corpus)
    if isinstance(upstream, FrameReader):
        what = f"`{request.upstream}` reads its frames from the corpus, and they are not stored again"
        raise UsageError(what, key="--upstream", do="Run it as it is")
    device = local_device(environment.choose_device(request.device))
    module_of(upstream).requires_grad_(False).to(device)
    with plugin_faults(request.upstream):
        fingerprint, content = content_of(upstream, entry)
    upstream = in_windows_of(request.protocol, upstream)
    check_invariance(upstream, entry, fingerprint, device)
    for note in notes_of(corpus, upstream):
        reporter.say(f"note: {note}")
    settings = request.protocol.extraction
    store = PartedStore(
        store_folder(),
        upstream,
        origin_for(upstream, content, settings.dtype, settings.precision),
        name=request.upstream,
        quota_bytes=settings.store_gib * GIB,
        say=reporter.say,
    )
    options = ExtractionOptions(
        batch_seconds=settings.batch_seconds, device=device, dtype=settings.dtype, precision=settings.precision
    )
    planned = store.batches(list(_extractions(request, corpus, upstream, reporter)), settings.batch_seconds)
    batches = batches_of(request.part, planned, upstream.info.sample_rate_hz)
    with reporter.stage(f"features, part {request.part}") as advance:
        num_computed = store.fill(batches, _layers(request, upstream), options, progress=advance)
    utterances = [utterance for batch in batches for utterance in batch]
    return StoredPart(
        part=request.part,
        num_utterances=len(utterances),
        num_computed=num_computed,
        seconds=sum(each.seconds for each in utterances),
        store=store_folder(),
    )


def _extractions(
    request: PartRequest, corpus: Corpus, upstream: Upstream, reporter: Reporter
) -> Iterator[Sequence[Utterance]]:
    """The utterances of each extraction of the runs, in their order: train, dev and test of one task and the next.

    A task with folds makes one extraction of all its utterances.
    """
    for name in dict.fromkeys(request.downstreams):
        entry = registry().find("downstream", name).entry
        say_side_effects(entry, reporter.say)
        task = build_task(entry, request.protocol.options_for(name))
        settings = request.protocol.for_task(name, problem_of(task).name).split
        splits = label_corpus(corpus, task, settings, excludes=exclusions(upstream))
        if splits.folds:
            yield [example.utterance for example in splits.every()]
            continue
        # No label of the test split is read: only its sound goes through the upstream.
        for examples in (splits.usable(splits.train), splits.usable(splits.dev), splits.test.open()):
            yield [example.utterance for example in examples]


def _layers(request: PartRequest, upstream: Upstream) -> tuple[int, ...]:
    """Indices of the layers that the runs read, ascending."""
    layers = set[int]()
    for name in request.downstreams:
        task = build_task(registry().find("downstream", name).entry, request.protocol.options_for(name))
        own = request.protocol.for_task(name, problem_of(task).name).layer
        for layer in request.layers or (own,):
            layers |= {*layers_read(upstream.info, layer)}
    return tuple(sorted(layers))
