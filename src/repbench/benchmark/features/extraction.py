"""Run a frozen upstream once over each utterance, and keep its features as one dense matrix without padding.

Axes: L layers, B batch, T samples, F frames, D width, N frames of all utterances together.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.benchmark.features.batch_work import BatchWork, Kept, Take
from repbench.benchmark.features.forward import (
    CHECK,
    PaddedSounds,
    call,
    check_counts,
    check_finite,
    check_shapes,
    rounded,
)
from repbench.benchmark.features.pipeline import Pipeline
from repbench.benchmark.features.table import FeatureTable
from repbench.corpora.contract import Progress, Utterance
from repbench.corpora.read import samples_at
from repbench.errors import PluginError, UsageError, plugin_faults
from repbench.upstream.contract import HiddenStates, Upstream, UpstreamInfo


def layer_indices(info: UpstreamInfo, layer: str) -> tuple[int, ...]:
    """Indices of the layers that `--layer` selects: one for `last`, `first`, a number or a name, else all.

    Raises:
        UsageError: There is no such layer.
    """
    count = len(info.layer_names)
    if layer in {"mean", "weighted"}:
        return tuple(range(count))
    named = {name: index for index, name in enumerate(info.layer_names)}
    named |= {str(index): index for index in range(count)} | {"last": count - 1, "first": 0}
    if layer not in named:
        raise UsageError(
            f"{info.name} has no layer `{layer}`",
            key="--layer",
            do=f"Choose last, first, mean, weighted, all, a number from 0 to {count - 1}, or {_few(info.layer_names)}",
        )
    return (named[layer],)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")


def why_excluded(info: UpstreamInfo) -> Callable[[Utterance], str | None]:
    """A function from an utterance to the reason why the upstream cannot take it, or None if it can."""

    def reason(utterance: Utterance) -> str | None:
        num_samples = samples_at(utterance, info.sample_rate_hz)
        if num_samples < info.min_samples:
            return f"shorter than the {info.min_samples} samples that {info.name} needs"
        if info.max_samples is not None and num_samples > info.max_samples:
            return f"longer than the {info.max_samples} samples that {info.name} takes"
        return None

    return reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionOptions:
    """How features are computed.

    Attributes:
        batch_seconds: Seconds of sound, padding included, in one batch.
        device: Device of the upstream.
        dtype: float32, float16 or bfloat16: what the features are rounded to.
        precision: float32 or bfloat16, of the upstream's matrix products.
        ahead_bytes: Most memory of the batches that are begun before they are due; None: as much as pays.
    """

    batch_seconds: float
    device: torch.device
    dtype: str = "float32"
    precision: str = "float32"
    ahead_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class TableIndex:
    """The rows of a table of features that belong to each utterance.

    Attributes:
        utterances: The utterances, in the order of the table.
        lengths: Samples of each at the upstream's rate.
        counts: Frames of each.
        rows: Rows of each, out of the N of the table.
    """

    utterances: tuple[Utterance, ...]
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    rows: tuple[slice, ...]

    def table(self, frames: Tensor) -> FeatureTable:
        """The table of these (L, N, D) frames."""
        return FeatureTable(frames, self.counts, tuple(each.id for each in self.utterances))


def num_frames(upstream: Upstream, num_samples: int, utterance: str | None = None) -> int:
    """The upstream's `num_frames` of `num_samples`, checked.

    Raises:
        PluginError: It fails, or gives no number of frames.
    """
    with plugin_faults(upstream.info.name, utterance=utterance):
        count = operator.index(upstream.num_frames(num_samples))
    if count < 0:
        what = f"`num_frames` must be at least 0, but is {count} for {num_samples} samples"
        raise PluginError(what, key=upstream.info.name, utterance=utterance, do=CHECK)
    if upstream.info.one_vector and count != 1:
        what = f"`kind` is `utterance`, so `num_frames` must be 1, but is {count} for {num_samples} samples"
        raise PluginError(what, key=upstream.info.name, utterance=utterance, do=CHECK)
    return count


def table_index(upstream: Upstream, utterances: Sequence[Utterance]) -> TableIndex:
    """Compute which rows of a table belong to each utterance, from `num_frames` alone.

    Raises:
        PluginError: The upstream's `num_frames` fails, or gives no number of frames.
    """
    lengths = [samples_at(each, upstream.info.sample_rate_hz) for each in utterances]
    counts = [num_frames(upstream, length, each.id) for length, each in zip(lengths, utterances, strict=True)]
    ends = list(itertools.accumulate(counts, initial=0))
    rows = tuple(slice(start, end) for start, end in itertools.pairwise(ends))
    return TableIndex(tuple(utterances), tuple(lengths), tuple(counts), rows)


def extract(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    options: ExtractionOptions,
    *,
    progress: Progress | None = None,
) -> FeatureTable:
    """Run the upstream once over every utterance, and keep the features in memory.

    Args:
        upstream: Model in eval mode, on the device of the options.
        utterances: Utterances, in the order of the table.
        layers: Indices of the layers to keep.
        options: How the features are computed.
        progress: Called with (utterances done, all utterances).

    Raises:
        DataError: A sound cannot be read, or differs from the manifest.
        PluginError: The upstream breaks its contract.
        NonFiniteError: The dtype cannot hold a feature.
        EnvironmentFault: The memory does not suffice for a single utterance.
    """
    index = table_index(upstream, utterances)
    frames = torch.empty(len(layers), sum(index.counts), upstream.info.width)  # (L, N, D)
    batches = length_batches(index.lengths, batch_samples(upstream, options.batch_seconds))
    done = 0
    for batch, features in run_batches(upstream, index, layers, batches, options):
        for number, kept in zip(batch, features, strict=True):
            frames[:, index.rows[number]] = kept
        done += len(batch)
        if progress is not None:
            progress(done, len(utterances))
    return index.table(frames)


def batch_samples(upstream: Upstream, batch_seconds: float) -> int:
    """Most samples of a batch, padding included; 0, so that each utterance is run alone, if not `batch_invariant`."""
    if not upstream.info.batch_invariant:
        return 0
    return math.ceil(batch_seconds * upstream.info.sample_rate_hz)


def run_batches(
    upstream: Upstream,
    index: TableIndex,
    layers: Sequence[int],
    batches: Iterable[Sequence[int]],
    options: ExtractionOptions,
) -> Iterator[tuple[Sequence[int], list[Tensor]]]:
    """Run the upstream over batches of utterances, each a sequence of their numbers in the table.

    Sounds are read ahead in threads. On the CPU, batches of an upstream that declares `runs_concurrently` are computed
    side by side, each on one thread, unless a batch is more than `SHARED_MACS`; results do not depend on the number of
    threads that do so. A batch for which the memory does not suffice is halved until it does.

    Yields:
        The numbers of the utterances of one batch, and the (L, F, D) features of each in the dtype of the options, in
        the order of the batches.

    Raises:
        EnvironmentFault: The memory does not suffice for a single utterance.
        NonFiniteError: The dtype cannot hold a feature.
    """

    def keep(number: int, frames: Tensor) -> Tensor:
        return rounded(frames, options.dtype, index.utterances[number].id)

    return _run(BatchWork(upstream, index, tuple(layers), options, keep), batches)


def take_each(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    options: ExtractionOptions,
    take: Take[Kept],
) -> Iterator[tuple[int, Kept]]:
    """Run the upstream once over every utterance, and keep only what `take` makes of its frames.

    Args:
        upstream: Model in eval mode, on the device of the options.
        utterances: Utterances.
        layers: Indices of the layers that `take` gets.
        options: How the features are computed; batches are smaller where `ahead_bytes` holds no two of them for each
            thread.
        take: Called with the number of an utterance and its frames (L, F, D) float32, which are not rounded; in
            several threads at once.

    Yields:
        The number of an utterance and what was kept, ordered by length.

    Raises:
        As `run_batches`.
    """
    index = table_index(upstream, utterances)
    work = BatchWork(upstream, index, tuple(layers), options, take)
    most = batch_samples(upstream, options.batch_seconds)
    if most and options.ahead_bytes is not None and utterances:
        longest = max(range(len(utterances)), key=index.lengths.__getitem__)
        samples_a_byte = index.lengths[longest] / work.num_bytes([longest])
        most = min(most, int(samples_a_byte * options.ahead_bytes / (2 * work.limits().workers)))
    for batch, kept in _run(work, length_batches(index.lengths, most)):
        yield from zip(batch, kept, strict=True)


def _run(work: BatchWork[Kept], batches: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], list[Kept]]]:
    pipeline = Pipeline(work.stages(), work.limits())
    for batch, kept in pipeline.results(batches):
        if kept is not None:
            yield batch, kept
        else:
            pipeline.compute_alone()
            yield from work.halved(batch) if pipeline.was_alone else work.alone(batch)


def length_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Sort indices by length into batches of at most `budget` samples with padding; a longer item is alone."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (lengths[index], index)):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def run_sounds(
    upstream: Upstream,
    sounds: Sequence[Tensor],
    *,
    device: torch.device,
    names: Sequence[str],
    precision: str = "float32",
) -> HiddenStates:
    """Pad waveforms, run the upstream without gradient, and check its output against the contract.

    Args:
        upstream: Model in eval mode, on `device`.
        sounds: (T,) float32 each, at the upstream's rate.
        device: Device of the upstream.
        names: Name of each sound, for errors.
        precision: float32 or bfloat16, of the upstream's matrix products.

    Raises:
        PluginError: The upstream fails or breaks its contract.
    """
    padded = PaddedSounds.of(sounds, names)
    states = call(upstream, padded, device=device, precision=precision)
    expected = [num_frames(upstream, length, name) for length, name in zip(padded.lengths.tolist(), names, strict=True)]
    check_shapes(upstream.info, states, expected, device)
    check_counts(upstream.info, padded, expected, states.lengths.tolist())
    check_finite(upstream.info, padded, states.layers, float(states.layers.sum()))
    return states
