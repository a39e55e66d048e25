"""What the steps of any training need: draws that depend on a seed alone, and signals that are heeded between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def drawing_from(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's own generators: give them a seed inside, and their old state after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)  # of the current device alone
        yield


@contextmanager
def heeding_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT are noted in the list, so that a step and its checkpoint end first; later ones are not heeded.

    Outside of the main thread no signal arrives, and none is noted.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, frame: asked.append(number))
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
