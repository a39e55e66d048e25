"""The objective of APC: prediction of the frame n steps ahead.

Axes: B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from repbench.audio.frames import FrontEnd, valid_mask
from repbench.upstream.apc.config import ApcConfig
from repbench.upstream.apc.model import Stack
from repbench.upstream.contract import Batch, Loss


class PredictingModel(Protocol):
    """The parts of a model that the objective uses."""

    settings: ApcConfig
    front_end: FrontEnd
    stack: Stack


def shifted_distance(predicted: Tensor, frames: Tensor, lengths: Tensor, shift: int, *, padded: bool = False) -> Loss:
    """Mean |predicted[k] - frames[k + n]| over the frames k that have a frame n ahead.

    Args:
        predicted: (B, F, D), or (B, F - n, D).
        frames: (B, F, D), zero past the lengths.
        lengths: (B,) valid frames.
        shift: n.
        padded: Score padding too, as the released code does.

    Returns:
        The mean, 0 where no frame is scored, weighted by the number of scored values.
    """
    num_pairs = frames.shape[1] - shift
    # Both (B, F - n, D), empty where F <= n: `max` keeps a negative stop from counting from the end.
    prediction, target = predicted[:, : max(num_pairs, 0)], frames[:, shift:]
    if not padded:
        # (B,) -> (B, F - n): the last n frames of an utterance have no target within it
        where = valid_mask((lengths - shift).clamp_min(0), max(num_pairs, 0))
        # (B, F - n, D) -> (scored frames, D)
        prediction, target = prediction[where], target[where]
    # float32: under autocast the postnet gives bfloat16, whose sum over a batch would lose the small terms.
    total = (prediction.float() - target).abs().sum()
    return Loss(value=total / max(prediction.numel(), 1), weight=float(prediction.numel()))


class AutoregressivePrediction:
    """The objective of an `Apc`.

    Args:
        model: The model to train.
    """

    def __init__(self, model: PredictingModel) -> None:
        self._model = model

    @property
    def min_frames(self) -> int:
        """One frame, and the frame that is predicted from it."""
        return self._model.settings.time_shift + 1

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms with (B,) lengths -> the frames (B, F, D) of the front end."""
        return Batch(*self._model.front_end(waveforms, lengths))

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self._model.front_end.num_frames(num_samples)

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """L1 distance to the frames n ahead of (B, F, D); nothing is drawn from `generator`."""
        settings = self._model.settings
        # Values past a length have no meaning in a `Batch`, but `padded` scores them, as zeros: (B, F) -> (B, F, 1)
        frames = batch.values.masked_fill(~valid_mask(batch.lengths, batch.values.shape[1])[..., None], 0.0)
        states = self._model.stack(frames)[-1]
        padded = settings.loss_on == "padded"
        if padded:
            # The released code packs the inputs without their last n frames, so its states are zero there.
            inputs = (batch.lengths - settings.time_shift).clamp_min(0)
            states = states.masked_fill(~valid_mask(inputs, states.shape[1])[..., None], 0.0)
        predicted = self._model.stack.postnet(states)
        return shifted_distance(predicted, frames, batch.lengths, settings.time_shift, padded=padded)

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """The target and the predicted frames (F - n, D) of the first utterance, aligned at the target's time."""
        shift, count = self._model.settings.time_shift, int(batch.lengths[0])
        # (1, F, D) -> (1, F, H) -> (1, F, D) -> (F, D)
        predicted = self._model.stack.postnet(self._model.stack(batch.values[:1])[-1])[0]
        return {"true": batch.values[0, shift:count], "predicted": predicted[: max(count - shift, 0)]}
