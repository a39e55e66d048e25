"""Scores and seconds of an utterance task that is trained on some frames of each utterance, and on all.

    python benchmarks/some_frames.py MANIFEST [--downstream speaker] [--upstream mel] [--frames 25 50 100 200]

Every setting has the same seeds and the same test utterances. The features are stored before, so that the seconds are
those of the probes. The result has, for each number of frames, the accuracy of each seed, their mean, and the mean over
seeds of the difference from training on all frames with its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from repbench.benchmark import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--upstream", default="mel")
    parser.add_argument("--downstream", default="speaker")
    parser.add_argument("--head", default="mlp1")
    parser.add_argument("--frames", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "some_frames.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        taken(arguments, Path(folder), None, steps=1)  # stores the features
        rows = {"all": taken(arguments, Path(folder), None)}
        for frames in arguments.frames:
            rows[str(frames)] = taken(arguments, Path(folder), frames)
    whole = rows["all"]["accuracy"]
    for name, row in rows.items():
        differences = [some - all_ for some, all_ in zip(row["accuracy"], whole, strict=True)]
        row["mean_accuracy"] = statistics.mean(row["accuracy"])
        row["mean_difference"] = statistics.mean(differences)
        row["standard_error"] = statistics.stdev(differences) / math.sqrt(len(differences))
        print(
            f"{name:>4} frames: accuracy {row['mean_accuracy']:.4f}, against all {row['mean_difference']:+.4f} "
            f"+- {row['standard_error']:.4f}, {row['train_seconds']:.1f} s a probe",
            flush=True,
        )
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "arguments": {name: str(value) for name, value in vars(arguments).items() if name not in {"out", "corpus"}},
        "corpus": Path(arguments.corpus).name,
        "by_frames": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def taken(arguments: argparse.Namespace, folder: Path, frames: int | None, steps: int | None = None) -> dict[str, Any]:
    """Accuracy of each seed, in their order, and the mean seconds of a probe."""
    settings = [
        f"probe.steps={steps or arguments.steps}",
        *([f"probe.frames_per_utterance={frames}"] if frames else []),
    ]
    command = [
        sys.executable, "-m", "repbench", "run", "--upstream", arguments.upstream, "--downstream", arguments.downstream,
        "--head", arguments.head, "--corpus", arguments.corpus, "--out", str(folder / "runs"), "--json",
        *(part for setting in settings for part in ("--set", setting)),
        *(part for seed in range(arguments.seeds) for part in ("--seed", str(seed))),
    ]  # fmt: skip
    done = subprocess.run(
        command,
        env={**os.environ, "REPBENCH_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    records = json.loads(done.stdout)["results"]
    return {
        "accuracy": [each["metrics"]["accuracy"]["value"] for each in records],
        "test_utterances": records[0]["n_scored"],
        "train_seconds": statistics.mean(each["cost"]["train_seconds"] for each in records),
    }


if __name__ == "__main__":
    main()
