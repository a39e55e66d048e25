"""APC as an upstream: front end and GRUs.

Axes: L layers, B batch, T samples, F frames, D width of the input, H width of the hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repbench.audio.frames import valid_mask
from repbench.audio.frontends import front_end
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.apc.model import Stack
from repbench.upstream.apc.objective import AutoregressivePrediction
from repbench.upstream.contract import HiddenStates
from repbench.upstream.spectrograms import SpectrogramNetwork, as_batch

CITATION = "Chung et al., An Unsupervised Autoregressive Model for Speech Representation Learning, arXiv:1904.03240"


class Apc(SpectrogramNetwork[ApcConfig]):
    """Front end and GRUs; the layers are the outputs of the GRUs.

    Args:
        settings: All settings.

    Example:
        >>> import torch
        >>> model = Apc(ApcConfig(hidden_size=16)).eval()
        >>> model.hidden_states(torch.zeros(50, 80)).shape
        torch.Size([1, 3, 50, 16])
    """

    runs_concurrently = True

    def __init__(self, settings: ApcConfig) -> None:
        super().__init__(
            "apc",
            settings,
            front_end(settings.features.input),
            layer_names=tuple(f"gru{number}" for number in range(1, settings.num_layers + 1)),
            width=settings.hidden_size,
            citation=CITATION,
        )
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

    @property
    def layer_modules(self) -> list[list[nn.Module]]:
        """Each GRU."""
        return [[gru] for gru in self.stack.grus]

    @property
    def objective(self) -> AutoregressivePrediction:
        """Prediction of the frame n steps ahead."""
        return AutoregressivePrediction(self)

    def encode(self, frames: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, F, D) -> the output of each GRU: (L, B, F, H)."""
        return HiddenStates(layers=self._layers(frames, lengths), lengths=lengths)

    def hidden_states(
        self,
        spec: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        all_layers: bool = True,
        tile: bool = True,
    ) -> Tensor:
        """Hidden states of a spectrogram, with gradient if gradients are enabled.

        Args:
            spec: (F, D) or (B, F, D), from the front end `config["features"]["input"]`.
            lengths: (B,) valid frames; None: all.
            all_layers: All GRUs, or only the last.
            tile: Without effect: APC gives one vector a frame. Mockingjay has the same argument.

        Returns:
            (B, L, F, H), or (B, F, H) for the last; zero past each length, in the order of `spec`.

        Raises:
            DataError: The shape or a length is not valid.
        """
        frames, counts = self._batch(spec, lengths)
        layers = self._layers(frames, counts)
        # (L, B, F, H) -> (B, L, F, H)
        return layers.transpose(0, 1) if all_layers else layers[-1]

    def prediction(self, spec: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The predicted frames (B, F, D): at k the prediction of frame k + `time_shift`; zero past each length.

        Args:
            spec: (F, D) or (B, F, D).
            lengths: (B,) valid frames; None: all.

        Raises:
            DataError: The shape or a length is not valid.
        """
        frames, counts = self._batch(spec, lengths)
        # (B, F, D) -> (B, F, H) -> (B, F, D)
        predicted: Tensor = self.stack.postnet(self.stack(frames)[-1])
        return predicted.masked_fill(~valid_mask(counts, frames.shape[1])[..., None], 0.0)

    def _batch(self, spec: Tensor, lengths: Tensor | Sequence[int] | None) -> tuple[Tensor, Tensor]:
        frames, counts = as_batch(spec, lengths, width=self.front_end.width, min_frames=1, name="APC")
        # Padding changes no valid frame of a forward GRU; zeroed all the same: NaN in it would survive the products.
        return frames.masked_fill(~valid_mask(counts, frames.shape[1])[..., None], 0.0), counts

    def _layers(self, frames: Tensor, counts: Tensor) -> Tensor:
        padding = ~valid_mask(counts, frames.shape[1])[..., None]  # (B, F, 1)
        # L times (B, F, H) -> (L, B, F, H)
        return torch.stack([each.masked_fill(padding, 0.0) for each in self.stack(frames)])
