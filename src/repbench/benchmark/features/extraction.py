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

from repbench.benchmark.features.table import FeatureTable
from repbench.corpora.contract import Progress, Utterance
from repbench.corpora.read import read_utterance, samples_at
from repbench.errors import EnvironmentFault, NonFiniteError, PluginError, UsageError, is_out_of_memory, plugin_faults
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
    """

    batch_seconds: float
    device: torch.device
    dtype: str = "float32"
    precision: str = "float32"


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
        raise PluginError(what, key=upstream.info.name, utterance=utterance, do=_CHECK)
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

    A batch for which the memory does not suffice is halved until it does.

    Yields:
        The numbers of the utterances of one batch, and the (L, F, D) features of each in the dtype of the options.

    Raises:
        EnvironmentFault: The memory does not suffice for a single utterance.
        NonFiniteError: The dtype cannot hold a feature.
    """
    for batch in batches:
        try:
            utterances = [index.utterances[number] for number in batch]
            states = run_batch(upstream, utterances, device=options.device, precision=options.precision)
            kept = states.layers[list(layers)].float().cpu()  # all layers (L', B, F, D) -> (L, B, F, D)
            features = [
                rounded(kept[:, row, : index.counts[number]], options.dtype, index.utterances[number].id)  # (L, F, D)
                for row, number in enumerate(batch)
            ]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            features = []
            if len(batch) == 1:
                utterance = index.utterances[batch[0]]
                raise EnvironmentFault(
                    f"The memory does not suffice for this utterance of {utterance.seconds:.0f} s",
                    utterance=utterance.id,
                    do="Set extraction.window_seconds=30, cut it with start/end in the corpus, or take another device",
                ) from error
        # Outside of the handler, whose traceback would keep the tensors of the failed batch alive.
        if features:
            yield batch, features
        else:
            halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
            yield from run_batches(upstream, index, layers, halves, options)


def rounded(frames: Tensor, dtype: str, utterance: str) -> Tensor:
    """Convert frames of any shape to the dtype in which they are stored.

    Raises:
        NonFiniteError: The dtype cannot hold one of the values.
    """
    kept = frames.to(getattr(torch, dtype))
    if dtype != "float32" and not bool(torch.isfinite(kept).all()):
        raise NonFiniteError(
            f"A feature of {float(frames.abs().max()):g} is too large for {dtype}",
            utterance=utterance,
            key="extraction.dtype",
            do="Take float32",
        )
    return kept


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


def run_batch(
    upstream: Upstream, utterances: Sequence[Utterance], *, device: torch.device, precision: str = "float32"
) -> HiddenStates:
    """Read the utterances, resample and pad them, run the upstream, and check its output against the contract.

    Raises:
        DataError: A sound cannot be read, or differs from the manifest.
        PluginError: The upstream fails or breaks its contract.
    """
    sounds = [read_utterance(utterance, upstream.info.sample_rate_hz, whole=True) for utterance in utterances]
    names = [utterance.id for utterance in utterances]
    return run_sounds(upstream, sounds, device=device, names=names, precision=precision)


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
    autocast = torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
    lengths = torch.tensor([len(sound) for sound in sounds], dtype=torch.int64)
    waveforms = torch.nn.utils.rnn.pad_sequence(list(sounds), batch_first=True)  # B x (T,) -> (B, T)
    with plugin_faults(upstream.info.name, utterance=names[0]), torch.inference_mode(), autocast:
        states = upstream(waveforms.to(device), lengths.to(device))
    _check_contract(upstream, states, lengths.tolist(), names, device)
    return states


def _check_contract(
    upstream: Upstream, states: object, lengths: Sequence[int], names: Sequence[str], device: torch.device
) -> None:
    """Refuse hidden states of another type, shape, dtype, device or number of frames, or with NaN or infinity."""
    info = upstream.info
    if not isinstance(states, HiddenStates):
        raise PluginError(
            f"`forward` must return HiddenStates(layers, lengths), but returned a {type(states).__name__}",
            key=info.name,
            do=_CHECK,
        )
    parts: dict[str, object] = {"layers": states.layers, "lengths": states.lengths}
    for name, part in parts.items():
        if not isinstance(part, Tensor):
            what = f"`HiddenStates.{name}` must be a tensor, but is a {type(part).__name__}"
            raise PluginError(what, key=info.name, do=_CHECK)
    expected = [num_frames(upstream, length, name) for length, name in zip(lengths, names, strict=True)]
    shape = (len(info.layer_names), len(lengths), max(expected), info.width)
    if tuple(states.layers.shape) != shape:
        raise PluginError(
            f"The hidden states must have the shape (L, B, F, D) = {shape}, but have {tuple(states.layers.shape)}",
            key=info.name,
            do=_CHECK,
        )
    if not states.layers.is_floating_point() or states.layers.device.type != device.type:
        raise PluginError(
            f"The hidden states must be floating point on {device.type}, but are {states.layers.dtype} on "
            f"{states.layers.device.type}",
            key=info.name,
            do=_CHECK,
        )
    if tuple(states.lengths.shape) != (len(lengths),):
        raise PluginError(
            f"`lengths` must have the shape (B,) = {(len(lengths),)}, but has {tuple(states.lengths.shape)}",
            key=info.name,
            do=_CHECK,
        )
    for name, length, count, found in zip(names, lengths, expected, states.lengths.tolist(), strict=True):
        if count != found:
            raise PluginError(
                f"`num_frames` promises {count} frames for {length} samples, but `forward` gives {found}",
                key=info.name,
                utterance=name,
                do=_CHECK,
            )
    if math.isfinite(float(states.layers.sum())):  # then every value is, and a sum takes a tenth of the time
        return
    finite = torch.isfinite(states.layers).all(dim=-1).all(dim=-1).all(dim=0)  # (L, B, F, D) -> (B,)
    if not bool(finite.all()):
        raise PluginError(
            "The hidden states hold NaN or infinity",
            key=info.name,
            utterance=names[int((~finite).nonzero()[0])],
            do=_CHECK,
        )


_CHECK = "Correct the upstream; `repbench check upstream` names every promise that it breaks"
