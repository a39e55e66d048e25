"""Spectrograms as callers hold them, brought to one form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from repbench.audio.frames import type_name
from repbench.errors import DataError


def as_batch(
    spec: object, lengths: Tensor | Sequence[int] | None, *, width: int, min_frames: int, name: str
) -> tuple[Tensor, Tensor]:
    """Hold a spectrogram to the shape the model takes.

    Args:
        spec: (T, D), or (B, T, D), of any floating point.
        lengths: (B,) valid frames; None: all. They are never guessed from zeros.
        width: D.
        min_frames: The fewest frames the model takes.
        name: Of the model.

    Returns:
        (B, T, D) float32 and (B,) int64 on its device.

    Raises:
        DataError: The shape, the kind of number or a length cannot be meant.
    """
    if not isinstance(spec, Tensor):
        what = f"{name} takes a spectrogram as a torch.Tensor, but was given a {type_name(spec)}"
        raise DataError(what, do="Say torch.as_tensor(spec, dtype=torch.float32)")
    if not spec.is_floating_point():
        raise DataError(f"{name} takes a spectrogram of real numbers, but was given {spec.dtype}")
    if spec.ndim not in (2, 3) or spec.shape[-1] != width:
        shape = tuple(spec.shape)
        raise DataError(f"{name} takes a spectrogram (T, {width}) or (B, T, {width}), but was given {shape}")
    frames = (spec[None] if spec.ndim == 2 else spec).float()
    batch, num_frames, _ = frames.shape
    if lengths is None:
        counts = torch.full((batch,), num_frames, dtype=torch.int64, device=frames.device)
    else:
        counts = _as_counts(lengths).to(frames.device)
        if counts.dtype != torch.int64:
            raise DataError(f"`lengths` must be whole numbers (int64), but has {counts.dtype}")
    if counts.shape != (batch,):
        raise DataError(f"`lengths` must be {batch} numbers, but has the shape {tuple(counts.shape)}")
    shortest, longest = (int(counts.min()), int(counts.max())) if batch else (0, 0)
    if shortest < min_frames or longest > num_frames:
        raise DataError(
            f"{name} takes from {min_frames} to {num_frames} frames of this spectrogram, but `lengths` reaches from "
            f"{shortest} to {longest}"
        )
    return frames, counts


def _as_counts(lengths: Tensor | Sequence[int]) -> Tensor:
    try:
        return torch.as_tensor(lengths)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"`lengths` must be whole numbers (int64), but is {lengths!r:.80}") from error
