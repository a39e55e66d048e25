"""What an APC is made of. The defaults are those of the released models: 3 x 512, n = 3."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from repbench.audio.frontends import FRONT_ENDS
from repbench.configs.settings import NonNegativeInt, PositiveInt, Probability, Settings


class ApcFeatureSettings(Settings):
    """What the network reads, and tells ahead."""

    input: str = "fbank80"
    """Front end of the input."""

    @model_validator(mode="after")
    def _must_exist(self) -> Self:
        if self.input not in FRONT_ENDS:
            raise ValueError(f"there is no front end `{self.input}`; there are {', '.join(FRONT_ENDS)}")
        return self


class ApcConfig(Settings):
    """Sizes and places of everything."""

    features: ApcFeatureSettings = ApcFeatureSettings()
    """Input and target."""
    hidden_size: PositiveInt = 512
    """Width of the hidden states."""
    num_layers: PositiveInt = 3
    """GRUs on top of each other."""
    prenet_layers: NonNegativeInt = 0
    """Layers of Linear, ReLU and dropout before the first GRU."""
    dropout: Probability = 0.1
    """On the outputs of the prenet and the GRUs."""
    dropout_on_last: bool = False
    """Whether the last GRU's output is dropped too (S3PRL)."""
    residual: bool = True
    """Whether each GRU's input is added to its output where they have the same width."""
    residual_on_first: bool = True
    """Whether the first GRU has a residual too, behind a prenet; false in S3PRL."""
    time_shift: PositiveInt = 3
    """How many frames ahead the target lies (n)."""
    loss_on: Literal["valid", "padded"] = "valid"
    """Score valid frames, or all frames of the padded batch, as the released code does."""
