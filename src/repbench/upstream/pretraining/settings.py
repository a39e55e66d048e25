"""Settings of pre-training, each with its unit and default."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from repbench.configs.settings import NonNegative, Positive, PositiveInt, Settings

Precision = Literal["fp32", "bf16"]
Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """The optimizer and its schedule."""

    name: Literal["adamw", "adam", "bertadam", "adamw-with-schedule"] = "adamw"
    """AdamW; Adam; BertAdam of the released Mockingjay code; S3PRL's AdamW with schedule."""
    learning_rate: Positive = 4e-4
    """At the end of the warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient."""
    epsilon: Positive | None = None
    """Added to the root of the squared average; null: the published value of the optimizer."""
    weight_decay: NonNegative = 0.01
    """Of matrices; biases and gains have none."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.07
    """Share of the steps in which the rate rises linearly; it falls linearly to 0 in the others."""


class CurriculumStage(Settings):
    """A part of the training with other settings; null: as in the group `training`."""

    until: Annotated[float, Field(gt=0, le=1)]
    """Share of the steps at which the stage ends."""
    crop_frames: PositiveInt | None = None
    """As `training.crop_frames`."""
    batch_frames: PositiveInt | None = None
    """As `training.batch_frames`."""


class TrainingSettings(Settings):
    """Settings of a pre-training. Frames are those of the objective; samples, if it takes waveforms."""

    steps: PositiveInt = 500_000
    """Updates."""
    batch_frames: PositiveInt = 3200
    """Frames of a batch, padding included; a longer utterance is a batch alone."""
    crop_frames: PositiveInt | None = 400
    """Longest stretch of an utterance in a batch, drawn anew each time; null: whole utterances."""
    min_frames: PositiveInt = 2
    """Shorter utterances are left out."""
    accumulate: PositiveInt = 1
    """Batches whose gradients a process sums for one update."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    precision: Precision = "fp32"
    """bf16: autocast multiplies matrices in bfloat16; weights and updates stay float32."""
    recompute_activations: bool = False
    """Whether the backward pass computes the inside of each layer again and the forward pass keeps none of it: less
    memory for one more forward pass, the same losses and weights. Mockingjay can."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """The optimizer and its schedule."""
    curriculum: tuple[CurriculumStage, ...] = ()
    """Stages with settings of their own, in order; the last ends at 1."""
    keep_features_gib: NonNegative = 4.0
    """Frames are computed once and kept if they take less memory than this, else computed for each batch."""
    dev_seconds: Positive = 300.0
    """Seconds of held-out utterances, spread over all, on which the dev loss is computed."""
    dev_every: PositiveInt = 1000
    """Steps between two values of the dev loss."""
    save_every: PositiveInt = 5000
    """Steps between two checkpoints."""
    log_every: PositiveInt = 100
    """Steps between two lines of the log."""
    keep_last: PositiveInt = 3
    """Number of last checkpoints that are kept; the one with the lowest dev loss is kept too."""

    @model_validator(mode="after")
    def _stages_must_follow(self) -> Self:
        ends = [stage.until for stage in self.curriculum]
        if ends and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise ValueError(f"curriculum stages must end one after the other, the last at 1, but end at {ends}")
        return self
