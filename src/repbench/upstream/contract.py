"""What an upstream is: a network that turns waveforms into hidden states, and a declaration of what it promises.

An upstream plugin (entry-point group `repbench.upstreams`) is an `UpstreamFactory`. Nothing about a model is found by
feeding it noise: what it is stands in its `UpstreamInfo`, and conformance tests hold the model to it.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from repbench.audio.frames import check_waveforms
from repbench.errors import DataError, PluginError
from repbench.files import canonical_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CONTRACT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamInfo:
    """What an upstream declares of itself.

    Frame *k* speaks of the sample `first_center_samples + k * hop_samples`.

    Attributes:
        name: Name of the model.
        sample_rate_hz: Rate of the waveforms it takes.
        hop_samples: Distance of two frames' centres, in samples at `sample_rate_hz`.
        first_center_samples: Sample of which frame 0 speaks.
        min_samples: Shortest waveform it takes; a shorter utterance is an error of the data.
        max_samples: Longest waveform it takes at once; None: any.
        batch_invariant: Whether neither neighbours in a batch nor padding change what it says of an utterance; one that
            cannot promise it says False, and is given each utterance alone.
        layer_names: One name a layer, in the order of `HiddenStates.layers`.
        width: D, shared by all layers.
        utterance_normalised: Whether each feature of layer 0 has zero mean over the utterance, so that its mean over
            time tells nothing.
        trainable: Whether it has weights that fine-tuning can change.
        citation: Where the model was published.
        licence: Of the weights or the code.
        contract: Version of this contract.
    """

    name: str
    sample_rate_hz: int
    hop_samples: int
    first_center_samples: int
    min_samples: int
    layer_names: tuple[str, ...]
    width: int
    utterance_normalised: bool
    trainable: bool
    citation: str
    licence: str
    max_samples: int | None = None
    batch_invariant: bool = True
    contract: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        at_least_one = ("sample_rate_hz", "hop_samples", "min_samples", "width")
        faults = [
            f"`{name}` must be at least 1, but is {getattr(self, name)}"
            for name in at_least_one
            if getattr(self, name) < 1
        ]
        if not self.layer_names:
            faults.append("`layer_names` must name at least one layer")
        if self.max_samples is not None and self.max_samples < self.min_samples:
            faults.append(f"`max_samples` ({self.max_samples}) must not be below `min_samples` ({self.min_samples})")
        if self.contract != CONTRACT_VERSION:
            faults.append(f"`contract` must be {CONTRACT_VERSION}, but is {self.contract}")
        if faults:
            raise PluginError("; ".join(faults), key=self.name, do="Correct the upstream's `info`")


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """What an upstream says of a batch.

    Attributes:
        layers: (L, B, F, D) float; zero past each length.
        lengths: (B,) int64, valid frames of each utterance.
    """

    layers: Tensor
    lengths: Tensor


@runtime_checkable
class Upstream(Protocol):
    """An `nn.Module` with a declaration; what stands under `__call__` here is its `forward`.

    Promises, which `repbench check upstream` holds it to (`repbench.testing.upstreams`): batched equals alone (relative
    1e-4; unless `info.batch_invariant` says otherwise), order does not matter, eval is deterministic, frozen leaves no
    gradient, no NaN, layer count fixed, `num_frames` true, global state (random numbers, default dtype, threads,
    working folder) untouched.
    """

    info: UpstreamInfo

    def num_frames(self, num_samples: int) -> int:
        """Frames that a waveform of `num_samples` gives; exact for every length from `info.min_samples` on."""
        ...

    def __call__(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """Hidden states of a batch.

        Whatever `repbench.load_upstream` gives refuses another dtype or shape before this is called (`check_call`).

        Args:
            waveforms: (B, T) float32 at `info.sample_rate_hz`, in [-1, 1]; what lies past a length is ignored.
            lengths: (B,) int64, valid samples, each at least `info.min_samples`.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 over weights, configuration and the declared integer `code_version`; `fingerprint_of` computes it."""
        ...


class UpstreamFactory(Protocol):
    """What the entry point of an upstream names.

    A factory whose model has a configuration takes its settings as further keywords, and may have an attribute
    `presets`, a mapping from the name of a preset to its settings; the group `training` among them is not the model's:
    it is what `repbench pretrain` trains it with.
    """

    def __call__(self, *, checkpoint: str | None = None, seed: int = 0) -> Upstream:
        """Build the upstream in eval mode on the CPU.

        Args:
            checkpoint: A path, "random" for untrained weights drawn from `seed`, or None for the model's default.
            seed: Seed of untrained weights.

        Raises:
            UsageError: The checkpoint cannot be meant, for example one given to a front end that has no weights.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an upstream's weights come from; an upstream that knows has it as `provenance`.

    Attributes:
        checkpoint: The checkpoint that was taken, as a path or in words.
        heard: SHA-256 of the samples (`Utterance.samples_sha256`) of each utterance it learned from, where known.
        notes: What a reader of its scores should know.
    """

    checkpoint: str | None = None
    heard: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def provenance_of(upstream: object) -> Provenance:
    """What an upstream says of where its weights come from; nothing, if it says nothing."""
    provenance = getattr(upstream, "provenance", None)
    return provenance if isinstance(provenance, Provenance) else Provenance()


@dataclass(frozen=True, slots=True)
class Batch:
    """Utterances, or stretches of them, on their way to an objective.

    Attributes:
        values: (B, T) waveforms; for a `FrameObjective`, the frames (B, F, D) it made of them. What lies past a length
            has no meaning.
        lengths: (B,) int64, valid samples or frames.
    """

    values: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """What a batch costs.

    Attributes:
        value: Scalar with gradient: the mean over `weight` terms.
        logs: Further numbers worth a curve.
        weight: How many terms the mean is over. The batches of one step, wherever they were computed, count as one
            mean of all their terms; a batch with nothing to score has weight 0, and its value is not looked at.
    """

    value: Tensor
    logs: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0


@runtime_checkable
class Objective(Protocol):
    """What an upstream that can be pre-trained has as `objective`.

    It may also say `min_frames`, the shortest stretch from which it can learn.
    """

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The loss of a batch; all that is drawn is drawn from `generator`, which lies on the batch's device."""
        ...

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Pictures of the first utterance of a batch for the log, each (F, D) with time along the first axis."""
        ...


@runtime_checkable
class FrameObjective(Objective, Protocol):
    """An objective on frames that do not depend on its weights, so that they can be computed once and kept."""

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms with (B,) lengths to all that `loss` needs of them: (B, F, D) with (B,) counts."""
        ...

    def num_frames(self, num_samples: int) -> int:
        """How many `frames` gives for a waveform of `num_samples`, at least the upstream's `min_samples`."""
        ...


@runtime_checkable
class Pretrainable(Upstream, Protocol):
    """An upstream that can be pre-trained.

    `config` is all settings it was built with, so that the factory called with them builds it again.
    """

    @property
    def objective(self) -> Objective:
        """What it learns from."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Its settings, JSON-able."""
        ...


def fingerprint_of(module: nn.Module, config: Mapping[str, Any], code_version: int) -> str:
    """SHA-256 of a model's weights, configuration and declared code version.

    The package's version is not part of it, so that a patch release leaves every cached feature and record valid;
    `code_version` is raised by hand when the same weights give other numbers.
    """
    digest = hashlib.sha256(canonical_json({"config": dict(config), "code_version": code_version}))
    update_with_tensors(digest, module.state_dict())
    return digest.hexdigest()


def update_with_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add names, types, shapes and bytes of tensors, in the order of their names, to a digest."""
    import torch

    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"\0{name}\0{array.dtype}\0{tuple(array.shape)}\0".encode())
        digest.update(array.view(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")


def check_lengths(info: UpstreamInfo, lengths: Tensor) -> None:
    """Refuse waveforms outside of what the upstream declares it can take.

    Raises:
        DataError: A length is below `min_samples` or above `max_samples`.
    """
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < info.min_samples:
        raise DataError(
            f"{info.name} needs at least {info.min_samples} samples, but a waveform has {shortest}",
            do="Leave the utterance out of the corpus",
        )
    if info.max_samples is not None and longest > info.max_samples:
        raise DataError(
            f"{info.name} takes at most {info.max_samples} samples, but a waveform has {longest}",
            do="Cut the utterance with start/end in the corpus",
        )


def check_call(upstream: nn.Module, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Refuse a call of an upstream with what is no batch of waveforms; a forward pre-hook of every upstream.

    16-bit integers would give features that are off by log(32768^2) = 20.8, float64 those of another precision, and a
    waveform (T,) whatever its axes are taken for.

    Args:
        upstream: What is called.
        given: Its arguments.
        named: Those that are given by name.

    Raises:
        DataError: As `repbench.audio.frames.check_waveforms`.
    """
    arguments = dict(zip(("waveforms", "lengths"), given, strict=False)) | dict(named)
    if arguments.keys() == {"waveforms", "lengths"}:  # what lacks one is refused by Python itself
        info: Any = upstream.info
        check_waveforms(**arguments, name=info.name)
