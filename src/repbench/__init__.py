"""repbench: how good is a speech representation, for what, with how few labels, and is the difference real?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repbench.benchmark.loading import load_upstream
    from repbench.benchmark.pretrain import pretrain
    from repbench.benchmark.record import read_records
    from repbench.benchmark.run import evaluate
    from repbench.upstream.optimizers import pretraining_optimizer

__all__ = ["evaluate", "load_upstream", "pretrain", "pretraining_optimizer", "read_records"]

_HOMES = {
    "evaluate": "repbench.benchmark.run",
    "load_upstream": "repbench.benchmark.loading",
    "pretrain": "repbench.benchmark.pretrain",
    "pretraining_optimizer": "repbench.upstream.optimizers",
    "read_records": "repbench.benchmark.record",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import repbench` alone loads neither torch nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
