"""Certificates: the results of the conformance checks of one upstream or task, kept under its fingerprint.

`repbench check` writes them, `repbench run` puts the id of a valid one into its record. A certificate is kept if no
check failed and every needed check could be measured. The checks themselves are in `repbench.testing`.
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
"""Version of each suite of checks; raised by hand when checks are added, which makes older certificates invalid."""

UNTRIED: dict[Checked, frozenset[str]] = {
    "upstream": frozenset({"hop-and-first-centre", "works-in-a-worker"}),
    "downstream": frozenset(),
}
"""The checks of each suite that a certificate can do without where they are not measurable."""

SCHEMA = "repbench.certificate/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Result of one check.

    Attributes:
        id: Of the check.
        status: `not measurable` is no fault, and the detail gives the reason, but most checks have to be measured for a
            certificate; `not applicable` promises nothing.
        detail: One sentence.
        measured: The number that was compared; infinite where the two tensors differ in shape.
        allowed: Largest value of `measured` that passes.
    """

    id: str
    status: Status
    detail: str
    measured: float | None = None
    allowed: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """All fields for JSON: an infinite number is the word `inf`."""
        fields = dataclasses.asdict(self)
        if self.measured is not None and self.measured == float("inf"):
            fields["measured"] = "inf"
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Results of a suite for one upstream or task.

    Attributes:
        kind: Of the suite.
        name: Of the upstream or task.
        checkpoint: Of the upstream, as given.
        fingerprint: Of the upstream; of a task, that of its file.
        origin: Distribution, version and file hash.
        info: The declaration of the upstream or task.
        device: That it was checked on.
        repbench: Version of the package.
        results: One for each check.
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
        info: The current declaration of the upstream or task; a dataclass.
        file_sha256: Of its current file: another file may break the promises of the checked one.
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
    # Fields that most declarations do not have, here and below: certificates from before there were any stay valid.
    if declared.get("kind") == "frames":
        del declared["kind"]
    for metric in declared.get("metrics", {}).values():
        if metric["num_classes"] is None:
            del metric["num_classes"]
        if metric["interval"] == "linear":
            del metric["interval"]
    parsed: dict[str, Any] = json.loads(canonical_json(declared))
    return parsed


def task_fingerprint(target: str, file_sha256: str | None, options: Mapping[str, Any]) -> str:
    """Key of a task's certificate: a digest of its file and its options.

    Args:
        target: `module:attribute`.
        file_sha256: Of its file.
        options: Of the task.
    """
    of = {"target": target, "file_sha256": file_sha256, "options": dict(options)}
    return hashlib.sha256(canonical_json(of)).hexdigest()


def certificate_file(kind: Checked, fingerprint: str) -> Path:
    """Path of the certificate of a fingerprint."""
    # The fingerprint of a plugin can be any text, a path that leads elsewhere among them.
    safe = fingerprint if fingerprint.isalnum() else hashlib.sha256(fingerprint.encode()).hexdigest()
    return cache_dir() / "certificates" / f"{kind}-{safe}.json"


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json({**content, "id": None})).hexdigest()[:16]
