"""`py:module:attribute`: any `nn.Module` of (waveforms, lengths), with a declaration in a YAML file.

The attribute may be an upstream or the factory of one, which needs no declaration. Otherwise it is an `nn.Module`, a
subclass of it, or a function without arguments that returns one; the declaration of `ATTRIBUTE` in `models.py` is
`models_ATTRIBUTE.info.yaml` in the same folder. `--checkpoint OTHER.yaml` names another one.

The module is called with waveforms (B, T) float32 and lengths (B,) int64. It returns one layer (B, F, D), several as
(L, B, F, D) or as a list of (B, F, D), or `HiddenStates`. With
`kind: utterance` it returns (B, D), and several layers as (L, B, D) or as a list of (B, D).

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from repbench.errors import IntegrityError, PluginError, UsageError, did_you_mean, is_out_of_memory
from repbench.upstream.adapters.declarations import EXAMPLE, Declaration, VectorDeclaration, read_declaration
from repbench.upstream.adapters.frame_counts import joined
from repbench.upstream.adapters.huggingface_files import read_weights
from repbench.upstream.adapters.module_call import (
    check_forward,
    failure_hint,
    layers_of,
    transposed_hint,
    vectors_of,
)
from repbench.upstream.checkpoints.factory import seeded
from repbench.upstream.checkpoints.foreign import unwrapped
from repbench.upstream.checkpoints.given_path import given_path
from repbench.upstream.checkpoints.untrained import RANDOM
from repbench.upstream.contract import (
    HiddenStates,
    Provenance,
    Upstream,
    check_lengths,
    fingerprint_of,
)
from repbench.upstream.training_data import training_data_of


class DeclaredModule(nn.Module):
    """A declared module as an upstream.

    Args:
        module: The module.
        declared: Its declaration.
        declaration_file: The file of the declaration.
        sources: Python files of its code; their bytes are part of the fingerprint.
        provenance: The source of the weights.

    Attributes:
        layer_modules: The modules of each layer, as `Upstream` has them; None if they are not declared.
    """

    def __init__(
        self,
        module: nn.Module,
        declared: Declaration | VectorDeclaration,
        declaration_file: Path,
        sources: Iterable[Path],
        provenance: Provenance,
    ) -> None:
        super().__init__()
        self.module = module
        self.declared = declared
        self.declaration_file = declaration_file
        self.provenance = provenance
        # A sorted set: neither the path nor the order of the files is part of the fingerprint.
        self._sources_sha256 = sorted({hashlib.sha256(source.read_bytes()).hexdigest() for source in sources})
        self.layer_modules = _declared_layers(module, declared, declaration_file)
        self.info = declared.info(trainable=any(parameter.requires_grad for parameter in module.parameters()))

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of `num_samples`, as declared; 1 of a vector an utterance."""
        return 1 if isinstance(self.declared, VectorDeclaration) else self.declared.num_frames(num_samples)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (L, B, F, D).

        Raises:
            DataError: A length is outside of the declared range.
            PluginError: The module returns another shape than declared.
        """
        check_lengths(self.info, lengths)
        if self.declared.batch_invariant:
            # One group, (B, T) and (B,): without what is behind the longest, for which the module would give frames.
            groups = [(waveforms[:, : int(lengths.max())], lengths)]
        else:
            # (B, T) -> B of (1, T_i) with (1,): slices keep the axis of the batch, which the module expects
            groups = [(waveforms[row : row + 1, :length], lengths[row : row + 1])
                      for row, length in enumerate(lengths.tolist())]  # fmt: skip
        return joined([states for group in groups for states in self._encode(*group)])

    def _encode(self, waveforms: Tensor, lengths: Tensor) -> list[Tensor]:
        """(B, T) -> B times (L, F, D)."""
        counts = [self.num_frames(length) for length in lengths.tolist()]
        returned = self._call(waveforms, lengths)
        if self.info.one_vector:
            return list(vectors_of(returned, self.info, len(counts)).unbind(dim=1))  # (L, B, 1, D) -> B of (L, 1, D)
        layers = layers_of(returned, self.module, self.info.name)
        expected = (len(self.info.layer_names), len(counts), max(counts), self.info.width)
        if tuple(layers.shape) != expected:
            raise PluginError(
                f"The declaration promises (L, B, F, D) = {expected} for {lengths.tolist()} samples, but the module "
                f"returned {tuple(layers.shape)}",
                key=self.info.name,
                do="Correct layer_names, hop_samples, window_samples, padding_samples or width in the declaration"
                + transposed_hint(tuple(layers.shape), expected),
            )
        return [layers[:, row, :count] for row, count in enumerate(counts)]  # (L, B, F, D) -> B of (L, F_i, D)

    def _call(self, waveforms: Tensor, lengths: Tensor) -> object:
        try:
            return self.module(waveforms, lengths)
        except (RuntimeError, ValueError) as error:
            hint = failure_hint(self.module, error)
            if hint is None or is_out_of_memory(error):
                raise
            do, block = hint
            what = f"The module failed on waveforms {tuple(waveforms.shape)}: {error}"
            raise PluginError(what, key=self.info.name, do=do, block=block) from error

    def fingerprint(self) -> str:
        """SHA-256 of the weights, the declaration, the files of the code and its declared version."""
        config = {**self.declared_settings(), "sources_sha256": self._sources_sha256}
        return fingerprint_of(self, config, self.declared.code_version)

    def declared_settings(self) -> dict[str, Any]:
        """The declaration without what does not determine the hidden states, JSON-able; for the fingerprint."""
        # `kind: frames` is left out: fingerprints from before the field stay.
        left_out = {
            "weights",
            "citation",
            "licence",
            "trained_on",
            "layer_modules",
            *(() if self.info.one_vector else ("kind",)),
        }
        return self.declared.model_dump(mode="json", exclude=left_out)


def _declared_layers(
    module: nn.Module, declared: Declaration | VectorDeclaration, file: Path
) -> list[list[nn.Module]] | None:
    if declared.layer_modules is None:
        return None
    parts = dict(module.named_modules())
    for name in (name for layer in declared.layer_modules for name in layer):
        if name not in parts:
            what = f"`layer_modules` names `{name}`, which is no part of the module"
            guess = did_you_mean(name, list(parts)).strip()
            raise UsageError(what, key="layer_modules", file=file, do=guess or "Take names of `named_modules()`")
    return [[parts[name] for name in layer] for layer in declared.layer_modules]


def factory_of(target: object, spec: str) -> Callable[..., object]:
    """The factory of the upstream that `py:SPEC` names: the target itself, or one that reads the declaration.

    Args:
        target: The attribute that `py:` names.
        spec: `module:attribute`.

    Raises:
        PluginError: The target cannot be called.
    """
    if isinstance(target, nn.Module):
        return partial(_ready, target) if isinstance(target, Upstream) else partial(build, target, spec)
    if not callable(target):
        raise PluginError("It does not lead to something that can be called", key=f"py:{spec}")
    is_class = isinstance(target, type) and issubclass(target, nn.Module)
    declares_itself = all(hasattr(target, name) for name in ("num_frames", "fingerprint"))
    # An upstream's own class or factory is called as it is; a plain module, its class, or a function without arguments
    # needs the declaration.
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
        target: A module, a subclass of `nn.Module`, or a function that returns a module.
        spec: `module:attribute`.
        checkpoint: A YAML file: the declaration. Any other file: the weights. `random`: weights drawn from `seed`.
        seed: Seed of the weights that `target` draws when it is called.

    Raises:
        UsageError: The declaration is missing or not valid, or `random` is given for a module that exists already.
        IntegrityError: The weights are damaged, or do not fit the module.
        PluginError: `target` returns something else, or the module's `forward` does not take (waveforms, lengths).
    """
    given = None if checkpoint is None else given_path(checkpoint, "--checkpoint")
    is_declaration = given is not None and given.suffix in {".yaml", ".yml"}
    file = given if given is not None and is_declaration else _beside(spec)
    if not file.is_file():
        what = f"`py:{spec}` is an nn.Module without a declaration"
        do = "Write it there, with the numbers of the model; or give one with --checkpoint FILE.yaml"
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", spec.partition(":")[2]).lower()
        raise UsageError(what, file=file, do=f"{do}; see docs/which-way.md", block=f"name: {name}\n{EXAMPLE}")
    declared = read_declaration(file)
    weights = _weights_file(declared, file, None if is_declaration else checkpoint)
    module = target if isinstance(target, nn.Module) else _made(target, spec, seed)
    if checkpoint == RANDOM and module is target:
        do = "Name its class, or a function that makes it"
        raise UsageError(f"`py:{spec}` is made already and cannot be drawn anew", key="--checkpoint", do=do)
    check_forward(module, spec, batch_invariant=declared.batch_invariant)
    notes: tuple[str, ...] = ()
    if weights is not None:
        state, notes = unwrapped(read_weights([weights]), file=weights, expected=module.state_dict())
        try:
            module.load_state_dict(state, strict=True)
        except RuntimeError as error:
            what = f"The weights do not fit the module: {' '.join(str(error).split())[:500]}"
            raise IntegrityError(what, file=weights, do="Give the state dict of this module") from error
    unweighted = f"the declaration is {file}; no `weights`: those of the module as it was built are used"
    provenance = Provenance(
        checkpoint=RANDOM if checkpoint == RANDOM else str(weights or file),
        notes=notes,
        log=(unweighted,) if weights is None and checkpoint != RANDOM else (),
        trained_on=() if checkpoint == RANDOM else training_data_of(declared.trained_on, file),
    )
    return DeclaredModule(module, declared, file, sources_of(module, spec), provenance).eval()


def _made(target: Callable[[], object], spec: str, seed: int) -> nn.Module:
    with seeded(seed):
        module = target()
    if not isinstance(module, nn.Module):
        what = f"`py:{spec}` must give an nn.Module, but gave a {type(module).__name__}"
        raise PluginError(what, key=f"py:{spec}", do="See repbench.upstream.adapters.python_module")
    return module


def _beside(spec: str) -> Path:
    """The default file of the declaration of `module:attribute`."""
    module, _, attribute = spec.partition(":")
    source = _file_of(module) or Path(f"{module}.py")
    return source.with_name(f"{source.stem}_{attribute}.info.yaml")


def _weights_file(declared: Declaration | VectorDeclaration, file: Path, named: str | None) -> Path | None:
    if named == RANDOM:
        return None
    if named is not None:
        if not Path(named).is_file():
            raise UsageError("There is no such file", key="--checkpoint", file=named, do="Check the path")
        return Path(named)
    return None if declared.weights is None else file.parent / declared.weights


def sources_of(module: nn.Module, spec: str) -> set[Path]:
    """The files of the module's code, without torch's own.

    These are the file that `module:attribute` names, where a function may combine classes of other files, and the files
    of the classes of the module and its parts.
    """
    classes = {type(each) for each in module.modules()}
    owners = {spec.partition(":")[0], *(each.__module__ for each in classes)}
    found = {_file_of(owner) for owner in owners if owner.partition(".")[0] != "torch"}
    return {file for file in found if file is not None}


def _file_of(module: str) -> Path | None:
    """The file of an imported module; None if it has none, such as the interactive prompt."""
    place = getattr(sys.modules.get(module), "__file__", None)
    return Path(place) if place is not None and Path(place).is_file() else None
