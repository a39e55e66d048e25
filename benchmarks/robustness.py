"""Phone and speaker probes of seven systems under a preset of conditions, and what the preset costs.

    python benchmarks/robustness.py --apc CHECKPOINT --mockingjay CHECKPOINT --runs DIR [--corpus synthetic]

The systems are three front ends, two pre-trained models, such as those of `repbench demo`, and their untrained twins.
The records are left below DIR, for `repbench report DIR`. The result has, for each system and task, the mean over seeds
of the score on clean sound and under each condition, and the seconds of extraction: on clean sound (train, dev and
test, and the share of test in it by duration) and of all conditions together. The feature store is empty at the start,
so that nothing is read that an earlier run computed; the second task of a system reads what the first one stored.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

TASKS = ("phone", "speaker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apc", type=Path, required=True)
    parser.add_argument("--mockingjay", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--corpus", default="synthetic")
    parser.add_argument("--systems", nargs="+", help="some of the seven, by their names in the result")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--preset", default="robust")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500, help="of each probe")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "robustness.json")
    arguments = parser.parse_args()
    from repbench.corpora.open import open_corpus
    from repbench.files import cache_dir

    open_corpus(arguments.corpus)  # builds a synthetic one
    corpora = cache_dir() / "corpora"
    with tempfile.TemporaryDirectory(prefix="robustness-") as name:
        os.environ["REPBENCH_CACHE"] = name
        (Path(name) / "corpora").symlink_to(corpora)
        result = measured(arguments)
    print(json.dumps(result, indent=2))
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """The scores and seconds of all systems."""
    import torch

    from repbench.audio.disturbances.condition import PRESETS
    from repbench.benchmark import environment
    from repbench.benchmark.protocol import load_protocol
    from repbench.benchmark.records.record import Record
    from repbench.benchmark.run import evaluate

    systems: dict[str, tuple[str, str | None]] = {
        **{name: (name, None) for name in ("mel", "mel_no_cmvn", "fbank")},
        **{name: (name, str(getattr(arguments, name))) for name in ("apc", "mockingjay")},
        **{f"{name}, untrained": (name, f"random:{getattr(arguments, name)}") for name in ("apc", "mockingjay")},
    }
    rows: dict[str, dict[str, Any]] = {}
    started = time.perf_counter()
    for system, (upstream, checkpoint) in systems.items():
        if arguments.systems and system not in arguments.systems:
            continue
        row: dict[str, Any] = {}
        for task in arguments.tasks:
            begun = time.perf_counter()
            records = evaluate(
                upstream, task, checkpoint=checkpoint, corpus=arguments.corpus, out=arguments.runs,
                seeds=tuple(range(arguments.seeds)), conditions=PRESETS[arguments.preset],
                protocol=load_protocol(assignments=[f"probe.steps={arguments.steps}"]),
            )  # fmt: skip
            by_condition: dict[str, list[Record]] = {}
            for each in records:
                by_condition.setdefault("clean" if each.condition is None else each.condition.name, []).append(each)
            clean = min(each.cost.extract_seconds for each in by_condition["clean"])
            # of an untrained model each seed has weights of its own: those of the first
            whole = max(each.cost.extract_seconds for each in records if each.seed == 0)
            row[task] = {
                "metric": records[0].primary_metric,
                "scores": {name: mean_of(several) for name, several in by_condition.items()},
                "seconds": time.perf_counter() - begun,
                "clean_extract_seconds": clean,
                "conditions_extract_seconds": whole - clean,
                "label_seconds": records[0].label_seconds.model_dump(),
            }
        rows[system] = row
        print(system, {task: round(each["seconds"], 1) for task, each in row.items()}, flush=True)
    return {
        "machine": environment.describe(torch.device("cpu")),
        "corpus": arguments.corpus,
        "conditions": list(PRESETS[arguments.preset]),
        "seconds": time.perf_counter() - started,
        "systems": rows,
    }


def mean_of(records: list[Any]) -> float:
    """The mean of the primary metric over seeds."""
    return statistics.fmean(each.primary.value for each in records)


if __name__ == "__main__":
    main()
