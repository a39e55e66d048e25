"""From a trained probe and sealed questions to a record on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repbench.benchmark import environment
from repbench.benchmark.certificate import certificate_id, task_fingerprint
from repbench.benchmark.loading import origin_of
from repbench.benchmark.network import encoded_network, facts_of
from repbench.benchmark.plan import Plan, Questions
from repbench.benchmark.precomputed import resampler_of
from repbench.benchmark.probe import encoded_probe
from repbench.benchmark.record import Record, predictions_digest, sealed_record, weights_file, write_record
from repbench.benchmark.scoring import metrics_part
from repbench.benchmark.stage import Answered, Stage, Written, module_of
from repbench.benchmark.training import Selection
from repbench.corpora.contract import Corpus
from repbench.corpora.opening import entry_of_corpus
from repbench.downstream.contract import Prediction
from repbench.files import atomic_write
from repbench.upstream.contract import provenance_of

SAID_ELSEWHERE = {"head", "layer", "tasks"}
"""Settings of the protocol that a record has in fields of its own, or resolved."""


def score(
    stage: Stage,
    corpus: Corpus,
    plan: Plan,
    answered: Answered,
    predictions: Sequence[Prediction],
    test: Questions,
    known: Mapping[str, float | None],
    rates: tuple[str, ...],
    heard: Mapping[str, Any],
) -> Written:
    """Measure what was answered, and write the record.

    Args:
        stage: What all settings share.
        corpus: Of the questions.
        plan: How it was divided.
        answered: Who answered.
        predictions: The answers.
        test: The questions.
        known: Their baselines.
        rates: What is to be said of the way from the sound to the frames.
        heard: What the probe was trained and selected on, as it is saved with it.
    """
    setting = answered.setting
    weights = _weights(stage, answered, heard)
    record = sealed_record(
        {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "upstream": _upstream_part(stage),
            "downstream": {
                "name": stage.request.downstream,
                "version": stage.task_entry.version,
                "classes": plan.classes,
                "origin": origin_of(stage.task_entry),
                "certificate": _certificate_of_task(stage),
            },
            "corpus": {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "split_policy": plan.policy,
                "warnings": [*plan.warnings, *rates, *answered.warnings, *_of_weights(stage, test)],
                "n_train": len(plan.train),
                "n_dev": len(plan.dev),
                "n_test": plan.test.num_listed,
                "origin": _origin_of_corpus(stage.request.corpus),
                "resampler": resampler_of(corpus, stage.upstream),
            },
            "mode": answered.mode,
            "layer": setting.layer,
            "label_fraction": setting.fraction,
            "label_seconds": answered.label_seconds,
            "seed": setting.seed,
            "head": stage.head,
            "protocol": setting.protocol(stage.request.protocol).model_dump(mode="json", exclude=SAID_ELSEWHERE),
            "selection": _selection_part(answered.trained.selection),
            "primary_metric": stage.task.info.primary_metric,
            "metrics": metrics_part(stage.task, plan.classes, predictions),
            "baselines": dict(known),
            "n_listed": plan.test.num_listed,
            "n_scored": len(predictions),
            "excluded": plan.test.excluded,
            "test_accesses": plan.test.accesses,
            "cost": {
                "parameters": environment.count_parameters(module_of(stage.upstream)),
                "macs_per_second": stage.cost.macs_per_second,
                "real_time_factor": stage.cost.real_time_factor,
                "extract_seconds": stage.extract_seconds,
                "train_seconds": answered.trained.seconds,
                "peak_rss_bytes": environment.peak_rss_bytes(),
                "device": str(stage.device),
            },
            "environment": stage.environment,
            "certificate": _certificate(stage),
            "predictions_sha256": predictions_digest(predictions),
            "probe_sha256": hashlib.sha256(weights).hexdigest(),
        }
    )
    folder = record_folder(stage.request.out, record)
    with atomic_write(folder / weights_file(record)) as stream:
        stream.write(weights)
    return Written(write_record(folder, record, predictions), record)


def _weights(stage: Stage, answered: Answered, heard: Mapping[str, Any]) -> bytes:
    """The probe or the fine-tuned network as it is saved beside the record."""
    facts = {
        "upstream": stage.request.upstream,
        "upstream_fingerprint": stage.fingerprint,
        "downstream": stage.request.downstream,
        "layer": answered.setting.layer,
        "heard": heard["heard"],
        "speakers": heard["speakers"],
    }
    if answered.mode == "finetune":
        return encoded_network(module_of(stage.upstream), answered.trained.probe, facts | facts_of(stage.upstream))
    return encoded_probe(answered.trained.probe, facts)


def record_folder(out: Path, record: Record) -> Path:
    """Where a record lies: `OUT/CORPUS/DOWNSTREAM/UPSTREAM/ID`, names reduced to what every file system takes."""
    return pair_folder(out, record.corpus.name, record.downstream.name, record.upstream.name) / record.id


def pair_folder(out: Path, corpus: str, downstream: str, upstream: str) -> Path:
    """Where the records of a pair on a corpus lie; names that differ only in odd characters share a folder."""
    return out.joinpath(*(_file_name(name) for name in (corpus, downstream, upstream)))


def _file_name(name: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return plain.strip(".")[-80:] or "unnamed"


def _upstream_part(stage: Stage) -> dict[str, Any]:
    entry = stage.upstream_entry
    return {
        "name": stage.request.upstream,
        "checkpoint": provenance_of(stage.upstream).checkpoint or stage.request.checkpoint,
        "fingerprint": stage.fingerprint,
        "origin": origin_of(entry),
        "layer_names": stage.upstream.info.layer_names,
        "citation": stage.upstream.info.citation,
        "licence": stage.upstream.info.licence,
    }


def _certificate(stage: Stage) -> str | None:
    file_sha256 = stage.upstream_entry.file_sha256()
    return certificate_id("upstream", stage.fingerprint, stage.upstream.info, file_sha256)


def _origin_of_corpus(spec: str) -> dict[str, str | None] | None:
    """Where the plugin came from that made the corpus; nothing made the folder of a manifest here."""
    entry = entry_of_corpus(spec)
    return None if entry is None else origin_of(entry)


def _certificate_of_task(stage: Stage) -> str | None:
    entry, file_sha256 = stage.task_entry, stage.task_entry.file_sha256()
    fingerprint = task_fingerprint(entry.target, file_sha256, stage.request.protocol.task)
    return certificate_id("downstream", fingerprint, stage.task.info, file_sha256)


def _of_weights(stage: Stage, test: Questions) -> list[str]:
    """What a reader should know of the weights, and how much of the test split they were learned from."""
    provenance = provenance_of(stage.upstream)
    known = sum(question.utterance.samples_sha256 in provenance.heard for question in test)
    if not known:
        return list(provenance.notes)
    return [
        *provenance.notes,
        f"{stage.request.upstream} heard {known} of {len(test)} test utterances in its pre-training",
    ]


def _selection_part(selection: Selection) -> dict[str, Any]:
    return {"grid": selection.grid, "chosen": selection.chosen, "dev_value": selection.dev_value}
