"""What Mockingjay learns from: restoring the hidden stretches of a spectrogram.

Axes: B batch, F frames, S stacked frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repbench.upstream.contract import Batch, Loss
from repbench.upstream.mockingjay.masking import Masked, mask, masked_distance, scored
from repbench.upstream.mockingjay.model import stack_frames

if TYPE_CHECKING:
    from repbench.upstream.mockingjay.upstream import Mockingjay


class MaskedAcousticModelling:
    """The objective of a `Mockingjay`.

    Args:
        model: Learns; must have a head.
    """

    def __init__(self, model: Mockingjay) -> None:
        self._model = model

    @property
    def min_frames(self) -> int:
        """Two stacks: one to hide, one to tell it from.

        Raises:
            UsageError: The model has no head, so it cannot learn.
        """
        self._model.require_head()
        return 2 * self._model.settings.downsample_rate

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms -> input and target frames side by side, or once if they are the same."""
        given, counts = self._model.front_end(waveforms, lengths)
        if self._model.target_front_end is None:
            return Batch(given, counts)
        target, _ = self._model.target_front_end(waveforms, lengths)
        return Batch(torch.cat([given, target], dim=-1), counts)

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self._model.front_end.num_frames(num_samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """Distance of restored and true over what is scored, all utterances of the batch together."""
        settings = self._model.settings
        given, target, counts = self._stacked(batch)
        masked = mask(given, counts, settings.masking, generator)
        where = scored(masked, counts, settings.masking)
        frames = where if where.ndim == 2 else where.any(dim=-1)
        states = self._model.encoder.last(masked.frames, counts, self._offsets(counts, generator))
        restored = self._model.require_head()(states[frames]).float()  # (scored frames, D)
        value = masked_distance(restored, target[frames], where[frames], settings.loss)
        return Loss(value=value, weight=float(where.sum() if where.ndim == 3 else where.sum() * target.shape[-1]))

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first utterance as it was masked, restored, and truly is, with masks of a fixed seed."""
        generator = torch.Generator(batch.values.device).manual_seed(0)
        one = Batch(batch.values[:1, : int(batch.lengths[0])], batch.lengths[:1])
        given, target, counts = self._stacked(one)
        masked: Masked = mask(given, counts, self._model.settings.masking, generator)
        restored = self._model.require_head()(self._model.encoder.last(masked.frames, counts))
        rate = self._model.settings.downsample_rate
        return {
            name: each[0].float().reshape(-1, each.shape[-1] // rate)
            for name, each in (("masked", masked.frames), ("predicted", restored), ("true", target))
        }

    def _stacked(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        rate = self._model.settings.downsample_rate
        width = self._model.front_end.width
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
        return (drawn * (furthest + 1)).floor().clamp_max(furthest).to(torch.int64)
