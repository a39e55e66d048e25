"""Three small networks in two forms: as modules of torch, and as the graphs in `tests/golden/onnx`.

`tests/golden/onnx/make.py` writes the graphs from the weights here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

KERNELS, STRIDES, WIDTHS = (400, 3), (320, 2), (8, 12)
"""Of two convolutions on the waveform: a hop of 640 samples, a window of 1,040."""


def weights() -> dict[str, NDArray[np.float32]]:
    """The weights of both convolutions and of the projection of the speaker encoder."""
    random = np.random.default_rng(12)
    shapes = {
        "first.weight": (WIDTHS[0], 1, KERNELS[0]),
        "first.bias": (WIDTHS[0],),
        "second.weight": (WIDTHS[1], WIDTHS[0], KERNELS[1]),
        "second.bias": (WIDTHS[1],),
        "projection": (WIDTHS[1], 6),
    }
    return {
        name: random.normal(0, 1 / np.sqrt(np.prod(shape[1:]) or 1), shape).astype(np.float32)
        for name, shape in shapes.items()
    }


class Encoder(nn.Module):
    """The second convolution's output and its square: two layers (B, F, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, WIDTHS[0], KERNELS[0], STRIDES[0])
        self.second = nn.Conv1d(WIDTHS[0], WIDTHS[1], KERNELS[1], STRIDES[1])
        given = {name: torch.from_numpy(value) for name, value in weights().items()}
        self.projection = nn.Parameter(given.pop("projection"))
        self.load_state_dict({**given, "projection": self.projection})

    def forward(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """(B, T) -> two (B, F, D)."""
        frames = self.second(torch.relu(self.first(waveforms[:, None]))).transpose(1, 2)
        return [frames, frames.square()]


class Speaker(Encoder):
    """The projected mean of the frames: (B, 6)."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T) -> (B, 6)."""
        return super().forward(waveforms, lengths)[0].mean(dim=1) @ self.projection
