"""The checks as pytest suites, for a plugin's own tests. No other module of this package needs pytest.

Example of a whole test file:

    from my_package import my_model
    from repbench.testing import UpstreamSuite

    class TestMyModel(UpstreamSuite):
        factory = my_model
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from repbench.benchmark.loading.certificates import UNTRIED, CheckResult
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.registry import Entry, Kind
from repbench.testing.conformance import Check, Subject
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from repbench.testing.fakes import tone_corpus
from repbench.testing.heads import HEAD_CHECKS, HeadSubject
from repbench.testing.upstreams import UPSTREAM_CHECKS, UpstreamSubject


class _FactoryEntry(Entry):
    """An entry whose target is an object of this process, which need not be importable."""

    def load(self) -> object:
        return _AT_HAND[self.target]


_AT_HAND: dict[str, object] = {}


class UpstreamSuite:
    """One test for each promise of an upstream.

    A promise that cannot be measured is skipped if a certificate can be given without it, and fails otherwise.

    Attributes:
        factory: The target of the entry point, an `UpstreamFactory`.
        checkpoint: Argument of the factory.
        seed: Argument of the factory.
    """

    factory: ClassVar[Any]
    checkpoint: ClassVar[str | None] = None
    seed: ClassVar[int] = 0

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> UpstreamSubject:
        """The upstream, built once for all tests of the class."""
        factory, seed = _factory_of(cls), cls.seed
        at_hand = _entry_at_hand("upstream", factory)
        return UpstreamSubject(
            lambda checkpoint: build_upstream(at_hand, checkpoint, seed),
            checkpoint=cls.checkpoint,
            seed=seed,
            entry=_entry_by_name("upstream", factory),
        )

    @pytest.mark.parametrize("check", list(UPSTREAM_CHECKS), ids=lambda check: check.id)
    def test_promise(self, subject: UpstreamSubject, check: Check[UpstreamSubject]) -> None:
        """The promise in the docstring of the check."""
        __tracebackhide__ = True
        _report(check, UPSTREAM_CHECKS.result(check.id, subject), subject, UNTRIED["upstream"])


class DownstreamSuite:
    """One test for each promise of a downstream.

    Attributes:
        factory: The target of the entry point.
        options: Keyword arguments of the factory.
    """

    factory: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> Iterator[DownstreamSubject]:
        """The task, and a corpus of tones; override it for a task that needs other labels (docs/plugins.md)."""
        task = build_task(_entry_at_hand("downstream", _factory_of(cls)), cls.options)
        with tempfile.TemporaryDirectory(prefix="repbench-tones-") as folder:
            yield DownstreamSubject(task, tone_corpus(Path(folder, "tones"), num_speakers=3, per_session=2))

    @pytest.mark.parametrize("check", list(DOWNSTREAM_CHECKS), ids=lambda check: check.id)
    def test_promise(self, subject: DownstreamSubject, check: Check[DownstreamSubject]) -> None:
        """The promise in the docstring of the check."""
        __tracebackhide__ = True
        _report(check, DOWNSTREAM_CHECKS.result(check.id, subject), subject, UNTRIED["downstream"])


class HeadSuite:
    """One test for each promise of a head.

    Attributes:
        factory: The target of the entry point, a `HeadFactory`.
    """

    factory: ClassVar[Any]

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> HeadSubject:
        """The head, of which each check builds its own."""
        return HeadSubject(_factory_of(cls))

    @pytest.mark.parametrize("check", list(HEAD_CHECKS), ids=lambda check: check.id)
    def test_promise(self, subject: HeadSubject, check: Check[HeadSubject]) -> None:
        """The promise in the docstring of the check."""
        __tracebackhide__ = True
        _report(check, HEAD_CHECKS.result(check.id, subject), subject, frozenset())


def _report(check: Check[Any], result: CheckResult, subject: Subject, untried: Collection[str]) -> None:
    """Pass, skip or fail as a result requires.

    A check that could not be tried fails unless its id is in `untried` or another check failed, which may be the cause.
    """
    __tracebackhide__ = True
    if result.status == "failed":
        pytest.fail(f"{check.promise}: {result.detail}", pytrace=False)
    any_failed = any(each.status == "failed" for each in subject.results.values())
    if result.status == "not measurable" and check.id not in untried and not any_failed:
        pytest.fail(f"{check.promise}: it could not be tried: {result.detail}", pytrace=False)
    if result.status != "passed":
        pytest.skip(f"{result.status}: {result.detail}")


def _factory_of(suite: type) -> Any:
    """The factory as the class body holds it: a function there must not become a bound method."""
    factory = inspect.getattr_static(suite, "factory")
    return factory.__func__ if isinstance(factory, staticmethod) else factory


def _name_of(factory: Any) -> str:
    return f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', repr(factory))}"


def _entry_at_hand(kind: Kind, factory: Any) -> Entry:
    target = _name_of(factory)
    _AT_HAND[target] = factory
    return _FactoryEntry(target.rpartition(":")[2], kind, target, "py", "", builtin=False)


def _entry_by_name(kind: Kind, factory: Any) -> Entry | None:
    """The entry by which another process finds the factory; None where its name reaches another object."""
    module, _, name = _name_of(factory).partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return Entry(name, kind, f"{module}:{name}", "py", "", builtin=False) if found is factory else None
