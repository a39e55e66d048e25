"""A small encoder of sound at 16,000 Hz for comparisons with other suites: four convolutions, 50 frames a second.

`SmallEncoder` needs torch alone; the plugin below wraps it for `repbench run --plugin`.

Axes: B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WIDTH, RATE_HZ, HOP = 256, 16_000, 320
_KERNELS = ((10, 5), (8, 4), (8, 4), (4, 4))
"""Length and stride of each convolution; the strides multiply to 320."""


class SmallEncoder(nn.Module):
    """Convolutions and GELU, with random weights from a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (1, *[WIDTH] * len(_KERNELS))
        self.layers = nn.ModuleList(nn.Conv1d(widths[number], WIDTH, *kernel) for number, kernel in enumerate(_KERNELS))

    def forward(self, waveforms: Tensor) -> Tensor:
        """(B, T) -> (B, F, D)."""
        states = waveforms[:, None]
        for layer in self.layers:
            states = nn.functional.gelu(layer(states))
        return states.transpose(1, 2)

    def num_frames(self, num_samples: int) -> int:
        """F for a sound of so many samples."""
        for length, stride in _KERNELS:
            num_samples = (num_samples - length) // stride + 1
        return num_samples


def small_encoder(*, checkpoint: str | None = None, seed: int = 0) -> Any:
    """The encoder as an upstream of repbench."""
    from repbench.upstream.contract import HiddenStates, UpstreamInfo, check_lengths, fingerprint_of

    class Upstream(nn.Module):
        runs_concurrently = True

        def __init__(self) -> None:
            super().__init__()
            self.encoder = SmallEncoder()
            self.info = UpstreamInfo(
                name="small-encoder", sample_rate_hz=RATE_HZ, hop_samples=HOP, first_center_samples=HOP // 2,
                min_samples=2 * HOP, layer_names=("last",), width=WIDTH, utterance_normalised=False, trainable=True,
                citation="none", licence="MIT",
            )  # fmt: skip

        def num_frames(self, num_samples: int) -> int:
            return self.encoder.num_frames(num_samples)

        def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
            check_lengths(self.info, lengths)
            states = self.encoder(waveforms)  # (B, F, D)
            counts = torch.tensor([self.num_frames(int(length)) for length in lengths])
            kept = torch.arange(states.shape[1]) < counts[:, None]  # (B, F)
            return HiddenStates((states * kept[..., None])[None], counts)

        def fingerprint(self) -> str:
            return fingerprint_of(self, {}, 1)

    return Upstream().eval()


upstreams = {"small-encoder": small_encoder}
