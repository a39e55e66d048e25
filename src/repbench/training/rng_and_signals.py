"""Random draws that depend on a seed alone, and signals that take effect between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators, which dropout draws from, inside the block; restore their state after it.

    Args:
        seed: Below 2^63.
        device: Whose generator is seeded, with that of the CPU.
    """
    # `fork_rng` would save the state of every GPU of the machine by default; listed, only that of this one.
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        # Not `torch.manual_seed`, which also seeds the generators of all other devices and leaves them so.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)  # of the current device alone
        yield


@contextmanager
def heeding_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT in a list, so that a step and its checkpoint end first.

    Outside of the main thread no signal arrives, and the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    # Python delivers signals, and lets `signal.signal` be called, in the main thread only (checked above).
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
