"""Tools for tests of plugins: the conformance suites, and small fakes.

`UpstreamSuite`, `DownstreamSuite` and `HeadSuite` are pytest classes: pytest is imported when one is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repbench.testing.downstreams import DownstreamSubject
    from repbench.testing.fakes import Envelope, tone_corpus
    from repbench.testing.suites import DownstreamSuite, HeadSuite, UpstreamSuite

__all__ = ["DownstreamSubject", "DownstreamSuite", "Envelope", "HeadSuite", "UpstreamSuite", "tone_corpus"]

_HOMES = {
    "DownstreamSubject": "repbench.testing.downstreams",
    "DownstreamSuite": "repbench.testing.suites",
    "Envelope": "repbench.testing.fakes",
    "HeadSuite": "repbench.testing.suites",
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
