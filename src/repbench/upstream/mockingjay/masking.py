"""Masked acoustic modelling: the masked frames, their replacements, and the scored frames.

A pure function of the spectrogram, its lengths and a generator; the input is not changed. Everything is drawn and
applied on the device, for the whole batch at once.

Axes: B batch, F frames, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from repbench.audio.frames import valid_mask
from repbench.errors import DataError
from repbench.upstream.mockingjay.config import MaskingSettings

KINDS = ("zeroed", "replaced", "kept")
"""Treatments of the spans of an utterance, by `Masked.kinds`."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A masked spectrogram.

    Attributes:
        frames: (B, F, D), the input of the network; zero past each length.
        spans: (B, F) bool, every frame of every span.
        starts: (B, F) bool, the first frame of every span.
        band: (B, D) bool, the dimensions that are masked in all frames.
        kinds: (B,) int64, index into `KINDS`.
    """

    frames: Tensor
    spans: Tensor
    starts: Tensor
    band: Tensor
    kinds: Tensor


def mask(frames: Tensor, lengths: Tensor, settings: MaskingSettings, generator: torch.Generator) -> Masked:
    """Mask spans of each utterance.

    An utterance of F frames gets max(1, round(F * proportion / C)) spans of C frames (at most F - 1). Their starts are
    drawn without repetition from 0 to F - C, so every utterance of two frames or more is masked, and its last frame as
    often as its first. (Without overlap the starts are on a grid, which leaves out the last frame at some lengths.) In
    each utterance the spans are zeroed, replaced by other spans of the utterance, or kept (80/10/10 by default).

    Args:
        frames: (B, F, D).
        lengths: (B,) valid frames.
        settings: Proportions and lengths.
        generator: A generator on the device of `frames`.

    Raises:
        DataError: An utterance has fewer than two frames.
    """
    if int(lengths.min()) < 2:
        raise DataError(f"An utterance needs at least 2 frames to be masked, but one has {int(lengths.min())}")
    batch, num_frames, width = frames.shape
    valid = valid_mask(lengths, num_frames)
    if settings.proportion > 0:
        span = _span_lengths(lengths, settings, generator)
        starts = _starts(lengths, span, num_frames, settings, generator)
        last_start = _last_start(starts)
        # a frame is in a span if the latest start is at most C - 1 frames before it: (B, F)
        spans = (last_start >= 0) & (torch.arange(num_frames, device=frames.device) - last_start < span[:, None])
    else:
        span = torch.ones_like(lengths)
        starts = spans = torch.zeros_like(valid)
        last_start = torch.full_like(valid, -1, dtype=torch.int64)  # (B, F): no frame is in a span
    # The order of the draws below (kinds, stretches, band, noise) fixes the masks of a seed; a run resumes bit for bit.
    kinds = _kinds(batch, settings, generator)
    others = _other_stretches(frames, lengths, span, last_start, generator)
    # (B, F) and (B,) -> (B, F, 1), against (B, F, D)
    masked = torch.where((spans & (kinds == 1)[:, None])[..., None], others, frames)
    masked = masked.masked_fill((spans & (kinds == 0)[:, None])[..., None], 0.0)
    band = _band(batch, width, settings.frequency, generator)
    masked = masked.masked_fill(band[:, None, :], 0.0)  # (B, D) -> (B, 1, D)
    # One draw for the whole batch, standard deviation 0.2: as `generate_masked_acoustic_model_data` of S3PRL.
    if settings.noise > 0 and float(_uniform((), generator)) < settings.noise:
        masked = masked + 0.2 * torch.randn(masked.shape, generator=generator, device=generator.device)
    # Noise reaches padding too, so padding is zeroed last.
    return Masked(masked.masked_fill(~valid[..., None], 0.0), spans, starts, band, kinds)


def scored(masked: Masked, lengths: Tensor, settings: MaskingSettings) -> Tensor:
    """The scored values: (B, F) bool for whole frames, or (B, F, D) bool where a band is masked too.

    Without any masks all valid frames are scored: plain reconstruction.

    Args:
        masked: The masked spectrogram.
        lengths: (B,) valid frames.
        settings: As in `mask`.
    """
    valid = valid_mask(lengths, masked.spans.shape[1])
    if settings.proportion == 0 and settings.frequency == 0:
        return valid
    frames = masked.spans if settings.loss_on == "spans" else masked.starts
    if settings.frequency == 0:
        return frames
    # (B, F, 1) | ((B, 1, D) & (B, F, 1)) -> (B, F, D)
    return frames[..., None] | (masked.band[:, None, :] & valid[..., None])


def _span_lengths(lengths: Tensor, settings: MaskingSettings, generator: torch.Generator) -> Tensor:
    # One length for all spans of an utterance, at most F - 1, so that a frame is left to reconstruct them from: (B,)
    longest = torch.full_like(lengths, settings.consecutive)
    if settings.consecutive_min is not None:
        choices = settings.consecutive - settings.consecutive_min + 1
        # Uniform on consecutive_min … consecutive, both included: (B,)
        drawn = (_uniform((len(lengths),), generator) * choices).floor().clamp_max(choices - 1)
        longest = settings.consecutive_min + drawn.to(torch.int64)
    return torch.minimum(longest, lengths - 1)


def _starts(
    lengths: Tensor, span: Tensor, num_frames: int, settings: MaskingSettings, generator: torch.Generator
) -> Tensor:
    """First frames of spans, drawn without repetition: (B, F) bool."""
    times = torch.arange(num_frames, device=lengths.device)[None]  # (1, F)
    # Inclusive: a span may end on the last frame. S3PRL ends one start earlier and never masks the last frame: (B, 1)
    last = (lengths - span)[:, None]
    possible = times <= last
    if not settings.overlap:
        # Spans on a grid with gaps of half a span, shifted by a random offset, cannot overlap (S3PRL).
        pitch = (1.5 * span).round().to(torch.int64)[:, None]
        # Offsets 0 … min(C, last start), both included, as `random.randint` draws them in S3PRL: (B, 1)
        room = torch.minimum(span[:, None], last) + 1
        offset = (_uniform((len(lengths), 1), generator) * room).floor().to(torch.int64).minimum(room - 1)
        possible &= (times >= offset) & ((times - offset) % pitch == 0)
    # `torch.round` takes halves to even, as Python's `round` in S3PRL does: (B,)
    wanted = (lengths * settings.proportion / span).round().to(torch.int64).clamp_min(1)
    # The `wanted` smallest random keys are the starts: a draw without repetition. Impossible starts get keys above 1.
    keys = _uniform((len(lengths), num_frames), generator).masked_fill(~possible, 2.0)
    # argsort of argsort is the rank of each key within its utterance: (B, F) -> (B, F)
    ranks = keys.argsort(dim=1).argsort(dim=1)
    # `& possible` where fewer starts are possible than wanted: impossible ones then have ranks below `wanted`.
    return (ranks < wanted[:, None]) & possible


def _last_start(starts: Tensor) -> Tensor:
    """The latest start up to each frame, -1 before the first: (B, F) int64."""
    times = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
    # Times rise along F, so the running maximum is the latest start.
    return times.masked_fill(~starts, -1).cummax(dim=1).values


def _other_stretches(
    frames: Tensor, lengths: Tensor, span: Tensor, last_start: Tensor, generator: torch.Generator
) -> Tensor:
    """For each frame of a span, the frame of another span of the utterance that replaces it: (B, F, D)."""
    # Number of possible starts of the replacing span, (B, 1), and for every frame a draw among them, (B, F). Only
    # the draws at starts are used; one for every frame keeps the shape independent of the number of spans.
    room = (lengths - span + 1)[:, None]
    drawn = (_uniform(tuple(last_start.shape), generator) * room).floor().to(torch.int64).minimum(room - 1)
    # Frames before the first start have -1; 0 keeps `gather` in range, and `mask` reads no such frame.
    start = last_start.clamp_min(0)
    times = torch.arange(frames.shape[1], device=frames.device)[None]
    # Frame k of a span that starts at s comes from `drawn[s]` + k - s: (B, F)
    source = (drawn.gather(1, start) + times - start).clamp(max=frames.shape[1] - 1)
    # (B, F) -> (B, F, D): the same source frame for every dimension
    return frames.gather(1, source[..., None].expand_as(frames))


def _kinds(batch: int, settings: MaskingSettings, generator: torch.Generator) -> Tensor:
    dice = _uniform((batch,), generator)
    # 0 below `zeroed`, 1 below `zeroed` + `replaced`, else 2: (B,)
    return (dice >= settings.zeroed).to(torch.int64) + (dice >= settings.zeroed + settings.replaced)


def _band(batch: int, width: int, share: float, generator: torch.Generator) -> Tensor:
    """For each utterance a band of up to `share` of the dimensions: (B, D) bool."""
    dims = torch.arange(width, device=generator.device)[None]
    # Width drawn from 0 to `widest`, so a band may be empty, as in S3PRL.
    widest = int(width * share)
    if widest == 0:
        return torch.zeros(batch, width, dtype=torch.bool, device=generator.device)
    size = (_uniform((batch, 1), generator) * (widest + 1)).floor().clamp_max(widest)
    start = (_uniform((batch, 1), generator) * (width - size + 1)).floor()
    # (1, D) against (B, 1) -> (B, D)
    return (dims >= start) & (dims < start + size)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def masked_distance(restored: Tensor, target: Tensor, where: Tensor, loss: str = "l1") -> Tensor:
    """Mean distance over the scored values of all utterances of the batch.

    Args:
        restored: (B, F, D), or the scored frames (N, D).
        target: Same shape.
        where: The scored values, bool, of the same shape or without D.
        loss: l1 or mse.

    Returns:
        A scalar; 0 where nothing is scored.
    """
    distance = F.l1_loss if loss == "l1" else F.mse_loss
    # (B, F, D) -> (scored frames, D) or (scored values,)
    prediction, reference = restored[where], target[where]
    # Sum over a count, not `mean`: the mean of nothing is NaN, and its gradient would reach all weights.
    return distance(prediction, reference, reduction="sum") / max(prediction.numel(), 1)
