"""One call of an upstream: padded sounds in, hidden states out, held to the contract; and their way from a GPU.

A check that needs the values of a GPU waits for it. So shapes are checked at once, and values when the features are
needed: by then the next batch has been launched.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from repbench.errors import NonFiniteError, PluginError, plugin_faults
from repbench.upstream.contract import HiddenStates, Upstream, UpstreamInfo

CHECK = "Correct the upstream; `repbench check upstream` names every promise that it breaks"


@dataclass(frozen=True, slots=True)
class PaddedSounds:
    """A batch of waveforms.

    Attributes:
        waveforms: (B, T) float32, zero past each length.
        lengths: (B,) int64, samples of each.
        names: Name of each, for errors.
    """

    waveforms: Tensor
    lengths: Tensor
    names: Sequence[str]

    @classmethod
    def of(cls, sounds: Sequence[Tensor], names: Sequence[str], *, pinned: bool = False) -> PaddedSounds:
        """Pad waveforms (T,), in page-locked memory if `pinned`, from which a GPU copies while it computes."""
        lengths = torch.tensor([len(sound) for sound in sounds], dtype=torch.int64)
        waveforms = torch.nn.utils.rnn.pad_sequence(list(sounds), batch_first=True)  # B x (T,) -> (B, T)
        if pinned:
            waveforms, lengths = waveforms.pin_memory(), lengths.pin_memory()
        return cls(waveforms, lengths, names)


def call(upstream: Upstream, sounds: PaddedSounds, *, device: torch.device, precision: str) -> HiddenStates:
    """Run the upstream without gradient; what it returns is not checked.

    Args:
        upstream: Model in eval mode, on `device`.
        sounds: Waveforms on the CPU.
        device: Device of the upstream.
        precision: float32 or bfloat16, of the upstream's matrix products.

    Raises:
        PluginError: The upstream fails.
    """
    autocast = torch.autocast(device.type, getattr(torch, precision), enabled=precision != "float32")
    with plugin_faults(upstream.info.name, utterance=sounds.names[0]), torch.inference_mode(), autocast:
        waveforms = sounds.waveforms.to(device, non_blocking=True)
        return upstream(waveforms, sounds.lengths.to(device, non_blocking=True))


def check_shapes(info: UpstreamInfo, states: object, expected: Sequence[int], device: torch.device) -> None:
    """Refuse hidden states of another type, shape, dtype or device than the contract has; waits for no GPU.

    Args:
        info: The declaration of the upstream.
        states: What it returned.
        expected: Frames of each utterance.
        device: Device of the upstream.

    Raises:
        PluginError: They break the contract.
    """
    if not isinstance(states, HiddenStates):
        what = f"`forward` must return HiddenStates(layers, lengths), but returned a {type(states).__name__}"
        raise PluginError(what, key=info.name, do=CHECK)
    parts: dict[str, object] = {"layers": states.layers, "lengths": states.lengths}
    for name, part in parts.items():
        if not isinstance(part, Tensor):
            what = f"`HiddenStates.{name}` must be a tensor, but is a {type(part).__name__}"
            raise PluginError(what, key=info.name, do=CHECK)
    shape = (len(info.layer_names), len(expected), max(expected), info.width)
    if tuple(states.layers.shape) != shape:
        found = tuple(states.layers.shape)
        what = f"The hidden states must have the shape (L, B, F, D) = {shape}, but have {found}"
        raise PluginError(what, key=info.name, do=CHECK)
    if not states.layers.is_floating_point() or states.layers.device.type != device.type:
        raise PluginError(
            f"The hidden states must be floating point on {device.type}, but are {states.layers.dtype} on "
            f"{states.layers.device.type}",
            key=info.name,
            do=CHECK,
        )
    if tuple(states.lengths.shape) != (len(expected),):
        found = tuple(states.lengths.shape)
        what = f"`lengths` must have the shape (B,) = {(len(expected),)}, but has {found}"
        raise PluginError(what, key=info.name, do=CHECK)


def check_counts(info: UpstreamInfo, sounds: PaddedSounds, expected: Sequence[int], found: Sequence[int]) -> None:
    """Refuse other numbers of frames than `num_frames` promises.

    Args:
        info: The declaration of the upstream.
        sounds: Its input.
        expected: Frames of each utterance, as promised.
        found: As `HiddenStates.lengths` has them.

    Raises:
        PluginError: Two differ; names the utterance.
    """
    for name, length, count, other in zip(sounds.names, sounds.lengths.tolist(), expected, found, strict=True):
        if count != other:
            what = f"`num_frames` promises {count} frames for {length} samples, but `forward` gives {other}"
            raise PluginError(what, key=info.name, utterance=name, do=CHECK)


def check_finite(info: UpstreamInfo, sounds: PaddedSounds, layers: Tensor, total: float) -> None:
    """Refuse hidden states (L, B, F, D) with NaN or infinity.

    Args:
        info: The declaration of the upstream.
        sounds: Its input.
        layers: (L, B, F, D).
        total: Their sum: if it is finite then every value is, and a sum takes a tenth of the time.

    Raises:
        PluginError: A value is not finite; names the first such utterance.
    """
    if math.isfinite(total):
        return
    finite = torch.isfinite(layers).all(dim=-1).all(dim=-1).all(dim=0)  # (L, B, F, D) -> (B,)
    if not bool(finite.all()):
        name = sounds.names[int((~finite).nonzero()[0])]
        raise PluginError("The hidden states hold NaN or infinity", key=info.name, utterance=name, do=CHECK)


def selected(layers: Tensor, indices: Sequence[int]) -> Tensor:
    """Some of the layers, (L', B, F, D) -> (L, B, F, D), without an index that a GPU would have to wait for.

    All of them in order are `layers` itself.
    """
    if tuple(indices) == tuple(range(len(layers))):
        return layers
    return torch.stack([layers[index] for index in indices])


def rounded(frames: Tensor, dtype: str, utterance: str) -> Tensor:
    """Convert frames of any shape to the dtype in which they are stored.

    Raises:
        NonFiniteError: The dtype cannot hold one of the values.
    """
    kept = frames.to(getattr(torch, dtype))
    # Rounding keeps the order, so all values are finite if the least and the greatest are; NaN is both.
    if dtype != "float32" and frames.numel() and not _is_finite(torch.stack(frames.aminmax()).to(kept.dtype)):
        raise NonFiniteError(
            f"A feature of {float(frames.abs().max()):g} is too large for {dtype}",
            utterance=utterance,
            key="extraction.dtype",
            do="Take float32",
        )
    return kept


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())


class Copies(Protocol):
    """Copies of tensors of a device to the CPU."""

    def start(self, values: Tensor) -> Tensor:
        """A tensor on the CPU, whose values are there when `wait` returns."""
        ...

    def wait(self) -> None:
        """Wait for all copies that were started."""
        ...


class CudaCopies:
    """Copies from a GPU to page-locked memory, on a stream of their own.

    Args:
        device: The GPU.
        stream: One for all batches, so that copies follow one another.
    """

    def __init__(self, device: torch.device, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._computing = torch.cuda.current_stream(device)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def start(self, values: Tensor) -> Tensor:
        """A tensor on the CPU, whose values are there when `wait` returns."""
        self._stream.wait_stream(self._computing)
        with torch.cuda.stream(self._stream):
            copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            copy.copy_(values, non_blocking=True)
            values.record_stream(self._stream)  # their memory is not given to others before they are copied
            self._done.record(self._stream)
        return copy

    def wait(self) -> None:
        """Wait for the last copy that was started, and so for all."""
        self._done.synchronize()


class OnTheirWay:
    """Hidden states whose values are copied to the CPU while the device goes on to the next batch.

    Args:
        states: (L', B, F, D) and (B,), of the right shapes.
        indices: Layers to keep.
        dtype: Type that they are rounded to.
        copies: Copies to the CPU.
    """

    def __init__(self, states: HiddenStates, indices: Sequence[int], dtype: torch.dtype, copies: Copies) -> None:
        self._layers = states.layers
        self._indices = indices
        self._copies = copies
        kept = selected(states.layers, indices).float().to(dtype)  # (L', B, F, D) -> (L, B, F, D)
        self._kept = copies.start(kept)
        self._fits = copies.start(torch.isfinite(kept).all())
        self._total = copies.start(states.layers.sum())
        self._lengths = copies.start(states.lengths)

    def wait(self, info: UpstreamInfo, sounds: PaddedSounds, expected: Sequence[int]) -> Tensor:
        """The layers (L, B, F, D) on the CPU: rounded, or as they are where the dtype does not hold all of them.

        Args:
            info: The declaration of the upstream.
            sounds: Its input.
            expected: Frames of each utterance.

        Raises:
            PluginError: The values break the contract, or the device reports a fault of the upstream.
        """
        with plugin_faults(info.name, utterance=sounds.names[0]):
            self._copies.wait()
        check_counts(info, sounds, expected, self._lengths.tolist())
        check_finite(info, sounds, self._layers, float(self._total))
        return self._kept if bool(self._fits) else selected(self._layers, self._indices).float().cpu()
