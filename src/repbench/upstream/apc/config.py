"""The settings of APC. The defaults are those of the released models: 3 x 512, n = 3."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from repbench.audio.frontends import FRONT_ENDS
from repbench.configs.settings import NonNegativeInt, PositiveInt, Probability, Settings


class ApcFeatureSettings(Settings):
    """The front end of input and target."""

    input: str = "fbank80"
    """Front end of the input."""

    @model_validator(mode="after")
    def _must_exist(self) -> Self:
        if self.input not in FRONT_ENDS:
            raise ValueError(f"there is no front end `{self.input}`; there are {', '.join(FRONT_ENDS)}")
        return self


class ApcConfig(Settings):
    """All settings of an APC."""

    features: ApcFeatureSettings = ApcFeatureSettings()
    """Input and target."""
    hidden_size: PositiveInt = 512
    """Width of the hidden states."""
    num_layers: PositiveInt = 3
    """Number of GRUs."""
    prenet_layers: NonNegativeInt = 0
    """Number of layers of Linear, ReLU and dropout before the first GRU."""
    dropout: Probability = 0.1
    """Dropout probability on the outputs of the prenet and the GRUs."""
    dropout_on_last: bool = False
    """Whether the output of the last GRU has dropout too (S3PRL)."""
    residual: bool = True
    """Whether the input of each GRU is added to its output where the widths agree."""
    residual_on_first: bool = True
    """Whether the first GRU has a residual too, after a prenet; false in S3PRL."""
    time_shift: PositiveInt = 3
    """Frames from an input to its target (n)."""
    loss_on: Literal["valid", "padded"] = "valid"
    """Frames of the loss: valid frames, or all frames of the padded batch, as in the released code."""
