"""Checkpoints that mean untrained weights."""

from __future__ import annotations

RANDOM = "random"


def is_untrained(checkpoint: str | None) -> bool:
    """Whether a checkpoint means random weights: `random`, `random:PRESET` or `random:PATH`."""
    return checkpoint is not None and checkpoint.partition(":")[0] == RANDOM
