"""Set-up of a run: the request, the upstream and the task that all its settings share, checked before data is read.

Longer than others: every refusal of a request that needs no data is here, in the order in which they are met.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from repbench.audio.disturbances.condition import Condition, parse_condition
from repbench.benchmark import environment
from repbench.benchmark.data.dataset import LabelledUtterances, seconds_of
from repbench.benchmark.data.subsets import refuse_shots
from repbench.benchmark.features.cost import UpstreamCost, upstream_cost
from repbench.benchmark.features.extraction import layer_indices
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.features.store import GIB, FeatureStore, origin_for
from repbench.benchmark.features.table import Features
from repbench.benchmark.finetuning.trainable import refuse_rule
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.loading.upstreams import build_upstream, code_of, say_side_effects
from repbench.benchmark.pipeline.head_input import (
    note_on_statistics,
    note_on_tuning,
    refuse_constant_input,
    refuse_one_vector,
    refuse_some_frames,
    refuse_to_train_fitted,
)
from repbench.benchmark.pipeline.training_options import refuse_training
from repbench.benchmark.probing.probe import ProbeShape
from repbench.benchmark.probing.spec_augment import refuse_spec_augment
from repbench.benchmark.probing.training import TrainedProbe
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.parts import FinetunedPart
from repbench.benchmark.records.record import Record
from repbench.corpora.contract import Corpus
from repbench.corpora.open import entry_of_corpus, open_corpus
from repbench.downstream.contract import Downstream, problem_of, splits_read
from repbench.downstream.heads import NO_HEAD, refuse_head
from repbench.downstream.problems import PROBLEMS
from repbench.errors import PluginError, UsageError, plugin_faults
from repbench.files import refuse_unwritable
from repbench.progress import Reporter
from repbench.registry import Entry, registry
from repbench.training.bfloat16 import note_on_bfloat16
from repbench.training.distributed import local_device
from repbench.upstream.adapters.corpus_features import FrameReader
from repbench.upstream.contract import Upstream, UpstreamInfo
from repbench.upstream.windowed import in_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Arguments of `repbench run`.

    Attributes:
        upstream: Name of the model.
        downstream: Name of the task.
        checkpoint: Path of the model's weights, "random", or None.
        corpus: A registered name with options, or the folder of a manifest.
        layer: last, first, mean, weighted, a number or name, or all; None: the protocol's.
        layers: Several layers in place of `layer`, one record each.
        label_fractions: Shares of the labelled training utterances, one record each.
        seeds: Seeds of the probe, one record each.
        head: Name of the head; None: the protocol's or, without one, the task's default.
        heads: Several heads in place of `head`, one record each.
        protocol: Every other setting.
        device: auto, cpu, cuda, cuda:N.
        allow_excluded: How many test utterances may go unscored.
        finetune: Whether the whole network is trained, not a probe on frozen features.
        tune: Whether to add, to each record, one whose learning rate is chosen on dev.
        controls: Whether to add the records of shuffled labels and of the untrained upstream.
        probe: Folder of a run whose probe scores this corpus, without training.
        out: Folder below which each record has its own.
        missing_only: Whether settings that have a record below `out` are skipped, and that record returned.
        store_layers: Layers, named as in `layer`, that are extracted and stored in the same pass, for later runs.
        conditions: Conditions of the test sound, as `noise:babble:10`; one more record each, of the same probe.
        matched: Whether probes are trained under the condition that they are scored under, not on clean sound.
        by: Attributes of the test utterances that predictions keep, so that a report can group by them; with or without
            edges, as in `repbench.benchmark.scoring.grouping`.
    """

    upstream: str
    downstream: str
    checkpoint: str | None = None
    corpus: str = "synthetic"
    layer: str | None = None
    layers: tuple[str, ...] = ()
    label_fractions: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0,)
    head: str | None = None
    heads: tuple[str, ...] = ()
    protocol: Protocol = field(default_factory=Protocol)
    device: str = "auto"
    allow_excluded: int = 0
    finetune: bool = False
    tune: bool = False
    controls: bool = False
    probe: Path | None = None
    out: Path = Path("runs")
    missing_only: bool = False
    store_layers: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    matched: bool = False
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WrittenRecord:
    """A record and its file."""

    path: Path
    record: Record


Labels = Literal["given", "shuffled"]

_MIXES = {"softmax": "weighted", "raw": "raw"}
"""From the setting to `ProbeShape.mix`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSetting:
    """The settings in which one record of a run differs from the others.

    Attributes:
        layer: As in `RunRequest.layer`.
        fraction: Share of the training labels.
        seed: Of the probe.
        labels: Those of the corpus, or shuffled ones (a control).
        tuned: Whether the learning rate is chosen on dev.
        fold: Name of the fold of one training; None for the record, and where there are no folds.
        condition: Name of the condition of the test sound; None as it is in the corpus, and for a training.
    """

    layer: str
    fraction: float
    seed: int
    labels: Labels = "given"
    tuned: bool = False
    fold: str | None = None
    condition: str | None = None

    @property
    def training(self) -> RunSetting:
        """The setting of the training that it is scored with."""
        return replace(self, condition=None)

    def protocol(self, common: Protocol) -> Protocol:
        """The protocol of the record, from that of the run."""
        probe = common.probe.model_copy(update={"tune": self.tuned})
        return common.model_copy(update={"probe": probe, "labels": self.labels})


@dataclass(frozen=True, slots=True)
class LabelledSubset:
    """The labelled utterances of a fraction and seed, and the warnings about them."""

    train: LabelledUtterances
    dev: LabelledUtterances
    warnings: tuple[str, ...]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of labelled sound, by split."""
        return {"train": seconds_of(self.train), "dev": seconds_of(self.dev)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetunedWeights:
    """The weights of an upstream that were fine-tuned.

    Attributes:
        part: The field of the record; None where the record of an earlier release has none.
        moving: From name to weight what the file of the network holds, if it is not all of the upstream; the names are
            those of an upstream with its LoRA.
        settings: As that file has them.
    """

    part: FinetunedPart | None
    moving: Mapping[str, Tensor] | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedResult:
    """A trained probe and the setting it was trained with; after fine-tuning, `RunContext.upstream` belongs to it.

    Attributes:
        setting: The setting.
        trained: The probe, its selection and its time; with folds the probe of the first, what all folds selected
            together, and the time of all.
        label_seconds: Seconds of labelled sound, by split; with folds the mean over them.
        warnings: About this training.
        mode: frozen or finetune.
        folds: The result of each fold; none where there are no folds.
        weights: What was fine-tuned; None of a frozen upstream.
    """

    setting: RunSetting
    trained: TrainedProbe
    label_seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    mode: Literal["frozen", "finetune"] = "frozen"
    folds: tuple[TrainedResult, ...] = ()
    weights: FinetunedWeights | None = None


@dataclass(slots=True, kw_only=True)
class RunContext:
    """What all settings of a run share.

    Attributes:
        request: With the protocol, head and layer of the task.
        upstream: On `device`, in eval mode.
        upstream_entry: Where the upstream comes from.
        task: With its options.
        task_entry: Where the task comes from.
        head: Name of the head.
        device: Where everything is computed.
        reporter: Receives progress, notes and warnings.
        layers: Indices of the layers that any setting reads, and of those to be stored, ascending.
        fingerprint: Of the weights that the upstream began with, also where they are fine-tuned after.
        cost: Of the upstream.
        environment: As records state it.
        store: Of features; None where they are not kept.
        conditions: Conditions of the test sound, by name.
        extract_seconds: Spent on features so far.
    """

    request: RunRequest
    upstream: Upstream
    upstream_entry: Entry
    task: Downstream
    task_entry: Entry
    head: str
    device: torch.device
    reporter: Reporter
    layers: tuple[int, ...]
    fingerprint: str
    cost: UpstreamCost
    environment: dict[str, Any]
    store: FeatureStore | None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    extract_seconds: float = 0.0

    def places(self, layer: str) -> slice:
        """The layers that a `--layer` reads, as a slice of the layers of a table."""
        wanted = [self.layers.index(index) for index in layer_indices(self.upstream.info, layer)]
        # A slice, so that indexing a table gives a view and no copy: `layer_indices` are one layer, or all of them.
        return slice(wanted[0], wanted[-1] + 1)

    def probe_shape(self, classes: tuple[str, ...], layer: str) -> ProbeShape:
        """The probe of a setting."""
        places, problem = self.places(layer), problem_of(self.task)
        outputs = problem.outputs(len(classes))
        return ProbeShape(
            head=self.head,
            pools=problem.pools,
            outputs=None if outputs == len(classes) else outputs,
            standardises_targets=problem.standardises_targets,
            dropout=self.request.protocol.probe.dropout,
            num_layers=places.stop - places.start,
            width=self.upstream.info.width,
            hidden_units=self.request.protocol.probe.hidden_units,
            classes=classes,
            layer_norm=self.request.protocol.probe.layer_norm,
            mix=_MIXES[self.request.protocol.probe.mix] if layer == "weighted" else "mean",
        )

    def view(self, table: Features, layer: str) -> Features:
        """The layers of the table that a setting reads."""
        return table.of_layers(self.places(layer))


def prepare(
    request: RunRequest,
    reporter: Reporter,
    corpus: Callable[[], Corpus],
    *,
    upstream: Upstream | None = None,
) -> RunContext:
    """Load upstream and task, and refuse what does not go together, before any data is read.

    Args:
        request: As given.
        reporter: Receives notes and warnings.
        corpus: Opens the corpus; called only for an upstream whose frames are read from the corpus.
        upstream: Given where it is built already, as a fine-tuned one.

    Raises:
        UsageError: An option contradicts another, the upstream or the task.
        PluginError: The upstream or the task breaks its contract.
    """
    if request.finetune:
        _refuse_to_finetune(request)
    conditions = {each.name: each for each in map(parse_condition, request.conditions)}
    for fraction in request.label_fractions:
        if not 0 < fraction <= 1:
            raise UsageError(f"A label fraction must be in (0, 1], but is {fraction:g}", key="--label-fraction")
    upstream_entry = registry().find("upstream", request.upstream).entry
    task_entry = registry().find("downstream", request.downstream).entry
    for entry in (task_entry, upstream_entry):
        say_side_effects(entry, reporter.say)
    task = build_task(task_entry, request.protocol.options_for(request.downstream))
    request = _settled(request, task)
    if splits_read(task) is not None:
        refuse_training(request, task)
    assert request.head is not None
    assert request.layer is not None
    head = request.head
    # All of a run's heads, though only one is prepared: the last must not be refused after the others were trained.
    heads = dict.fromkeys((head, *request.heads))
    for each in heads:
        refuse_head(each, problem_of(task), say=reporter.say)
        refuse_to_train_fitted(each, request.layer, finetune=request.finetune)
    if request.tune:
        note_on_tuning(head, reporter)
    refuse_shots(request.protocol.probe.shots, request.label_fractions, problem_of(task))
    if not request.finetune:  # which reads no such setting
        refuse_spec_augment(request.protocol.probe, problem_of(task))
    device = local_device(environment.choose_device(request.device))
    if upstream is None:
        # Frames that are read from a corpus cannot be trained: refused before the corpus is opened.
        opens = _refuse_to_open if request.finetune else corpus
        upstream = build_upstream(upstream_entry, request.checkpoint, request.seeds[0], corpus=opens)
    if request.finetune and not upstream.info.trainable:
        raise _nothing_to_finetune(f"`{request.upstream}` has no weights")
    if request.finetune:
        refuse_rule(upstream, layers_read(upstream.info, request.layer), request.protocol.finetune)
    if conditions and isinstance(upstream, FrameReader):
        what = f"The frames of `{request.upstream}` are read from files: there is no sound to disturb"
        raise UsageError(what, key="--condition", do="Leave the conditions out")
    refuse_one_vector(upstream, task, heads, request.protocol.probe)
    layers = layers_read(upstream.info, request.layer)
    if head != NO_HEAD:
        for each in heads:
            refuse_some_frames(request.protocol.probe, task, each, finetune=request.finetune)
        if not request.protocol.probe.layer_norm:  # the mean of normalised frames is not constant
            for each in heads:
                refuse_constant_input(upstream, task, each, request.layer, layers)
            note_on_statistics(upstream, head, request.layer, layers, reporter)
    stored = set(layers).union(*(layers_read(upstream.info, layer) for layer in request.store_layers))
    refuse_unwritable(request.out)
    module_of(upstream).requires_grad_(False).to(device)
    with plugin_faults(request.upstream):
        fingerprint, content = content_of(upstream, upstream_entry)
        cost = upstream_cost(upstream, content, device)
    if request.protocol.extraction.precision == "bfloat16" and cost.macs_per_second:
        note = note_on_bfloat16(device, "extraction.precision=float32")
        if note is not None:
            reporter.say(f"note: {note}")
    upstream = in_windows_of(request.protocol, upstream) if not request.finetune else upstream
    return RunContext(
        request=request,
        upstream=upstream,
        upstream_entry=upstream_entry,
        task=task,
        task_entry=task_entry,
        head=head,
        device=device,
        reporter=reporter,
        layers=tuple(sorted(stored)),
        fingerprint=fingerprint,
        cost=cost,
        environment=environment.describe(device, request.protocol.extraction.precision),
        store=_store_for(upstream, content, request, reporter),
        conditions=conditions,
    )


def _settled(request: RunRequest, task: Downstream) -> RunRequest:
    """The request with the head, the layer and the protocol that hold for the task.

    Head and layer of its protocol are back at their defaults, like those of a record.
    """
    problem = problem_of(task).name
    if request.finetune and request.protocol.for_task(request.downstream, problem).split.folds is not None:
        raise UsageError(
            "Each fold would need its own fine-tuning",
            key="split.folds",
            do="Leave --finetune out, or fine-tune on one division of the corpus",
        )
    for name in request.protocol.tasks.keys() - {*PROBLEMS, problem}:
        # Only for its error: a misspelt task in `tasks` would otherwise have no effect.
        registry().find("downstream", name)
    for name in request.protocol.tasks.keys() & {*PROBLEMS, problem}:
        if request.protocol.tasks[name].task:
            what = f"`{name}` is a problem, and options are of one task"
            raise UsageError(what, key=f"tasks.{name}.task", do="Give them to the task by its name")
    protocol = request.protocol.for_task(request.downstream, problem)
    if request.finetune:  # gradients are computed in float32, and so are the scores
        exact = protocol.extraction.model_copy(update={"precision": "float32"})
        protocol = protocol.model_copy(update={"extraction": exact})
    return replace(
        request,
        protocol=protocol.model_copy(update={name: getattr(Protocol(), name) for name in ("head", "layer")}),
        head=request.head or protocol.head or task.info.default_head,
        layer=request.layer or protocol.layer,
    )


def _fingerprint(upstream: Upstream) -> str:
    fingerprint: object = upstream.fingerprint()
    if not isinstance(fingerprint, str) or not fingerprint:
        what = f"`fingerprint` must give a text, but gives {fingerprint!r}"
        raise PluginError(what, key=upstream.info.name, do="See fingerprint_of in repbench.upstream.contract")
    return fingerprint


def _content(fingerprint: str, code: str | None) -> str:
    """Key of stored features: the upstream's fingerprint, with the hash of its code where that is in no package."""
    return fingerprint if code is None else hashlib.sha256(f"{fingerprint} {code}".encode()).hexdigest()


def in_windows_of(protocol: Protocol, upstream: Upstream) -> Upstream:
    """The upstream with the windows of long sounds that the protocol gives it.

    Raises:
        UsageError: It cannot read sounds in these windows.
    """
    settings = protocol.extraction
    if isinstance(upstream, FrameReader):
        return upstream
    return in_windows(upstream, settings.window_seconds, settings.context_seconds)


def content_of(upstream: Upstream, entry: Entry) -> tuple[str, str]:
    """The fingerprint of an upstream, and the key of its stored features.

    Raises:
        PluginError: It has no fingerprint.
    """
    fingerprint = _fingerprint(upstream)
    return fingerprint, _content(fingerprint, code_of(entry))


def _store_for(upstream: Upstream, fingerprint: str, request: RunRequest, reporter: Reporter) -> FeatureStore | None:
    """The store of the upstream's features; frames that are read from the corpus are not stored again."""
    settings = request.protocol.extraction
    if isinstance(upstream, FrameReader) or not settings.store_gib or request.finetune:
        return None
    return FeatureStore(
        store_folder(),
        upstream,
        origin_for(upstream, fingerprint, settings.dtype, settings.precision),
        name=request.upstream,
        quota_bytes=settings.store_gib * GIB,
        say=reporter.say,
    )


def _refuse_to_finetune(request: RunRequest) -> None:
    if request.layer == "all":
        raise UsageError(
            "Each layer would need its own fine-tuning",
            key="--layer",
            do="Choose last, first, mean, weighted, or one layer for each run",
        )
    if request.tune or request.protocol.probe.tune:
        raise UsageError(
            "Fine-tuning takes its rates from the protocol: to try five would be five trainings for one record",
            key="--tune",
            do="Leave --tune out; set finetune.learning_rate and finetune.head_learning_rate",
        )


def _refuse_to_open() -> Corpus:
    raise _nothing_to_finetune("Frames that are read from a corpus have no weights")


def _nothing_to_finetune(what: str) -> UsageError:
    return UsageError(f"{what}: there is nothing to fine-tune", key="--finetune", do="Leave --finetune out")


def layers_read(info: UpstreamInfo, layer: str) -> tuple[int, ...]:
    """The layers that a `--layer` reads, `all` included."""
    return tuple(range(len(info.layer_names))) if layer == "all" else layer_indices(info, layer)


def open_corpus_of(request: RunRequest, reporter: Reporter) -> Corpus:
    """Open the corpus of a request."""
    entry = entry_of_corpus(request.corpus)
    if entry is not None:
        say_side_effects(entry, reporter.say)
    with reporter.stage(f"corpus {request.corpus}") as advance:
        corpus = open_corpus(request.corpus, progress=advance, say=reporter.say)
    if request.device == "auto" and not torch.cuda.is_available():
        reporter.say("note: no CUDA device was found, so the CPU computes")
    return corpus


def module_of(upstream: Upstream) -> nn.Module:
    """The upstream as the module that it is."""
    assert isinstance(upstream, nn.Module)
    return upstream
