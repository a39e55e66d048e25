"""From a trained probe and its predictions of test to a record on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from repbench.audio.disturbances.condition import Condition
from repbench.benchmark import environment
from repbench.benchmark.features.source import resampler_of
from repbench.benchmark.finetuning.network import encoded_network, facts_of
from repbench.benchmark.loading.certificates import certificate_id, task_fingerprint
from repbench.benchmark.loading.upstreams import origin_of
from repbench.benchmark.pipeline.fold_results import folds_part, selection_part
from repbench.benchmark.pipeline.heard_before import heard_before
from repbench.benchmark.pipeline.run_data import OpenedTest, RunData
from repbench.benchmark.pipeline.setup import RunContext, RunSetting, TrainedResult, WrittenRecord, module_of
from repbench.benchmark.probing.probe import encoded_probe
from repbench.benchmark.probing.training import Selection
from repbench.benchmark.records.attributes import with_attributes
from repbench.benchmark.records.parts import DeclaredModelPart, FinetunedPart, HeardPart
from repbench.benchmark.records.predictions_file import EncodedPredictions
from repbench.benchmark.records.record import Record, fold_probe_file, sealed_record, weights_file, write_record
from repbench.benchmark.scoring.grouping import groupings_of
from repbench.benchmark.scoring.metrics import metrics_part
from repbench.corpora.conditions import original
from repbench.corpora.open import entry_of_corpus
from repbench.downstream.contract import Outcome, Prediction, problem_of
from repbench.downstream.heads import head_origin
from repbench.files import atomic_write
from repbench.upstream.adapters.corpus_features import declared_model_of
from repbench.upstream.checkpoints.untrained import is_untrained
from repbench.upstream.contract import Upstream, provenance_of
from repbench.upstream.windowed import unwindowed

NOT_IN_PROTOCOL = {"head", "layer", "tasks", "resources"}
"""Settings of the protocol that a record has in fields of its own or resolved, and those of the machine."""


class MeasuredPart(NamedTuple):
    """What a task without training took: seconds, seconds of labelled sound by split, and its warnings."""

    seconds: float
    label_seconds: Mapping[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """What a record states of one setting, beside the predictions.

    Attributes:
        setting: The setting.
        selection: On dev.
        seconds: Of training.
        label_seconds: Seconds of labelled sound, by split.
        warnings: About this setting.
        mode: frozen or finetune.
        weights: The file of the probe or network; None where there is none, or one a fold.
        of_folds: The files of the probes of the folds, by name.
        files: The files of the task, by name.
        folds: The fields of the record about the folds.
        finetuned: The field of the record about the weights that were trained.
    """

    setting: RunSetting
    selection: Selection
    seconds: float
    label_seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    mode: str = "frozen"
    weights: bytes | None = None
    of_folds: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    folds: Mapping[str, Any] = field(default_factory=dict)
    finetuned: FinetunedPart | None = None


def score(
    context: RunContext, data: RunData, test: OpenedTest, result: TrainedResult, predictions: Sequence[Prediction]
) -> WrittenRecord:
    """Measure the predictions of a trained probe, and write the record.

    Args:
        context: What all settings share.
        data: The corpus and its splits.
        test: The test split.
        result: The probe that predicted.
        predictions: One for each example of `test`.
    """
    of_folds = {
        fold_probe_file(number): _weights(context, each, test.trained_on[each.setting.fold])
        for number, each in enumerate(result.folds, start=1)
    }
    scored = _Scored(
        setting=result.setting,
        selection=result.trained.selection,
        seconds=result.trained.seconds,
        label_seconds=result.label_seconds,
        warnings=result.warnings,
        mode=result.mode,
        weights=None if result.folds else _weights(context, result, test.trained_on[None]),
        of_folds=of_folds,
        # Of an earlier run the files of its predictions are among those of the splits; the new ones replace them.
        files={**data.splits.files, **problem_of(context.task).files(predictions)},
        folds=folds_part(context.task, data.splits, result, predictions, of_folds),
        finetuned=None if result.weights is None else result.weights.part,
    )
    return _written(context, data, test, scored, predictions)


def score_outcome(
    context: RunContext, data: RunData, test: OpenedTest, setting: RunSetting, outcome: Outcome, measured: MeasuredPart
) -> WrittenRecord:
    """Measure the predictions of a task without training, and write the record; arguments as of `score`.

    Args:
        context: What all settings share.
        data: The corpus and its splits.
        test: The test split.
        setting: In which it was measured.
        outcome: What the task found.
        measured: What it took.
    """
    scored = _Scored(
        setting=setting,
        selection=Selection((), dict(outcome.chosen), outcome.dev_value),
        seconds=measured.seconds,
        label_seconds=measured.label_seconds,
        warnings=measured.warnings,
        files={**data.splits.files, **outcome.files},
    )
    return _written(context, data, test, scored, outcome.predictions)


def _written(
    context: RunContext, data: RunData, test: OpenedTest, scored: _Scored, predictions: Sequence[Prediction]
) -> WrittenRecord:
    """Measure, and write the record after its files: a record that exists is whole."""
    names = [grouping.attribute for grouping in groupings_of(context.request.by)]
    predictions = with_attributes(predictions, (each.utterance for each in test.examples), names)
    with EncodedPredictions(predictions, context.request.out) as encoded:
        record = _record(context, data, test, scored, predictions, encoded.digest)
        folder = record_folder(context.request.out, record)
        for name, content in {weights_file(record): scored.weights, **scored.of_folds, **scored.files}.items():
            if content is not None:
                with atomic_write(folder / name) as stream:
                    stream.write(content)
        return WrittenRecord(write_record(folder, record, encoded), record)


def _record(
    context: RunContext,
    data: RunData,
    test: OpenedTest,
    scored: _Scored,
    predictions: Sequence[Prediction],
    predictions_sha256: str,
) -> Record:
    """The record, with the metrics of all predictions."""
    setting, splits = scored.setting, data.splits
    heard = _heard(context, data, test)
    return sealed_record(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "upstream": _upstream_part(context),
            "downstream": {
                "name": context.request.downstream,
                "version": context.task_entry.version,
                "classes": splits.classes,
                "origin": origin_of(context.task_entry),
                "certificate": _certificate_of_task(context),
                "files": {name: hashlib.sha256(content).hexdigest() for name, content in scored.files.items()},
            },
            "corpus": {
                "name": data.corpus.name,
                "fingerprint": data.corpus.fingerprint,
                "split_policy": splits.policy,
                "warnings": [*splits.warnings, *data.notes, *scored.warnings, *_of_weights(context, heard)],
                "n_train": len(splits.train),
                "n_dev": len(splits.dev),
                "n_test": test.split.num_listed,
                "origin": _origin_of_corpus(context.request.corpus),
                "resampler": resampler_of(data.corpus, context.upstream),
                "licence": data.corpus.licence,
            },
            "mode": scored.mode,
            "layer": setting.layer,
            "label_fraction": setting.fraction,
            "label_seconds": scored.label_seconds,
            "seed": setting.seed,
            "head": context.head,
            "head_origin": head_origin(context.head),
            "condition": None
            if test.condition is None
            else condition_part(test.condition, matched=context.request.matched),
            "protocol": setting.protocol(context.request.protocol).model_dump(mode="json", exclude=NOT_IN_PROTOCOL),
            "selection": selection_part(scored.selection),
            "primary_metric": context.task.info.primary_metric,
            "metrics": metrics_part(context.task, splits.classes, predictions),
            "baselines": dict(test.baselines),
            "n_listed": test.split.num_listed,
            "n_scored": len(predictions),
            "excluded": test.split.excluded,
            "test_accesses": test.split.accesses,
            "cost": {
                "parameters": environment.count_parameters(module_of(context.upstream)),
                "macs_per_second": context.cost.macs_per_second,
                "real_time_factor": context.cost.real_time_factor,
                "extract_seconds": context.extract_seconds,
                "train_seconds": scored.seconds,
                "peak_rss_bytes": environment.peak_rss_bytes(),
                "device": str(context.device),
            },
            "environment": context.environment,
            "certificate": _certificate(context),
            "predictions_sha256": predictions_sha256,
            "probe_sha256": None if scored.weights is None else hashlib.sha256(scored.weights).hexdigest(),
            **scored.folds,
            "heard": heard,
            "finetuned": scored.finetuned,
        }
    )


def condition_part(condition: Condition, *, matched: bool) -> dict[str, Any]:
    """The field `condition` of a record."""
    return {
        "name": condition.name,
        "kind": condition.kind,
        "severity": condition.severity,
        "parameters": dict(condition.parameters),
        "training": "matched" if matched else "clean",
        "digest": hashlib.sha256(condition.key().encode("utf-8", "surrogatepass")).hexdigest()[:16],
    }


def _weights(context: RunContext, result: TrainedResult, trained_on: Mapping[str, Any]) -> bytes:
    """The file of the probe or of the fine-tuned network."""
    facts = {
        "upstream": context.request.upstream,
        "upstream_fingerprint": context.fingerprint,
        "downstream": context.request.downstream,
        "layer": result.setting.layer,
        "heard": trained_on["heard"],
        "speakers": trained_on["speakers"],
    }
    if (origin := head_origin(context.head)) is not None:
        facts["head_origin"] = origin
    if result.weights is not None:
        facts |= facts_of(context.upstream)
        weights = result.weights.moving
        if weights is None:
            weights = module_of(context.upstream).state_dict()
        else:
            facts["partial"] = dict(result.weights.settings)
        return encoded_network(weights, result.trained.probe, facts)
    return encoded_probe(result.trained.probe, facts)


def record_folder(out: Path, record: Record) -> Path:
    """The folder of a record: `OUT/CORPUS/DOWNSTREAM/UPSTREAM/ID`, names reduced to what every file system takes."""
    return pair_folder(out, record.corpus.name, record.downstream.name, record.upstream.name) / record.id


def pair_folder(out: Path, corpus: str, downstream: str, upstream: str) -> Path:
    """The folder of a pair's records on a corpus; names that differ only in odd characters share a folder."""
    return out.joinpath(*(_file_name(name) for name in (corpus, downstream, upstream)))


def _file_name(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    # Without dots at the ends: a name `..` would lead out of the folder.
    return plain.strip(".")[-80:] or "unnamed"


def _upstream_part(context: RunContext) -> dict[str, Any]:
    entry = context.upstream_entry
    return {
        "name": context.request.upstream,
        "checkpoint": provenance_of(context.upstream).checkpoint or context.request.checkpoint,
        "fingerprint": context.fingerprint,
        "origin": origin_of(entry),
        "layer_names": context.upstream.info.layer_names,
        "citation": context.upstream.info.citation,
        "licence": context.upstream.info.licence,
        "declared": declared_part(context.upstream),
    }


def declared_part(upstream: Upstream) -> DeclaredModelPart | None:
    """The field `upstream.declared` of a record; None where no folder declares a name."""
    declared = declared_model_of(upstream)
    return None if declared is None else DeclaredModelPart(**asdict(declared))


def _certificate(context: RunContext) -> str | None:
    file_sha256 = context.upstream_entry.file_sha256()
    return certificate_id("upstream", context.fingerprint, unwindowed(context.upstream).info, file_sha256)


def _origin_of_corpus(spec: str) -> dict[str, str | None] | None:
    """Origin of the plugin that made the corpus; None for the folder of a manifest."""
    entry = entry_of_corpus(spec)
    return None if entry is None else origin_of(entry)


def _certificate_of_task(context: RunContext) -> str | None:
    entry, file_sha256 = context.task_entry, context.task_entry.file_sha256()
    fingerprint = task_fingerprint(entry.target, file_sha256, context.request.protocol.task)
    return certificate_id("downstream", fingerprint, context.task.info, file_sha256)


def _heard(context: RunContext, data: RunData, test: OpenedTest) -> HeardPart:
    """Whether the upstream was trained on test utterances before."""
    provenance = provenance_of(context.upstream)
    if is_untrained(context.request.checkpoint):  # a plugin's, whose class may declare its trained weights
        provenance = replace(provenance, checkpoint=context.request.checkpoint)
    return heard_before(provenance, data.corpus, [original(example.utterance) for example in test.examples])


def _of_weights(context: RunContext, heard: HeardPart) -> list[str]:
    """Caveats about the weights, and how many test utterances their pre-training included."""
    notes = list(provenance_of(context.upstream).notes)
    if not heard.n_overlapping:
        return notes
    known = f"{heard.n_overlapping} of {heard.n_test}"
    return [*notes, f"{context.request.upstream} learned from {known} test utterances in its pre-training"]
