"""Parts of a record that have no part in its own rules: what was selected, the folds, costs, the machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Part(BaseModel):
    """A part of a record: frozen, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelSeconds(Part):
    """Seconds of labelled sound that were used."""

    train: Number
    dev: Number


class SelectionPart(Part):
    """The points that were scored on dev, the chosen one, and its value."""

    grid: tuple[dict[str, Number], ...]
    chosen: dict[str, Number]
    dev_value: Number | None


class FoldMetric(Part):
    """One number of a fold with its counts; unit and direction are those of the metric of the record."""

    value: Number | None
    counts: dict[str, Count]


class FoldPart(Part):
    """One fold: its utterances, what was selected on its dev, its numbers, and the SHA-256 of its file of weights."""

    name: str
    n_train: Count
    n_dev: Count
    n_scored: Count
    selection: SelectionPart
    metrics: dict[str, FoldMetric]
    probe_sha256: str


class ConditionPart(Part):
    """The condition of the test sound.

    Attributes:
        name: As it can be given to `--condition`.
        kind: The name without amounts (`noise:babble`); severities of one kind are on one curve.
        severity: From 0 on, where it is one of the documented steps.
        parameters: Of what happens, with units in their names or in `docs/conditions.md`.
        training: Whether the probe was trained on clean sound, or on sound under the same condition.
        digest: 16 hexadecimal digits of a SHA-256 over all that the condition depends on, files of noise among it.
    """

    name: str
    kind: str
    severity: Count | None
    parameters: dict[str, float | int | str]
    training: Literal["clean", "matched"]
    digest: str


Verdict = Literal["heard", "not heard", "unknown"]
"""Whether an upstream was trained on test utterances before."""


class HeardPart(Part):
    """Whether the upstream was trained on test utterances before, and what this rests on.

    `declared` names the training data that the upstream declares: empty if its weights were trained on nothing, None if
    nothing is declared. `n_overlapping` is the number of test utterances, of `n_test`, whose samples are in it; None
    where its utterances are not known.
    """

    verdict: Verdict
    basis: tuple[str, ...]
    declared: tuple[str, ...] | None
    n_overlapping: Count | None
    n_test: Count

    @model_validator(mode="after")
    def _consistent(self) -> HeardPart:
        if self.n_overlapping is not None and self.n_overlapping > self.n_test:
            raise ValueError(f"`n_overlapping` ({self.n_overlapping}) must not be above `n_test` ({self.n_test})")
        if self.n_overlapping and self.verdict != "heard":
            raise ValueError(f"{self.n_overlapping} test utterances overlap, but the verdict is `{self.verdict}`")
        if self.declared is None and self.verdict == "not heard":
            raise ValueError("no training data is declared, but the verdict is `not heard`")
        if not self.basis:
            raise ValueError(f"the verdict `{self.verdict}` has no basis")
        return self


class FinetunedPart(Part):
    """The weights of the upstream that a fine-tuning trained; those of the head do not count.

    Attributes:
        rule: As `finetune.trainable`.
        total: Weights of the upstream.
        trainable: Weights that some step trained; with `lora:R` those of the updates, which are not among the total.
        moved: Of these, weights in tensors that differ at the chosen point from what they were at the start.
    """

    rule: str
    total: Count
    trainable: Count
    moved: Count

    @model_validator(mode="after")
    def _consistent(self) -> FinetunedPart:
        if self.moved > self.trainable:
            raise ValueError(f"`moved` ({self.moved}) must not be above `trainable` ({self.trainable})")
        return self


class Cost(Part):
    """The cost of the run.

    `real_time_factor` is seconds of sound for each second that the upstream computes, on the record's device: 10 is ten
    times faster than real time. It is None where frames are read and not computed, and in records made before it was
    kept.
    """

    parameters: Count
    macs_per_second: Count | None
    real_time_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    extract_seconds: Number
    train_seconds: Number
    peak_rss_bytes: Count
    device: str


class EnvironmentPart(Part):
    """The machine and the libraries of the run."""

    python: str
    torch: str
    platform: str
    cpu: str
    threads: Count
    precision: str
    git: str | None
