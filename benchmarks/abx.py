"""ABX by repbench and by fastabx on the same segments, in turns: the same rate to 1e-6, and the time of each.

fastabx needs Python 3.12 or later: `pip install fastabx`, then `python benchmarks/abx.py`. Segments are made up: of so
many speakers, phones and tokens, of 3 to 20 frames as phones have every 10 ms. Both score every triple. They take
turns, so that both meet what else the machine does, whose `load` stands in the result.

Memory is how far that of a process of its own rises (resident, as Linux counts it in /proc) while repbench computes a
rate with a budget, which is that of the tensors.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Literal

import fastabx
import numpy as np
import polars
import torch
from fastabx.dataset import InMemoryAccessor
from numpy.typing import NDArray

from repbench.benchmark import environment
from repbench.downstream.discrimination.alignment import alignment_bytes, segments_of
from repbench.downstream.discrimination.cells import Condition, blocks_of, tables_of
from repbench.downstream.discrimination.tokens import Token
from repbench.downstream.metrics.abx import Cell, error_rate, summed_over_contexts
from repbench.downstream.metrics.dtw import tables
from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES

Segment = NDArray[np.float32]
Speakers = Literal["within", "across"]

TOLERANCE = 1e-6
SHORTEST, LONGEST = 3, 20
SIGNAL = 0.5
"""Scale of the directions of phones in noise of deviation 1, times the width^(1/4): for error rates about 1/4."""

SPEAKERS: tuple[Speakers, ...] = ("within", "across")


def drawn(num_speakers: int, num_phones: int, num_tokens: int, width: int) -> tuple[list[Token], list[Segment]]:
    """Tokens of each phone by each speaker, whose frames lie around a direction of the phone."""
    random = np.random.default_rng(0)
    phones = random.standard_normal((num_phones, width))
    tokens, segments = [], []
    for speaker, phone, _ in product(range(num_speakers), range(num_phones), range(num_tokens)):
        length = int(random.integers(SHORTEST, LONGEST + 1))
        tokens.append(Token(0, length / 100, f"p{phone}", "", f"s{speaker}"))
        own = SIGNAL / width**0.25 * phones[phone]
        segments.append((own + random.standard_normal((length, width))).astype(np.float32))
    return tokens, segments


def by_repbench(tokens: Sequence[Token], segments: Sequence[Segment], speakers: Speakers, memory_bytes: int) -> float:
    """The error rate by repbench."""
    condition = Condition(on="phone", speakers=speakers, in_context=False, max_size_group=None, max_x_across=None)
    distance = FRAME_DISTANCES["angular"]
    joined = segments_of(
        [torch.from_numpy(each) for each in segments],
        distance,
        pooling="dtw",
        device=torch.device("cpu"),
        memory_bytes=memory_bytes,
    )
    wanted = tables_of(blocks_of(tokens, range(len(tokens)), condition, seed=0), condition, seed=0)
    places = {number: number for number in range(len(tokens))}
    found = tables(
        joined, [each.request(places) for each in wanted], distance.between, alignment_bytes(joined, memory_bytes)
    )
    of_speaker: dict[str, list[Cell]] = {}
    for table, distances in zip(wanted, found, strict=True):
        for each in table.cells(distances):
            counted = Cell(each.a, each.b, each.group, each.context, each.twice_errors, each.triples)
            of_speaker.setdefault(tokens[each.first_x].speaker, []).append(counted)
    rate = error_rate(line for cells in of_speaker.values() for line in summed_over_contexts(cells))
    assert rate is not None, "every speaker has every phone"
    return rate


def by_fastabx(tokens: Sequence[Token], segments: Sequence[Segment], speakers: Speakers) -> float:
    """The error rate by fastabx."""
    ends = np.cumsum([len(each) for each in segments])
    ranges = {number: (int(end) - len(segments[number]), int(end)) for number, end in enumerate(ends)}
    labels = {"phone": [each.label for each in tokens], "speaker": [each.speaker for each in tokens]}
    frames = torch.from_numpy(np.concatenate(segments))
    dataset = fastabx.Dataset(polars.DataFrame(labels), InMemoryAccessor(ranges, frames, torch.device("cpu")))
    shared = {"by": ["speaker"]} if speakers == "within" else {"across": ["speaker"]}
    return float(fastabx.Score(fastabx.Task(dataset, on="phone", **shared), "angular").collapse(levels=["speaker"]))


def peak_bytes(drawing: tuple[int, int, int, int], speakers: Speakers, memory_bytes: int) -> int:
    """How far the resident memory of this process rises by one rate of repbench, beyond what it was before."""
    torch.set_num_threads(1)
    tokens, segments = drawn(*drawing)
    # A rate of few tokens first, so that what is loaded once is not counted.
    by_repbench(*drawn(2, 3, 3, drawing[-1]), speakers, memory_bytes)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    before = resident_bytes("VmRSS")
    by_repbench(tokens, segments, speakers, memory_bytes)
    return resident_bytes("VmHWM") - before


def resident_bytes(name: str) -> int:
    """A field of the memory of this process: VmRSS now, VmHWM at its peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def timed(way: Callable[[], float]) -> tuple[float, float]:
    """The rate, and the seconds that it took."""
    started = time.perf_counter()
    return way(), time.perf_counter() - started


def main() -> None:
    """Compare both, and write what was seen."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--speakers", type=int, default=4)
    options.add_argument("--phones", type=int, default=39)
    options.add_argument("--tokens", type=int, default=10, help="of each phone by each speaker")
    options.add_argument("--widths", type=int, nargs="+", default=[80, 768])
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument(
        "--memory-gib", type=float, nargs="+", default=[1.0, 0.5], help="budgets; turns have the first"
    )
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "abx.json")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for width, speakers in product(given.widths, SPEAKERS):
        tokens, segments = drawn(given.speakers, given.phones, given.tokens, width)
        budgets = [int(gib * 2**30) for gib in given.memory_gib]
        memory_bytes = budgets[0]
        ours = partial(by_repbench, tokens, segments, speakers, memory_bytes)
        peers = partial(by_fastabx, tokens, segments, speakers)
        loads = [os.getloadavg()[0]]
        turns = [(timed(ours), timed(peers)) for _ in range(given.turns)]
        loads.append(os.getloadavg()[0])
        (rate, _), (other, _) = turns[0]
        if abs(rate - other) > TOLERANCE:
            raise SystemExit(f"width {width}, {speakers}: {rate} by repbench, {other} by fastabx")
        seconds = [[of_way[1] for of_way in turn] for turn in turns]
        own, theirs = (statistics.median(times) for times in zip(*seconds, strict=True))
        ratios = sorted(theirs_once / own_once for own_once, theirs_once in seconds)
        drawing = (given.speakers, given.phones, given.tokens, width)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            peaks = pool.starmap(peak_bytes, [(drawing, speakers, each) for each in budgets], chunksize=1)
        print(f"width {width}, {speakers}: {rate:.6f}; repbench {own:.2f} s, fastabx {theirs:.2f} s; peaks {peaks}")
        rows.append(
            {
                "width": width,
                "speakers": speakers,
                "error_rate": {"repbench": rate, "fastabx": other},
                "seconds": {"repbench": [each[0] for each in seconds], "fastabx": [each[1] for each in seconds]},
                "fastabx_over_repbench": {"median": statistics.median(ratios), "turns": ratios},
                "load": loads,
                "memory": [
                    {"budget_bytes": budget, "peak_bytes": peak} for budget, peak in zip(budgets, peaks, strict=True)
                ],
            }
        )
    result = {
        "tokens": given.speakers * given.phones * given.tokens,
        "threads": given.threads,
        "rows": rows,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("fastabx", "torchdtw", "torch", "numpy")},
        },
        "machine": environment.describe(torch.device("cpu"))["cpu"],
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
