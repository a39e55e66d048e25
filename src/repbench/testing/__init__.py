"""For plugin authors and for us: the conformance suites, and small fakes.

`UpstreamSuite` and `DownstreamSuite` are pytest classes, so pytest is imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repbench.testing.fakes import Envelope, tone_corpus
    from repbench.testing.suites import DownstreamSuite, UpstreamSuite

__all__ = ["DownstreamSuite", "Envelope", "UpstreamSuite", "tone_corpus"]

_HOMES = {
    "DownstreamSuite": "repbench.testing.suites",
    "Envelope": "repbench.testing.fakes",
    "UpstreamSuite": "repbench.testing.suites",
    "tone_corpus": "repbench.testing.fakes",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
