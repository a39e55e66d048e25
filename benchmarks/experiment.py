"""Gain of pre-training: Mockingjay, APC, the same networks untrained, and mel, at several label fractions.

Pre-trains Mockingjay and APC for some minutes each on a corpus, then probes phones on mel, on both, and on both
untrained, at 1, 10 and 100 % of the labels and three seeds, and prints one table. The number of steps is found
from the speed of a short trial. Everything is done by the command line, and is written under --out.

    python benchmarks/experiment.py --minutes 10 --preset base --corpus synthetic:noisy:full --device cuda
    python benchmarks/experiment.py --minutes 0.5 --corpus synthetic:tiny       # that it runs
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

FRACTIONS = ("0.01", "0.1", "1.0")
SEEDS = ("0", "1", "2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--trial-steps", type=int, default=40)
    parser.add_argument("--preset", default=None)
    parser.add_argument("--corpus", default="synthetic:noisy:small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/experiment"))
    arguments = parser.parse_args()
    rows = asked(arguments, "mel", None)
    for upstream in ("mockingjay", "apc"):
        run = pretrained(arguments, upstream)
        rows |= asked(arguments, upstream, f"random:{run}")
        rows |= asked(arguments, upstream, str(run))
    print(table(rows))
    (arguments.out / "table.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def pretrained(arguments: argparse.Namespace, upstream: str) -> Path:
    """A run that takes the minutes asked for."""
    trial = arguments.out / f"{upstream}-trial"
    started = time.monotonic()
    pretrain(arguments, upstream, trial, 1)
    fixed = time.monotonic() - started
    started = time.monotonic()
    pretrain(arguments, upstream, arguments.out / f"{upstream}-trial-long", arguments.trial_steps)
    a_step = max((time.monotonic() - started - fixed) / (arguments.trial_steps - 1), 1e-4)
    steps = max(int(60 * arguments.minutes / a_step), 10)
    run: Path = arguments.out / upstream
    pretrain(arguments, upstream, run, steps)
    return run


def pretrain(arguments: argparse.Namespace, upstream: str, run: Path, steps: int) -> None:
    preset = ["--preset", arguments.preset] if arguments.preset else []
    every = f"training.dev_every={max(steps // 10, 1)}"
    common = ["--corpus", arguments.corpus, "--device", arguments.device, "--set", every]
    repbench("pretrain", upstream, *preset, *common, "--steps", str(steps), "--out", str(run), "--resume")


def asked(arguments: argparse.Namespace, upstream: str, checkpoint: str | None) -> dict[str, list[float]]:
    """Accuracy of each seed, by `upstream state fraction`."""
    state = "-" if checkpoint is None else "untrained" if checkpoint.startswith("random") else "pre-trained"
    options = [] if checkpoint is None else ["--checkpoint", checkpoint]
    options += [part for fraction in FRACTIONS for part in ("--label-fraction", fraction)]
    options += [part for seed in SEEDS for part in ("--seed", seed)]
    options += ["--corpus", arguments.corpus, "--device", arguments.device, "--out", str(arguments.out / "records")]
    printed = repbench("run", "--upstream", upstream, "--downstream", "phone", *options, "--json")
    found: dict[str, list[float]] = {}
    for record in json.loads(printed)["results"]:
        key = f"{upstream} {state} {record['label_fraction']:g}"
        found.setdefault(key, []).append(record["metrics"]["accuracy"]["value"])
    return found


def repbench(*arguments: str) -> str:
    command = [sys.executable, "-m", "repbench", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def table(rows: dict[str, list[float]]) -> str:
    """Mean accuracy over the seeds, a column for each fraction."""
    names = list(dict.fromkeys(key.rpartition(" ")[0] for key in rows))
    fractions = [f"{float(fraction):g}" for fraction in FRACTIONS]
    lines = [f"{'phone accuracy, mean of three seeds':<36}" + "".join(f"{100 * float(f):>8g} %" for f in fractions)]
    for name in names:
        values: list[Any] = [mean(rows[f"{name} {fraction}"]) for fraction in fractions]
        lines.append(f"{name:<36}" + "".join(f"{value:>10.3f}" for value in values))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
