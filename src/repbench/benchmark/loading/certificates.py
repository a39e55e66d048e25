"""Certificates: what the conformance checks of one upstream or task gave, kept under its fingerprint.

`repbench check` writes them, `repbench run` puts the id of a valid one into its record. Only what no check found fault
with has one, and what could be tried at all. The checks themselves are in `repbench.testing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repbench.downstream.problems import Problem
from repbench.files import cache_dir, canonical_json, environment_faults, write_json

Status = Literal["passed", "failed", "not measurable", "not applicable"]
Checked = Literal["upstream", "downstream"]

SUITES: dict[Checked, int] = {"upstream": 2, "downstream": 2}
"""Version of each suite of checks; raised by hand when it asks more, so that older certificates count no longer."""

UNTRIED: dict[Checked, frozenset[str]] = {
    "upstream": frozenset({"hop-and-first-centre", "works-in-a-worker"}),
    "downstream": frozenset(),
}
"""The checks of each suite that a certificate can do without where they are not measurable."""

SCHEMA = "repbench.certificate/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check gave.

    Attributes:
        id: Which check.
        status: `not measurable` says why in the detail and is no fault, but most are needed for a certificate;
            `not applicable` promises nothing.
        detail: One sentence.
        measured: The number that was compared; infinite where the two things are not even of one shape.
        allowed: What it may be at most.
    """

    id: str
    status: Status
    detail: str
    measured: float | None = None
    allowed: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON can say it: an infinite number is the word `inf`."""
        fields = dataclasses.asdict(self)
        if self.measured is not None and self.measured == float("inf"):
            fields["measured"] = "inf"
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a suite gave for one upstream or task.

    Attributes:
        kind: Which suite.
        name: What was checked.
        checkpoint: Its weights, as they were asked for.
        fingerprint: Of the upstream; for a task, of its file.
        origin: Distribution, version and file hash.
        info: What it declared.
        device: Where it was checked.
        repbench: Version of the package.
        results: One a check.
    """

    kind: Checked
    name: str
    checkpoint: str | None
    fingerprint: str
    origin: dict[str, str | None]
    info: dict[str, Any]
    device: str
    repbench: str
    results: tuple[CheckResult, ...]

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The promises that do not hold."""
        return tuple(result for result in self.results if result.status == "failed")

    @property
    def untried(self) -> tuple[CheckResult, ...]:
        """The promises that could not be tried, of those that a certificate is not given without."""
        unmade = (result for result in self.results if result.status == "not measurable")
        return tuple(result for result in unmade if result.id not in UNTRIED[self.kind])

    @property
    def passed(self) -> bool:
        """Whether nothing failed and everything needed was tried."""
        return not self.failed and not self.untried

    @property
    def id(self) -> str:
        """16 hexadecimal digits of a SHA-256 over everything else."""
        return _digest(self._content())

    def as_dict(self) -> dict[str, Any]:
        """Everything, with the id."""
        return {**self._content(), "id": self.id}

    def _content(self) -> dict[str, Any]:
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        results = [result.as_dict() for result in self.results]
        return {"schema": SCHEMA, "suite": SUITES[self.kind], **content, "results": results}


def keep(certificate: Certificate) -> Path | None:
    """Write a certificate under its fingerprint; one that did not pass takes the earlier one away and is not kept.

    Raises:
        EnvironmentFault: The cache cannot be written.
    """
    path = certificate_file(certificate.kind, certificate.fingerprint)
    if not certificate.passed:
        with environment_faults(path):
            if path.exists():
                path.unlink()
        return None
    write_json(path, certificate.as_dict())
    return path


def certificate_id(kind: Checked, fingerprint: str, info: Any, file_sha256: str | None) -> str | None:
    """The id of the certificate kept for a fingerprint, if it is whole, of today's suite, and of the same thing.

    Args:
        kind: Which suite.
        fingerprint: Of the upstream; of a task as `task_fingerprint` gives it.
        info: What the upstream or task declares now; a dataclass.
        file_sha256: Of the file that it stands in now: another file may break what this one promised.
    """
    kept: Any = None
    with contextlib.suppress(OSError, ValueError):  # one that is missing or damaged is none
        kept = json.loads(certificate_file(kind, fingerprint).read_text(encoding="utf-8"))
    if not isinstance(kept, dict) or kept.get("id") != _digest({**kept, "id": None}):
        return None
    declared = declared_as_json(info)
    valid = {"suite": SUITES[kind], "fingerprint": fingerprint, "info": declared}
    origin = kept.get("origin")
    if not isinstance(origin, dict) or origin.get("file_sha256") != file_sha256:
        return None
    return str(kept["id"]) if all(kept.get(name) == value for name, value in valid.items()) else None


def declared_as_json(info: Any) -> dict[str, Any]:
    """A declaration, a dataclass, as JSON holds it; a task's own problem by its name."""
    declared: dict[str, Any] = dataclasses.asdict(info)
    if isinstance(declared.get("problem"), Problem):
        declared["problem"] = declared["problem"].name
    parsed: dict[str, Any] = json.loads(canonical_json(declared))
    return parsed


def task_fingerprint(target: str, file_sha256: str | None, options: Mapping[str, Any]) -> str:
    """What a task's certificate is kept under: its file and its options.

    Args:
        target: `module:attribute`.
        file_sha256: Of the file it stands in.
        options: Of the task.
    """
    of = {"target": target, "file_sha256": file_sha256, "options": dict(options)}
    return hashlib.sha256(canonical_json(of)).hexdigest()


def certificate_file(kind: Checked, fingerprint: str) -> Path:
    """Where the certificate of a fingerprint lies."""
    safe = fingerprint if fingerprint.isalnum() else hashlib.sha256(fingerprint.encode()).hexdigest()
    return cache_dir() / "certificates" / f"{kind}-{safe}.json"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({**content, "id": None})).hexdigest()[:16]
