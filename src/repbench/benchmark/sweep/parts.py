"""The extraction of a job in parts, which run beside each other before the pairs of the job."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from repbench.benchmark.sweep.children import Children, ended_by_sigterm
from repbench.benchmark.sweep.jobs import Job, run_command, to_stderr

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCall:
    """One call of `repbench extract --shard`; fields as its options.

    Attributes:
        label: Name of the job in the output.
        shard: As `2/4`.
        timeout_min: Minutes after which it is ended; None: no limit.
    """

    upstream: str
    checkpoint: str | None
    label: str
    downstreams: tuple[str, ...]
    corpus: str
    layers: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str
    assignments: tuple[str, ...]
    device: str
    shard: str
    plugins: tuple[str, ...] = ()
    timeout_min: float | None = None

    @property
    def name(self) -> str:
        """Its name in the output."""
        return f"{self.label} · features, part {self.shard}"

    def command(self) -> list[str]:
        """Its command line, without `repbench extract`."""
        options: list[tuple[str, object]] = [
            ("--upstream", self.upstream),
            *([("--checkpoint", self.checkpoint)] if self.checkpoint is not None else []),
            ("--corpus", self.corpus),
            ("--preset", self.preset),
            ("--device", self.device),
            ("--shard", self.shard),
            *(("--downstream", each) for each in self.downstreams),
            *(("--layer", each) for each in self.layers),
            *(("--seed", each) for each in self.seeds),
            *(("--set", each) for each in self.assignments),
            *(("--plugin", each) for each in self.plugins),
        ]
        return [*(f"{option}={value}" for option, value in options), "--json"]

    def as_json(self) -> str:
        """The call as JSON, for a node of a cluster."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> PartCall:
        """A call from what `as_json` wrote."""
        fields = json.loads(text)
        lists: dict[str, Any] = {key: tuple(each) for key, each in fields.items() if isinstance(each, list)}
        return cls(**{**fields, **lists})


def parts_of(job: Job, count: int) -> list[PartCall]:
    """The parts in which the features of a job are extracted; none where one part is all, or nothing is frozen."""
    frozen = [pair for pair in job.pairs if pair.mode == "frozen"]
    if count < 2 or not frozen:
        return []
    first = frozen[0]
    return [
        PartCall(
            upstream=first.upstream,
            checkpoint=first.checkpoint,
            label=job.name,
            downstreams=tuple(dict.fromkeys(pair.downstream for pair in frozen)),
            corpus=first.corpus,
            layers=tuple(dict.fromkeys(pair.layer for pair in frozen)),
            seeds=first.seeds,
            preset=first.preset,
            assignments=first.assignments,
            device=first.device,
            shard=f"{number}/{count}",
            plugins=first.plugins,
            timeout_min=first.timeout_min,
        )
        for number in range(1, count + 1)
    ]


def run_part(call: PartCall, children: Children, say: Say, environment: Mapping[str, str], device: str | None) -> str:
    """Run a part.

    Returns:
        A note if it failed, else "". A failure ends nothing: the pairs compute what is not stored, or fail themselves.
    """
    call = call if device is None else replace(call, device=device)
    ran = run_command(call.name, ["extract", *call.command()], call.timeout_min, children, say, environment)
    if not ran.exit_code:
        return ""
    return f"note: {call.name} failed ({ran.exit_code}): {ran.error} The pairs compute what is not stored."


def run_part_elsewhere(text: str) -> str:
    """Run a part, given as JSON, on a node of a cluster; its note as `run_part` gives it."""
    with ended_by_sigterm(), Children() as children:
        return run_part(PartCall.of_json(text), children, to_stderr, os.environ, None)
