"""Time of seven label fractions x five seeds x five learning rates of one pair, and of that pair alone, cold.

Both are whole commands with a feature store of their own, empty; the second trains 175 probes and writes 70 records,
the default rate and the tuned one. The cost of probes grows with their number, width and steps and not with the
corpus; that of the upstream grows with the corpus. So the ratio depends on both, and the result has the seconds of
each. `--before FOLDER` does the same with the code of another checkout, in turns.

Fifteen records of an utterance task, of three fractions and five seeds:

    python benchmarks/many_probes.py --upstream mel --checkpoint "" --downstream speaker --corpus MANIFEST \
        --fractions 0.1 0.3 1 --no-tune --steps 1000
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from repbench.benchmark import environment
from repbench.corpora.open import open_corpus
from repbench.files import cache_dir

FRACTIONS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SEEDS = range(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", default="mockingjay")
    parser.add_argument("--checkpoint", default="random:base")
    parser.add_argument("--downstream", default="phone")
    parser.add_argument("--corpus", default="synthetic:small")
    parser.add_argument("--steps", type=int, nargs="+", default=[500, 1000], help="steps of every probe")
    parser.add_argument("--fractions", type=float, nargs="+", default=FRACTIONS)
    parser.add_argument("--tune", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of both")
    parser.add_argument("--before", type=Path, help="a checkout of an earlier revision")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "many_probes.json")
    arguments = parser.parse_args()
    open_corpus(arguments.corpus)  # builds a synthetic one
    many = [part for fraction in arguments.fractions for part in ("--label-fraction", str(fraction))]
    many += ["--tune"] if arguments.tune else []
    here = Path(__file__).parents[1]
    codes = {"now": here, **({"before": arguments.before} if arguments.before else {})}
    with tempfile.TemporaryDirectory() as name:
        checkpoint = trained_like(arguments, Path(name))
        results: dict[str, dict[int, dict[str, Any]]] = {code: {} for code in codes}
        for steps in arguments.steps:
            for code, checkout in codes.items():
                print(f"{code}:")
                folder = Path(name) / code / str(steps)
                results[code][steps] = both(arguments, folder, checkpoint, many, steps, checkout)
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "question": {key: str(value) for key, value in vars(arguments).items() if key not in {"out", "steps"}},
        "by_steps": results["now"],
        **({"before_by_steps": results["before"]} if arguments.before else {}),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def both(
    arguments: argparse.Namespace, folder: Path, checkpoint: str, many: list[str], steps: int, checkout: Path
) -> dict[str, Any]:
    """The pair alone and all that is asked of it, with probes of so many steps."""
    seeds = [part for seed in SEEDS for part in ("--seed", str(seed))]
    rows = {
        "alone": run(arguments, folder / "alone", checkpoint, steps, [], checkout),
        "many": run(arguments, folder / "many", checkpoint, steps, [*many, *seeds], checkout),
    }
    ratio = rows["many"]["seconds"] / rows["alone"]["seconds"]
    for what, row in rows.items():
        print(f"{what:<10} {row['seconds']:7.1f} s, of which extraction {row['extract_seconds']:6.1f}, "
              f"probes {row['train_seconds']:6.1f}; {row['records']} records")  # fmt: skip
    print(f"{steps} steps: ratio {ratio:.2f}", flush=True)
    return {"runs": rows, "ratio": ratio}


def trained_like(arguments: argparse.Namespace, folder: Path) -> str:
    """A checkpoint on disk with random weights: five seeds of a probe ask one network, not five untrained ones."""
    if not arguments.checkpoint.startswith("random"):  # "" for a front end
        return str(arguments.checkpoint)
    from repbench.benchmark.loading.upstreams import load_upstream
    from repbench.upstream.checkpoints.native import save_checkpoint

    model = load_upstream(arguments.upstream, checkpoint=arguments.checkpoint)
    fields = {"upstream": arguments.upstream, "config": dict(model.config)}
    saved = save_checkpoint(folder / "run", 1, weights=model.state_dict(), training={}, fields=fields, keep_last=1)
    return str(saved.path)


def run(
    arguments: argparse.Namespace, folder: Path, checkpoint: str, steps: int, options: list[str], checkout: Path
) -> dict[str, Any]:
    """Seconds of a command that begins with nothing stored."""
    folder.mkdir(parents=True)
    (folder / "corpora").symlink_to(cache_dir() / "corpora")
    command = [
        sys.executable, "-m", "repbench", "run", "--upstream", arguments.upstream,
        *(["--checkpoint", checkpoint] if checkpoint else []), "--downstream", arguments.downstream,
        "--corpus", arguments.corpus, "--out", str(folder / "runs"), "--json",
        *(part for setting in (f"probe.steps={steps}", *arguments.set) for part in ("--set", setting)), *options,
    ]  # fmt: skip
    variables = {**os.environ, "REPBENCH_CACHE": str(folder), "OMP_NUM_THREADS": str(arguments.threads),
                 "PYTHONPATH": str(checkout / "src")}  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(done.stderr)
    records = json.loads(done.stdout)["results"]
    tuned = [each for each in records if each["protocol"]["probe"]["tune"]]
    return {
        "seconds": seconds,
        "extract_seconds": records[0]["cost"]["extract_seconds"],
        "train_seconds": sum(each["cost"]["train_seconds"] for each in tuned or records),
        "records": len(records),
    }


if __name__ == "__main__":
    main()
