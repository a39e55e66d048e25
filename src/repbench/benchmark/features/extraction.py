"""The frozen upstream is run once over each utterance; what it says is kept as one dense matrix without padding.

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

from repbench.corpora.contract import Progress, Utterance
from repbench.corpora.read import read_utterance, samples_at
from repbench.errors import EnvironmentFault, NonFiniteError, PluginError, UsageError, is_out_of_memory, plugin_faults
from repbench.upstream.contract import HiddenStates, Upstream, UpstreamInfo


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Hidden states of many utterances, one after the other.

    Attributes:
        frames: (L, N, D) float32, the layers asked for.
        counts: Frames of each utterance, in the order of `ids`.
        ids: The utterances.
    """

    frames: Tensor
    counts: tuple[int, ...]
    ids: tuple[str, ...]

    def to(self, device: torch.device) -> FeatureTable:
        """The same table with its frames on a device."""
        return FeatureTable(self.frames.to(device), self.counts, self.ids)

    def of_layers(self, layers: slice) -> FeatureTable:
        """The same utterances with some of the layers."""
        return FeatureTable(self.frames[layers], self.counts, self.ids)

    def starts(self) -> dict[str, tuple[int, int]]:
        """From utterance id to its first frame and its number of frames."""
        places, start = {}, 0
        for id_, count in zip(self.ids, self.counts, strict=True):
            places[id_] = (start, count)
            start += count
        return places


def layer_indices(info: UpstreamInfo, layer: str) -> tuple[int, ...]:
    """The layers that a `--layer` reads: one for `last`, `first` and a number or name, all for `mean` and `weighted`.

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
    """A function that says why the upstream cannot take an utterance, or None if it can."""

    def reason(utterance: Utterance) -> str | None:
        num_samples = samples_at(utterance, info.sample_rate_hz)
        if num_samples < info.min_samples:
            return f"shorter than the {info.min_samples} samples that {info.name} needs"
        if info.max_samples is not None and num_samples > info.max_samples:
            return f"longer than the {info.max_samples} samples that {info.name} takes"
        return None

    return reason


@dataclass(frozen=True, slots=True)
class Outline:
    """How the table of some utterances is laid out.

    Attributes:
        utterances: In the order of the table.
        lengths: Samples of each at the upstream's rate.
        counts: Frames of each.
        places: Where the frames of each lie in the table.
    """

    utterances: tuple[Utterance, ...]
    lengths: tuple[int, ...]
    counts: tuple[int, ...]
    places: tuple[slice, ...]

    def table(self, frames: Tensor) -> FeatureTable:
        """The table with its (L, N, D) frames."""
        return FeatureTable(frames, self.counts, tuple(each.id for each in self.utterances))


def num_frames(upstream: Upstream, num_samples: int, utterance: str | None = None) -> int:
    """What the upstream's `num_frames` promises.

    Raises:
        PluginError: It fails, or gives no number of frames.
    """
    with plugin_faults(upstream.info.name, utterance=utterance):
        count = operator.index(upstream.num_frames(num_samples))
    if count < 0:
        what = f"`num_frames` must be at least 0, but is {count} for {num_samples} samples"
        raise PluginError(what, key=upstream.info.name, utterance=utterance, do=_CHECK)
    return count


def outline(upstream: Upstream, utterances: Sequence[Utterance]) -> Outline:
    """Lay out the table of the utterances."""
    lengths = [samples_at(each, upstream.info.sample_rate_hz) for each in utterances]
    counts = [num_frames(upstream, length, each.id) for length, each in zip(lengths, utterances, strict=True)]
    ends = list(itertools.accumulate(counts, initial=0))
    places = tuple(slice(start, end) for start, end in itertools.pairwise(ends))
    return Outline(tuple(utterances), tuple(lengths), tuple(counts), places)


def extract(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    *,
    batch_seconds: float,
    device: torch.device,
    dtype: str = "float32",
    precision: str = "float32",
    progress: Progress | None = None,
) -> FeatureTable:
    """Run the upstream once over every utterance, and keep the features in memory.

    Args:
        upstream: In eval mode on `device`.
        utterances: In the order the table is to have.
        layers: Which layers to keep.
        batch_seconds: Seconds of sound, padding included, that go through the upstream at once.
        device: Where the upstream lies.
        dtype: What the features are rounded to.
        precision: Of the upstream's matrix products, float32 or bfloat16.
        progress: Told of the utterances done.

    Raises:
        DataError: A sound cannot be read, or is not what the manifest says.
        PluginError: The upstream breaks its contract.
        NonFiniteError: The dtype cannot hold a feature.
        EnvironmentFault: The memory does not suffice for a single utterance.
    """
    plan = outline(upstream, utterances)
    frames = torch.empty(len(layers), sum(plan.counts), upstream.info.width)
    batches = length_batches(plan.lengths, batch_samples(upstream, batch_seconds))
    done = 0
    for batch, features in run_batches(
        upstream, plan, layers, batches, device=device, dtype=dtype, precision=precision
    ):
        for index, rounded in zip(batch, features, strict=True):
            frames[:, plan.places[index]] = rounded
        done += len(batch)
        if progress is not None:
            progress(done, len(utterances))
    return plan.table(frames)


def batch_samples(upstream: Upstream, batch_seconds: float) -> int:
    """Samples, padding included, that go through the upstream at once; 0, so that each utterance stands alone, for an
    upstream that does not promise to be the same in a batch."""
    if not upstream.info.batch_invariant:
        return 0
    return math.ceil(batch_seconds * upstream.info.sample_rate_hz)


def run_batches(
    upstream: Upstream,
    plan: Outline,
    layers: Sequence[int],
    batches: Iterable[Sequence[int]],
    *,
    device: torch.device,
    dtype: str,
    precision: str = "float32",
) -> Iterator[tuple[Sequence[int], list[Tensor]]]:
    """The indices that went through the upstream together, and the (L, F, D) features of each in the dtype.

    A batch for which the memory does not suffice is halved until it does.
    """
    for batch in batches:
        try:
            states = run_batch(
                upstream, [plan.utterances[index] for index in batch], device=device, precision=precision
            )
            kept = states.layers[list(layers)].float().cpu()  # (L, B, F, D)
            features = [
                rounded(kept[:, row, : plan.counts[index]], dtype, plan.utterances[index].id)
                for row, index in enumerate(batch)
            ]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            features = []
            if len(batch) == 1:
                utterance = plan.utterances[batch[0]]
                raise EnvironmentFault(
                    f"The memory does not suffice for this utterance of {utterance.seconds:.0f} s",
                    utterance=utterance.id,
                    do="Cut it with start/end in the corpus, or take another device",
                ) from error
        if features:
            yield batch, features
        else:
            halves = batch[: len(batch) // 2], batch[len(batch) // 2 :]
            yield from run_batches(upstream, plan, layers, halves, device=device, dtype=dtype, precision=precision)


def rounded(frames: Tensor, dtype: str, utterance: str) -> Tensor:
    """Frames in the dtype in which they are stored.

    Raises:
        NonFiniteError: It cannot hold one of them.
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
    """Indices in batches of like length whose padded size stays within `budget`; a longer item stands alone."""
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
    """Read, resample, pad, run, and hold the upstream to its contract."""
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
    """Pad, run without gradient, and hold the upstream to its contract."""
    lower = torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
    lengths = torch.tensor([len(sound) for sound in sounds], dtype=torch.int64)
    waveforms = torch.nn.utils.rnn.pad_sequence(list(sounds), batch_first=True)
    with plugin_faults(upstream.info.name, utterance=names[0]), torch.inference_mode(), lower:
        states = upstream(waveforms.to(device), lengths.to(device))
    _hold_to_contract(upstream, states, lengths.tolist(), names, device)
    return states


def _hold_to_contract(
    upstream: Upstream, states: object, lengths: Sequence[int], names: Sequence[str], device: torch.device
) -> None:
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
    for name, length, promised, found in zip(names, lengths, expected, states.lengths.tolist(), strict=True):
        if promised != found:
            raise PluginError(
                f"`num_frames` promises {promised} frames for {length} samples, but `forward` gives {found}",
                key=info.name,
                utterance=name,
                do=_CHECK,
            )
    if math.isfinite(float(states.layers.sum())):  # then every part is, and a sum takes a tenth of the time
        return
    finite = torch.isfinite(states.layers).all(dim=-1).all(dim=-1).all(dim=0)  # (B,)
    if not bool(finite.all()):
        raise PluginError(
            "The hidden states hold NaN or infinity",
            key=info.name,
            utterance=names[int((~finite).nonzero()[0])],
            do=_CHECK,
        )


_CHECK = "Correct the upstream; `repbench check upstream` names every promise that it breaks"
