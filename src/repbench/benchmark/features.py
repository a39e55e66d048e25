"""The frozen upstream is run once over each utterance; what it says is kept as one dense matrix without padding.

Axes: L layers, B batch, T samples, F frames, D width, N frames of all utterances together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.corpora.contract import Progress, Utterance
from repbench.corpora.reading import read_utterance, samples_at
from repbench.errors import PluginError, UsageError, plugin_faults
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


def extract(
    upstream: Upstream,
    utterances: Sequence[Utterance],
    layers: Sequence[int],
    *,
    batch_seconds: float,
    device: torch.device,
    progress: Progress | None = None,
) -> FeatureTable:
    """Run the upstream once over every utterance.

    Args:
        upstream: In eval mode on `device`.
        utterances: In the order the table is to have.
        layers: Which layers to keep.
        batch_seconds: Seconds of sound, padding included, that go through the upstream at once.
        device: Where the upstream lies.
        progress: Told of the utterances done.

    Raises:
        DataError: A sound cannot be read, or is not what the manifest says.
        PluginError: The upstream breaks its contract.
    """
    info = upstream.info
    lengths = [samples_at(each, info.sample_rate_hz) for each in utterances]
    counts = [upstream.num_frames(length) for length in lengths]
    frames = torch.empty(len(layers), sum(counts), info.width)
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    done = 0
    for batch in length_batches(lengths, math.ceil(batch_seconds * info.sample_rate_hz)):
        states = run_batch(upstream, [utterances[index] for index in batch], device=device)
        for row, index in enumerate(batch):
            place = slice(starts[index], starts[index + 1])
            frames[:, place] = states.layers[list(layers), row, : counts[index]].float().cpu()
        done += len(batch)
        if progress is not None:
            progress(done, len(utterances))
    return FeatureTable(frames, tuple(counts), tuple(each.id for each in utterances))


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


def run_batch(upstream: Upstream, utterances: Sequence[Utterance], *, device: torch.device) -> HiddenStates:
    """Read, resample, pad, run, and hold the upstream to its contract."""
    sounds = [read_utterance(utterance, upstream.info.sample_rate_hz) for utterance in utterances]
    return run_sounds(upstream, sounds, device=device, names=[utterance.id for utterance in utterances])


def run_sounds(
    upstream: Upstream, sounds: Sequence[Tensor], *, device: torch.device, names: Sequence[str]
) -> HiddenStates:
    """Pad, run without gradient, and hold the upstream to its contract."""
    lengths = torch.tensor([len(sound) for sound in sounds], dtype=torch.int64)
    waveforms = torch.nn.utils.rnn.pad_sequence(list(sounds), batch_first=True)
    with plugin_faults(upstream.info.name, utterance=names[0]), torch.inference_mode():
        states = upstream(waveforms.to(device), lengths.to(device))
    _hold_to_contract(upstream, states, lengths.tolist(), names)
    return states


def _hold_to_contract(upstream: Upstream, states: object, lengths: Sequence[int], names: Sequence[str]) -> None:
    info = upstream.info
    if not isinstance(states, HiddenStates):
        raise PluginError(
            f"`forward` must return HiddenStates(layers, lengths), but returned a {type(states).__name__}",
            key=info.name,
            do=_CHECK,
        )
    expected = [upstream.num_frames(length) for length in lengths]
    shape = (len(info.layer_names), len(lengths), max(expected), info.width)
    if tuple(states.layers.shape) != shape:
        raise PluginError(
            f"The hidden states must have the shape (L, B, F, D) = {shape}, but have {tuple(states.layers.shape)}",
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
    finite = torch.isfinite(states.layers).all(dim=-1).all(dim=-1).all(dim=0)  # (B,)
    if not bool(finite.all()):
        raise PluginError(
            "The hidden states hold NaN or infinity",
            key=info.name,
            utterance=names[int((~finite).nonzero()[0])],
            do=_CHECK,
        )


_CHECK = "Correct the upstream; its contract is in repbench.upstream.contract"
