"""What APC learns from: telling the frame n steps ahead.

Axes: B batch, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repbench.audio.frames import valid_mask
from repbench.upstream.contract import Batch, Loss

if TYPE_CHECKING:
    from repbench.upstream.apc.upstream import Apc


def shifted_distance(predicted: Tensor, frames: Tensor, lengths: Tensor, shift: int, *, padded: bool = False) -> Loss:
    """Mean |predicted[t] - frames[t + n]| over the frames that have a frame n ahead.

    Args:
        predicted: (B, F, D), or (B, F - n, D).
        frames: (B, F, D), zero past the lengths.
        lengths: (B,) valid frames.
        shift: n.
        padded: Score padding too, as the released code does.
    """
    num_pairs = frames.shape[1] - shift
    told, true = predicted[:, : max(num_pairs, 0)], frames[:, shift:]
    if not padded:
        where = valid_mask((lengths - shift).clamp_min(0), max(num_pairs, 0))
        told, true = told[where], true[where]
    total = (told.float() - true).abs().sum()
    return Loss(value=total / max(told.numel(), 1), weight=float(told.numel()))


class AutoregressivePrediction:
    """The objective of an `Apc`.

    Args:
        model: Learns.
    """

    def __init__(self, model: Apc) -> None:
        self._model = model

    @property
    def min_frames(self) -> int:
        """A frame, and the one that is told from it."""
        return self._model.settings.time_shift + 1

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms -> the front end's frames."""
        return Batch(*self._model.front_end(waveforms, lengths))

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self._model.front_end.num_frames(num_samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """L1 to the frames n ahead; nothing is drawn."""
        settings = self._model.settings
        frames = batch.values.masked_fill(~valid_mask(batch.lengths, batch.values.shape[1])[..., None], 0.0)
        states = self._model.stack(frames)[-1]
        padded = settings.loss_on == "padded"
        if padded:
            # The released code packs the inputs, whose last n frames are left off, so its states are zero past them.
            inputs = (batch.lengths - settings.time_shift).clamp_min(0)
            states = states.masked_fill(~valid_mask(inputs, states.shape[1])[..., None], 0.0)
        predicted = self._model.stack.postnet(states)
        return shifted_distance(predicted, frames, batch.lengths, settings.time_shift, padded=padded)

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """The first utterance's true and predicted frames, both at the time of the true one."""
        shift, count = self._model.settings.time_shift, int(batch.lengths[0])
        predicted = self._model.stack.postnet(self._model.stack(batch.values[:1])[-1])[0]
        return {"true": batch.values[0, shift:count], "predicted": predicted[: max(count - shift, 0)]}
