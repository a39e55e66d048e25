"""Cost of an upstream, measured once on a machine and cached: counting its products takes as long as a warm run.

The key of the cache is all that a cost depends on: the upstream's content, the device and its processor, the number of
threads, and torch. Where the cache cannot be read or written, the cost is measured.
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
    """Cost of an upstream on a device.

    Attributes:
        macs_per_second: Multiply-accumulates per second of sound, as `environment.macs_per_second` counts them.
        real_time_factor: Seconds of sound per second of computing; None for frames that are read from the corpus.
    """

    macs_per_second: int
    real_time_factor: float | None


def upstream_cost(upstream: Upstream, content: str, device: torch.device) -> UpstreamCost:
    """The cost of an upstream, from the cache or measured.

    Args:
        upstream: Model in eval mode, on `device`.
        content: Hash of its weights, settings and code.
        device: Device of the upstream.
    """
    file = _file(content, device)
    cached = _cached(file)
    if cached is not None:
        return cached
    cost = UpstreamCost(
        macs_per_second=environment.macs_per_second(upstream, device),
        real_time_factor=environment.real_time_factor(upstream, device),
    )
    with contextlib.suppress(OSError, EnvironmentFault):
        write_json(file, asdict(cost))
    return cost


def costs_folder() -> Path:
    """Folder of the cached costs."""
    return cache_dir() / "costs"


def clear_costs() -> None:
    """Remove all cached costs.

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


def _cached(file: Path) -> UpstreamCost | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        cost = UpstreamCost(**json.loads(file.read_text(encoding="utf-8")))
        if isinstance(cost.macs_per_second, int) and isinstance(cost.real_time_factor, float | None):
            return cost
    return None
