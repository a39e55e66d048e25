"""The objective of Mockingjay: reconstruction of the masked frames of a spectrogram.

Axes: B batch, T samples, F frames, S stacked frames, r frames in a stack, D width of a frame, H width of hidden states.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from repbench.audio.frames import FrontEnd
from repbench.upstream.contract import Batch, Loss
from repbench.upstream.mockingjay.config import MockingjayConfig
from repbench.upstream.mockingjay.masking import Masked, mask, masked_distance, scored
from repbench.upstream.mockingjay.model import Encoder, ReconstructionHead, stack_frames


class ReconstructingModel(Protocol):
    """The parts of a model that the objective uses; `target_front_end` is None where input and target are the same."""

    settings: MockingjayConfig
    front_end: FrontEnd
    target_front_end: FrontEnd | None
    encoder: Encoder

    def require_head(self) -> ReconstructionHead:
        """The head.

        Raises:
            UsageError: There is none.
        """
        ...


class MaskedAcousticModelling:
    """The objective of a `Mockingjay`.

    Args:
        model: The model to train; it must have a head.
    """

    def __init__(self, model: ReconstructingModel) -> None:
        self._model = model

    @property
    def min_frames(self) -> int:
        """Two stacks: one to mask, and one to reconstruct it from.

        Raises:
            UsageError: The model has no head, so it cannot be trained.
        """
        self._model.require_head()
        return 2 * self._model.settings.downsample_rate

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms with (B,) lengths -> (B, F, D): frames of input and, if it differs, target concatenated."""
        given, counts = self._model.front_end(waveforms, lengths)
        if self._model.target_front_end is None:
            return Batch(given, counts)
        target, _ = self._model.target_front_end(waveforms, lengths)
        # (B, F, D) and (B, F, D') of the target -> (B, F, D + D'): one tensor, so that a crop cuts both alike
        return Batch(torch.cat([given, target], dim=-1), counts)

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self._model.front_end.num_frames(num_samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Mean distance of reconstruction and target over the scored values of all utterances (B, F, D).

        Raises:
            DataError: An utterance has fewer than two stacked frames.
        """
        settings = self._model.settings
        given, target, counts = self._stacked(batch)
        # Masks before offsets: both draw from one generator, and the order of draws is part of a bit-exact resume.
        masked = mask(given, counts, settings.masking, generator)
        where = scored(masked, counts, settings.masking)
        # (B, S) either way: a frame goes through the head if any of its values is scored
        frames = where if where.ndim == 2 else where.any(dim=-1)
        states = self._model.encoder.last(masked.frames, counts, self._offsets(counts, generator))
        # (B, S, H) -> (scored frames, H) -> (scored frames, r * D): the head runs on scored frames only
        restored = self._model.require_head()(states[frames]).float()
        # (B, S, r * D) -> (scored frames, r * D); `where` -> (scored frames,) or (scored frames, r * D).
        # float32 by `.float()` above: under autocast the sum of many small distances would round in bfloat16.
        value = masked_distance(restored, target[frames], where[frames], settings.loss)
        # Terms are values, not frames: a whole scored frame counts r * D of them.
        return Loss(value=value, weight=float(where.sum() if where.ndim == 3 else where.sum() * target.shape[-1]))

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first utterance masked, reconstructed and as it is, each (F, D), with masks of a fixed seed."""
        generator = torch.Generator(batch.values.device).manual_seed(0)
        # (B, F, D) -> (1, length, D): cut to its length, so that no padding is drawn
        one = Batch(batch.values[:1, : int(batch.lengths[0])], batch.lengths[:1])
        given, target, counts = self._stacked(one)
        masked: Masked = mask(given, counts, self._model.settings.masking, generator)
        restored = self._model.require_head()(self._model.encoder.last(masked.frames, counts))
        rate = self._model.settings.downsample_rate
        # (1, S, r * D) -> (S, r * D) -> (S * r, D): a stack holds r consecutive frames, so this reverses `stack_frames`
        return {
            name: each[0].float().reshape(-1, each.shape[-1] // rate)
            for name, each in (("masked", masked.frames), ("predicted", restored), ("true", target))
        }

    def _stacked(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        rate = self._model.settings.downsample_rate
        width = self._model.front_end.width
        # `frames` concatenated input and target along D: (B, F, D + D') -> (B, S, r * D) and (B, S, r * D')
        given, counts = stack_frames(batch.values[..., :width], batch.lengths, rate)
        if batch.values.shape[-1] == width:
            return given, given, counts
        target, _ = stack_frames(batch.values[..., width:], batch.lengths, rate)
        return given, target, counts

    def _offsets(self, counts: Tensor, generator: torch.Generator) -> Tensor | None:
        furthest = self._model.settings.position_offset
        if furthest == 0:
            return None
        drawn = torch.rand(counts.shape, generator=generator, device=generator.device)
        # Uniform on 0 … furthest: (B,)
        return (drawn * (furthest + 1)).floor().clamp_max(furthest).to(torch.int64)
