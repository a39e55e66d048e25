"""The features of an upstream at the sampled instants, all layers in one pass over the utterances.

Utterances are read in chunks, of which only the sampled frames and a mean are kept: memory does not grow with the
corpus.

Axes: L layers, N sampled instants, U utterances, D width, F frames of an utterance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repbench.benchmark.features.allocation import allocate_table
from repbench.benchmark.features.extraction import ExtractionOptions, table_index
from repbench.benchmark.features.shards import store_folder
from repbench.benchmark.features.source import features_of
from repbench.benchmark.features.store import FeatureStore
from repbench.benchmark.similarity.sample import Sample
from repbench.corpora.contract import Progress, Utterance
from repbench.downstream.problems.scoring_grid import nearest_frames, num_instants
from repbench.upstream.adapters.corpus_features import FrameReader
from repbench.upstream.contract import Upstream, UpstreamInfo

CHUNK_BYTES = 2**28
"""Features of all layers that are held at once."""

FRAMES_PER_SECOND = 100
"""Frames a second that the size of a chunk is reckoned with where the corpus holds the frames."""


@dataclass(frozen=True, slots=True)
class LayerFrames:
    """Features of several layers.

    Attributes:
        frames: (L, N, D) float32, of the nearest frame to each sampled instant.
        means: (L, U, D) float32, the mean over all frames of each utterance.
    """

    frames: Tensor
    means: Tensor

    def of_frames(self, layer: int) -> NDArray[np.float32]:
        """(N, D) of one layer."""
        values: NDArray[np.float32] = self.frames[layer].numpy()
        return values

    def of_utterances(self, layer: int) -> NDArray[np.float32]:
        """(U, D) of one layer."""
        values: NDArray[np.float32] = self.means[layer].numpy()
        return values


def read_frames(
    upstream: Upstream,
    sample: Sample,
    layers: Sequence[int],
    options: ExtractionOptions,
    *,
    store: FeatureStore | None,
    of_utterances: bool = False,
    progress: Progress | None = None,
) -> LayerFrames:
    """The features of the sampled instants, computed or read from the store.

    Args:
        upstream: Model in eval mode, on the device of the options.
        sample: The instants.
        layers: Indices of the layers.
        options: How features are computed.
        store: Feature store of the upstream; None: nothing is stored.
        of_utterances: Whether the row of an utterance is the mean over its frames, and the sample has one of each.
        progress: Called with (utterances done, all utterances).

    Raises:
        As `repbench.benchmark.features.source.features_of`.
    """

    def chosen(number: int, num_frames: int) -> NDArray[np.int64]:
        utterance, info = sample.utterances[number], upstream.info
        nearest = nearest_frames(
            num_instants(utterance.num_samples, utterance.sample_rate_hz),
            num_frames,
            sample_rate_hz=info.sample_rate_hz,
            hop=info.hop_samples,
            first_center=info.first_center_samples,
        )
        return nearest[sample.instants[number]]

    # Of utterances their means are all that is read: no instant is chosen.
    sizes = [0 if of_utterances else len(each) for each in sample.instants]
    read = _read(upstream, sample.utterances, sizes, chosen, layers, options, store=store, progress=progress)
    return LayerFrames(read.means, read.means) if of_utterances else read


def read_frames_at(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    times_s: Sequence[NDArray[np.float64]],
    layers: Sequence[int],
    options: ExtractionOptions,
    *,
    store: FeatureStore | None,
    progress: Progress | None = None,
) -> LayerFrames:
    """As `read_frames`, at times in seconds from the start of each utterance; not all of them need be on the grid."""

    def chosen(number: int, num_frames: int) -> NDArray[np.int64]:
        return nearest_to(times_s[number], num_frames, upstream.info)

    sizes = [len(each) for each in times_s]
    return _read(upstream, utterances, sizes, chosen, layers, options, store=store, progress=progress)


def nearest_to(times_s: NDArray[np.float64], num_frames: int, info: UpstreamInfo) -> NDArray[np.int64]:
    """(N,) the frame whose centre is nearest to each of (N,) times; the earlier of two equally near.

    Of a model of one vector an utterance it is that vector at all times.
    """
    if info.one_vector:
        return np.zeros(len(times_s), dtype=np.int64)
    # Frame k is centred on first + k hop samples. A millionth of a frame is more than what floats of seconds lose, and
    # decides ties as `nearest_frames` does in integers.
    places = (times_s * info.sample_rate_hz - info.first_center_samples) / info.hop_samples
    return np.clip(np.ceil(places - 0.5 - 1e-6).astype(np.int64), 0, num_frames - 1)


def _read(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    sizes: Sequence[int],
    chosen: Callable[[int, int], NDArray[np.int64]],
    layers: Sequence[int],
    options: ExtractionOptions,
    *,
    store: FeatureStore | None,
    progress: Progress | None,
) -> LayerFrames:
    """The frames that `chosen` names, from the number of an utterance and of its frames to (sizes[number],)."""
    frames = allocate_table((len(layers), sum(sizes), upstream.info.width), store_folder())
    means = torch.empty(len(layers), len(utterances), upstream.info.width)
    row = number = 0
    for chunk in _chunks(upstream, utterances, len(layers)):
        table = features_of(upstream, chunk, layers, options, store=store, pageable=False)
        start = 0
        for count in table.counts:
            own = table.frames[:, start : start + count]  # (L, N', D) -> (L, F, D)
            means[:, number] = own.mean(dim=1, dtype=torch.float64)
            end = row + sizes[number]
            if end > row:
                frames[:, row:end] = own[:, torch.from_numpy(chosen(number, count))]
            row, number, start = end, number + 1, start + count
        if progress is not None:
            progress(number, len(utterances))
    return LayerFrames(frames, means)


def _chunks(upstream: Upstream, utterances: Sequence[Utterance], num_layers: int) -> Iterator[tuple[Utterance, ...]]:
    """Utterances in their order, as many at once as `CHUNK_BYTES` holds, at least one."""
    if isinstance(upstream, FrameReader):
        counts = tuple(int(each.seconds * FRAMES_PER_SECOND) + 1 for each in utterances)
    else:
        counts = table_index(upstream, utterances).counts
    most = max(1, CHUNK_BYTES // (4 * num_layers * upstream.info.width))
    # The number of the chunk that the last frame of each utterance is in.
    ends = itertools.accumulate(counts)
    for _, chunk in itertools.groupby(zip(utterances, ends, strict=True), key=lambda each: each[1] // most):
        yield tuple(utterance for utterance, _ in chunk)
