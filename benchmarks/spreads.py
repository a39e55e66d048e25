"""How much the values of each task vary in records, between speakers, utterances and seeds, and how far systems agree.

`KNOWN` in repbench/benchmark/scoring/spreads.py is made of its result: `repbench plan` takes it where a folder has no
records of a task. The records are of mel, fbank, APC and Mockingjay (tiny, pre-trained by `repbench demo`), three seeds
where a probe is trained, 500 steps:

    repbench run --upstream U --downstream D --seed 0 --seed 1 --seed 2 --set probe.steps=500 --out runs
    python benchmarks/spreads.py --runs runs         # some minutes on one core
"""

from __future__ import annotations

import argparse
import json
import platform
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from repbench.benchmark.planning.earlier import spread_in
from repbench.benchmark.records.record import record_paths
from repbench.benchmark.records.verify import task_of
from repbench.benchmark.report.data.reading import Run, read_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "spreads.json")
    arguments = parser.parse_args()
    of_task: dict[str, list[Run]] = defaultdict(list)
    for path in record_paths(arguments.runs):
        run = read_run(path)
        assert isinstance(run, Run), run
        of_task[run.record.downstream.name].append(run)
    tasks = {}
    for name, runs in sorted(of_task.items()):
        task = task_of(runs[0].record)
        found = spread_in(runs, task)
        if found is None:
            print(f"{name}: nothing varies")
            continue
        metric = task.info.primary_metric
        tasks[name] = {"metric": metric, "unit": task.info.metrics[metric].unit, **asdict(found)}
        shown = (found.value, found.cluster, found.utterance, found.correlation, found.seed)
        numbers = "  ".join("–" if each is None else f"{each:.4f}" for each in shown)
        print(f"{name:20} {metric:20} {numbers}  {found.num_records} records, {', '.join(found.corpora)}")
    result = {"tasks": tasks, "versions": {"python": platform.python_version()}}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
