"""The same small run alone and beside busy processes, of this tree and of another one: the ratio of wall times.

`--other` names the folder of another checkout, whose `src` goes before this one, as that of the release before. Runs of
both trees take turns: first alone, then beside `--busy` processes that do nothing but count. Each run has an empty
cache but for the corpus, which is made before, and is a whole `repbench run` in a process of its own; the seconds of
its features are those of its record.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from repbench.benchmark import environment
from repbench.processors import usable_cpus

HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path, help="Folder of another checkout, to compare with.")
    parser.add_argument("--clips", type=int, default=270)
    parser.add_argument("--seconds", type=float, default=0.4, help="Of each clip.")
    parser.add_argument("--upstream", default="mel")
    parser.add_argument("--checkpoint")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=4, help="Number of busy processes.")
    parser.add_argument("--threads", type=int, help="Of a run; default: as it chooses itself.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "busy.json")
    arguments = parser.parse_args()
    trees = {"this": HERE} | ({"other": arguments.other.resolve()} if arguments.other else {})
    taken: dict[str, list[dict[str, float]]] = {f"{tree}, {how}": [] for tree in trees for how in ("alone", "busy")}
    with tempfile.TemporaryDirectory() as folder:
        corpus = written_corpus(Path(folder), arguments.clips, arguments.seconds)
        for how, num_busy in (("alone", 0), ("busy", arguments.busy)):
            with busy_processes(num_busy):
                for turn in range(arguments.turns):
                    for tree, root in trees.items():
                        row = run_of(root, corpus, Path(folder) / f"{tree}-{how}-{turn}", arguments)
                        taken[f"{tree}, {how}"].append(row)
                        print(tree, how, row, flush=True)
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in taken.items()
    }
    ratios = {
        tree: {key: medians[f"{tree}, busy"][key] / medians[f"{tree}, alone"][key] for key in medians[f"{tree}, alone"]}
        for tree in trees
    }
    for tree, ratio in ratios.items():
        print(f"{tree}: beside {arguments.busy} busy processes {ratio['run_seconds']:.1f} times as long as alone")
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "usable_cpus": usable_cpus(),
        "asked": {key: str(value) for key, value in vars(arguments).items() if key not in {"out", "other"}},
        "turns": taken,
        "medians": medians,
        "busy_over_alone": ratios,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def written_corpus(folder: Path, num_clips: int, seconds: float) -> Path:
    """A manifest of clips of noise by ten speakers, each with a pitch of its own."""
    sounds, drawn = folder / "sounds", np.random.default_rng(0)
    sounds.mkdir()
    lines = ["id,path,speaker,group"]
    times = np.arange(round(16_000 * seconds)) / 16_000
    for number in range(num_clips):
        speaker = number % 10
        values = np.sin(2 * np.pi * (100 + 40 * speaker) * times) + 0.5 * drawn.standard_normal(len(times))
        soundfile.write(sounds / f"{number}.wav", (4000 * values).astype(np.int16), 16_000)
        lines.append(f"u{number:04},{number}.wav,s{speaker},s{speaker}-{number // 10 % 3}")
    (sounds / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["corpus", "prepare", "csv", "--root", str(sounds), "--out", str(folder / "corpus")]
    subprocess.run([sys.executable, "-m", "repbench", *command], check=True, stdout=subprocess.DEVNULL)
    return folder / "corpus"


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many processes that keep a processor busy while the block runs."""
    code = f"import os\nwhile os.getppid() == {os.getpid()}: sum(range(100_000))"  # ends with this process
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
        for process in busy:
            process.wait()


def run_of(root: Path, corpus: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds of one run, and of its features by its record."""
    command = [
        sys.executable, "-m", "repbench", "run", "--upstream", arguments.upstream, "--downstream", "speaker",
        "--corpus", str(corpus), "--out", str(folder / "runs"), "--set", f"probe.steps={arguments.steps}", "--json",
        *(["--checkpoint", arguments.checkpoint] if arguments.checkpoint else []),
    ]  # fmt: skip
    variables = {**os.environ, "REPBENCH_CACHE": str(folder / "cache"), "PYTHONPATH": str(root / "src")}
    if arguments.threads:
        variables["OMP_NUM_THREADS"] = str(arguments.threads)
    started = time.perf_counter()
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if finished.returncode:
        sys.exit(finished.stderr)
    (record,) = json.loads(finished.stdout)["results"]
    costs: dict[str, Any] = record["cost"]
    return {"run_seconds": seconds, "features_seconds": float(costs["extract_seconds"])}


if __name__ == "__main__":
    main()
