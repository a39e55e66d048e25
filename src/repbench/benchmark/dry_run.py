"""What a run would do: every refusal of the run, then its records and a forecast, and nothing is written.

The steps are those of `repbench.benchmark.run` up to the first feature that would be computed. The corpus is opened, so
a synthetic one that is not on this machine yet is made, in the cache; below `out` nothing is made or changed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from repbench.benchmark.data.dataset import LabelledUtterances, seconds_of
from repbench.benchmark.data.labelled_folds import label_corpus
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.features.source import exclusions, notes_of
from repbench.benchmark.pipeline.conditioned_run import conditions_in, trainings_in
from repbench.benchmark.pipeline.existing_records import answered_before, refuse_trained_probe
from repbench.benchmark.pipeline.finetuned_run import folder_of_training
from repbench.benchmark.pipeline.run_data import RunData
from repbench.benchmark.pipeline.run_features import forecast_of, trainings_of
from repbench.benchmark.pipeline.setup import (
    RunContext,
    RunRequest,
    RunSetting,
    open_corpus_of,
    prepare,
)
from repbench.benchmark.run import (
    notes_on_weights,
    refuse_contradictions,
    requests_of,
    settings_of,
    subsets_of,
    untrained_control,
)
from repbench.downstream.contract import splits_read
from repbench.errors import UsageError
from repbench.progress import Reporter, Silence
from repbench.training.distributed import refuse_if_trained_in
from repbench.upstream.adapters.corpus_features import FrameReader

SoundKey = tuple[str, str, int, int]
"""Fingerprint of an upstream, digest of a sound, its rate, and a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRecord:
    """A record that a run would write or, with `missing_only`, has.

    Attributes:
        upstream: Name of the model.
        checkpoint: As it would be given; None for the model's own choice.
        downstream: Name of the task.
        corpus: Name of the corpus.
        mode: frozen or finetune.
        setting: Layer, share of the labels, seed, labels, tuning and condition.
        head: Name of the head.
        existing: Path of the record that answers it; None of one that would be written.
    """

    upstream: str
    checkpoint: str | None
    downstream: str
    corpus: str
    mode: str
    setting: RunSetting
    head: str
    existing: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "upstream": self.upstream,
            "checkpoint": self.checkpoint,
            "downstream": self.downstream,
            "corpus": self.corpus,
            "mode": self.mode,
            "layer": self.setting.layer,
            "head": self.head,
            "label_fraction": self.setting.fraction,
            "seed": self.setting.seed,
            "labels": self.setting.labels,
            "tuned": self.setting.tuned,
            "condition": self.setting.condition,
            "existing": None if self.existing is None else str(self.existing),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFeatures:
    """The features that the records of one upstream, task and head need.

    Attributes:
        upstream: Name of the model.
        utterances: Utterances that are read, of each condition anew, by split.
        seconds: Their duration in seconds.
        missing_seconds: Duration of those that go through the model: that are not stored, and that no earlier part of
            the run stores.
        frames: Frames of all of them; None where they are read from the corpus or the network is fine-tuned.
        layers: Layers that are kept.
        width: Dimensions of each.
        memory_bytes: What the features that are needed at the same time take in memory, in bytes.
        store_bytes: What the store would grow by, in bytes.
        road: memory, store or recompute; None as for `frames`.
        budget_memory_bytes: What the process may take.
        budget_disk_bytes: What may be stored.
        store: Folder of the store; None where nothing is stored.
        extract_seconds: Time for what is missing, at the speed of the model on this device; None if unknown.
        trainings: Probes or networks that are trained.
        steps: Optimiser steps of each; 0 where nothing is trained by steps.
    """

    upstream: str
    utterances: dict[str, int]
    seconds: float
    missing_seconds: float
    frames: int | None
    layers: int
    width: int
    memory_bytes: int | None
    store_bytes: int | None
    road: str | None
    budget_memory_bytes: int | None
    budget_disk_bytes: int | None
    store: Path | None
    extract_seconds: float | None
    trainings: int
    steps: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**given, "store": None if self.store is None else str(self.store)}


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """What a run would do."""

    records: tuple[PlannedRecord, ...]
    features: tuple[PlannedFeatures, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "dry_run": True,
            "records": [each.as_dict() for each in self.records],
            "features": [each.as_dict() for each in self.features],
        }


def plan_run(request: RunRequest, reporter: Reporter | None = None) -> PlannedRun:
    """What `run` would do with a request; nothing is written below its `out`.

    Raises:
        UsageError: As `run`; or the request scores with a trained probe, of which there is nothing to forecast.
        DataError: The corpus lacks what the task needs.
        PluginError: The upstream or the task breaks its contract.
        EnvironmentFault: The features fit neither memory nor disk.
        RunInUseError: Another process fine-tunes one of the networks.
    """
    reporter = reporter or Silence()
    refuse_contradictions(request)
    if request.missing_only:
        refuse_trained_probe(request)
    if request.probe is not None:
        what = "A run with a trained probe trains nothing, and its record is written at once"
        raise UsageError(what, key="--dry-run", do="Leave one of --probe and --dry-run out")
    records: list[PlannedRecord] = []
    features: list[PlannedFeatures] = []
    counted: set[SoundKey] = set()
    for one in requests_of(request):
        _plan(one, reporter, records, features, counted)
    return PlannedRun(tuple(records), tuple(features))


def _plan(
    request: RunRequest,
    reporter: Reporter,
    records: list[PlannedRecord],
    features: list[PlannedFeatures],
    counted: set[SoundKey],
) -> None:
    """Add what one of `requests_of`, and its untrained control, would do."""
    opened = functools.cache(lambda: open_corpus_of(request, reporter))
    context = prepare(request, reporter, opened)
    request = context.request
    settings = settings_of(request, context.upstream, tuple(context.conditions))
    for note in notes_on_weights(request, context.upstream):
        reporter.say(f"note: {note}")
    corpus = opened()
    existing = {}
    missing = settings
    if request.missing_only:
        written, missing = answered_before(context, corpus, settings)
        answered = [setting for setting in settings if setting not in missing]
        existing = {setting: each.path for setting, each in zip(answered, written, strict=True)}
    assert request.head is not None
    records += [
        PlannedRecord(
            upstream=request.upstream,
            checkpoint=request.checkpoint,
            downstream=request.downstream,
            corpus=corpus.name,
            mode="finetune" if request.finetune else "frozen",
            setting=setting,
            head=request.head,
            existing=existing.get(setting),
        )
        for setting in settings
    ]
    if missing:
        check_invariance(context.upstream, context.upstream_entry, context.fingerprint, context.device)
        rates = notes_of(corpus, context.upstream)
        splits = label_corpus(corpus, context.task, request.protocol.split, excludes=exclusions(context.upstream))
        data = RunData.of(context, corpus, splits, rates)
        for warning in (*data.splits.warnings, *rates):
            reporter.say(f"note: {warning}")
        features.append(_planned_features(context, data, missing, counted))
    control = untrained_control(request, context, reporter)
    if control is not None:
        for one in requests_of(control):
            _plan(one, reporter, records, features, counted)


def _planned_features(
    context: RunContext, data: RunData, settings: Sequence[RunSetting], counted: set[SoundKey]
) -> PlannedFeatures:
    request, splits = context.request, data.splits
    reads = splits_read(context.task)
    parts: dict[str, LabelledUtterances]
    if reads is not None:
        parts = {name: splits.usable(getattr(splits, name)) for name in reads}
        trained: dict[RunSetting, Any] = {}
    else:
        trained = dict(subsets_of(data.corpus, context, splits, settings))
        parts = {"train": splits.usable(splits.train), "dev": splits.usable(splits.dev)}
    tests = {
        "test" if condition is None else f"test, {condition}": data.tests[condition].listed()
        for condition in conditions_in(settings)
    }
    at_once = [splits.every()] if splits.folds else list(parts.values())
    if splits.folds and "test" in tests:  # each utterance is test once, and is read once
        parts, tests = {"all folds": splits.every()}, {name: each for name, each in tests.items() if name != "test"}
    every = {**parts, **tests}
    seconds = sum(map(seconds_of, every.values()))
    if request.finetune:
        for setting in trained:
            refuse_if_trained_in(folder_of_training(context, data.corpus, setting))
    # Fine-tuning computes no features, and those of a corpus are read: there is nothing to forecast.
    forecasts = not request.finetune and not isinstance(context.upstream, FrameReader)
    missing_seconds = _missing_seconds(context, every.values(), counted) if forecasts else 0.0
    trainings = trainings_of(context, trainings_in(settings)) if reads is None else 0
    need = budget = road = None
    store_bytes = None
    if forecasts:
        need, budget, road = forecast_of(context, *(at_once or list(tests.values())[:1]), trainings=trainings)
        index_of_all = forecast_of(context, *every.values(), counts_missing=True)[0] if context.store else None
        store_bytes = 0 if index_of_all is None or road.name == "recompute" else index_of_all.store_bytes
    speed = context.cost.real_time_factor
    steps = request.protocol.finetune.steps if request.finetune else request.protocol.probe.steps if trainings else 0
    return PlannedFeatures(
        upstream=request.upstream,
        utterances={name: len(each) for name, each in every.items()},
        seconds=seconds,
        missing_seconds=missing_seconds,
        frames=None if need is None else need.num_frames,
        layers=len(context.layers),
        width=context.upstream.info.width,
        memory_bytes=None if need is None else need.table_bytes,
        store_bytes=store_bytes,
        road=None if road is None else road.name,
        budget_memory_bytes=None if budget is None else budget.memory_bytes,
        budget_disk_bytes=None if budget is None else budget.disk_bytes,
        store=None if context.store is None else store_folder(),
        extract_seconds=None if speed is None or not forecasts else missing_seconds / speed,
        trainings=len(trained) if request.finetune else trainings,
        steps=steps,
    )


def _missing_seconds(context: RunContext, parts: Iterable[LabelledUtterances], counted: set[SoundKey]) -> float:
    """Duration of the utterances that neither the store holds nor an earlier part of the run adds to it."""
    utterances = [example.utterance for part in parts for example in part]
    if context.store is None:
        return sum(each.seconds for each in utterances)
    missing = 0.0
    for each in context.store.lacking(utterances, context.layers):
        keys = {(context.fingerprint, each.samples_sha256, each.sample_rate_hz, layer) for layer in context.layers}
        if not keys <= counted:
            missing += each.seconds
        counted |= keys
    return missing
