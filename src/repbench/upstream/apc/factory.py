"""The entry point of APC."""

from __future__ import annotations

from collections.abc import Sequence

from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.apc.interop import read_foreign
from repbench.upstream.apc.upstream import Apc
from repbench.upstream.checkpoints.factory import NetworkFactory


def untrained(settings: ApcConfig, names: Sequence[str] | None = None, seed: int = 0) -> Apc:
    """An APC with torch's initial weights, drawn from the generator that `NetworkFactory` seeds."""
    return Apc(settings)


apc = NetworkFactory(name="apc", settings=ApcConfig, untrained=untrained, read_foreign=read_foreign)
"""The entry point."""
