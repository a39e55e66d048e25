"""The settings of Mockingjay. The defaults are BASE of the paper's Table 1."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from repbench.audio.frontends import FRONT_ENDS
from repbench.configs.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, Probability, Settings


class FeatureSettings(Settings):
    """The front ends of input and target; both must have the same frames."""

    input: str = "mel160"
    """Front end of the input."""
    target: str | None = None
    """Front end of the target; null: the input."""
    level_db: float | None = None
    """Root mean square to which each waveform is scaled first, in dB relative to full scale; null: not scaled."""

    @property
    def restored(self) -> str:
        """The front end of the target."""
        return self.target or self.input

    @model_validator(mode="after")
    def _frames_must_agree(self) -> Self:
        for name in (self.input, self.restored):
            if name not in FRONT_ENDS:
                raise ValueError(f"there is no front end `{name}`; there are {', '.join(FRONT_ENDS)}")
        given, restored = FRONT_ENDS[self.input], FRONT_ENDS[self.restored]
        for what in ("hop_samples", "window_samples", "centred"):
            if getattr(given, what) != getattr(restored, what):
                raise ValueError(f"{self.input} and {self.restored} differ in {what}, so their frames do not match")
        return self


class MaskingSettings(Settings):
    """The masks of the input and the scored part of the reconstruction. Frames are stacked frames."""

    proportion: Probability = 0.15
    """Proportion of an utterance's frames in masked spans; 0: no masks, and every frame is scored."""
    consecutive: PositiveInt = 7
    """Length of a span, in frames (the paper's C)."""
    consecutive_min: PositiveInt | None = None
    """If set, the length of the spans of an utterance is drawn from consecutive_min to consecutive."""
    overlap: bool = True
    """Whether spans may overlap, which lowers the masked proportion; false: they are drawn from a grid."""
    zeroed: Probability = 0.8
    """Proportion of utterances whose spans are set to zero."""
    replaced: Probability = 0.1
    """Proportion of utterances whose spans are replaced by others of the same utterance; the rest is unchanged."""
    frequency: Probability = 0.0
    """Largest proportion of the dimensions in a masked band (S3PRL); 0: none."""
    noise: Probability = 0.0
    """Proportion of batches with added noise of standard deviation 0.2 (S3PRL)."""
    loss_on: Literal["spans", "starts"] = "spans"
    """Scored frames of a span: all, as in the paper, or only the first, as in the released code."""

    @model_validator(mode="after")
    def _shares_must_fit(self) -> Self:
        if self.zeroed + self.replaced > 1 + 1e-9:
            raise ValueError(f"zeroed ({self.zeroed:g}) and replaced ({self.replaced:g}) add up to more than 1")
        if self.consecutive_min is not None and self.consecutive_min > self.consecutive:
            raise ValueError(
                f"consecutive_min ({self.consecutive_min}) must not exceed consecutive ({self.consecutive})"
            )
        return self


class MockingjayConfig(Settings):
    """All settings of a Mockingjay."""

    features: FeatureSettings = FeatureSettings()
    """Input and target."""
    downsample_rate: PositiveInt = 1
    """Number of consecutive frames that are stacked into one."""
    hidden_size: PositiveInt = 768
    """Width of the hidden states."""
    num_layers: PositiveInt = 3
    """Number of encoder layers."""
    num_heads: PositiveInt = 12
    """Number of attention heads; must divide hidden_size."""
    feed_forward_size: PositiveInt = 3072
    """Width inside the feed-forward block."""
    activation: Literal["gelu", "relu", "swish"] = "gelu"
    """Activation of the feed-forward blocks and the head; `gelu` is the exact form."""
    layer_norm: Literal["post", "pre"] = "post"
    """Place of the normalisation: after each residual sum, as in BERT, or before each block."""
    layer_norm_epsilon: Positive = 1e-12
    """Epsilon that is added to the variance."""
    hidden_dropout: Probability = 0.1
    """Dropout probability after the input, the attention and the feed-forward block."""
    attention_dropout: Probability = 0.1
    """Dropout probability on the attention probabilities."""
    position_scale: NonNegative = 1.0
    """Amplitude of the sinusoidal positions."""
    position_offset: NonNegativeInt = 0
    """Largest random first position of an utterance in pre-training; 0: positions start at the first."""
    initializer_std: Positive = 0.02
    """Standard deviation of the untrained weights."""
    masking: MaskingSettings = MaskingSettings()
    """The pre-training task."""
    loss: Literal["l1", "mse"] = "l1"
    """Distance of reconstruction and target."""

    @model_validator(mode="after")
    def _heads_must_divide(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must divide hidden_size ({self.hidden_size})")
        if self.masking.frequency and self.features.restored != self.features.input:
            raise ValueError("masking.frequency needs the target to be the input")
        return self
