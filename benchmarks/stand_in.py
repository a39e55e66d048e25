"""An upstream plugin of the size of WavLM Base, 13 layers of 768 at 50 frames a second, that costs next to nothing.

Each layer is another fixed projection of the samples of a frame. It takes sound of 1,000 Hz, so that a corpus as long
as LibriSpeech-100 is small on disk.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repbench.upstream.contract import HiddenStates, UpstreamInfo, check_lengths, fingerprint_of

LAYERS, WIDTH, RATE_HZ, HOP = 13, 768, 1_000, 20


class StandIn(nn.Module):
    """A fixed random projection of 20 samples, for each layer."""

    runs_concurrently = True

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.projection = nn.Parameter(torch.randn(LAYERS, HOP, WIDTH, generator=generator))
        self.info = UpstreamInfo(
            name="stand-in", sample_rate_hz=RATE_HZ, hop_samples=HOP, first_center_samples=HOP // 2, min_samples=HOP,
            layer_names=tuple(f"layer {number}" for number in range(LAYERS)), width=WIDTH, utterance_normalised=False,
            trainable=True, citation="none", licence="MIT",
        )  # fmt: skip

    def num_frames(self, num_samples: int) -> int:
        return num_samples // HOP

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        check_lengths(self.info, lengths)
        counts = lengths.div(HOP, rounding_mode="floor")
        frames = waveforms[:, : int(counts.max()) * HOP].reshape(len(waveforms), -1, HOP)  # (B, F, 20)
        layers = torch.matmul(frames.flatten(0, 1), self.projection).abs_()  # (B F, 20) @ (L, 20, D) -> (L, B F, D)
        return HiddenStates(layers.view(LAYERS, *frames.shape[:2], WIDTH), counts)

    def fingerprint(self) -> str:
        return fingerprint_of(self, {}, 1)


def stand_in(*, checkpoint: str | None = None, seed: int = 0) -> StandIn:
    return StandIn().eval()


upstreams = {"stand-in": stand_in}
