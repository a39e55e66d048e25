"""What a warm run of the default probe cannot do without, beside what `repbench run` takes.

    python benchmarks/warm_floor.py

A probe of phones on mel over an hour of speech whose features are stored: the whole command, process start included.
Beside it, in turns, the least that any program on torch does for it: importing torch, and for each of the 1,000 steps
gathering the frames of the batch, one product for the scores, the gradient of cross-entropy and one product for that of
the weights. Each product is the faster of MKL's and oneDNN's, with one thread and with one for each core; reading of
the store, selection on dev, the test and the statistics are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.benchmark import environment
from repbench.benchmark.protocol import ProbeSettings

FRAMES = 357_506
"""Of an hour: ten milliseconds each."""
WIDTH, CLASSES = 160, 39


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "warm_floor.json")
    arguments = parser.parse_args()
    steps, cores = ProbeSettings().steps, len(os.sched_getaffinity(0))
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        warm(Path(folder))  # stores the features
        for _ in range(arguments.rounds):
            row = {"warm run": warm(Path(folder)), "import torch": imported()}
            for threads in sorted({1, cores}):
                torch.set_num_threads(threads)
                row |= {f"{name}, {threads} threads": steps * each for name, each in kernels().items()}
            print({name: round(seconds, 2) for name, seconds in row.items()}, flush=True)
            rows.append(row)
    best = {name: min(row[name] for row in rows) for name in rows[0]}
    of_step = [name.rpartition(", ")[0] for name in best if name.endswith(", 1 threads")]
    floor = best["import torch"] + sum(
        min(seconds for name, seconds in best.items() if name.startswith(f"{each}, ")) for each in of_step
    )
    print(f"floor {floor:.2f} s, warm run {best['warm run']:.2f} s")
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "steps": steps,
        "rounds": rows,
        "best_seconds": best,
        "floor_seconds": floor,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def warm(folder: Path) -> float:
    """Seconds of a run whose features are stored, if one of this folder came before."""
    command = [sys.executable, "-m", "repbench", "run", "--upstream", "mel", "--downstream", "phone"]
    command += ["--corpus", "synthetic:small", "--out", tempfile.mkdtemp(dir=folder)]
    started = time.perf_counter()
    subprocess.run(
        command, check=True, capture_output=True, env={**os.environ, "REPBENCH_CACHE": str(folder / "cache")}
    )
    return time.perf_counter() - started


def imported() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import os, torch; os._exit(0)"], check=True)
    return time.perf_counter() - started


def kernels() -> dict[str, float]:
    """Seconds of each kernel of one step."""
    batch = ProbeSettings().batch_frames
    table, weight, bias = torch.randn(FRAMES, WIDTH), torch.randn(CLASSES, WIDTH), torch.randn(CLASSES)
    chosen = torch.randperm(FRAMES)
    classes = torch.randint(CLASSES, (batch,))
    frames, gradient = torch.empty(batch, WIDTH), torch.randn(batch, CLASSES)
    scores = F.linear(table[:batch], weight, bias)

    def loss() -> Tensor:
        """The gradient of cross-entropy: softmax less the class, over the rows."""
        slope = torch.softmax(scores, dim=1)
        slope[torch.arange(batch), classes] -= 1
        return slope.div_(batch)

    def onednn(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
        return product

    places = iter(range(10**9))

    def gather() -> Tensor:
        first = next(places) * batch % (FRAMES - batch)  # other rows each time, as in training
        return torch.index_select(table, 0, chosen[first : first + batch], out=frames)

    products: list[Callable[[Tensor, Tensor, Tensor | None], Tensor]] = [F.linear]
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        products.append(onednn)
    return {
        "gather": timed(gather),
        "scores": min(timed(partial(one, frames, weight, bias)) for one in products),
        "loss": timed(loss),
        "gradient": min(timed(partial(one, gradient.t(), frames.t(), None)) for one in products),
    }


def timed(work: Callable[[], object], times: int = 300) -> float:
    """Seconds of one call, on average."""
    for _ in range(10):
        work()
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


if __name__ == "__main__":
    main()
