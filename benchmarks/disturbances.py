"""Time that each condition of a preset takes for a second of sound, on one thread, beside reading and mel.

python benchmarks/disturbances.py FILE.flac                  # any sound that repbench reads
python benchmarks/disturbances.py FILE.flac --repeats 3      # that it runs
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from repbench.audio.disturbances.condition import PRESETS, parse_condition
from repbench.audio.frontends import FRONT_ENDS
from repbench.audio.resample import to_rate
from repbench.audio.sound import read_sound

RATE_HZ = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sound", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="robust")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    samples, source_hz = read_sound(arguments.sound, channel="mix")
    sound = to_rate(samples, source_hz, RATE_HZ)
    seconds = len(sound) / RATE_HZ
    voices = [np.roll(sound.numpy(), 4_000 * place) for place in range(1, 9)]
    rows: dict[str, Callable[[int], object]] = {
        "reading": lambda repeat: read_sound(arguments.sound, channel="mix"),
        "mel": lambda repeat: FRONT_ENDS["mel160"](sound[None], torch.tensor([len(sound)])),
    }
    for name in PRESETS[arguments.preset]:
        condition = parse_condition(name)
        rows[name] = lambda repeat, condition=condition: condition.apply(  # type: ignore[misc]
            sound.numpy(), RATE_HZ, np.random.default_rng(repeat), lambda: voices
        )
    print(f"{seconds:.1f} s of sound; milliseconds for each second of it, median of {arguments.repeats}")
    total = 0.0
    for name, work in rows.items():
        # rooms are computed at their first use, once in a process
        work(0)
        taken = [timed(work, repeat) for repeat in range(arguments.repeats)]
        each = 1_000 * statistics.median(taken) / seconds
        total += each if name in PRESETS[arguments.preset] else 0.0
        print(f"{name:<20}{each:>10.2f}")
    print(f"{'all of ' + arguments.preset:<20}{total:>10.2f}")


def timed(work: Callable[[int], object], repeat: int) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work(repeat)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
