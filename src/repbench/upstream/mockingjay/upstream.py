"""Mockingjay as an upstream: front end, encoder and reconstruction head.

Axes: L layers, B batch, T samples, F frames, S stacked frames, r frames in a stack, D width of the input, H width of
the hidden states, A attention heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from repbench.audio.frames import valid_mask
from repbench.audio.frontends import front_end
from repbench.errors import UsageError
from repbench.upstream.contract import HiddenStates
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.model import Encoder, ReconstructionHead, stack_frames, tile_frames
from repbench.upstream.mockingjay.objective import MaskedAcousticModelling
from repbench.upstream.spectrograms import SpectrogramNetwork, as_batch

CITATION = "Liu et al., Mockingjay, ICASSP 2020, arXiv:1910.12638"


class Mockingjay(SpectrogramNetwork[MockingjayConfig]):
    """Front end, encoder and head; layer 0 is the input representation, layer i the i-th encoder layer.

    With a downsample rate r, a frame of the upstream covers r frames of the front end and is centred on them.

    Args:
        settings: All settings.
        with_head: Whether there is a head; an encoder alone gives hidden states but reconstructs nothing.

    Example:
        >>> import torch
        >>> model = Mockingjay(MockingjayConfig(hidden_size=24, num_heads=2, feed_forward_size=48)).eval()
        >>> model.hidden_states(torch.zeros(50, 160)).shape
        torch.Size([1, 3, 50, 24])
    """

    runs_concurrently = True

    def __init__(self, settings: MockingjayConfig, *, with_head: bool = True) -> None:
        features, rate = settings.features, settings.downsample_rate
        super().__init__(
            "mockingjay",
            settings,
            front_end(features.input, level_db=features.level_db),
            frames_per_state=rate,
            layer_names=("input", *(f"layer{number}" for number in range(1, settings.num_layers + 1))),
            width=settings.hidden_size,
            citation=CITATION,
        )
        same = features.restored == features.input
        self.target_front_end = None if same else front_end(features.restored, level_db=features.level_db)
        self.encoder = Encoder(
            input_width=self.front_end.width * rate,
            width=settings.hidden_size,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            inner=settings.feed_forward_size,
            activation=settings.activation,
            place=settings.layer_norm,
            epsilon=settings.layer_norm_epsilon,
            hidden_dropout=settings.hidden_dropout,
            attention_dropout=settings.attention_dropout,
            position_scale=settings.position_scale,
        )
        self.head = (
            ReconstructionHead(
                settings.hidden_size,
                (self.target_front_end or self.front_end).width * rate,
                activation=settings.activation,
                epsilon=settings.layer_norm_epsilon,
            )
            if with_head
            else None
        )

    @property
    def layer_modules(self) -> list[list[nn.Module]]:
        """Each encoder layer, with the normalisation of its output where there is one (pre-LN)."""
        norms = self.encoder.output_norms[1:]  # that of index 0 is of the input
        return [[layer, *norms[index : index + 1]] for index, layer in enumerate(self.encoder.layers)]

    def recompute_activations(self, recomputes: bool) -> None:
        """Choose whether the backward pass computes the inside of encoder layers again, as `Encoder.recomputes`."""
        self.encoder.recomputes = recomputes

    @property
    def objective(self) -> MaskedAcousticModelling:
        """Reconstruction of masked frames."""
        return MaskedAcousticModelling(self)

    def require_head(self) -> ReconstructionHead:
        """The head.

        Raises:
            UsageError: The checkpoint has none.
        """
        if self.head is None:
            raise UsageError("This Mockingjay has no head, so it cannot reconstruct", do="Use a checkpoint with a head")
        return self.head

    def encode(self, frames: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, F, D) -> the input representation and each encoder layer: (L, B, S, H)."""
        stacked, counts = stack_frames(frames, lengths, self.settings.downsample_rate)
        return HiddenStates(layers=self._layers(stacked, counts), lengths=counts)

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
            all_layers: All encoder layers (without the input representation), or only the last.
            tile: Repeat each vector for the r frames of its stack, so that there are as many as in the input; frames
                left over by stacking take the last vector.

        Returns:
            (B, L, F, H) tiled, (B, L, F // r, H) not tiled, and without L for the last layer; zero past each length.

        Raises:
            DataError: The shape or a length is not valid.
        """
        frames, num_frames = self._batch(spec, lengths)
        rate = self.settings.downsample_rate
        stacked, counts = stack_frames(frames, num_frames, rate)
        # (L + 1, B, S, H) without the input, or (B, S, H) -> (1, B, S, H): one form for both
        layers = self._layers(stacked, counts)[1:] if all_layers else self._last(stacked, counts)[None]
        if tile:
            tiled = tile_frames(layers, counts, num_frames, rate)
            # (L, B, max(lengths), H) -> (L, B, F, H): `tile_frames` ends at the longest length, the caller's F may not
            layers = torch.nn.functional.pad(tiled, (0, 0, 0, frames.shape[1] - tiled.shape[2]))
        # (L, B, F, H) -> (B, L, F, H)
        return layers.transpose(0, 1) if all_layers else layers[0]

    def prediction(self, spec: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The head's reconstruction of an unmasked spectrogram.

        Args:
            spec: (F, D) or (B, F, D).
            lengths: (B,) valid frames; None: all.

        Returns:
            (B, r * (F // r), D of the target), zero past the last whole stack of each utterance.

        Raises:
            DataError: The shape or a length is not valid.
            UsageError: There is no head.
        """
        frames, num_frames = self._batch(spec, lengths)
        rate = self.settings.downsample_rate
        stacked, counts = stack_frames(frames, num_frames, rate)
        restored: Tensor = self.require_head()(self._last(stacked, counts))
        # (B, S) -> (B, S, 1), against (B, S, r * D)
        restored = restored.masked_fill(~valid_mask(counts, stacked.shape[1])[..., None], 0.0)
        # (B, S, r * D) -> (B, S * r, D)
        return restored.reshape(len(restored), -1, restored.shape[-1] // rate)

    def attentions(self, spec: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Attention probabilities (B, L, A, S, S) of the encoder layers.

        Rows are queries, each adding up to 1 over the keys; zero past each count.

        Args:
            spec: (F, D) or (B, F, D).
            lengths: (B,) valid frames; None: all.

        Raises:
            DataError: The shape or a length is not valid.
        """
        frames, num_frames = self._batch(spec, lengths)
        return self.encoder.attentions(*stack_frames(frames, num_frames, self.settings.downsample_rate))

    def _batch(self, spec: Tensor, lengths: Tensor | Sequence[int] | None) -> tuple[Tensor, Tensor]:
        rate = self.settings.downsample_rate
        return as_batch(spec, lengths, width=self.front_end.width, min_frames=rate, name="Mockingjay")

    def _layers(self, stacked: Tensor, counts: Tensor) -> Tensor:
        padding = ~valid_mask(counts, stacked.shape[1])[..., None]  # (B, S, 1)
        # L times (B, S, H) -> (L, B, S, H)
        return torch.stack(self.encoder(stacked, counts)).masked_fill_(padding, 0.0)

    def _last(self, stacked: Tensor, counts: Tensor) -> Tensor:
        last = self.encoder.last(stacked, counts)
        return last.masked_fill(~valid_mask(counts, stacked.shape[1])[..., None], 0.0)
