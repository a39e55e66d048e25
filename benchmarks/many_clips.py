"""Seconds and memory of `repbench run` on many short clips, cold and warm, as in a corpus of keywords.

    python benchmarks/many_clips.py [--clips 65000] [--seconds 1] [--downstream keyword]

The sounds are stand-ins: cuts out of long files of noise, each with a hum whose pitch tells its class. Neighbouring
cuts are of one speaker. The cold run computes and stores features, the warm one reads them; each is a process
of its own, with its start. `prepare` is the making of the manifest.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from repbench.benchmark import environment

CUTS_OF_FILE = 500
CLASSES = tuple(f"word{number:02d}" for number in range(12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=65_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each clip")
    parser.add_argument("--rate-hz", type=int, default=16_000, help="of the sounds")
    parser.add_argument("--clips-of-speaker", type=int, default=25)
    parser.add_argument("--upstream", default="mel")
    parser.add_argument("--checkpoint")
    parser.add_argument("--downstream", default="keyword")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of both runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "many_clips.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="many-clips-") as name:
        folder = Path(name)
        write_clips(folder / "sounds", arguments)
        manifest = folder / "manifest"
        prepare = ["corpus", "prepare", "csv", "--root", str(folder / "sounds"), "--out", str(manifest), "--json"]
        run = [
            "run", "--upstream", arguments.upstream, "--downstream", arguments.downstream, "--corpus", str(manifest),
            *(["--checkpoint", arguments.checkpoint] if arguments.checkpoint else []),
            *(part for setting in arguments.set for part in ("--set", setting)),
            "--out", str(folder / "runs"), "--json",
        ]  # fmt: skip
        rows = {"prepare": timed(prepare, folder), "cold": timed(run, folder), "warm": timed(run, folder)}
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "asked": {key: str(value) for key, value in vars(arguments).items() if key != "out"},
        "runs": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_clips(folder: Path, arguments: argparse.Namespace) -> None:
    """Files of noise and `table.csv` with their cuts."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    samples = round(arguments.seconds * arguments.rate_hz)
    times = np.arange(samples) / arguments.rate_hz
    lines = ["id,path,start,end,speaker,keyword"]
    for first in range(0, arguments.clips, CUTS_OF_FILE):
        count = min(CUTS_OF_FILE, arguments.clips - first)
        classes = draw.integers(len(CLASSES), size=count)
        hums = np.sin(2 * np.pi * (200 + 120 * classes[:, None]) * times)
        values = 3000 * (hums + draw.standard_normal((count, samples)))
        path = f"{first:07d}.wav"
        soundfile.write(folder / path, values.reshape(-1).astype(np.int16), arguments.rate_hz)
        for place, number in enumerate(classes):
            start, end = place * arguments.seconds, (place + 1) * arguments.seconds
            clip = first + place
            speaker = f"s{clip // arguments.clips_of_speaker:05d}"
            lines.append(f"c{clip:07d},{path},{start:.6f},{end:.6f},{speaker},{CLASSES[number]}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def timed(command: list[str], folder: Path) -> dict[str, Any]:
    """Seconds of the clock and of the processor, peak memory in MB, and of a run its parts."""
    variables = {**os.environ, "REPBENCH_CACHE": str(folder / "cache")}
    started, peak_kb = time.perf_counter(), 0
    with (folder / "printed").open("w+") as printed, (folder / "log").open("w+") as log:
        whole = [sys.executable, "-m", "repbench", *command]
        process = subprocess.Popen(whole, env=variables, stdout=printed, stderr=log)
        while True:
            # `ru_maxrss` of the usage would count this process, of which the other was forked.
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            peak_kb = max(peak_kb, resident_kb(process.pid))
            time.sleep(0.05)
        for stream in (printed, log):
            stream.seek(0)
        if process.returncode:
            sys.exit(log.read())
        answer = json.loads(printed.read())
    row: dict[str, Any] = {
        "seconds": time.perf_counter() - started,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": peak_kb * 1024 / 1e6,
    }
    if "results" in answer:
        (record,) = answer["results"]
        row |= {
            "extract_seconds": record["cost"]["extract_seconds"],
            "train_seconds": record["cost"]["train_seconds"],
            "n_scored": record["n_scored"],
            "primary": record["metrics"][record["primary_metric"]]["value"],
        }
    print(command[0], json.dumps(row), flush=True)
    return row


def resident_kb(process: int) -> int:
    """The highest resident memory of a process so far; 0 once it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
