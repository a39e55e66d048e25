"""What an upstream costs, measured once on a machine and kept: counting its products takes as long as a warm run.

What is kept is found by all that it depends on: the upstream's content, the device and its processor, threads, torch.
It is a help and never a condition: where the cache cannot be read or written, it is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from repbench.benchmark import environment
from repbench.errors import EnvironmentFault
from repbench.files import cache_dir, canonical_json, environment_faults, write_json
from repbench.upstream.contract import Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamCost:
    """What an upstream costs on a device.

    Attributes:
        macs_per_second: Multiply-accumulates of a second of sound, as `environment.macs_per_second` counts them.
        real_time_factor: Seconds of sound for each second of computing; None for frames that are read.
    """

    macs_per_second: int
    real_time_factor: float | None


def upstream_cost(upstream: Upstream, content: str, device: torch.device) -> UpstreamCost:
    """What was measured before of the same upstream here, or is measured now.

    Args:
        upstream: In eval mode on `device`.
        content: Names its weights, settings and code.
        device: Where it computes.
    """
    file = _file(content, device)
    kept = _kept(file)
    if kept is not None:
        return kept
    cost = UpstreamCost(
        macs_per_second=environment.macs_per_second(upstream, device),
        real_time_factor=environment.real_time_factor(upstream, device),
    )
    with contextlib.suppress(OSError, EnvironmentFault):
        write_json(file, asdict(cost))
    return cost


def costs_folder() -> Path:
    """Where costs are kept."""
    return cache_dir() / "costs"


def forget_costs() -> None:
    """Measure anew what is asked from now on.

    Raises:
        EnvironmentFault: A file may not be removed.
    """
    for file in costs_folder().glob("*.json"):
        with environment_faults(file):
            file.unlink(missing_ok=True)


def _file(content: str, device: torch.device) -> Path:
    name = environment.cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device)
    depends_on = [content, str(device), name, torch.get_num_threads(), torch.__version__]
    return costs_folder() / f"{hashlib.sha256(canonical_json(depends_on)).hexdigest()[:32]}.json"


def _kept(file: Path) -> UpstreamCost | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        kept = UpstreamCost(**json.loads(file.read_text(encoding="utf-8")))
        if isinstance(kept.macs_per_second, int) and isinstance(kept.real_time_factor, float | None):
            return kept
    return None
