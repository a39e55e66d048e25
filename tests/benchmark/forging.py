"""Records and predictions changed by hand, well or badly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.records.predictions_file import predictions_digest
from repbench.benchmark.records.record import digest_of, read_predictions, seal_of
from repbench.benchmark.scoring.metrics import metrics_part
from repbench.registry import registry

Edit = Callable[[dict[str, Any]], None]


def copied(source: Path, target: Path) -> Path:
    """Record and predictions alone, as they are submitted to a leaderboard."""
    target.mkdir()
    for name in ("record.json", "predictions.jsonl"):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def edit(folder: Path, change: Edit, *, sealed_anew: bool = False) -> None:
    """Change a record; with `sealed_anew` as one does who knows how it is sealed."""
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    change(record)
    if sealed_anew:
        record["seal"] = seal_of(record)
        record["id"] = digest_of(record)
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


def edit_predictions(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the lines of the predictions."""
    path = folder / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(lines)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def put(*path: str, value: Any) -> Edit:
    """A change of one field."""

    def change(record: dict[str, Any]) -> None:
        for name in path[:-1]:
            record = record[name]
        record[path[-1]] = value

    return change


def make_consistent(folder: Path) -> None:
    """Give a record the numbers of its changed predictions, and seal it anew: the forgery of one who reads the code."""
    predictions = read_predictions(folder / "predictions.jsonl")

    def change(record: dict[str, Any]) -> None:
        task = build_task(registry().find("downstream", record["downstream"]["name"]).entry, record["protocol"]["task"])
        record["metrics"] = metrics_part(task, record["downstream"]["classes"], predictions)
        record["predictions_sha256"] = predictions_digest(predictions)
        record["n_scored"] = record["n_listed"] = record["corpus"]["n_test"] = len(predictions)

    edit(folder, change, sealed_anew=True)
