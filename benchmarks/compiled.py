"""Whether `torch.compile` pays in pre-training: Mockingjay as it is, and with its layers compiled, in one run.

Batches are stretches of frames already made. Rounds alternate, with as many lengths as a training has, since a compiled
layer is compiled again, or for any length, when the length changes. Printed are the best step of each, the seconds that
the compiler took, and the steps after which they are paid back.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repbench.training.optimizers import build_optimizer
from repbench.upstream.contract import Batch
from repbench.upstream.mockingjay.config import FeatureSettings, MockingjayConfig
from repbench.upstream.mockingjay.factory import untrained
from repbench.upstream.mockingjay.upstream import Mockingjay

WIDTH, CLIP = 240, 5.0
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 256,
        "num_heads": 4,
        "feed_forward_size": 1024,
        "layer_norm": "pre",
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "base": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, nargs="+", default=list(SIZES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, nargs="+", default=[400, 320, 368, 280], help="lengths, in turns")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compiled.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = [row for size in arguments.size for row in compared(arguments, size)]
    result = {"machine": machine(arguments), "rows": rows}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def compared(arguments: argparse.Namespace, size: str) -> list[dict[str, Any]]:
    """A row for each length, printed."""
    device = torch.device(arguments.device)
    batches = [spectrograms(arguments.batch, each).to(device) for each in arguments.frames]
    as_it_is, compiled = model(size, device), model(size, device)
    for layer in compiled.encoder.layers:
        assert isinstance(layer, nn.Module)
        layer.compile(dynamic=True)
    steps = {
        "as it is": trained(as_it_is, arguments.bfloat16),
        "compiled": trained(compiled, arguments.bfloat16),
    }
    first = {name: sum(seconds_of(step, each) for each in batches) for name, step in steps.items()}
    best: dict[tuple[str, int], float] = {}
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            for batch in batches:
                key = name, batch.shape[1]
                best[key] = min(best.get(key, float("inf")), seconds_of(step, batch))
    sums = {name: sum(best[name, each] for each in arguments.frames) for name in steps}
    saved = (sums["as it is"] - sums["compiled"]) / len(batches)
    compiler = (first["compiled"] - sums["compiled"]) - (first["as it is"] - sums["as it is"])
    rows = [
        {"size": size, "frames": each, "ms": 1e3 * best["as it is", each], "ms_compiled": 1e3 * best["compiled", each]}
        for each in arguments.frames
    ]
    for row in rows:
        print("  ".join(f"{value:>10.1f}" if isinstance(value, float) else f"{value:>6}" for value in row.values()))
    ratio = sums["as it is"] / sums["compiled"]
    paid = round(compiler / saved) if saved > 0 else None
    print(f"{size}: compiler {compiler:.0f} s, a step {ratio:.2f} x as fast, paid back after {paid} steps")
    return [*rows, {"size": size, "compiler_s": compiler, "ratio": ratio, "steps": paid}]


def model(size: str, device: torch.device) -> Mockingjay:
    torch.manual_seed(0)
    config = MockingjayConfig(features=FeatureSettings(input="fbank240"), **SIZES[size])
    return untrained(config, None, 0).train().to(device)


def trained(model: Mockingjay, bfloat16: bool) -> Callable[[Tensor], float]:
    """A step of training on stretches (B, F, D)."""
    optimizer, _ = build_optimizer(
        "adamw",
        model.named_parameters(),
        learning_rate=2e-4,
        betas=(0.9, 0.999),
        epsilon=None,
        weight_decay=0.01,
        warmup=0.07,
        total_steps=1000,
    )
    generator: torch.Generator | None = None

    def step(frames: Tensor) -> float:
        nonlocal generator
        generator = generator or torch.Generator(frames.device).manual_seed(0)
        lengths = torch.full((len(frames),), frames.shape[1], device=frames.device)
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=bfloat16):
            loss = model.objective.loss(Batch(frames, lengths), generator)
        optimizer.zero_grad()
        torch.autograd.backward(loss.value)
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return float(loss.value.detach())

    return step


def spectrograms(batch: int, num_frames: int) -> Tensor:
    """(B, F, D)."""
    return torch.randn(batch, num_frames, WIDTH, generator=torch.Generator().manual_seed(0))


def seconds_of(step: Callable[[Tensor], float], batch: Tensor) -> float:
    started = time.perf_counter()
    step(batch)
    return time.perf_counter() - started


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    described = Path("/proc/cpuinfo")
    lines = described.read_text(encoding="utf-8").splitlines() if described.exists() else []
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "device": arguments.device,
        "precision": "bfloat16" if arguments.bfloat16 else "float32",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
