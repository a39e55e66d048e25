"""Mockingjay as an upstream: front end, encoder, head, and the declaration of what they promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repbench.audio.frames import SAMPLE_RATE_HZ, FrontEnd, valid_mask
from repbench.audio.frontends import front_end
from repbench.errors import UsageError
from repbench.upstream.contract import HiddenStates, Provenance, UpstreamInfo, check_lengths, fingerprint_of
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.model import Encoder, ReconstructionHead, stack_frames, tile_frames
from repbench.upstream.mockingjay.objective import MaskedAcousticModelling
from repbench.upstream.spectrograms import as_batch

CITATION = "Liu et al., Mockingjay, ICASSP 2020, arXiv:1910.12638"


class Mockingjay(nn.Module):
    """Front end, encoder and head; layer 0 is the input representation, layer i the i-th encoder layer.

    With a downsample rate r a frame of the upstream is r frames of the front end, and speaks of their middle.

    Args:
        settings: Sizes and places of everything.
        with_head: Whether there is a head; an encoder alone gives hidden states but restores nothing.

    Example:
        >>> import torch
        >>> model = Mockingjay(MockingjayConfig(hidden_size=24, num_heads=2, feed_forward_size=48)).eval()
        >>> model.hidden_states(torch.zeros(50, 160)).shape
        torch.Size([1, 3, 50, 24])
    """

    code_version = 1

    def __init__(self, settings: MockingjayConfig, *, with_head: bool = True) -> None:
        super().__init__()
        self.settings = settings
        features, rate = settings.features, settings.downsample_rate
        self.front_end: FrontEnd = front_end(features.input, level_db=features.level_db)
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
        self.provenance = Provenance()
        hop, first = self.front_end.hop_samples, self.front_end.first_center_samples
        self.info = UpstreamInfo(
            name="mockingjay",
            sample_rate_hz=SAMPLE_RATE_HZ,
            hop_samples=hop * rate,
            first_center_samples=first + hop * (rate - 1) // 2,
            min_samples=self.front_end.min_samples_for(rate),
            layer_names=("input", *(f"layer{number}" for number in range(1, settings.num_layers + 1))),
            width=settings.hidden_size,
            utterance_normalised=False,
            trainable=True,
            citation=CITATION,
            licence="MIT",
        )

    @property
    def objective(self) -> MaskedAcousticModelling:
        """Restoring hidden stretches."""
        return MaskedAcousticModelling(self)

    @property
    def config(self) -> Mapping[str, Any]:
        """All settings, JSON-able."""
        return self.settings.model_dump(mode="json")

    def require_head(self) -> ReconstructionHead:
        """The head.

        Raises:
            UsageError: The checkpoint had none.
        """
        if self.head is None:
            raise UsageError("This Mockingjay has no head, so it restores nothing", do="Take a checkpoint with a head")
        return self.head

    def num_frames(self, num_samples: int) -> int:
        """Frames that a waveform of `num_samples` gives."""
        return self.front_end.num_frames(num_samples) // self.settings.downsample_rate

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> the input representation and each encoder layer: (L, B, S, H)."""
        check_lengths(self.info, lengths)
        frames, num_frames = self.front_end(waveforms, lengths)
        stacked, counts = stack_frames(frames, num_frames, self.settings.downsample_rate)
        return HiddenStates(layers=self._layers(stacked, counts), lengths=counts)

    def hidden_states(
        self,
        spec: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        all_layers: bool = True,
        tile: bool = True,
    ) -> Tensor:
        """What the encoder layers say of a spectrogram, with gradient if gradients are on.

        Args:
            spec: (T, D) or (B, T, D), as the front end `config["features"]["input"]` gives it.
            lengths: (B,) valid frames; None: all.
            all_layers: All encoder layers (the input representation is not one), or the last alone.
            tile: Repeat each vector for the frames it was stacked of, so that there are as many as the input has; the
                frames left over by stacking take the last vector.

        Returns:
            (B, N, T, H) tiled, (B, N, T // r, H) not tiled, and without N for the last layer alone; zero past each
            length.

        Raises:
            DataError: The shape or a length cannot be meant.
        """
        frames, num_frames = self._batch(spec, lengths)
        rate = self.settings.downsample_rate
        stacked, counts = stack_frames(frames, num_frames, rate)
        layers = self._layers(stacked, counts)[1:] if all_layers else self._last(stacked, counts)[None]
        if tile:
            tiled = tile_frames(layers, counts, num_frames, rate)
            layers = torch.nn.functional.pad(tiled, (0, 0, 0, frames.shape[1] - tiled.shape[2]))
        return layers.transpose(0, 1) if all_layers else layers[0]

    def prediction(self, spec: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The spectrogram that the head restores from an unmasked one.

        Args:
            spec: (T, D) or (B, T, D).
            lengths: (B,) valid frames; None: all.

        Returns:
            (B, r * (T // r), D of the target), zero past each utterance's whole stacks.
        """
        frames, num_frames = self._batch(spec, lengths)
        rate = self.settings.downsample_rate
        stacked, counts = stack_frames(frames, num_frames, rate)
        restored: Tensor = self.require_head()(self._last(stacked, counts))
        restored = restored.masked_fill(~valid_mask(counts, stacked.shape[1])[..., None], 0.0)
        # (B, S, D * r) -> (B, S * r, D)
        return restored.reshape(len(restored), -1, restored.shape[-1] // rate)

    def attentions(self, spec: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Who attends to whom: (B, N, A, S, S), rows over keys add up to 1, zero past each count."""
        frames, num_frames = self._batch(spec, lengths)
        return self.encoder.attentions(*stack_frames(frames, num_frames, self.settings.downsample_rate))

    def fingerprint(self) -> str:
        """SHA-256 over weights, settings and code version."""
        return fingerprint_of(self, self.config, self.code_version)

    def _batch(self, spec: Tensor, lengths: Tensor | Sequence[int] | None) -> tuple[Tensor, Tensor]:
        rate = self.settings.downsample_rate
        return as_batch(spec, lengths, width=self.front_end.width, min_frames=rate, name="Mockingjay")

    def _layers(self, stacked: Tensor, counts: Tensor) -> Tensor:
        padding = ~valid_mask(counts, stacked.shape[1])[..., None]
        return torch.stack(self.encoder(stacked, counts)).masked_fill_(padding, 0.0)

    def _last(self, stacked: Tensor, counts: Tensor) -> Tensor:
        last = self.encoder.last(stacked, counts)
        return last.masked_fill(~valid_mask(counts, stacked.shape[1])[..., None], 0.0)
