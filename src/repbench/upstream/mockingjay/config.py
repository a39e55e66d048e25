"""What a Mockingjay is made of. The defaults are BASE of the paper's Table 1."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from repbench.audio.frontends import FRONT_ENDS
from repbench.configs.settings import NonNegative, NonNegativeInt, Positive, PositiveInt, Probability, Settings


class FeatureSettings(Settings):
    """What the network reads and what it restores; both have to have the same frames."""

    input: str = "mel160"
    """Front end of the input."""
    target: str | None = None
    """Front end of what is restored; null: the input."""
    level_db: float | None = None
    """Root mean square each waveform is scaled to first, in dB relative to full scale; null: as it is."""

    @property
    def restored(self) -> str:
        """The front end of what is restored."""
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
    """How stretches of the input are hidden, and what of the restored is scored. Frames are stacked frames."""

    proportion: Probability = 0.15
    """Share of an utterance's frames that spans are drawn for; 0 scores every frame of the input as it is."""
    consecutive: PositiveInt = 7
    """Frames of a span (the paper's C)."""
    consecutive_min: PositiveInt | None = None
    """If set, each utterance draws the length of its spans from consecutive_min to consecutive."""
    overlap: bool = True
    """Whether spans may overlap, which lowers the share that is hidden; false draws them from a grid."""
    zeroed: Probability = 0.8
    """Share of utterances whose spans are set to zero."""
    replaced: Probability = 0.1
    """Share of utterances whose spans are replaced by others of the same utterance; the rest is left as it is."""
    frequency: Probability = 0.0
    """Largest share of the dimensions that a hidden band takes (S3PRL); 0: none."""
    noise: Probability = 0.0
    """Share of batches to which noise of deviation 0.2 is added (S3PRL)."""
    loss_on: Literal["spans", "starts"] = "spans"
    """Score every frame of a span, as in the paper, or only its first, as the released code did."""

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
    """Sizes and places of everything."""

    features: FeatureSettings = FeatureSettings()
    """Input and target."""
    downsample_rate: PositiveInt = 1
    """Consecutive frames that are stacked into one."""
    hidden_size: PositiveInt = 768
    """Width of the hidden states."""
    num_layers: PositiveInt = 3
    """Encoder layers."""
    num_heads: PositiveInt = 12
    """Attention heads; must divide hidden_size."""
    feed_forward_size: PositiveInt = 3072
    """Width inside the feed-forward block."""
    activation: Literal["gelu", "relu", "swish"] = "gelu"
    """Inside the feed-forward block and the head; `gelu` is the exact form."""
    layer_norm: Literal["post", "pre"] = "post"
    """Normalise after each residual sum, as BERT does, or before each block."""
    layer_norm_epsilon: Positive = 1e-12
    """Added to the variance."""
    hidden_dropout: Probability = 0.1
    """After the input, the attention and the feed-forward block."""
    attention_dropout: Probability = 0.1
    """On the attention probabilities."""
    position_scale: NonNegative = 1.0
    """Amplitude of the sinusoidal positions."""
    position_offset: NonNegativeInt = 0
    """In pre-training each utterance's positions start at a random one up to this; 0: at the first."""
    initializer_std: Positive = 0.02
    """Deviation of the untrained weights."""
    masking: MaskingSettings = MaskingSettings()
    """The pre-training task."""
    loss: Literal["l1", "mse"] = "l1"
    """Distance of restored and true."""

    @model_validator(mode="after")
    def _heads_must_divide(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads ({self.num_heads}) must divide hidden_size ({self.hidden_size})")
        if self.masking.frequency and self.features.restored != self.features.input:
            raise ValueError("masking.frequency needs the target to be the input")
        return self
