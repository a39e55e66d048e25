"""How an upstream is pre-trained: every setting with its unit and default."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from repbench.configs.settings import NonNegative, Positive, PositiveInt, Settings

Precision = Literal["fp32", "bf16"]
Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """What turns gradients into updates."""

    name: Literal["adamw", "adam", "bertadam", "adamw-with-schedule"] = "adamw"
    """AdamW; Adam; BertAdam of the released Mockingjay code; S3PRL's AdamW with schedule."""
    learning_rate: Positive = 4e-4
    """At the end of the warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient."""
    epsilon: Positive | None = None
    """Added to the root of the squared average; null: what was published for the optimizer."""
    weight_decay: NonNegative = 0.01
    """Of matrices; biases and gains have none."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.07
    """Share of the steps in which the rate rises linearly; it falls linearly to 0 in the others."""


class CurriculumStage(Settings):
    """A part of the training with settings of its own; what is null is as outside of the curriculum."""

    until: Annotated[float, Field(gt=0, le=1)]
    """Share of the steps at which the stage ends."""
    crop_frames: PositiveInt | None = None
    """As `crop_frames` of the training."""
    batch_frames: PositiveInt | None = None
    """As `batch_frames` of the training."""


class TrainingSettings(Settings):
    """How an upstream is pre-trained. Frames are those of its objective; samples, if the objective has no frames."""

    steps: PositiveInt = 500_000
    """Updates."""
    batch_frames: PositiveInt = 3200
    """Frames of a batch, padding included; a longer utterance stands alone."""
    crop_frames: PositiveInt | None = 400
    """The longest stretch of an utterance that is heard at once, drawn anew each time; null: whole utterances."""
    min_frames: PositiveInt = 2
    """Shorter utterances are left out."""
    accumulate: PositiveInt = 1
    """Batches that a process adds up for one update."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    precision: Precision = "fp32"
    """bf16: matrices are multiplied in bfloat16 by autocast; weights and updates stay float32."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """What turns gradients into updates."""
    curriculum: tuple[CurriculumStage, ...] = ()
    """Stages with settings of their own, in order; the last ends at 1."""
    keep_features_gib: NonNegative = 4.0
    """Frames are computed once and kept in memory if they take less than this, else each time anew."""
    dev_seconds: Positive = 300.0
    """Sound of the held-out utterances whose loss is followed."""
    dev_every: PositiveInt = 1000
    """Steps between two looks at the held-out utterances."""
    save_every: PositiveInt = 5000
    """Steps between two checkpoints."""
    log_every: PositiveInt = 100
    """Steps between two lines of the log."""
    keep_last: PositiveInt = 3
    """Checkpoints that stay beside the best."""

    @model_validator(mode="after")
    def _stages_must_follow(self) -> Self:
        ends = [stage.until for stage in self.curriculum]
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise ValueError(f"curriculum stages must end one after the other, the last at 1, but end at {ends}")
        return self
