"""Timing of several functions over the same sounds, in turns, and the JSON of the result."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from repbench.benchmark import environment

Way = Callable[[list[Tensor]], None]


def time_in_turns(
    ways: Mapping[str, Way], waves: list[Tensor], *, baseline: str, turns: int, rate_hz: int, source: str
) -> dict[str, object]:
    """Time each way over all sounds in turns on one thread; print the medians and return all that was seen."""
    torch.set_num_threads(1)
    seconds = sum(len(wave) for wave in waves) / rate_hz
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(waves[:5])
    for _ in range(turns):
        for name, way in ways.items():
            started = time.perf_counter()
            way(waves)
            taken[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    print(f"{len(waves)} utterances, {seconds:.0f} s of {source}, one thread, median of {turns} turns")
    for name, median in medians.items():
        times, ratio = seconds / median, medians[baseline] / median
        print(f"{name:26s} {median:7.3f} s  {times:6.0f} x real time  {ratio:6.2f} x {baseline}")
    return {
        "utterances": len(waves),
        "seconds_of_sound": seconds,
        "source": source,
        "turns": taken,
        "median_s": medians,
        "times_real_time": {name: seconds / median for name, median in medians.items()},
        f"ratio_to_{baseline}": {name: medians[baseline] / median for name, median in medians.items()},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "torchaudio", "librosa", "numpy")},
        },
        "machine": environment.describe(torch.device("cpu"))["cpu"],
        "threads": 1,
    }


def write_result(script: str, result: Mapping[str, object]) -> None:
    """Write the result to `--out`, by default `results/SCRIPT.json` beside the script."""
    default = Path(__file__).parent / "results" / f"{Path(script).stem}.json"
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=default)
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
