"""The stages of one batch of utterances: read and pad, run the upstream, round; and which batches share the processors.

A batch that one thread computes in a second or two is computed on one thread, whatever the number of threads, so that
batches run side by side and nothing waits inside of small products. A larger one is computed on all threads, alone.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from repbench.benchmark.environment import batch_macs, frames_of_work
from repbench.benchmark.features.forward import (
    CudaCopies,
    OnTheirWay,
    PaddedSounds,
    call,
    check_counts,
    check_finite,
    check_shapes,
    selected,
)
from repbench.benchmark.features.pipeline import Limits, Stages
from repbench.corpora.contract import Utterance
from repbench.corpora.read import read_utterance
from repbench.errors import EnvironmentFault, is_out_of_memory
from repbench.processors import usable_cpus
from repbench.training.threads import SMALL_MACS, threads
from repbench.upstream.contract import Upstream, runs_concurrently

if TYPE_CHECKING:
    from repbench.benchmark.features.extraction import ExtractionOptions, TableIndex

Kept = TypeVar("Kept")
Take = Callable[[int, Tensor], Kept]
"""From the number of an utterance and its frames (L, F, D) float32 to what is kept of them."""

SHARED_MACS = 64 * 10**9
"""Multiply-accumulates of a batch up to which it is computed on one thread beside others: a second or two of it."""
_BYTES_PER_WORKER = 192 * 2**20
_LEAST_AHEAD_BYTES = 2**30
_MOST_READERS = 8
_LAUNCHED_ON_A_GPU = 2
_WIDE_TENSORS = 16
"""(B, F, D) float32 that a layer of a network holds at most while it computes, roughly."""


@dataclass(frozen=True, slots=True)
class _Sounds:
    """A batch and its padded sounds; None where the memory does not suffice."""

    batch: Sequence[int]
    padded: PaddedSounds | None


@dataclass(frozen=True, slots=True)
class _Launched:
    """A batch whose features are computed, or are on their way from a GPU."""

    sounds: _Sounds
    features: Tensor | OnTheirWay


class BatchWork(Generic[Kept]):
    """The stages of a batch; a result is None where the memory does not suffice.

    Args:
        upstream: Model in eval mode, on the device of the options.
        index: The utterances.
        layers: Indices of the layers to keep.
        options: How the features are computed.
        take: What is kept of an utterance; called in several threads at once.
    """

    def __init__(
        self,
        upstream: Upstream,
        index: TableIndex,
        layers: Sequence[int],
        options: ExtractionOptions,
        take: Take[Kept],
    ) -> None:
        self._upstream = upstream
        self._index = index
        self._layers = layers
        self._options = options
        self._take = take
        self._copies = None
        if options.device.type == "cuda":
            self._copies = torch.cuda.Stream(options.device)  # type: ignore[no-untyped-call]
        self._shares = options.device.type == "cpu" and runs_concurrently(upstream)

    def stages(self) -> Stages[Sequence[int], _Sounds, _Launched | None, list[Kept] | None]:
        """The stages of the pipeline."""
        return Stages(
            read=self._read,
            launch=self._launch,
            finish=self._finish,
            num_bytes=self.num_bytes,
            may_share=lambda batch: self._shares and self._is_small(batch),
        )

    def limits(self) -> Limits:
        """How far the stages run ahead."""
        on_gpu, num_threads = self._copies is not None, torch.get_num_threads()
        workers = num_threads if self._shares else 1
        return Limits(
            readers=min(_MOST_READERS, usable_cpus() if on_gpu else num_threads),
            workers=workers,
            launched=_LAUNCHED_ON_A_GPU if on_gpu else 1,
            ahead_bytes=self._options.ahead_bytes or max(_LEAST_AHEAD_BYTES, workers * _BYTES_PER_WORKER),
        )

    def alone(self, batch: Sequence[int]) -> Iterator[tuple[Sequence[int], list[Kept]]]:
        """What is kept of a batch beside which nothing is computed, halved until the memory suffices."""
        features = self._finish(self._launch(self._read(batch)))
        if features is None:
            yield from self.halved(batch)
        else:
            yield batch, features

    def halved(self, batch: Sequence[int]) -> Iterator[tuple[Sequence[int], list[Kept]]]:
        """What is kept of both halves of a batch.

        Raises:
            EnvironmentFault: It is a single utterance.
        """
        if len(batch) == 1:
            utterance = self._index.utterances[batch[0]]
            raise EnvironmentFault(
                f"The memory does not suffice for this utterance of {utterance.seconds:.0f} s",
                utterance=utterance.id,
                do="Set extraction.window_seconds=30, cut it with start/end in the corpus, or take another device",
            )
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            yield from self.alone(half)

    def num_bytes(self, batch: Sequence[int]) -> int:
        """Memory of a batch from its sounds to its features, roughly."""
        info = self._upstream.info
        samples, frames = _padded_size(self._index.lengths, batch), _padded_size(self._index.counts, batch)
        return 4 * (2 * samples + frames * info.width * (2 * len(info.layer_names) + _WIDE_TENSORS))

    def _is_small(self, batch: Sequence[int]) -> bool:
        """Whether one thread suffices for a batch; if batches do not share the processors, the others would be idle."""
        longest = max(self._index.counts[number] for number in batch)
        if self._upstream.info.one_vector:  # whose one frame is no measure of its work
            longest = frames_of_work(self._upstream.info, max(self._index.lengths[number] for number in batch))
        return batch_macs(self._upstream, len(batch), longest) <= (SHARED_MACS if self._shares else SMALL_MACS)

    def _read(self, batch: Sequence[int]) -> _Sounds:
        try:
            utterances = [self._index.utterances[number] for number in batch]
            return _Sounds(batch, _padded_sounds(self._upstream, utterances, pinned=self._copies is not None))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return _Sounds(batch, None)

    def _launch(self, sounds: _Sounds) -> _Launched | None:
        """Run the upstream, on one thread where that suffices; on a GPU this returns before it has computed."""
        if sounds.padded is None:
            return None
        info, options = self._upstream.info, self._options
        expected = [self._index.counts[number] for number in sounds.batch]
        try:
            with threads(1 if self._is_small(sounds.batch) else torch.get_num_threads()):
                states = call(self._upstream, sounds.padded, device=options.device, precision=options.precision)
                check_shapes(info, states, expected, options.device)
                if self._copies is not None:
                    copies = CudaCopies(options.device, self._copies)
                    dtype = getattr(torch, options.dtype)
                    return _Launched(sounds, OnTheirWay(states, self._layers, dtype, copies))
                check_counts(info, sounds.padded, expected, states.lengths.tolist())
                check_finite(info, sounds.padded, states.layers, float(states.layers.sum()))
                return _Launched(sounds, selected(states.layers, self._layers).float().cpu())  # (L, B, F, D)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _finish(self, launched: _Launched | None) -> list[Kept] | None:
        """What is kept of each utterance."""
        if launched is None:
            return None
        batch, padded = launched.sounds.batch, launched.sounds.padded
        assert padded is not None
        counts = [self._index.counts[number] for number in batch]
        try:
            features = launched.features
            if isinstance(features, OnTheirWay):
                features = features.wait(self._upstream.info, padded, counts)  # (L, B, F, D)
            numbers = zip(batch, counts, strict=True)
            # (L, B, F', D) -> (L, F, D), without the padding
            return [self._take(number, features[:, row, :count]) for row, (number, count) in enumerate(numbers)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        return None


def _padded_size(sizes: Sequence[int], batch: Sequence[int]) -> int:
    return len(batch) * max(sizes[number] for number in batch)


def _padded_sounds(upstream: Upstream, utterances: Sequence[Utterance], *, pinned: bool) -> PaddedSounds:
    """Read, check, resample and pad the sounds of a batch."""
    sounds = [read_utterance(utterance, upstream.info.sample_rate_hz, whole=True) for utterance in utterances]
    return PaddedSounds.of(sounds, [utterance.id for utterance in utterances], pinned=pinned)
