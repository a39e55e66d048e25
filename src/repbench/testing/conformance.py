"""The base of the conformance suites: named checks, their results, and checks that depend on other checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from repbench.benchmark.loading.certificates import CheckResult
from repbench.errors import OF_OTHERS, is_out_of_memory
from repbench.globalstate import preserved_global_state
from repbench.registry import last_line


class NotMeasurable(Exception):  # noqa: N818 - no error: the check cannot be made
    """A check cannot be made here; the message is the reason."""


class NotApplicable(Exception):  # noqa: N818 - no error: nothing was promised
    """The subject makes no promise that the check could test; the message is the reason."""


class Broken(Exception):  # noqa: N818 - read as "the promise is broken"
    """A promise does not hold.

    Args:
        detail: One sentence.
        measured: The number that was compared, if there is one.
        allowed: Largest value that passes.
    """

    def __init__(self, detail: str, *, measured: float | None = None, allowed: float | None = None) -> None:
        super().__init__(detail)
        self.measured = measured
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Held:
    """A promise holds; the finding, and the numbers as in `Broken`."""

    detail: str
    measured: float | None = None
    allowed: float | None = None


class Subject(Protocol):
    """The plugin under test; holds the results of its checks, on which other checks may depend."""

    results: dict[str, CheckResult]


Checked = TypeVar("Checked", bound=Subject)


@dataclass(frozen=True, slots=True)
class Check(Generic[Checked]):
    """One promise.

    Attributes:
        id: Readable and stable, as certificates and tests refer to it.
        promise: The promise, in one sentence.
        test: Tests it.
        after: Ids of checks that have to pass; else this one would report their fault again.
    """

    id: str
    promise: str
    test: Callable[[Checked], Held]
    after: tuple[str, ...] = ()


class Suite(Generic[Checked]):
    """Checks in the order in which they are made."""

    def __init__(self) -> None:
        self._checks: dict[str, Check[Checked]] = {}

    def __iter__(self) -> Iterator[Check[Checked]]:
        return iter(self._checks.values())

    def __len__(self) -> int:
        return len(self._checks)

    def check(
        self, id_: str, *, after: Sequence[str] = ()
    ) -> Callable[[Callable[[Checked], Held]], Callable[[Checked], Held]]:
        """Make a function a check; the first line of its docstring is the promise."""
        assert id_ not in self._checks
        assert all(each in self._checks for each in after)

        def register(test: Callable[[Checked], Held]) -> Callable[[Checked], Held]:
            promise = (test.__doc__ or "").partition("\n")[0].rstrip(".")
            self._checks[id_] = Check(id_, promise, test, tuple(after))
            return test

        return register

    def result(self, id_: str, subject: Checked) -> CheckResult:
        """The result of a check, which runs once for a subject, after those it depends on."""
        if id_ not in subject.results:
            check = self._checks[id_]
            broken = [each for each in check.after if self.result(each, subject).status == "failed"]
            subject.results[id_] = (
                CheckResult(id=id_, status="not measurable", detail=f"{broken[0]} failed, and this check depends on it")
                if broken
                else _named_once(_made(check, subject), subject.results.values())
            )
        return subject.results[id_]

    def results(self, subject: Checked, advance: Callable[[int, int], None] | None = None) -> tuple[CheckResult, ...]:
        """The results of all checks; `advance` receives (done, total)."""
        found = []
        for done, check in enumerate(self, start=1):
            found.append(self.result(check.id, subject))
            if advance is not None:
                advance(done, len(self))
        return tuple(found)


def _named_once(result: CheckResult, earlier: Iterable[CheckResult]) -> CheckResult:
    """A failure in the words of an earlier one refers to it."""
    if result.status != "failed":
        return result
    same = next((each.id for each in earlier if each.status == "failed" and each.detail == result.detail), None)
    return result if same is None else replace(result, detail=f"same failure as {same}")


def _made(check: Check[Checked], subject: Checked) -> CheckResult:
    """Run a check; an exception of the plugin is a failure. Global state is restored."""
    made = CheckResult(id=check.id, status="passed", detail="")
    try:
        with preserved_global_state():
            held = check.test(subject)
    except NotMeasurable as reason:
        return replace(made, status="not measurable", detail=str(reason))
    except NotApplicable as reason:
        return replace(made, status="not applicable", detail=str(reason))
    except Broken as fault:
        return replace(made, status="failed", detail=str(fault), measured=fault.measured, allowed=fault.allowed)
    except OF_OTHERS:
        raise
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        return replace(made, status="failed", detail=f"it raised {last_line(error)}")
    return replace(made, detail=held.detail, measured=held.measured, allowed=held.allowed)
