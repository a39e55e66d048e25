"""The contract of an upstream: a network from waveforms to hidden states, and its declaration.

An upstream plugin (entry-point group `repbench.upstreams`) is an `UpstreamFactory`. A model declares its properties in
`UpstreamInfo`; conformance tests compare them with the model. Nothing is found by feeding it noise.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from repbench.audio.frames import check_waveforms
from repbench.errors import DataError, PluginError, did_you_mean
from repbench.files import canonical_json
from repbench.upstream.training_data import TrainingData

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

CONTRACT_VERSION = 1

StateKind = Literal["frames", "utterance"]
"""What the hidden states of an utterance are: a sequence of frames, or one vector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamInfo:
    """The declaration of an upstream.

    Frame *k* is centred at sample `first_center_samples + k * hop_samples`. A model with one vector an utterance, as an
    x-vector, gives one frame whatever the number of samples, and has neither.

    Attributes:
        name: Name of the model.
        sample_rate_hz: Sample rate of the waveforms, in hertz.
        hop_samples: Distance of two frames' centres, in samples at `sample_rate_hz`; 0 for one vector an utterance.
        first_center_samples: Centre of frame 0, in samples at `sample_rate_hz`; 0 for one vector an utterance.
        min_samples: Shortest waveform it takes, in samples; a shorter utterance is an error of the data.
        max_samples: Longest waveform it takes at once, in samples; None: any.
        batch_invariant: Whether the hidden states of an utterance depend on it alone, not on padding or on the other
            utterances of the batch. If False, the upstream gets each utterance alone.
        layer_names: One name a layer, in the order of `HiddenStates.layers`.
        width: D, shared by all layers.
        utterance_normalised: Whether each feature of layer 0 has zero mean over the utterance, so that its mean over
            time is constant.
        trainable: Whether it has weights that fine-tuning can change.
        citation: The paper of the model.
        licence: Licence of the weights or the code.
        contract: Version of this contract.
        kind: `frames`, or `utterance` for one vector an utterance.
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
    kind: StateKind = "frames"

    def __post_init__(self) -> None:
        at_least_one = [
            "sample_rate_hz",
            "min_samples",
            "width",
            *([] if self.kind == "utterance" else ["hop_samples"]),
        ]
        faults = [
            f"`{name}` must be at least 1, but is {getattr(self, name)}"
            for name in at_least_one
            if getattr(self, name) < 1
        ]
        names: object = self.layer_names
        if isinstance(names, str):
            faults.append(f'`layer_names` must be a tuple of names, as ("{names}",), but is a text')
        if not self.layer_names:
            faults.append("`layer_names` must name at least one layer")
        faults += [
            f"`{name}` must be True or False, but is {getattr(self, name)!r}"
            for name in ("utterance_normalised", "trainable", "batch_invariant")
            if not isinstance(getattr(self, name), bool)
        ]
        if self.max_samples is not None and self.max_samples < self.min_samples:
            faults.append(f"`max_samples` ({self.max_samples}) must not be below `min_samples` ({self.min_samples})")
        if self.contract != CONTRACT_VERSION:
            faults.append(f"`contract` must be {CONTRACT_VERSION}, but is {self.contract}")
        faults += self._faults_of_kind()
        if faults:
            raise PluginError("; ".join(faults), key=self.name, do="Correct the upstream's `info`")

    def _faults_of_kind(self) -> list[str]:
        kind: object = self.kind
        if kind not in get_args(StateKind):
            guess = did_you_mean(str(kind), get_args(StateKind)).strip()
            return [f"`kind` must be {' or '.join(get_args(StateKind))}, but is {kind!r}. {guess}".rstrip(". ")]
        if not self.one_vector:
            return []
        faults = [
            f"`{name}` must be 0 for one vector an utterance, which has no times, but is {getattr(self, name)}"
            for name in ("hop_samples", "first_center_samples")
            if getattr(self, name) != 0
        ]
        if self.utterance_normalised is True:
            faults.append("`utterance_normalised` must be False for one vector an utterance, which has no times")
        return faults

    @property
    def one_vector(self) -> bool:
        """Whether the model gives one vector an utterance."""
        return self.kind == "utterance"

    def as_dict(self) -> dict[str, Any]:
        """All fields; `kind` only where it is not frames, so that what was written before the field stays the same."""
        fields = asdict(self)
        if not self.one_vector:
            del fields["kind"]
        return fields


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The hidden states of a batch.

    Attributes:
        layers: (L, B, F, D) float; zero past each length.
        lengths: (B,) int64, valid frames of each utterance.
    """

    layers: Tensor
    lengths: Tensor


@runtime_checkable
class Upstream(Protocol):
    """An `nn.Module` with a declaration; `__call__` here is its `forward`.

    Promises that `repbench check upstream` tests (`repbench.testing.upstreams`): batched equals alone (relative 1e-4;
    unless `info.batch_invariant` is False), order does not matter, eval is deterministic, frozen leaves no
    gradient, no NaN, layer count fixed, `num_frames` true, global state (random numbers, default dtype, threads,
    working folder) untouched.

    A class whose `forward` may be called from several threads at once can say so by `runs_concurrently = True` in its
    own body; small batches are then computed side by side. Subclasses say so for themselves.

    An upstream can declare what its weights were trained on as its attribute `trained_on`, a tuple of `TrainingData`:
    () for nothing, as a front end; None, or no such attribute, if it is not known. It is no part of the fingerprint.

    An upstream can declare the modules of its layers as its attribute `layer_modules`, a sequence with a sequence of
    modules for each layer, from the input to the output; None, or no such attribute, if they are not declared. The last
    layer computes the last of the hidden states, the one before it the state before, and so on; the first hidden states
    may be computed by no layer, as an input representation. What normalises the output of a layer belongs to it. All
    other weights count as before the first layer. Fine-tuning of some layers reads it, and nothing else does.
    """

    info: UpstreamInfo

    def num_frames(self, num_samples: int) -> int:
        """Frames that a waveform of `num_samples` gives; exact for every length from `info.min_samples` on.

        1 for every length where `info.kind` is `utterance`.
        """
        ...

    def __call__(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """Hidden states of a batch.

        Upstreams of `repbench.load_upstream` check dtype and shape before this call (`check_call`).

        Args:
            waveforms: (B, T) float32 at `info.sample_rate_hz`, in [-1, 1]; values past a length are ignored.
            lengths: (B,) int64, valid samples, each at least `info.min_samples`.
        """
        ...

    def fingerprint(self) -> str:
        """SHA-256 of weights, configuration and the declared integer `code_version`, by `fingerprint_of`."""
        ...


class UpstreamFactory(Protocol):
    """The object that the entry point of an upstream names.

    A factory whose model has a configuration takes its settings as further keywords. It may have an attribute
    `presets`, a mapping from the name of a preset to its settings. Their group `training` does not go to the model: it
    holds the settings of `repbench pretrain`.
    """

    def __call__(self, *, checkpoint: str | None = None, seed: int = 0) -> Upstream:
        """Build the upstream in eval mode on the CPU.

        Args:
            checkpoint: A path, "random" for untrained weights drawn from `seed`, or None for the model's default.
            seed: Seed of untrained weights.

        Raises:
            UsageError: The checkpoint is not valid, for example one for a front end, which has no weights.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The source of an upstream's weights, as its attribute `provenance` if it is known.

    Attributes:
        checkpoint: The checkpoint, as a path or in words.
        heard: SHA-256 of the samples (`Utterance.samples_sha256`) of each training utterance, where known.
        notes: Sentences for the reader of its scores.
        log: Sentences for the log of a run alone; records do not have them.
        trained_on: The training data as far as it is declared; () for none, as of a front end; None if it is not known.
    """

    checkpoint: str | None = None
    heard: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    trained_on: tuple[TrainingData, ...] | None = None

    @property
    def digests(self) -> frozenset[str]:
        """SHA-256 of the samples of every training utterance that is known by it."""
        declared = (each.samples_sha256 for each in self.trained_on or ())
        return self.heard.union(*(each for each in declared if each is not None))


def provenance_of(upstream: object) -> Provenance:
    """The provenance of an upstream with what it declares as `trained_on`; an empty one if it has neither."""
    known = getattr(upstream, "provenance", None)
    provenance = known if isinstance(known, Provenance) else Provenance()
    if provenance.trained_on is None:
        return replace(provenance, trained_on=getattr(upstream, "trained_on", None))
    return provenance


def layer_modules_of(upstream: Upstream) -> list[list[nn.Module]] | None:
    """The modules of each layer of an upstream, as its `layer_modules` declares them; None if it declares none.

    Raises:
        PluginError: The attribute is something else, or has more layers than there are hidden states.
    """
    import torch

    declared: Any = getattr(upstream, "layer_modules", None)
    if declared is None:
        return None
    assert isinstance(upstream, torch.nn.Module)
    own = set(upstream.modules())
    try:
        layers = [list(layer) for layer in declared]
        fits = all(layer and all(module in own for module in layer) for layer in layers)
    except TypeError:  # something that is no sequence, or has no hash
        layers, fits = [], False
    if not fits or not 0 < len(layers) <= len(upstream.info.layer_names):
        raise PluginError(
            f"`layer_modules` must have from 1 to {len(upstream.info.layer_names)} layers, each a list of modules of "
            f"the upstream",
            key=upstream.info.name,
            do="See Upstream in repbench.upstream.contract",
        )
    return layers


def runs_concurrently(upstream: object) -> bool:
    """Whether the class of an upstream declares that several threads may call it at once; not inherited."""
    return vars(type(upstream)).get("runs_concurrently") is True


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of utterances, or of crops of them, for an objective.

    Attributes:
        values: (B, T) waveforms; for a `FrameObjective`, its frames (B, F, D). Values past a length
            have no meaning.
        lengths: (B,) int64, valid samples or frames.
    """

    values: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of a batch.

    Attributes:
        value: Scalar with gradient: the mean over `weight` terms.
        logs: Further scalars for the training log.
        weight: Number of terms of the mean. All batches of an optimiser step, on all processes, are one mean over all
            their terms. A batch without scored terms has weight 0, and its value is ignored.
    """

    value: Tensor
    logs: Mapping[str, float] = field(default_factory=dict)
    weight: float = 1.0


@runtime_checkable
class Objective(Protocol):
    """The pre-training objective of an upstream, its attribute `objective`.

    It may also have `min_frames`, the shortest crop with a loss.
    """

    def loss(self, batch: Batch, generator: torch.Generator) -> Loss:
        """The loss of a batch; all random draws come from `generator`, which is on the batch's device."""
        ...

    def figures(self, batch: Batch) -> Mapping[str, Tensor]:
        """Pictures of the first utterance of a batch for the log, each (F, D) with time along the first axis."""
        ...


@runtime_checkable
class FrameObjective(Objective, Protocol):
    """An objective on frames that do not depend on its weights, so that they can be computed once and kept."""

    def frames(self, waveforms: Tensor, lengths: Tensor) -> Batch:
        """(B, T) waveforms with (B,) lengths -> the input of `loss`: (B, F, D) with (B,) counts."""
        ...

    def num_frames(self, num_samples: int) -> int:
        """Frames that `frames` gives for a waveform of `num_samples`, at least the upstream's `min_samples`."""
        ...


@runtime_checkable
class Pretrainable(Upstream, Protocol):
    """An upstream that can be pre-trained.

    `config` holds all settings, so that the factory builds the same network from them.
    """

    @property
    def objective(self) -> Objective:
        """The pre-training objective."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Its settings, JSON-able."""
        ...


def fingerprint_of(module: nn.Module, config: Mapping[str, Any], code_version: int) -> str:
    """SHA-256 of a model's weights, configuration and declared code version.

    The package's version is not part of it, so that a patch release leaves every cached feature and record valid;
    `code_version` is increased by hand when the same weights give other numbers.

    Args:
        module: The model; its `state_dict` is hashed in the order of the names, whatever the shapes.
        config: Everything else that determines the hidden states, JSON-able.
        code_version: As declared.
    """
    digest = hashlib.sha256(canonical_json({"config": dict(config), "code_version": code_version}))
    update_with_tensors(digest, module.state_dict())
    return digest.hexdigest()


def update_with_tensors(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add names, types, shapes and bytes of tensors, in the order of their names, to a digest."""
    import torch

    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().cpu().contiguous()
        # NUL between the fields, so that no two lists of tensors give the same bytes.
        digest.update(f"\0{name}\0{array.dtype}\0{tuple(array.shape)}\0".encode())
        # any shape -> (numel,) -> (bytes,): numpy has no bfloat16, but every dtype has bytes
        digest.update(array.view(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b"")


def check_lengths(info: UpstreamInfo, lengths: Tensor) -> None:
    """Refuse waveforms that are shorter or longer than declared.

    Args:
        info: The declaration.
        lengths: (B,) samples.

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
    """Check the arguments of a call: waveforms (B, T) and lengths (B,); a forward pre-hook of every upstream.

    16-bit integers would shift log features by log(32768^2) = 20.8, float64 would change their precision, and the axis
    of a waveform (T,) would be mistaken.

    Args:
        upstream: The upstream that is called.
        given: Its positional arguments.
        named: Its keyword arguments.

    Raises:
        DataError: As `repbench.audio.frames.check_waveforms`.
    """
    arguments = dict(zip(("waveforms", "lengths"), given, strict=False)) | dict(named)
    if arguments.keys() == {"waveforms", "lengths"}:  # Python itself refuses a call that lacks one
        info: Any = upstream.info
        check_waveforms(**arguments, name=info.name)
