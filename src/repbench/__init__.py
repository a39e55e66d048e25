"""repbench: how good is a speech representation, for what, with how few labels, and is the difference real?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from repbench.moved import install

if TYPE_CHECKING:
    from repbench.benchmark.loading.upstreams import load_upstream
    from repbench.benchmark.pipeline.pretrain import pretrain
    from repbench.benchmark.records.record import read_records
    from repbench.benchmark.run import evaluate
    from repbench.training.optimizers import pretraining_optimizer

install()

__all__ = ["evaluate", "load_upstream", "pretrain", "pretraining_optimizer", "read_records"]

_HOMES = {
    "evaluate": "repbench.benchmark.run",
    "load_upstream": "repbench.benchmark.loading.upstreams",
    "pretrain": "repbench.benchmark.pipeline.pretrain",
    "pretraining_optimizer": "repbench.training.optimizers",
    "read_records": "repbench.benchmark.records.record",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import repbench` alone loads neither torch nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
