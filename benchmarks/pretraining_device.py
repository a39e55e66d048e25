"""Frames a second of BASE pre-training on a device, and the share of its matrix-product peak.

Features are computed on the device from waveforms in every step, as a corpus that does not fit in memory would be
trained; batches are 8-second stretches. The share counts the multiplications of encoder and head alone, six a weight
and frame. Meant for a GPU; on a CPU it shows that the script runs.

    python benchmarks/pretraining_device.py --device cuda --batch 64
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.training.optimizers import build_optimizer
from repbench.upstream.contract import Batch
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.factory import untrained

SECONDS = 8.0
RATE = 16_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64 if torch.cuda.is_available() else 2)
    parser.add_argument("--steps", type=int, default=50 if torch.cuda.is_available() else 2)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    peak = matmul_peak(device)
    step, frames = training_step(device, arguments.batch)
    for _ in range(3):
        step()
    seconds = timed(device, lambda: [step() for _ in range(arguments.steps)]) / arguments.steps
    share = operations(frames, frames // arguments.batch) / seconds / peak
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "batch": arguments.batch,
        "frames_per_step": frames,
        "milliseconds_per_step": 1000 * seconds,
        "frames_per_second": frames / seconds,
        "times_real_time": arguments.batch * SECONDS / seconds,
        "matmul_peak_tflops_bf16": peak / 1e12,
        "share_of_peak": share,
    }
    print(json.dumps(result, indent=2))
    name = str(result["device"]).replace(" ", "-").lower()
    out = arguments.out or Path(__file__).parent / "results" / f"pretraining-{name}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def training_step(device: torch.device, batch: int) -> tuple[Callable[[], Any], int]:
    """A step from waveforms to updated weights, and the frames it learns from."""
    model = untrained(MockingjayConfig(), None, 0).to(device).train()
    optimizer, _ = build_optimizer(
        "adamw",
        model.named_parameters(),
        learning_rate=4e-4,
        betas=(0.9, 0.999),
        epsilon=None,
        weight_decay=0.01,
        warmup=0.07,
        total_steps=10_000,
    )
    waveforms = 0.1 * torch.randn(batch, int(SECONDS * RATE), device=device)
    lengths = torch.full((batch,), waveforms.shape[1], device=device)
    generator = torch.Generator(device).manual_seed(0)
    objective = model.objective

    def step() -> Tensor:
        frames: Batch = objective.frames(waveforms, lengths)
        with torch.autocast(device.type, torch.bfloat16):
            loss = objective.loss(frames, generator)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.value)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.value.detach()

    return step, batch * model.num_frames(waveforms.shape[1])


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def matmul_peak(device: torch.device) -> float:
    """The best rate of a large bfloat16 matrix product, in operations a second."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    timed(device, lambda: left @ right)
    return 2 * size**3 / min(timed(device, lambda: left @ right) for _ in range(10))


def operations(frames: int, length: int) -> float:
    """Operations of a training step of BASE over `frames` frames in stretches of `length`, the head's 15 % included."""
    width, inner, layers, features = 768, 3072, 3, 160
    encoder = layers * (4 * width * width + 2 * width * inner + 2 * length * width) + features * width
    head = 0.15 * (width * width + width * features)
    return 6.0 * (encoder + head) * frames


if __name__ == "__main__":
    main()
