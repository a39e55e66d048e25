"""ABX, nearest neighbours, units, similarity and verification of every layer of seven systems, with nothing trained.

    python benchmarks/without_training.py --apc CHECKPOINT --mockingjay CHECKPOINT [--corpus synthetic:noisy:tiny]

The systems are three front ends, two pre-trained models, such as those of `repbench demo`, and their untrained twins.
All runs are in one process and one feature store, empty at the start, so that each system computes its features once
for all tasks and layers. The result has the seconds of each, and the values of the best layer of each system and task.
Similarity is linear CKA of each layer with phones and with mel.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

TASKS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "abx": ("abx", {"pooling": "mean"}, None),
    "units": ("units", {}, None),
    "verification": ("verification", {}, None),
    "knn": ("speaker", {}, "knn"),
}
"""From a heading to a task, its options and its head."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apc", type=Path, required=True)
    parser.add_argument("--mockingjay", type=Path, required=True)
    parser.add_argument("--corpus", default="synthetic:noisy:tiny")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "without_training.json")
    arguments = parser.parse_args()
    from repbench.corpora.open import open_corpus
    from repbench.files import cache_dir

    open_corpus(arguments.corpus)  # builds a synthetic one
    corpora = cache_dir() / "corpora"
    with tempfile.TemporaryDirectory(prefix="without-training-") as name:
        os.environ["REPBENCH_CACHE"] = name
        (Path(name) / "corpora").symlink_to(corpora)
        result = measured(arguments, Path(name))
    print(json.dumps(result, indent=2))
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The seconds and values of all systems."""
    import torch

    from repbench.benchmark import environment
    from repbench.benchmark.comparison.request import CompareRequest
    from repbench.benchmark.comparison.run import compare
    from repbench.benchmark.protocol import Protocol
    from repbench.benchmark.run import evaluate
    from repbench.errors import UsageError

    systems: dict[str, tuple[str, str | None]] = {
        **{name: (name, None) for name in ("mel", "mel_no_cmvn", "fbank")},
        **{name: (name, str(getattr(arguments, name))) for name in ("apc", "mockingjay")},
        **{f"{name}, untrained": (name, f"random:{getattr(arguments, name)}") for name in ("apc", "mockingjay")},
    }
    rows: dict[str, dict[str, Any]] = {}
    started = time.perf_counter()
    for system, (upstream, checkpoint) in systems.items():
        row: dict[str, Any] = {}
        for heading, (task, options, head) in TASKS.items():
            begun = time.perf_counter()
            try:
                records = evaluate(
                    upstream, task, checkpoint=checkpoint, corpus=arguments.corpus, out=folder / "runs", head=head,
                    layer="all", protocol=Protocol.model_validate({"task": options}),
                )  # fmt: skip
            except UsageError as refused:
                if heading != "knn":
                    raise
                # neighbours of means that are zero
                row[heading] = {"refused": str(refused), "seconds": time.perf_counter() - begun}
                continue
            assert all(each.primary.value is not None for each in records), heading
            best = (max if records[0].primary.higher_is_better else min)(
                records, key=lambda each: each.primary.value or 0.0
            )
            row[heading] = {
                "metric": best.primary_metric,
                "layer": best.layer,
                "value": best.primary.value,
                "ci95": best.primary.ci95,
                "by_layer": [each.primary.value for each in records],
                "seconds": time.perf_counter() - begun,
            }
        begun = time.perf_counter()
        compared = compare(
            CompareRequest(
                first=upstream, second=upstream, first_checkpoint=checkpoint, second_checkpoint=checkpoint,
                corpus=arguments.corpus, measures=("cka",), against=("mel", "phones"),
                out=folder / "similarity" / system,
            )
        )  # fmt: skip
        row["similarity"] = {"seconds": time.perf_counter() - begun, "files": len(compared.files)}
        rows[system] = row
        print(system, {heading: round(each["seconds"], 2) for heading, each in row.items()}, flush=True)
    return {
        "machine": environment.describe(torch.device("cpu")),
        "corpus": arguments.corpus,
        "seconds": time.perf_counter() - started,
        "systems": rows,
    }


if __name__ == "__main__":
    main()
