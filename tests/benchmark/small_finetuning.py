"""Fine-tunings that take a second, and upstreams to try them with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repbench.benchmark.pipeline.finetuned_run import STATES
from repbench.benchmark.protocol import FinetuneSettings, ProbeSettings, Protocol
from repbench.benchmark.run import RunRequest
from repbench.testing import Envelope
from repbench.upstream.contract import HiddenStates

QUICK: dict[str, Any] = {
    "steps": 12,
    "batch_seconds": 5.0,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-2,
    "selection_points": 4,
    "patience": 99,
}
"""The state is saved after the steps 3, 6, 9 and 12."""

ENVELOPE = "py:repbench.testing.fakes:envelope"


def request(upstream: str, corpus: Path, out: Path, **changed: Any) -> RunRequest:
    """`repbench run --upstream U --downstream phone --finetune`, made small; `finetune__steps` is a setting."""
    settings = QUICK | {name[10:]: value for name, value in changed.items() if name.startswith("finetune__")}
    protocol = Protocol(probe=ProbeSettings(hidden_units=16), finetune=FinetuneSettings(**settings))
    asked = RunRequest(
        upstream=upstream, downstream="phone", corpus=str(corpus), out=out, protocol=protocol, finetune=True
    )
    return replace(asked, **{name: value for name, value in changed.items() if not name.startswith("finetune__")})


def arguments(asked: RunRequest) -> list[str]:
    """The same on the command line."""
    settings = asked.protocol.finetune.model_dump(exclude_defaults=True)
    sets = [part for name, value in settings.items() for part in ("--set", f"finetune.{name}={value}")]
    return ["run", "--upstream", asked.upstream, "--downstream", asked.downstream, "--corpus", asked.corpus,
            "--checkpoint", str(asked.checkpoint), "--out", str(asked.out), "--finetune", "--set",
            f"probe.hidden_units={asked.protocol.probe.hidden_units}", *sets]  # fmt: skip


def outcome(record: Path) -> dict[str, Any]:
    """What must not depend on interruptions: the weights, the answers, the selection."""
    with (record.parent / "network.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {
        "weights": header["__metadata__"]["weights_sha256"],
        "predictions": (record.parent / "predictions.jsonl").read_bytes(),
        "selection": json.loads(record.read_text(encoding="utf-8"))["selection"],
    }


def states(out: Path) -> list[Path]:
    """The folders of trainings that are not finished."""
    return sorted((out / STATES).iterdir()) if (out / STATES).exists() else []


class Faulty(Envelope):
    """It learns nothing of the longest utterance that it was given before it began to learn.

    Args:
        fault: What happens instead: "nan" or "memory".
    """

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.has_begun = False
        self.longest = 0

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        self.has_begun |= self.training
        if not self.has_begun and len(lengths) > 1:  # multiply-accumulates are counted on a waveform alone
            self.longest = max(self.longest, int(lengths.max()))
        if not self.training or self.longest not in lengths.tolist():
            return states
        if self.fault == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        spoilt = torch.where((lengths == self.longest)[:, None, None], torch.nan, 0.0)
        return HiddenStates(states.layers + spoilt, states.lengths)


def cracked(*, checkpoint: str | None = None, seed: int = 0) -> Faulty:
    return Faulty("nan")


def greedy(*, checkpoint: str | None = None, seed: int = 0) -> Faulty:
    return Faulty("memory")


def tensors_differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor], names: Sequence[str]) -> list[bool]:
    return [not torch.equal(one[name], other[name]) for name in names]
