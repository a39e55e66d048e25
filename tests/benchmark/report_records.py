"""Small records with predictions that give their numbers: what the tests of reports are made of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.records.predictions_file import predictions_digest
from repbench.benchmark.records.record import Record, sealed_record, write_record
from repbench.benchmark.scoring.metrics import metrics_part
from repbench.corpora.contract import AttributeValue
from repbench.downstream.contract import FramePrediction, Prediction, UtterancePrediction
from repbench.registry import registry

PHONES = ("AA", "IY", "S", "sil")
SPEAKERS = 5


def answers(task: str, skill: float, seed: int, count: int = 20, speakers: int = SPEAKERS) -> list[Prediction]:
    """Predictions of a system that is right with probability `skill`; the same questions whatever skill and seed."""
    draw = random.Random(f"{task} {skill} {seed}")
    found: list[Prediction] = []
    for number in range(count):
        speaker = f"s{number % speakers}"
        common: dict[str, Any] = {"id": f"u{number}", "speaker": speaker, "group": None}
        if task == "phone":
            cells: dict[tuple[int, int], int] = {}
            for instant in range(40):
                reference = (instant + number) % len(PHONES)
                estimated = reference if draw.random() < skill else (reference + 1) % len(PHONES)
                cells[reference, estimated] = cells.get((reference, estimated), 0) + 1
            confusion = tuple((r, e, n) for (r, e), n in sorted(cells.items()))
            found.append(FramePrediction(**common, confusion=confusion, edits=draw.randrange(9), reference_length=30))
        else:
            right = draw.random() < skill
            scores = (1.0, 0.0) if right == (number % 2 == 0) else (0.0, 1.0)
            found.append(UtterancePrediction(**common, reference=number % 2, scores=scores))
    return found


def write(
    root: Path,
    *,
    task: str = "phone",
    upstream: str = "mel",
    checkpoint: str | None = None,
    skill: float = 0.6,
    seed: int = 0,
    fraction: float = 1.0,
    layer: str = "last",
    corpus: str = "synthetic:noisy:tiny",
    fingerprint: str = "a" * 64,
    weights: str | None = None,
    policy: str = "official splits",
    mode: str = "frozen",
    head: str = "linear",
    protocol: dict[str, Any] | None = None,
    rates: tuple[float, ...] = (0.001,),
    macs: int = 0,
    layer_names: tuple[str, ...] = ("l0", "l1", "l2"),
    without: int = 0,
    count: int = 20,
    speakers: int = SPEAKERS,
    classes: tuple[str, ...] | None = None,
    version: str = "1",
    distribution: str = "repbench",
    device: str = "cpu",
    citation: str | None = None,
    licence: str | None = None,
    attributes: Mapping[str, Mapping[str, AttributeValue]] | None = None,
    declared: Mapping[str, Any] | None = None,
    **others: Any,
) -> Path:
    """Write one record with its predictions below `root`.

    With `attributes`, from the id of an utterance to its own, the predictions keep them.

    Returns:
        Its `record.json`.
    """
    classes = classes or (PHONES if task == "phone" else ("negative", "positive"))
    asked = answers(task, skill, seed, count, speakers)
    predictions = asked[: len(asked) - without]
    if attributes is not None:
        kept = (tuple(sorted(attributes.get(each.id, {}).items())) for each in predictions)
        predictions = [replace(each, attributes=own) for each, own in zip(predictions, kept, strict=True)]
    made = build_task(registry().find("downstream", task).entry, {})
    record: Record = sealed_record(
        {
            "created": "2026-01-02T03:04:05+00:00",
            "upstream": {"name": upstream, "checkpoint": checkpoint,
                         "fingerprint": weights or f"{upstream} {checkpoint}",
                         "origin": {"distribution": "repbench", "version": "1"}, "layer_names": layer_names,
                         "citation": citation, "licence": licence, "declared": declared},
            "downstream": {"name": task, "version": version, "classes": classes,
                           "origin": {"distribution": distribution, "version": version}},
            "corpus": {"name": corpus, "fingerprint": fingerprint, "split_policy": policy, "warnings": [],
                       "n_train": 80, "n_dev": 10, "n_test": len(asked)},
            "mode": mode, "layer": layer, "label_fraction": fraction,
            "label_seconds": {"train": 200.0 * fraction, "dev": 20.0}, "seed": seed, "head": head,
            "protocol": protocol if protocol is not None else {"probe": {"steps": 100}},
            "selection": {"grid": [{"learning_rate": rate, "step": 100, "dev_value": skill - place / 100}
                                   for place, rate in enumerate(rates)],
                          "chosen": {"learning_rate": rates[0], "step": 100}, "dev_value": skill},
            "primary_metric": "accuracy", "metrics": metrics_part(made, classes, predictions),
            "baselines": {"chance": 1 / len(classes), "majority": 0.3},
            "n_listed": len(asked), "n_scored": len(predictions),
            "excluded": {each.id: "too short" for each in asked[len(predictions) :]}, "test_accesses": 1,
            "cost": {"parameters": macs // 10, "macs_per_second": macs, "extract_seconds": 0.1, "train_seconds": 0.2,
                     "real_time_factor": 500.0, "peak_rss_bytes": 1000, "device": device},
            "environment": {"python": "3.11", "torch": "2.11", "platform": "linux", "cpu": "c", "threads": 2,
                            "precision": "float32", "git": None},
            "predictions_sha256": predictions_digest(predictions),
            **others,
        }
    )  # fmt: skip
    return write_record(root / record.id, record, predictions)


def small_grid(root: Path) -> None:
    """Three systems, two tasks, two seeds, two shares of labels, layers of one, learning rates of one."""
    systems: dict[str, dict[str, Any]] = {
        "mel": {"skill": 0.6},
        "good": {"skill": 0.9, "checkpoint": "runs/good", "macs": 5_000_000, "rates": (0.001, 0.01, 0.1)},
        "apc": {"skill": 0.62, "checkpoint": "random:tiny", "macs": 2_000_000},
    }
    for upstream, options in systems.items():
        for seed in (0, 1):
            for fraction in (0.1, 1.0):
                skill = options["skill"] - 0.2 * (fraction < 1)
                write(root, upstream=upstream, seed=seed, fraction=fraction, **{**options, "skill": skill})
            if upstream != "apc":
                write(root, task="sentiment", head="mlp1", upstream=upstream, seed=seed, **options)
    for layer in ("0", "1", "2"):
        write(root, upstream="good", layer=layer, **{**systems["good"], "skill": 0.7 + int(layer) / 20})
