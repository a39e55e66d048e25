"""Parts of a record that have no part in its own rules: the model, what was selected, the folds, costs, the machine."""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from repbench.files import canonical_json
from repbench.registry import declared_name, identity_of_code, short_name

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


class DeclaredModelPart(Part):
    """The model of features or units that were read from files, as their folder declares it by name.

    Attributes:
        name: As declared.
        model: What identifies its weights, as declared; None: not declared.
        hop_seconds: Distance of two frames' centres; None for one vector an utterance.
        first_center_seconds: Centre of frame 0; None for one vector an utterance.
        width: Values of a frame.
        num_units: Number of units; records of features do not have the field.
        form: How a unit is given; records of features do not have the field.
    """

    name: str
    model: str | None
    hop_seconds: Number | None
    first_center_seconds: Number | None
    width: Count
    num_units: Count | None = Field(default=None, exclude_if=lambda number: number is None)
    form: str | None = Field(default=None, exclude_if=lambda form: form is None)

    def words(self) -> str:
        """All of it on one line."""
        times = "one vector an utterance"
        if self.hop_seconds is not None and self.first_center_seconds is not None:
            times = f"every {self.hop_seconds:g} s from {self.first_center_seconds:g} s"
        units = [] if self.num_units is None else [f"{self.num_units} units as {self.form}"]
        return ", ".join([self.name, f"model {self.model or 'not declared'}", times, f"width {self.width}", *units])


class Origin(Part):
    """The package that brought something, and the SHA-256 of the file that its entry point leads to."""

    distribution: str
    version: str
    file_sha256: str | None = None

    @property
    def identity(self) -> str:
        """As `identity_of_code`: origins that are equal here brought the same code."""
        return identity_of_code(self.distribution, self.version, self.file_sha256)

    def shown(self) -> str:
        """In words: distribution, version, and the start of the file's hash."""
        file = "" if self.file_sha256 is None else f", file {self.file_sha256[:12]}"
        return f"{self.distribution} {self.version}".rstrip() + file


class UpstreamPart(Part):
    """The model; the fingerprint is that of its initial weights, also where they were fine-tuned.

    `citation` and `licence` are what the model declares of itself; None in records made before they were kept.
    `declared` is the model of features or units from files whose folder declares a name: the fingerprint covers every
    file, and `declared` is the same on every corpus. Other records do not have the field.
    """

    name: str
    checkpoint: str | None
    fingerprint: str
    origin: Origin
    layer_names: tuple[str, ...]
    citation: str | None = None
    licence: str | None = None
    # Left out where it is None, so that the ids of records made before it was kept stay.
    declared: DeclaredModelPart | None = Field(default=None, exclude_if=lambda declared: declared is None)

    @property
    def title(self) -> str:
        """The name in tables: the declared one, or the short one of the name as it was given."""
        if self.declared is None:
            return short_name(self.name)
        return declared_name(self.name, self.declared.name, self.declared.form)

    @property
    def declared_digest(self) -> str | None:
        """A digest of what is declared, with the layers: the same on every corpus; None without a declared name."""
        if self.declared is None:
            return None
        facts = [self.title, self.declared.model_dump(mode="json"), self.layer_names]
        return hashlib.sha256(canonical_json(facts)).hexdigest()[:16]


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
