"""The entry point of Mockingjay."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from repbench.upstream.checkpoints.factory import NetworkFactory
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.interop import read_foreign
from repbench.upstream.mockingjay.model import initialise
from repbench.upstream.mockingjay.upstream import Mockingjay


def untrained(settings: MockingjayConfig, names: Sequence[str] | None = None, seed: int = 0) -> Mockingjay:
    """A Mockingjay with weights drawn from `seed`; it has a head unless `names` lists no weight of one."""
    with_head = names is None or any(name.startswith("head.") for name in names)
    network = Mockingjay(settings, with_head=with_head)
    # torch drew its own initial weights first, from the generator that `NetworkFactory` seeds; all are overwritten.
    initialise(network, settings.initializer_std, torch.Generator().manual_seed(seed))
    return network


mockingjay = NetworkFactory(
    name="mockingjay", settings=MockingjayConfig, untrained=untrained, read_foreign=read_foreign
)
"""The entry point."""
