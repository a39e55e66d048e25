"""Time of `repbench report` for 2,000 records, every number of them recomputed from its predictions.

The records are those of a grid: 20 systems, of which one is mel, at three tasks with three shares of the labels, at
five layers of two tasks, and fine-tuned at one; five seeds of each. A record has the predictions of 200 utterances, as
large as those of real runs: of `phone`, 250 instants each among 40 classes; of `speaker`, 20 scores each. They are
drawn, not run, and the numbers of each record follow from them, so that every check passes.

The whole command is timed: process start, the check of every record, all five forms and the page. Nothing is kept from
one repeat to the next; the least counts, since whatever else the machine does only makes it longer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from repbench.benchmark import environment
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.records.predictions_file import predictions_digest
from repbench.benchmark.records.record import sealed_record, write_record
from repbench.benchmark.scoring.metrics import metrics_part
from repbench.downstream.contract import FramePrediction, Prediction, UtterancePrediction
from repbench.registry import registry

SYSTEMS, SEEDS = 20, 5
FRACTIONS, LAYERS = (0.01, 0.1, 1.0), ("0", "1", "2", "3", "weighted")
INSTANTS = 250
CLASSES = {
    "phone": tuple(f"p{number:02}" for number in range(40)),
    "speaker": tuple(f"s{number:02}" for number in range(20)),
    "sentiment": ("negative", "positive"),
}
SPEAKERS = {"phone": 10, "speaker": 20, "sentiment": 10}
HEADS = {"phone": "linear", "speaker": "mlp1", "sentiment": "mlp1"}


class Setting(NamedTuple):
    """What one record is of."""

    system: int
    task: str
    mode: str
    layer: str
    fraction: float
    seed: int


def settings() -> Iterator[Setting]:
    """2,000 of them."""
    for system, seed in product(range(SYSTEMS), range(SEEDS)):
        for task in CLASSES:
            yield from (Setting(system, task, "frozen", "last", fraction, seed) for fraction in FRACTIONS)
        for task in ("phone", "speaker"):
            yield from (Setting(system, task, "frozen", layer, 1.0, seed) for layer in LAYERS)
        yield Setting(system, "phone", "finetune", "last", 1.0, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--records", type=Path, help="keep them here, and take them from here if they are there")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "report.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        runs = arguments.records or Path(name) / "runs"
        if not runs.exists():
            write_all(runs, arguments.utterances)
        files = list(runs.rglob("*.json*"))
        size = sum(file.stat().st_size for file in files)
        seconds = [seconds_of(runs, Path(name)) for _ in range(arguments.repeats)]
    print(f"repbench report: {', '.join(f'{each:.1f}' for each in seconds)} s")
    result = {
        "machine": {**environment.describe(torch.device("cpu")), "cores": len(os.sched_getaffinity(0))},
        "records": len(files) // 2,
        "utterances_each": arguments.utterances,
        "mebibytes": round(size / (1 << 20)),
        "seconds": min(seconds),
        "seconds_of_each": seconds,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def seconds_of(runs: Path, folder: Path) -> float:
    """Of the whole command."""
    command = [sys.executable, "-m", "repbench", "report", str(runs), "--out", str(folder / "report"), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    printed = json.loads(done.stdout)
    if printed["failed"] or printed["records"] != len(list(settings())):
        sys.exit(f"{printed['records']} records are in the report; not believed: {printed['failed']}")
    return seconds


def write_all(runs: Path, utterances: int) -> None:
    machine = environment.describe(torch.device("cpu"))
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_one, [(runs, utterances, setting, machine) for setting in settings()], chunksize=20))


def write_one(arguments: tuple[Path, int, Setting, dict[str, Any]]) -> None:
    """One record whose numbers follow from its predictions."""
    runs, utterances, setting, machine = arguments
    task = build_task(registry().find("downstream", setting.task).entry, {})
    classes, predictions = CLASSES[setting.task], list(answers(setting, utterances))
    upstream = "mel" if setting.system == 0 else f"network-{setting.system:02}"
    record = sealed_record(
        {
            "created": "2026-01-02T03:04:05+00:00",
            "upstream": {"name": upstream, "checkpoint": None if setting.system == 0 else f"runs/{upstream}",
                         "fingerprint": f"{setting.system:064x}",
                         "origin": {"distribution": "repbench", "version": "1"},
                         "layer_names": [f"layer {number}" for number in range(4)]},
            "downstream": {"name": setting.task, "version": "1", "classes": classes},
            "corpus": {"name": "synthetic:full", "fingerprint": "a" * 64, "split_policy": "official splits",
                       "warnings": [], "n_train": 1600, "n_dev": 200, "n_test": utterances},
            "mode": setting.mode, "layer": setting.layer, "label_fraction": setting.fraction,
            "label_seconds": {"train": 4800 * setting.fraction, "dev": 600 * setting.fraction},
            "seed": setting.seed, "head": HEADS[setting.task],
            "protocol": Protocol().model_dump(mode="json", exclude={"head", "layer", "tasks"}),
            "selection": {"grid": [{"learning_rate": rate, "step": 1000, "dev_value": 0.5} for rate in (1e-3, 1e-2)],
                          "chosen": {"learning_rate": 1e-3, "step": 1000}, "dev_value": 0.5},
            "primary_metric": task.info.primary_metric, "metrics": metrics_part(task, classes, predictions),
            "baselines": {"chance": 1 / len(classes), "majority": 1 / len(classes)},
            "n_listed": utterances, "n_scored": utterances, "excluded": {}, "test_accesses": 1,
            "cost": {"parameters": 1_000_000 * setting.system, "macs_per_second": 20_000_000 * setting.system,
                     "real_time_factor": 1000.0 / (setting.system + 1), "extract_seconds": 1.0,
                     "train_seconds": 2.0, "peak_rss_bytes": 1 << 30, "device": "cpu"},
            "environment": machine,
            "predictions_sha256": predictions_digest(predictions),
        }
    )  # fmt: skip
    write_record(runs / setting.task / upstream / record.id, record, predictions)


def answers(setting: Setting, utterances: int) -> Iterator[Prediction]:
    """Of a system that is the better the higher its number: the same questions whoever answers."""
    asked = np.random.default_rng(list(setting.task.encode()))
    draw = np.random.default_rng([*map(ord, f"{setting}")])
    skill = 0.35 + 0.3 * setting.system / SYSTEMS + 0.1 * np.log10(setting.fraction) + 0.1 * (setting.mode != "frozen")
    count, speakers = len(CLASSES[setting.task]), SPEAKERS[setting.task]
    for number in range(utterances):
        speaker = f"s{number % speakers:02}"
        common: dict[str, Any] = {"id": f"{speaker}-a-{number:04}", "speaker": speaker, "group": f"{speaker}-a"}
        if setting.task == "phone":
            reference = np.repeat(asked.integers(0, count, 30), INSTANTS // 30 + 1)[:INSTANTS]
            near = (reference + draw.integers(1, 4, INSTANTS)) % count
            estimated = np.where(draw.random(INSTANTS) < max(skill, 0.05), reference, near)
            cells, counts = np.unique(np.stack([reference, estimated]), axis=1, return_counts=True)
            confusion = tuple((r, e, n) for r, e, n in zip(*cells.tolist(), counts.tolist(), strict=True))
            edits = int(draw.integers(5, 25))
            yield FramePrediction(**common, confusion=confusion, edits=edits, reference_length=30)
        else:
            right = number % count if setting.task == "speaker" else int(asked.integers(0, count))
            scores = draw.normal(size=count).astype(np.float32)
            scores[right] += 3 * max(skill, 0.05)
            yield UtterancePrediction(**common, reference=right, scores=tuple(scores.tolist()))


if __name__ == "__main__":
    main()
