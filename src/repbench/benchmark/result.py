"""From a trained probe and sealed questions to a record on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from repbench.benchmark import environment
from repbench.benchmark.baselines import baselines
from repbench.benchmark.plan import (
    Plan,
)
from repbench.benchmark.probe import (
    Examiner,
    Examples,
    Selection,
    TrainedProbe,
    save_probe,
)
from repbench.benchmark.record import Record, sealed_record, write_record
from repbench.benchmark.scoring import metrics_part
from repbench.benchmark.stage import Answered, Stage, Written, module_of
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Prediction
from repbench.upstream.contract import provenance_of

PROBE_FILE = "probe.safetensors"


def score(
    stage: Stage,
    corpus: Corpus,
    plan: Plan,
    answered: Answered,
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
            "downstream": {
                "name": stage.request.downstream,
                "version": stage.task_entry.version,
                "classes": plan.classes,
            },
            "corpus": {
                "name": corpus.name,
                "fingerprint": corpus.fingerprint,
                "split_policy": plan.policy,
                "warnings": [*plan.warnings, *rates, *answered.warnings, *_of_weights(stage, test)],
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
                "parameters": environment.count_parameters(module_of(stage.upstream)),
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
    stage: Stage, record: Record, predictions: Sequence[Prediction], trained: TrainedProbe, heard: Mapping[str, Any]
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


def _upstream_part(stage: Stage) -> dict[str, Any]:
    entry = stage.upstream_entry
    return {
        "name": stage.request.upstream,
        "checkpoint": provenance_of(stage.upstream).checkpoint or stage.request.checkpoint,
        "fingerprint": stage.fingerprint,
        "origin": {"distribution": entry.distribution, "version": entry.version},
        "layer_names": stage.upstream.info.layer_names,
    }


def _of_weights(stage: Stage, test: Examples) -> list[str]:
    """What a reader should know of the weights, and how much of the test split they were learned from."""
    provenance = provenance_of(stage.upstream)
    known = sum(question.utterance.samples_sha256 in provenance.heard for question in test.questions)
    if not known:
        return list(provenance.notes)
    return [
        *provenance.notes,
        f"{stage.request.upstream} heard {known} of {len(test.questions)} test utterances in its pre-training",
    ]


def _selection_part(selection: Selection) -> dict[str, Any]:
    return {"grid": selection.grid, "chosen": selection.chosen, "dev_value": selection.dev_value}
