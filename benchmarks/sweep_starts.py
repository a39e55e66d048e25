"""Processor and wall time of a sweep of small pairs, with this checkout and with others, in turns.

Two front ends and three tasks on the smallest synthetic corpus: most of such a sweep are the starts of its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PLAN = """\
upstreams: [mel, fbank]
downstreams: [phone, speaker, sentiment]
corpora: ["synthetic:tiny"]
set: [probe.steps=100]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, nargs="*", default=[], help="other checkouts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sweep_starts.json")
    arguments = parser.parse_args()
    sources = {"now": REPOSITORY, **{f"before {number}": each for number, each in enumerate(arguments.before)}}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, checkout in sources.items():
                # A cache for each version: what is stored after the first round has no part in the others.
                row = swept(checkout.resolve() / "src", Path(folder, name), number)
                print(name, row, flush=True)
                rounds[name].append(row)
    result = {
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "pairs": 6,
        "rounds": rounds,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def swept(source: Path, folder: Path, number: int) -> dict[str, Any]:
    """One sweep with records of its own."""
    folder.mkdir(exist_ok=True)
    plan = folder / "plan.yaml"
    plan.write_text(PLAN, encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": str(source), "REPBENCH_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "repbench", "sweep", str(plan), "--out", str(folder / f"runs-{number}"), "--quiet"]
    used, started = children_seconds(), time.perf_counter()
    subprocess.run(command, env=variables, check=True, stdout=subprocess.DEVNULL)
    return {"wall_s": time.perf_counter() - started, "cpu_s": children_seconds() - used}


def children_seconds() -> float:
    """Processor time of all processes that have ended below this one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_name() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
