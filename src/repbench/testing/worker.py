"""An upstream built again and run in a separate process, as the processes of a sweep do.

The process is forked from a server that has imported torch and nothing else, so it holds no state of this one.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.errors import OF_OTHERS
from repbench.registry import Entry
from repbench.testing.conformance import Broken

TIMEOUT_SECONDS = 300.0
"""Longest time for building an upstream and running it on one second of sound."""


@dataclass(frozen=True, slots=True)
class Order:
    """The upstream that the process builds, and the sound that it runs it on.

    Attributes:
        entry: Of the upstream.
        checkpoint: As in `UpstreamFactory`.
        seed: As in `UpstreamFactory`.
        sound: File of a (T,) tensor.
        answer: File to be written.
    """

    entry: Entry
    checkpoint: str | None
    seed: int
    sound: str
    answer: str


def heard_in_worker(entry: Entry, checkpoint: str | None, seed: int, sound: Tensor) -> tuple[str, Tensor]:
    """The fingerprint and the hidden states (L, F, D) of a sound (T,), as a separate process computes them.

    Raises:
        Broken: The process failed, or did not end in time.
    """
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory(prefix="repbench-worker-") as folder:
        order = Order(entry, checkpoint, seed, str(Path(folder, "sound")), str(Path(folder, "answer")))
        save_file({"sound": sound.contiguous()}, order.sound)
        _run(order)
        answer = Path(order.answer)
        if not answer.exists():
            reason = Path(f"{order.answer}.fault")
            fault = reason.read_text(encoding="utf-8") if reason.exists() else "it ended without a result"
            raise Broken(f"in a separate process: {fault}")
        fingerprint = Path(f"{order.answer}.fingerprint").read_text(encoding="utf-8")
        return fingerprint, load_file(answer)["states"]


def _run(order: Order) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "repbench.testing.worker"])
    process = context.Process(target=_answer, args=(order,))
    process.start()
    process.join(TIMEOUT_SECONDS)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    process.close()
    if late:
        raise Broken(f"in a separate process it did not end within {TIMEOUT_SECONDS:g} s")


def _answer(order: Order) -> None:
    """The work of the process: build, run, write. The tensor is written last: if it exists, all files are complete."""
    from safetensors.torch import load_file, save_file

    from repbench.benchmark.loading.upstreams import build_upstream
    from repbench.registry import last_line

    torch.set_num_threads(1)
    sound = load_file(order.sound)["sound"]
    try:
        upstream: Any = build_upstream(order.entry, order.checkpoint, order.seed)
        with torch.inference_mode():
            # (T,) -> (1, T)
            states = upstream(sound[None], torch.tensor([len(sound)]))
        Path(f"{order.answer}.fingerprint").write_text(upstream.fingerprint(), encoding="utf-8")
        # (L, 1, F, D) -> (L, F, D)
        save_file({"states": states.layers[:, 0].float().contiguous()}, f"{order.answer}.unfinished")
    except OF_OTHERS:
        raise
    except (Exception, SystemExit) as error:
        Path(f"{order.answer}.fault").write_text(last_line(error), encoding="utf-8")
        return
    Path(f"{order.answer}.unfinished").replace(order.answer)
