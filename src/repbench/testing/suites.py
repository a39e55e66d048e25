"""The checks as pytest suites: what a plugin author subclasses. Only this module needs pytest.

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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from repbench.benchmark.loading.certificates import UNTRIED, Checked, CheckResult
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.loading.upstreams import build_upstream
from repbench.registry import Entry, Kind
from repbench.testing.conformance import Check, Subject
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from repbench.testing.fakes import tone_corpus
from repbench.testing.upstreams import UPSTREAM_CHECKS, UpstreamSubject


class _FactoryEntry(Entry):
    """An entry whose target is at hand, whether or not it can be found by name."""

    def load(self) -> object:
        return _AT_HAND[self.target]


_AT_HAND: dict[str, object] = {}


class UpstreamSuite:
    """One test for each promise of an upstream; one that cannot be measured is skipped with the reason if a certificate
    can do without it, and fails else.

    Attributes:
        factory: What the entry point names, an `UpstreamFactory`.
        checkpoint: What the factory is given.
        seed: What the factory is given.
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
        """What the check's docstring says."""
        __tracebackhide__ = True
        _tell(check, UPSTREAM_CHECKS.result(check.id, subject), subject, "upstream")


class DownstreamSuite:
    """One test for each promise of a downstream.

    Attributes:
        factory: What the entry point names.
        options: What the factory is given.
    """

    factory: ClassVar[Any]
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls) -> Iterator[DownstreamSubject]:
        """The task, and a corpus of tones; override it for a task that asks for other labels."""
        task = build_task(_entry_at_hand("downstream", _factory_of(cls)), cls.options)
        with tempfile.TemporaryDirectory(prefix="repbench-tones-") as folder:
            yield DownstreamSubject(task, tone_corpus(Path(folder, "tones"), num_speakers=3, per_session=2))

    @pytest.mark.parametrize("check", list(DOWNSTREAM_CHECKS), ids=lambda check: check.id)
    def test_promise(self, subject: DownstreamSubject, check: Check[DownstreamSubject]) -> None:
        """What the check's docstring says."""
        __tracebackhide__ = True
        _tell(check, DOWNSTREAM_CHECKS.result(check.id, subject), subject, "downstream")


def _tell(check: Check[Any], result: CheckResult, subject: Subject, kind: Checked) -> None:
    """A result as pytest knows it.

    What a certificate cannot do without fails where it could not be tried, unless another failure is why.
    """
    __tracebackhide__ = True
    if result.status == "failed":
        pytest.fail(f"{check.promise}: {result.detail}", pytrace=False)
    told = any(each.status == "failed" for each in subject.results.values())  # that one may stand on
    if result.status == "not measurable" and check.id not in UNTRIED[kind] and not told:
        pytest.fail(f"{check.promise}: it could not be tried: {result.detail}", pytrace=False)
    if result.status != "passed":
        pytest.skip(f"{result.status}: {result.detail}")


def _factory_of(suite: type) -> Any:
    """The factory as it was written into the class body: a function there is not to become a method."""
    factory = inspect.getattr_static(suite, "factory")
    return factory.__func__ if isinstance(factory, staticmethod) else factory


def _name_of(factory: Any) -> str:
    return f"{getattr(factory, '__module__', '')}:{getattr(factory, '__qualname__', repr(factory))}"


def _entry_at_hand(kind: Kind, factory: Any) -> Entry:
    target = _name_of(factory)
    _AT_HAND[target] = factory
    return _FactoryEntry(target.rpartition(":")[2], kind, target, "py", "", builtin=False)


def _entry_by_name(kind: Kind, factory: Any) -> Entry | None:
    """The entry by which another process finds the factory; None where its name leads elsewhere."""
    module, _, name = _name_of(factory).partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return Entry(name, kind, f"{module}:{name}", "py", "", builtin=False) if found is factory else None
