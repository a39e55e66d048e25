"""One upstream, one downstream: from the corpus to the records.

`run` reads like the way of the data: corpus, plan, features, probe, answers, measures, record. Whatever can be refused
without reading data is refused first; the test split is opened once, when nothing is left to select.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repbench.benchmark import environment
from repbench.benchmark.baselines import baselines
from repbench.benchmark.features import FeatureTable, layer_indices
from repbench.benchmark.loading import build_task, build_upstream
from repbench.benchmark.plan import (
    Plan,
    Questions,
    SealedTest,
    make_plan,
    missing_classes,
    plan_for_probe,
    seconds_of,
    subset,
)
from repbench.benchmark.precomputed import exclusions, features_of, notes_of
from repbench.benchmark.probe import (
    Examiner,
    Examples,
    ProbeShape,
    Selection,
    TrainedProbe,
    load_probe,
    save_probe,
    statistics_of,
    train_probe,
)
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.record import RECORD_FILE, Record, read_record, sealed_record, write_record
from repbench.benchmark.scoring import metrics_part
from repbench.corpora.contract import Corpus
from repbench.corpora.opening import open_corpus
from repbench.downstream.contract import Downstream, Prediction
from repbench.downstream.heads import hidden_layers
from repbench.errors import DataError, IntegrityError, UsageError, plugin_faults
from repbench.files import ensure_writable
from repbench.progress import Reporter, Silence
from repbench.registry import Entry, registry
from repbench.upstream.contract import Upstream

PROBE_FILE = "probe.safetensors"

HEARD_DIGITS = 16
"""Hexadecimal digits by which a probe remembers the sounds it was trained and selected on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `repbench run` is asked for.

    Attributes:
        upstream: Name of the model.
        downstream: Name of the task.
        checkpoint: Path of its weights, "random", or None.
        corpus: A registered name with options, or the folder of a manifest.
        layer: last, first, mean, weighted, a number or name, or all.
        label_fractions: Shares of the labelled training utterances, each a record.
        seeds: Each a record.
        head: Name of the head; None: the task's default.
        protocol: Every other setting.
        device: auto, cpu, cuda, cuda:N.
        allow_excluded: How many test utterances may go unscored.
        probe: Folder of a run whose probe is to score this corpus, without training.
        out: Folder under which each record gets its own.
    """

    upstream: str
    downstream: str
    checkpoint: str | None = None
    corpus: str = "synthetic"
    layer: str = "last"
    label_fractions: tuple[float, ...] = (1.0,)
    seeds: tuple[int, ...] = (0,)
    head: str | None = None
    protocol: Protocol = field(default_factory=Protocol)
    device: str = "auto"
    allow_excluded: int = 0
    probe: Path | None = None
    out: Path = Path("runs")


@dataclass(frozen=True, slots=True)
class Written:
    """A record and where it lies."""

    path: Path
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    layer: str
    fraction: float
    seed: int


@dataclass(frozen=True, slots=True)
class _Labelled:
    """The labelled utterances of a fraction and seed, and what to say of them."""

    train: Questions
    dev: Questions
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """A trained probe on its way to a record."""

    setting: _Setting
    trained: TrainedProbe
    label_seconds: dict[str, float]
    train_seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Stage:
    """What all settings of a run share."""

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
    macs_per_second: int
    environment: dict[str, Any]
    extract_seconds: float = 0.0

    def extract(self, title: str, questions: Questions) -> FeatureTable:
        """Features of the questions' utterances, for the layers that any setting reads."""
        started = time.monotonic()
        with self.reporter.stage(title) as advance:
            table = features_of(
                self.upstream,
                [question.utterance for question in questions],
                self.layers,
                batch_seconds=self.request.protocol.extraction.batch_seconds,
                device=self.device,
                progress=advance,
            )
        self.extract_seconds += time.monotonic() - started
        return table

    def view(self, table: FeatureTable, layer: str) -> FeatureTable:
        """The layers of the table that a setting reads."""
        wanted = [self.layers.index(index) for index in layer_indices(self.upstream.info, layer)]
        first, last = wanted[0], wanted[-1] + 1
        return FeatureTable(table.frames[first:last], table.counts, table.ids)


def run(request: RunRequest, reporter: Reporter | None = None) -> list[Written]:
    """Do what is asked, and write one record for each layer, label fraction and seed.

    Raises:
        UsageError: The question cannot be meant; nothing was read.
        DataError: The corpus cannot answer it.
        PluginError: The upstream or the task breaks its contract.
    """
    reporter = reporter or Silence()
    if request.probe is not None:
        return _score_with_probe(request, reporter)
    if request.checkpoint == "random" and len(request.seeds) > 1:
        each_seed = (replace(request, seeds=(seed,)) for seed in request.seeds)
        return [written for one in each_seed for written in run(one, reporter)]
    opened = functools.cache(lambda: _open(request, reporter))
    stage = _prepare(request, reporter, opened)
    settings = _settings(request, stage.upstream)
    corpus = opened()
    rates = notes_of(corpus, stage.upstream)
    plan = make_plan(corpus, stage.task, request.protocol.split, excludes=exclusions(stage.upstream))
    _refuse_exclusions(plan.test, request.allow_excluded)
    subsets = _subsets(corpus, stage.task, plan, settings)
    for warning in (*plan.warnings, *rates, *(each for one in subsets.values() for each in one.warnings)):
        reporter.say(f"note: {warning}")

    train = stage.extract("features of train", plan.usable(plan.train))
    dev = stage.extract("features of dev", plan.usable(plan.dev))
    answered = [
        _train(stage, plan, train, dev, subsets[setting.fraction, setting.seed], setting) for setting in settings
    ]

    heard = _heard(plan)
    test_questions = plan.test.open()
    test = stage.extract("features of test", test_questions)
    return [
        _score(stage, corpus, plan, each, Examples(stage.view(test, each.setting.layer), test_questions), rates, heard)
        for each in answered
    ]


def _heard(plan: Plan) -> dict[str, list[str]]:
    """The sounds and speakers that train and select, whatever the label fraction."""
    utterances = [question.utterance for question in (*plan.train, *plan.dev)]
    return {
        "heard": sorted(utterance.samples_sha256[:HEARD_DIGITS] for utterance in utterances),
        "speakers": sorted({utterance.speaker for utterance in utterances if utterance.speaker is not None}),
    }


def evaluate(
    upstream: str, downstream: str, *, corpus: str = "synthetic", out: str | Path = "runs", **options: Any
) -> list[Record]:
    """Run one upstream on one downstream and return the records, which are also written below `out`.

    Args:
        upstream: Name of the model.
        downstream: Name of the task.
        corpus: A registered name with options, or the folder of a manifest.
        out: Folder of the records.
        **options: Any other field of `repbench.benchmark.run.RunRequest`.

    Example:
        >>> records = evaluate("mel", "phone", corpus="synthetic:tiny")  # doctest: +SKIP
        >>> records[0].primary.value  # doctest: +SKIP
        0.52
    """
    request = RunRequest(upstream=upstream, downstream=downstream, corpus=corpus, out=Path(out), **options)
    return [written.record for written in run(request)]


def _score_with_probe(request: RunRequest, reporter: Reporter) -> list[Written]:
    """Score the corpus with the probe of an earlier run: its official test split or, without one, all of it."""
    assert request.probe is not None
    folder = request.probe.parent if request.probe.name == RECORD_FILE else request.probe
    source = read_record(folder / RECORD_FILE)
    probe, facts = load_probe(folder / PROBE_FILE)
    _refuse_other_pair(request, source)
    _refuse_training_options(request)
    request = replace(
        request,
        checkpoint=request.checkpoint or source.upstream.checkpoint,
        layer=source.layer,
        head=source.head,
        label_fractions=(source.label_fraction,),
        seeds=(source.seed,),
        protocol=Protocol.model_validate(source.protocol),
    )
    opened = functools.cache(lambda: _open(request, reporter))
    stage = _prepare(request, reporter, opened)
    if stage.fingerprint != facts["upstream_fingerprint"]:
        raise IntegrityError(
            f"The probe was trained on another `{request.upstream}` than this one",
            file=folder / PROBE_FILE,
            do="Give the --checkpoint that it was trained on, or run it again",
        )
    corpus = opened()
    rates = notes_of(corpus, stage.upstream)
    plan = plan_for_probe(corpus, stage.task, probe.shape.classes, source.id, excludes=exclusions(stage.upstream))
    _refuse_exclusions(plan.test, request.allow_excluded)
    questions = plan.test.open()
    _refuse_heard(questions, frozenset(facts["heard"]), corpus)
    table = stage.extract("features of test", questions)
    selection = Selection(source.selection.grid, source.selection.chosen, source.selection.dev_value)
    setting = _Setting(layer=source.layer, fraction=source.label_fraction, seed=source.seed)
    answered = _Answered(
        setting=setting,
        trained=TrainedProbe(probe, selection),
        label_seconds=source.label_seconds.model_dump(),
        train_seconds=0.0,
        warnings=_shared_speakers(questions, frozenset(facts["speakers"])),
    )
    for warning in (*rates, *answered.warnings):
        reporter.say(f"note: {warning}")
    return [_score(stage, corpus, plan, answered, Examples(table, questions), rates, facts)]


def _refuse_training_options(request: RunRequest) -> None:
    """A probe that is already trained takes no option of training."""
    defaults = RunRequest(upstream=request.upstream, downstream=request.downstream)
    options = {
        "--layer": "layer",
        "--label-fraction": "label_fractions",
        "--seed": "seeds",
        "--head": "head",
        "--set": "protocol",
    }
    for option, name in options.items():
        if getattr(request, name) != getattr(defaults, name):
            raise UsageError("The probe is already trained", key=option, do=f"Leave {option} out, or leave --probe out")


def _refuse_heard(questions: Questions, heard: frozenset[str], corpus: Corpus) -> None:
    again = [question for question in questions if question.utterance.samples_sha256[:HEARD_DIGITS] in heard]
    if again:
        raise DataError(
            f"{len(again)} of {len(questions)} utterances of {corpus.name} trained or selected this probe",
            utterance=again[0].id,
            do="Score a corpus that it has not heard",
        )


def _shared_speakers(questions: Questions, speakers: frozenset[str]) -> tuple[str, ...]:
    own = {question.utterance.speaker for question in questions} - {None}
    common = own & speakers
    if not common:
        return ()
    return (f"{len(common)} of {len(own)} speakers have the name of one that the probe was trained on",)


def _refuse_other_pair(request: RunRequest, source: Record) -> None:
    asked, trained = (request.upstream, request.downstream), (source.upstream.name, source.downstream.name)
    if asked != trained:
        raise UsageError(
            f"The probe answers {trained[1]} on {trained[0]}, not {asked[1]} on {asked[0]}",
            key="--probe",
            do=f"Say --upstream {trained[0]} --downstream {trained[1]}",
        )


def _prepare(request: RunRequest, reporter: Reporter, corpus: Callable[[], Corpus]) -> _Stage:
    """Load what is asked for and refuse what cannot be meant, before any data is read.

    The corpus is opened here only for an upstream that is what the corpus says it is.
    """
    for fraction in request.label_fractions:
        if not 0 < fraction <= 1:
            raise UsageError(f"A label fraction must lie in (0, 1], but is {fraction:g}", key="--label-fraction")
    upstream_entry = registry().find("upstream", request.upstream).entry
    task_entry = registry().find("downstream", request.downstream).entry
    task = build_task(task_entry, request.protocol.task)
    head = request.head or task.info.default_head
    hidden_layers(head)
    device = environment.choose_device(request.device)
    upstream = build_upstream(upstream_entry, request.checkpoint, request.seeds[0], corpus=corpus)
    layers = _layers_read(upstream, request.layer)
    _refuse_constant_input(upstream, task, head, request.layer, layers)
    ensure_writable(request.out)
    _module(upstream).requires_grad_(False).to(device)
    with plugin_faults(request.upstream):
        fingerprint, macs = upstream.fingerprint(), environment.macs_per_second(upstream, device)
    return _Stage(
        request=request,
        upstream=upstream,
        upstream_entry=upstream_entry,
        task=task,
        task_entry=task_entry,
        head=head,
        device=device,
        reporter=reporter,
        layers=layers,
        fingerprint=fingerprint,
        macs_per_second=macs,
        environment=environment.describe(device),
    )


def _refuse_constant_input(
    upstream: Upstream, task: Downstream, head: str, layer: str, layers: tuple[int, ...]
) -> None:
    pooled_alone = task.info.problem == "utterance-classification" and hidden_layers(head) == 0
    reads_layer_0_alone = layers == (0,) or layer == "all"
    if pooled_alone and upstream.info.utterance_normalised and reads_layer_0_alone:
        raise UsageError(
            f"The head `{head}` sees only the mean over time, and layer 0 of {upstream.info.name} is normalised to "
            "mean zero over each utterance: it would see a constant",
            key="--head",
            do="Take --head mlp1, or an upstream without CMVN such as mel_no_cmvn",
        )


def _layers_read(upstream: Upstream, layer: str) -> tuple[int, ...]:
    if layer == "all":
        return tuple(range(len(upstream.info.layer_names)))
    return layer_indices(upstream.info, layer)


def _settings(request: RunRequest, upstream: Upstream) -> list[_Setting]:
    every = [str(index) for index in range(len(upstream.info.layer_names))]
    layers = every if request.layer == "all" else [request.layer]
    return [
        _Setting(layer=layer, fraction=fraction, seed=seed)
        for layer in layers
        for fraction in request.label_fractions
        for seed in request.seeds
    ]


def _open(request: RunRequest, reporter: Reporter) -> Corpus:
    with reporter.stage(f"corpus {request.corpus}") as advance:
        corpus = open_corpus(request.corpus, progress=advance)
    if request.device == "auto" and not torch.cuda.is_available():
        reporter.say("note: no CUDA device was found, so the CPU computes")
    return corpus


def _refuse_exclusions(test: SealedTest, allowed: int) -> None:
    if len(test.excluded) > allowed:
        id_, reason = min(test.excluded.items())
        raise DataError(
            f"{len(test.excluded)} of {test.num_listed} test utterances cannot be scored, such as {id_}: {reason}",
            utterance=id_,
            do=f"Mend the corpus, or say --allow-excluded {len(test.excluded)}",
        )


def _subsets(
    corpus: Corpus, task: Downstream, plan: Plan, settings: Iterable[_Setting]
) -> dict[tuple[float, int], _Labelled]:
    """Train and dev of each fraction and seed: chosen by corpus, task, seed and fraction alone, then what is usable."""
    salt = f"{corpus.fingerprint} {task.info.name}"
    subsets: dict[tuple[float, int], _Labelled] = {}
    for setting in settings:
        train, dev = (
            plan.usable(subset(part, setting.fraction, seed=setting.seed, salt=f"{salt} {name}"))
            for name, part in (("train", plan.train), ("dev", plan.dev))
        )
        warnings = missing_classes(task, plan.classes, train, setting.fraction)
        subsets[setting.fraction, setting.seed] = _Labelled(train, dev or plan.usable(plan.dev)[:1], warnings)
    return subsets


def _train(
    stage: _Stage,
    plan: Plan,
    train: FeatureTable,
    dev: FeatureTable,
    labelled: _Labelled,
    setting: _Setting,
) -> _Answered:
    train, dev = stage.view(train, setting.layer), stage.view(dev, setting.layer)
    settings = stage.request.protocol.probe
    shape = ProbeShape(
        head=stage.head,
        pools=stage.task.info.problem == "utterance-classification",
        num_layers=len(train.frames),
        width=stage.upstream.info.width,
        hidden_units=settings.hidden_units,
        classes=plan.classes,
        mix="weighted" if setting.layer == "weighted" else "mean",
    )
    started = time.monotonic()
    labels = "all labels" if setting.fraction == 1.0 else f"{100 * setting.fraction:g} % of the labels"
    title = f"probe: layer {setting.layer}, {labels}, seed {setting.seed}"
    with stage.reporter.stage(title) as advance:
        trained = train_probe(
            Examiner(stage.task, plan.classes, stage.upstream.info),
            shape,
            Examples(train, labelled.train),
            Examples(dev, labelled.dev),
            settings,
            seed=setting.seed,
            statistics=statistics_of(train),
            progress=advance,
        )
    return _Answered(
        setting=setting,
        trained=trained,
        label_seconds={"train": seconds_of(labelled.train), "dev": seconds_of(labelled.dev)},
        warnings=labelled.warnings,
        train_seconds=time.monotonic() - started,
    )


def _score(
    stage: _Stage,
    corpus: Corpus,
    plan: Plan,
    answered: _Answered,
    test: Examples,
    rates: tuple[str, ...],
    heard: Mapping[str, Any],
) -> Written:
    examiner = Examiner(stage.task, plan.classes, stage.upstream.info)
    predictions = examiner.predict(answered.trained.probe, test)
    setting = answered.setting
    record = sealed_record(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "upstream": _upstream_part(stage),
            "downstream": {"name": stage.request.downstream, "version": stage.task_entry.version},
            "corpus": {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "split_policy": plan.policy,
                "warnings": [*plan.warnings, *rates, *answered.warnings],
                "n_train": len(plan.train),
                "n_dev": len(plan.dev),
                "n_test": plan.test.num_listed,
            },
            "mode": "frozen",
            "layer": setting.layer,
            "label_fraction": setting.fraction,
            "label_seconds": answered.label_seconds,
            "seed": setting.seed,
            "head": stage.head,
            "protocol": stage.request.protocol.model_dump(mode="json"),
            "selection": _selection_part(answered.trained.selection),
            "primary_metric": stage.task.info.primary_metric,
            "metrics": metrics_part(stage.task, plan.classes, predictions),
            "baselines": baselines(stage.task, plan.classes, plan.train, test.questions),
            "n_listed": plan.test.num_listed,
            "n_scored": len(predictions),
            "excluded": plan.test.excluded,
            "test_accesses": plan.test.accesses,
            "cost": {
                "parameters": environment.count_parameters(_module(stage.upstream)),
                "macs_per_second": stage.macs_per_second,
                "extract_seconds": stage.extract_seconds,
                "train_seconds": answered.train_seconds,
                "peak_rss_bytes": environment.peak_rss_bytes(),
                "device": str(stage.device),
            },
            "environment": stage.environment,
        }
    )
    return _write(stage, record, predictions, answered.trained, heard)


def _write(
    stage: _Stage, record: Record, predictions: Sequence[Prediction], trained: TrainedProbe, heard: Mapping[str, Any]
) -> Written:
    folder = record_folder(stage.request.out, record)
    facts = {
        "upstream": record.upstream.name,
        "upstream_fingerprint": record.upstream.fingerprint,
        "downstream": record.downstream.name,
        "layer": record.layer,
        "heard": heard["heard"],
        "speakers": heard["speakers"],
    }
    save_probe(folder / PROBE_FILE, trained.probe, facts)
    return Written(write_record(folder, record, predictions), record)


def record_folder(out: Path, record: Record) -> Path:
    """Where a record lies: `OUT/CORPUS/DOWNSTREAM/UPSTREAM/ID`, names reduced to what every file system takes."""
    names = (record.corpus.name, record.downstream.name, record.upstream.name)
    return out.joinpath(*(_file_name(name) for name in names), record.id)


def _file_name(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return plain.strip(".")[-80:] or "unnamed"


def _module(upstream: Upstream) -> nn.Module:
    assert isinstance(upstream, nn.Module)
    return upstream


def _upstream_part(stage: _Stage) -> dict[str, Any]:
    entry = stage.upstream_entry
    return {
        "name": stage.request.upstream,
        "checkpoint": stage.request.checkpoint,
        "fingerprint": stage.fingerprint,
        "origin": {"distribution": entry.distribution, "version": entry.version},
        "layer_names": stage.upstream.info.layer_names,
    }


def _selection_part(selection: Selection) -> dict[str, Any]:
    return {"grid": selection.grid, "chosen": selection.chosen, "dev_value": selection.dev_value}
