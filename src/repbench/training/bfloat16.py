"""How fast this processor multiplies in bfloat16.

Processors with instructions for it (AMX, AVX-512 BF16) are faster than in float32. On others torch rounds and
multiplies one number after the other: with AVX2 alone a product took 75 times as long as in float32 (AMD EPYC, torch
2.15).
"""

from __future__ import annotations

import time

import torch

_SIZE = 256
"""Rows and columns of the matrices: some 0.1 s where it is slow."""

_NOTED = 1.5
"""Times as long as in float32 from which on it is said; below, other work on the machine may be the reason."""


def note_on_bfloat16(device: torch.device, instead: str) -> str | None:
    """What to tell about products in bfloat16 that are slower than in float32; None where they are not.

    Args:
        device: Where the products are computed; on others than the CPU nothing is measured.
        instead: The setting of float32, as in `training.precision=fp32`.
    """
    if device.type != "cpu":
        return None
    times = _seconds(torch.bfloat16) / _seconds(torch.float32)
    if times < _NOTED:
        return None
    return (
        f"this processor takes {times:.3g} times as long for products in bfloat16 as in float32: {instead} is faster, "
        "and not as coarse"
    )


def _seconds(dtype: torch.dtype) -> float:
    """The least seconds of a product, after one that is not counted."""
    matrix = torch.ones(_SIZE, _SIZE, dtype=dtype)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
