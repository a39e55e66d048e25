"""Inputs of pre-training: frames kept in memory, frames computed for each batch, or waveforms.

Axes: B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor

from repbench.corpora.contract import Utterance
from repbench.corpora.read import read_utterance, samples_at
from repbench.progress import Advance
from repbench.training.batching import Stretch, padded
from repbench.upstream.contract import Batch, FrameObjective, Objective

_READ_AHEAD = 4
"""Batches whose sounds are read ahead, while the model computes."""

_KEEPING_SECONDS = 60.0
"""Seconds of sound in one batch of the front end, where frames are kept."""


class TrainingInputs(Protocol):
    """The utterances of a split as batches of an objective's inputs."""

    @property
    def lengths(self) -> Sequence[int]:
        """Frames (or samples) of each utterance."""
        ...

    def batches(self, stretches: Iterable[Sequence[Stretch]]) -> Iterator[Batch]:
        """One batch for each list of stretches."""
        ...


class KeptFrames:
    """Frames computed once and kept in memory.

    Args:
        frames: Of each utterance, (F, D).
        device: Where batches go.
    """

    def __init__(self, frames: Sequence[Tensor], device: torch.device) -> None:
        self._frames = frames
        self._device = device
        self.lengths: Sequence[int] = [len(each) for each in frames]

    def batches(self, stretches: Iterable[Sequence[Stretch]]) -> Iterator[Batch]:
        """One batch (B, F, D) for each list of stretches."""
        for wanted in stretches:
            # (F, D) of each whole utterance -> (length, D) of its stretch
            parts = [self._frames[each.index][each.start : each.start + each.length] for each in wanted]
            values, lengths = padded(parts)
            yield Batch(values.to(self._device, non_blocking=True), lengths.to(self._device))


class FreshInputs:
    """Sounds read for each batch, in threads ahead of it; frames of whole utterances are computed on the device.

    Args:
        utterances: In the order of the indices of stretches.
        objective: Computes the frames; one without frames takes waveforms.
        rate_hz: Sampling rate of the upstream.
        device: Where batches go.
    """

    def __init__(
        self, utterances: Sequence[Utterance], objective: Objective, rate_hz: int, device: torch.device
    ) -> None:
        self._utterances = utterances
        self._objective = objective
        self._rate_hz = rate_hz
        self._device = device
        self.lengths: Sequence[int] = unit_lengths(utterances, objective, rate_hz)

    def batches(self, stretches: Iterable[Sequence[Stretch]]) -> Iterator[Batch]:
        """One batch (B, F, D), or (B, T) for an objective on waveforms, for each list of stretches."""
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="read") as pool:
            for wanted, sounds in _ahead(pool, self._read, iter(stretches)):
                yield self._batch(wanted, sounds)

    def _read(self, wanted: Sequence[Stretch]) -> list[Tensor]:
        return [read_utterance(self._utterances[each.index], self._rate_hz) for each in wanted]

    def _batch(self, wanted: Sequence[Stretch], sounds: Sequence[Tensor]) -> Batch:
        if not isinstance(self._objective, FrameObjective):
            # (T_i,) of each utterance -> (length,) -> (B, T)
            cut = [sound[each.start : each.start + each.length] for each, sound in zip(wanted, sounds, strict=True)]
            values, lengths = padded(cut)
            return Batch(values.to(self._device), lengths.to(self._device))
        waveforms, samples = padded(sounds)  # (B, T), (B,)
        # Whole utterances go through the front end, because CMVN and deltas depend on frames outside of the stretch.
        with torch.no_grad():
            whole = self._objective.frames(waveforms.to(self._device), samples.to(self._device)).values
        # (B, F, D) -> B of (length, D) -> (B, longest length, D)
        parts = [whole[row, each.start : each.start + each.length] for row, each in enumerate(wanted)]
        values, lengths = padded(parts)
        return Batch(values, lengths.to(self._device))


def _ahead(
    pool: ThreadPoolExecutor, read: object, stretches: Iterator[Sequence[Stretch]]
) -> Iterator[tuple[Sequence[Stretch], list[Tensor]]]:
    """Each list of stretches with its sounds, while the next few are read."""
    waiting: list[tuple[Sequence[Stretch], Future[list[Tensor]]]] = []
    assert callable(read)
    for wanted in islice(stretches, _READ_AHEAD):
        waiting.append((wanted, pool.submit(read, wanted)))
    while waiting:
        wanted, sounds = waiting.pop(0)
        # At most one is submitted for each that is taken: memory holds `_READ_AHEAD` batches of sounds.
        for following in islice(stretches, 1):
            waiting.append((following, pool.submit(read, following)))
        yield wanted, sounds.result()


def unit_lengths(utterances: Sequence[Utterance], objective: Objective, rate_hz: int) -> list[int]:
    """Frames of each utterance, or samples where the objective has no frames."""
    samples = [samples_at(each, rate_hz) for each in utterances]
    if isinstance(objective, FrameObjective):
        return [objective.num_frames(length) for length in samples]
    return samples


def gather(
    utterances: Sequence[Utterance],
    objective: Objective,
    *,
    rate_hz: int,
    keep_bytes: float,
    device: torch.device,
    progress: Advance,
) -> TrainingInputs:
    """Keep the frames of all utterances in memory if they fit, else compute them for each batch.

    Args:
        utterances: Each at least as long as the upstream takes.
        objective: Of the upstream, on `device`.
        rate_hz: Sampling rate of the upstream.
        keep_bytes: Memory for kept frames.
        device: Where batches go.
        progress: Called with the utterances done and all utterances, if frames are kept.
    """
    if not isinstance(objective, FrameObjective) or not utterances:
        return FreshInputs(utterances, objective, rate_hz, device)
    first = _frames_of(objective, [read_utterance(utterances[0], rate_hz)], device)[0]
    # bytes of one frame (D,) times the frames of all utterances
    needed = first.element_size() * first.shape[1] * sum(unit_lengths(utterances, objective, rate_hz))
    if needed > keep_bytes:
        return FreshInputs(utterances, objective, rate_hz, device)
    kept: list[Tensor] = []
    budget = int(_KEEPING_SECONDS * rate_hz)
    while len(kept) < len(utterances):
        sounds, samples = list[Tensor](), 0
        # as many utterances as one batch of the front end takes, but at least one
        for each in utterances[len(kept) :]:
            samples += samples_at(each, rate_hz)
            if sounds and samples > budget:
                break
            sounds.append(read_utterance(each, rate_hz))
        kept += _frames_of(objective, sounds, device)
        progress(len(kept), len(utterances))
    return KeptFrames(kept, device)


def _frames_of(objective: FrameObjective, sounds: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    # B of (T_i,) -> (B, T), (B,)
    waveforms, samples = padded(sounds)
    with torch.no_grad():
        batch = objective.frames(waveforms.to(device), samples.to(device))
    rows = zip(batch.values.cpu(), batch.lengths.tolist(), strict=True)
    # (B, F, D) -> (F, D) each, cloned: a view would keep the padded batch in memory
    return [values[:count].clone() for values, count in rows]
