"""`invariance.json`: how far conditions move the states of each layer, with intervals, and all that it depends on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from repbench.benchmark.similarity.document import (
    ComparedCorpus,
    ComparedUpstream,
    ComparisonCost,
    Count,
    SealedFile,
    Value,
    paths_of,
    read_sealed,
)

SCHEMA: Final = "repbench.invariance/1"
INVARIANCE_FILE = "invariance.json"
MADE_BY = "repbench invariance"

SIGNATURE = b'"schema": "repbench.invariance/'
"""Bytes that identify a file of the command."""

LABEL = "distance of disturbed from clean states, over that between utterances"


class InvarianceSample(BaseModel):
    """The sampled instants.

    Attributes:
        n_frames: Number of instants.
        n_utterances: Number of utterances that they were drawn from.
        sha256: Digest of utterances and instants: files with the same one were computed on the same sample.
        interval_unit: speaker or group; None where there is one.
        n_clusters: Number of those.
        excluded: From each utterance that the upstream cannot take, disturbed or not, to the reason.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_frames: Count
    n_utterances: Count
    sha256: str
    interval_unit: str | None
    n_clusters: Count
    excluded: dict[str, str]


class ConditionInvariance(BaseModel):
    """The invariance of each layer to a condition.

    Attributes:
        name: As it can be given to `--condition`.
        kind: The name without amounts.
        severity: From 0 on, where it is one of the documented steps.
        parameters: Of what happens.
        digest: 16 hexadecimal digits of a SHA-256 over all that the condition depends on, files of noise among it.
        frames: Of the states at the sampled instants, by layer.
        utterances: Of the means over all frames of an utterance, by layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: str
    severity: Count | None
    parameters: dict[str, float | int | str]
    digest: str
    frames: tuple[Value, ...]
    utterances: tuple[Value, ...]


class Invariance(SealedFile):
    """The content of `invariance.json`."""

    schema_: Literal["repbench.invariance/1"] = Field(default=SCHEMA, alias="schema")
    upstream: ComparedUpstream
    corpus: ComparedCorpus
    sample: InvarianceSample
    settings: dict[str, Any]
    conditions: tuple[ConditionInvariance, ...] = Field(min_length=1)
    mean: tuple[Value, ...]
    """Of each layer, the mean of `frames` over the conditions, with an interval over speakers."""
    warnings: tuple[str, ...]
    cost: ComparisonCost
    environment: dict[str, Any]

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        """Values are as many as the layers that they are of."""
        several = [values for each in self.conditions for values in (each.frames, each.utterances)]
        if {len(values) for values in (*several, self.mean)} != {len(self.upstream.layers)}:
            raise ValueError("a condition has not one value for each layer")
        return self


def read_invariance(path: Path) -> Invariance:
    """Read an `invariance.json`, checked against its id; errors as `read_sealed`."""
    return read_sealed(path, Invariance, MADE_BY)


def invariance_paths(places: Iterable[Path]) -> list[Path]:
    """The invariance files at or below some places, each once, in the order of their paths."""
    return paths_of(places, INVARIANCE_FILE)
