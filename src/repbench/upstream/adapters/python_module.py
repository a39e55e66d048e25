"""`py:module:attribute`: any `nn.Module` of (waveforms, lengths), with a YAML file that declares what it is.

What `py:` names may be an upstream or the factory of one, which needs no declaration. Else it is an `nn.Module`, a
class of them, or a function without arguments that returns one; and beside the Python file `models.py` lies
`models_ATTRIBUTE.info.yaml`, a `Declaration`. `--checkpoint OTHER.yaml` names another one.

The module is called with waveforms (B, T) float32 and lengths (B,) int64 and returns one layer (B, F, D), several as
(L, B, F, D) or as a list of (B, F, D), or `HiddenStates`.

Legend: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from repbench.configs.loader import build as build_settings
from repbench.configs.loader import load_yaml
from repbench.errors import IntegrityError, PluginError, UsageError
from repbench.upstream.adapters.frame_counts import joined
from repbench.upstream.adapters.huggingface_files import read_weights
from repbench.upstream.checkpoints.factory import RANDOM, seeded
from repbench.upstream.checkpoints.foreign import unwrapped
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.contract import (
    HiddenStates,
    Provenance,
    Upstream,
    UpstreamInfo,
    check_lengths,
    fingerprint_of,
)


class Declaration(BaseModel):
    """What the author of a module says of it; a waveform of T samples gives
    (T + padding_samples - window_samples) // hop_samples + 1 frames.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """What the model is called."""
    sample_rate_hz: int = Field(16_000, ge=1)
    """Rate of the waveforms it takes."""
    hop_samples: int = Field(ge=1)
    """Distance of two frames' centres."""
    first_center_samples: int = Field(ge=0)
    """Sample of which frame 0 speaks."""
    window_samples: int = Field(ge=1)
    """Samples that a frame hears before any padding: 400 for wav2vec 2.0's convolutions, the hop for whole blocks."""
    padding_samples: int = Field(0, ge=0)
    """Samples that the model adds at both ends together: the window, for a centred spectrogram."""
    min_samples: int | None = Field(None, ge=1)
    """Shortest waveform it takes; null: what gives one frame."""
    max_samples: int | None = Field(None, ge=1)
    """Longest waveform it takes; null: any."""
    layer_names: tuple[str, ...]
    """One name a layer."""
    width: int = Field(ge=1)
    """D, of all layers."""
    utterance_normalised: bool = False
    """Whether each feature of layer 0 has zero mean over the utterance."""
    batch_invariant: bool = False
    """Whether padded batches give what each utterance gives alone; false: each is run alone, and never padded."""
    weights: str | None = None
    """A .safetensors file of the module's state dict, relative to the declaration; null: the module has its weights."""
    code_version: int = Field(1, ge=1)
    """Raise it when the same weights give other numbers."""
    citation: str = "unknown"
    """Where the model was published."""
    licence: str = "unknown"
    """Of the weights or the code."""


class DeclaredModule(nn.Module):
    """Somebody's module as an upstream.

    Args:
        module: The module.
        declared: What it is.
        declaration_file: Where that stands.
        sources: Python files it comes from; their bytes are part of the fingerprint.
        provenance: Where the weights come from.
    """

    def __init__(
        self,
        module: nn.Module,
        declared: Declaration,
        declaration_file: Path,
        sources: Iterable[Path],
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.module = module
        self.declared = declared
        self.declaration_file = declaration_file
        self.provenance = provenance
        self._sources_sha256 = sorted({hashlib.sha256(source.read_bytes()).hexdigest() for source in sources})
        gives_one = max(1, declared.window_samples - declared.padding_samples)
        self.info = UpstreamInfo(
            name=declared.name,
            sample_rate_hz=declared.sample_rate_hz,
            hop_samples=declared.hop_samples,
            first_center_samples=declared.first_center_samples,
            min_samples=max(gives_one, declared.min_samples or 1),
            max_samples=declared.max_samples,
            layer_names=declared.layer_names,
            width=declared.width,
            utterance_normalised=declared.utterance_normalised,
            trainable=any(parameter.requires_grad for parameter in module.parameters()),
            citation=declared.citation,
            licence=declared.licence,
        )

    def num_frames(self, num_samples: int) -> int:
        """Frames that a waveform of `num_samples` gives, as declared."""
        declared = self.declared
        return (num_samples + declared.padding_samples - declared.window_samples) // declared.hop_samples + 1

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (L, B, F, D).

        Raises:
            PluginError: The module does not return what is declared.
        """
        check_lengths(self.info, lengths)
        if self.declared.batch_invariant:
            groups = [(waveforms, lengths)]
        else:
            groups = [(waveforms[row : row + 1, :length], lengths[row : row + 1])
                      for row, length in enumerate(lengths.tolist())]  # fmt: skip
        return joined([states for group in groups for states in self._hear(*group)])

    def _hear(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """The hidden states (L, F, D) of each utterance of a batch."""
        counts = [self.num_frames(length) for length in lengths.tolist()]
        layers = _layers_of(self.module(waveforms, lengths), self.info.name)
        expected = (len(self.info.layer_names), len(counts), max(counts), self.info.width)
        if tuple(layers.shape) != expected:
            raise PluginError(
                f"The declaration promises (L, B, F, D) = {expected} for {lengths.tolist()} samples, but the module "
                f"returned {tuple(layers.shape)}",
                key=self.info.name,
                do="Correct layer_names, hop_samples, window_samples, padding_samples or width in the declaration",
            )
        return [layers[:, row, :count] for row, count in enumerate(counts)]

    def fingerprint(self) -> str:
        """SHA-256 of the weights, the declaration, the files of the code and its declared version."""
        declared = self.declared.model_dump(mode="json", exclude={"weights", "citation", "licence"})
        return fingerprint_of(self, {**declared, "sources_sha256": self._sources_sha256}, self.declared.code_version)


def _layers_of(returned: object, name: str) -> Tensor:
    """What a module returned as (L, B, F, D)."""
    if isinstance(returned, HiddenStates):
        return returned.layers
    if isinstance(returned, list | tuple) and returned and all(_is_layer(each) for each in returned):
        if len({each.shape for each in returned}) == 1:
            return torch.stack(list(returned))
    elif _is_layer(returned):
        assert isinstance(returned, Tensor)
        return returned[None]
    elif isinstance(returned, Tensor) and returned.ndim == 4:
        return returned
    what = "The module must return a tensor (B, F, D) or (L, B, F, D), a list of (B, F, D) alike, or HiddenStates"
    found = tuple(returned.shape) if isinstance(returned, Tensor) else type(returned).__name__
    raise PluginError(f"{what}, but returned {found}", key=name, do="See repbench.upstream.adapters.python_module")


def _is_layer(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3


def factory_of(target: object, spec: str) -> Callable[..., object]:
    """The factory of what `py:SPEC` names: itself if it is one, else one that reads the declaration.

    Raises:
        PluginError: It is nothing that can be called.
    """
    if isinstance(target, nn.Module):
        return partial(_ready, target) if isinstance(target, Upstream) else partial(build, target, spec)
    if not callable(target):
        raise PluginError("It does not lead to something that can be called", key=f"py:{spec}")
    is_class = isinstance(target, type) and issubclass(target, nn.Module)
    declares_itself = all(hasattr(target, name) for name in ("num_frames", "fingerprint"))
    if (is_class and not declares_itself) or (not is_class and not inspect.isclass(target) and _takes_nothing(target)):
        return partial(build, target, spec)
    return target


def _takes_nothing(function: Callable[..., object]) -> bool:
    return not inspect.signature(function).parameters


def _ready(upstream: nn.Module, *, checkpoint: str | None = None, seed: int = 0) -> nn.Module:
    if checkpoint is not None:
        do = "Leave --checkpoint out, or name a factory of it"
        raise UsageError("This object is an upstream that has its weights", key="--checkpoint", do=do)
    return upstream


def build(
    target: nn.Module | Callable[[], object], spec: str, *, checkpoint: str | None = None, seed: int = 0
) -> DeclaredModule:
    """Build the module that `py:SPEC` names, with its declaration, in eval mode.

    Args:
        target: A module, a class of them, or a function that returns one.
        spec: `module:attribute`.
        checkpoint: A YAML file: the declaration. Any other: the module's weights. `random`: as it is drawn from `seed`.
        seed: Of what `target` draws when it is called.

    Raises:
        UsageError: There is no declaration, or it cannot be meant; or a module that is there already is to be random.
        IntegrityError: The weights are damaged, or not the module's.
        PluginError: What it returns is no module.
    """
    given = None if checkpoint is None else given_path(checkpoint, "--checkpoint")
    is_declaration = given is not None and given.suffix in {".yaml", ".yml"}
    file = given if given is not None and is_declaration else _beside(spec)
    if not file.is_file():
        what = f"`py:{spec}` is an nn.Module without a declaration"
        raise UsageError(
            what, file=file, do="Write it there, or give one with --checkpoint FILE.yaml; see docs/models.md"
        )
    declared = build_settings(Declaration, load_yaml(file), file)
    weights = _weights_file(declared, file, None if is_declaration else checkpoint)
    module = target if isinstance(target, nn.Module) else _made(target, spec, seed)
    if checkpoint == RANDOM and module is target:
        do = "Name its class, or a function that makes it"
        raise UsageError(f"`py:{spec}` is made already and cannot be drawn anew", key="--checkpoint", do=do)
    notes: tuple[str, ...] = ()
    if weights is not None:
        state, notes = unwrapped(read_weights([weights]), file=weights, expected=module.state_dict())
        try:
            module.load_state_dict(state, strict=True)
        except RuntimeError as error:
            what = f"The weights do not fit the module: {' '.join(str(error).split())[:500]}"
            raise IntegrityError(what, file=weights, do="Give the state dict of this module") from error
    provenance = Provenance(checkpoint=RANDOM if checkpoint == RANDOM else str(weights or file), notes=notes)
    return DeclaredModule(module, declared, file, _sources_of(module, spec), provenance).eval()


def _made(target: Callable[[], object], spec: str, seed: int) -> nn.Module:
    with seeded(seed):
        module = target()
    if not isinstance(module, nn.Module):
        what = f"`py:{spec}` must give an nn.Module, but gave a {type(module).__name__}"
        raise PluginError(what, key=f"py:{spec}", do="See repbench.upstream.adapters.python_module")
    return module


def _beside(spec: str) -> Path:
    """Where the declaration of `module:attribute` lies unless another is named."""
    module, _, attribute = spec.partition(":")
    source = _file_of(module) or Path(f"{module}.py")
    return source.with_name(f"{source.stem}_{attribute}.info.yaml")


def _weights_file(declared: Declaration, file: Path, named: str | None) -> Path | None:
    if named == RANDOM:
        return None
    if named is not None:
        if not Path(named).is_file():
            raise UsageError("There is no such file", key="--checkpoint", file=named, do="Check the path")
        return Path(named)
    return None if declared.weights is None else file.parent / declared.weights


def _sources_of(module: nn.Module, spec: str) -> set[Path]:
    """The files that say what the module computes: the one that `module:attribute` names, where a function may put
    together classes of others, and those of the classes that it is made of, without torch's own.
    """
    classes = {type(each) for each in module.modules()}
    owners = {spec.partition(":")[0], *(each.__module__ for each in classes)}
    found = {_file_of(owner) for owner in owners if owner.partition(".")[0] != "torch"}
    return {file for file in found if file is not None}


def _file_of(module: str) -> Path | None:
    """The file of an imported module; None where it has none, as an interpreter's prompt."""
    place = getattr(sys.modules.get(module), "__file__", None)
    return Path(place) if place is not None and Path(place).is_file() else None
