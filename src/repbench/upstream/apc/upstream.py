"""APC as an upstream: front end, GRUs, and the declaration of what they promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repbench.audio.frames import SAMPLE_RATE_HZ, FrontEnd, valid_mask
from repbench.audio.frontends import front_end
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.apc.model import Stack
from repbench.upstream.apc.objective import AutoregressivePrediction
from repbench.upstream.contract import HiddenStates, Provenance, UpstreamInfo, check_lengths, fingerprint_of
from repbench.upstream.spectrograms import as_batch

CITATION = "Chung et al., An Unsupervised Autoregressive Model for Speech Representation Learning, arXiv:1904.03240"


class Apc(nn.Module):
    """Front end and GRUs; its layers are the outputs of the GRUs.

    Args:
        settings: Sizes and places of everything.

    Example:
        >>> import torch
        >>> model = Apc(ApcConfig(hidden_size=16)).eval()
        >>> model.hidden_states(torch.zeros(50, 80)).shape
        torch.Size([1, 3, 50, 16])
    """

    code_version = 1

    def __init__(self, settings: ApcConfig) -> None:
        super().__init__()
        self.settings = settings
        self.front_end: FrontEnd = front_end(settings.features.input)
        self.stack = Stack(
            input_width=self.front_end.width,
            width=settings.hidden_size,
            num_layers=settings.num_layers,
            prenet_layers=settings.prenet_layers,
            dropout=settings.dropout,
            dropout_on_last=settings.dropout_on_last,
            residual=settings.residual,
            residual_on_first=settings.residual_on_first,
        )
        self.provenance = Provenance()
        self.info = UpstreamInfo(
            name="apc",
            sample_rate_hz=SAMPLE_RATE_HZ,
            hop_samples=self.front_end.hop_samples,
            first_center_samples=self.front_end.first_center_samples,
            min_samples=self.front_end.min_samples,
            layer_names=tuple(f"gru{number}" for number in range(1, settings.num_layers + 1)),
            width=settings.hidden_size,
            utterance_normalised=False,
            trainable=True,
            citation=CITATION,
            licence="MIT",
        )

    @property
    def objective(self) -> AutoregressivePrediction:
        """Telling the frame n steps ahead."""
        return AutoregressivePrediction(self)

    @property
    def config(self) -> Mapping[str, Any]:
        """All settings, JSON-able."""
        return self.settings.model_dump(mode="json")

    def num_frames(self, num_samples: int) -> int:
        """Frames that a waveform of `num_samples` gives."""
        return self.front_end.num_frames(num_samples)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> one layer a GRU: (L, B, F, H)."""
        check_lengths(self.info, lengths)
        frames, counts = self.front_end(waveforms, lengths)
        return HiddenStates(layers=self._layers(frames, counts), lengths=counts)

    def hidden_states(
        self,
        spec: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        all_layers: bool = True,
        tile: bool = True,
    ) -> Tensor:
        """What the GRUs say of a spectrogram, with gradient if gradients are on.

        Args:
            spec: (T, D) or (B, T, D), as the front end `config["features"]["input"]` gives it.
            lengths: (B,) valid frames; None: all.
            all_layers: All GRUs, or the last alone.
            tile: Without meaning here: APC gives one vector a frame.

        Returns:
            (B, N, T, H), or (B, T, H) for the last; zero past each length, in the order of `spec`.

        Raises:
            DataError: The shape or a length cannot be meant.
        """
        frames, counts = self._batch(spec, lengths)
        layers = self._layers(frames, counts)
        return layers.transpose(0, 1) if all_layers else layers[-1]

    def prediction(self, spec: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """(B, T, D): at t, what frame t + `time_shift` is told to be; zero past each length."""
        frames, counts = self._batch(spec, lengths)
        predicted: Tensor = self.stack.postnet(self.stack(frames)[-1])
        return predicted.masked_fill(~valid_mask(counts, frames.shape[1])[..., None], 0.0)

    def fingerprint(self) -> str:
        """SHA-256 over weights, settings and code version."""
        return fingerprint_of(self, self.config, self.code_version)

    def _batch(self, spec: Tensor, lengths: Tensor | Sequence[int] | None) -> tuple[Tensor, Tensor]:
        frames, counts = as_batch(spec, lengths, width=self.front_end.width, min_frames=1, name="APC")
        return frames.masked_fill(~valid_mask(counts, frames.shape[1])[..., None], 0.0), counts

    def _layers(self, frames: Tensor, counts: Tensor) -> Tensor:
        padding = ~valid_mask(counts, frames.shape[1])[..., None]
        return torch.stack([each.masked_fill(padding, 0.0) for each in self.stack(frames)])
