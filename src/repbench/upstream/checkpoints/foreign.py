"""Shared parts of the readers of other toolkits' checkpoints: names of weights, settings as numbers, strict checks.

Nothing is loaded in part: the weights of the file must be exactly those of the model. Missing, unexpected and misshapen
keys are one error, with the names of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from repbench.errors import IntegrityError, UsageError

_MAX_NAMED = 10
"""Most keys that an error names for each kind of fault; it counts the others."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_MAX_CHARACTERS = 100
"""Longest text that is read as a number; `int` refuses more than 4300 digits."""

_GRU_KEY = re.compile(r"(?:rnns|rnn_layers)\.[0-9]+\.")

Shapes = Mapping[str, tuple[int, ...]]
"""From the names of weights to their shapes."""

_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
"""Prefixes that DataParallel, torch.compile, FSDP and Lightning Fabric add to every name of a wrapped model."""

_INNER_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts within a name where a part of the model was wrapped."""

AVERAGING_COUNTER = "n_averaged"
"""Counter that torch's AveragedModel saves with the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignCheckpoint:
    """A checkpoint of another toolkit.

    Attributes:
        kind: The toolkit that wrote it: "released Mockingjay code", "S3PRL of 2020", "original APC", …
        config: Settings of the model, as a tree.
        weights: float32, by the names of our module's `state_dict`.
        step: Optimiser steps of its training, if known.
        notes: Sentences for the reader of its scores.
    """

    kind: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    step: int | None
    notes: tuple[str, ...]


def unwrapped(
    weights: Mapping[str, Any], *, file: Path, expected: Iterable[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Remove the parts of names that a wrapper of torch added.

    Args:
        weights: Weights by the names in the file.
        file: Their source, for error messages.
        expected: The names in the model; a prefix that all of them have belongs to the model and stays.

    Returns:
        The weights by the names of the wrapped model, and a note on the removed parts, if any.

    Raises:
        IntegrityError: Two weights would have one name.
    """
    own = [*expected]
    names = {key: str(key) for key in weights if key != AVERAGING_COUNTER}
    taken = list[str]()
    # Wrappers nest in any order (`module._orig_mod.`): one prefix a turn, until none is shared by all names.
    while (prefix := _shared_wrapper(names.values())) and _shared_wrapper(own) != prefix:
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
        taken.append(prefix)
    for inner in _INNER_WRAPPERS:
        if any(inner in name for name in names.values()) and not any(inner in name for name in own):
            names = {key: name.replace(inner, "") for key, name in names.items()}
            taken.append(inner)
    if not taken:
        return dict(weights), ()
    if len(set(names.values())) < len(names):
        what = f"Two weights have the same name without the prefix {_quoted(taken)}"
        raise IntegrityError(what, file=file, do="Save the state dict of the model inside of its wrapper")
    note = f"{_quoted(taken)}, which a wrapper of torch adds, was taken off the names of the weights in {file.name}"
    return {name: weights[key] for key, name in names.items()}, (note,)


def _shared_wrapper(names: Iterable[str]) -> str | None:
    """The prefix of a wrapper that all names share; None if there is none."""
    every = [*names]
    shared = (prefix for prefix in _WRAPPERS if every and all(name.startswith(prefix) for name in every))
    return next(shared, None)


def _quoted(prefixes: Iterable[str]) -> str:
    return f"`{''.join(prefixes)}`"


def hold_to_keys(module: nn.Module, weights: Mapping[str, Tensor], *, file: Path) -> None:
    """Refuse weights that are not exactly those of the module.

    Args:
        module: The module.
        weights: From names to tensors of any shape.
        file: Their source, for error messages.

    Raises:
        IntegrityError: Keys are missing, unexpected or of another shape; lists them.
    """
    hold_to_shapes({name: tuple(each.shape) for name, each in module.state_dict().items()}, weights, file=file)


def hold_to_shapes(expected: Shapes, weights: Mapping[str, Tensor], *, file: Path) -> None:
    """As `hold_to_keys`, for expected names and shapes.

    Raises:
        IntegrityError: Keys are missing, unexpected or of another shape; lists them.
    """
    misshapen = [
        f"{name} is {_size(weights[name].shape)}, not {_size(shape)}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    faults = [
        f"{len(keys)} {what}: {named(keys)}"
        for what, keys in (
            ("missing", [name for name in expected if name not in weights]),
            ("unexpected", [name for name in weights if name not in expected]),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if faults:
        do = "Give the settings it was trained with, or the checkpoint of this model; nothing was loaded"
        raise IntegrityError(f"The weights do not fit the model: {'; '.join(faults)}", file=file, do=do)


def named(keys: Iterable[object]) -> str:
    """A list of keys for an error: the names of the first, the number of the others."""
    texts = [str(key) for key in keys]
    others = len(texts) - _MAX_NAMED
    return ", ".join(texts[:_MAX_NAMED]) + (f" and {others} more" if others > 0 else "")


def _size(shape: Iterable[int]) -> str:
    return "x".join(str(each) for each in shape) or "a scalar"


def without_twin(weights: dict[str, Tensor], key: str, twin: str, *, file: Path) -> None:
    """Remove `key` from `weights` if both names of one weight are there.

    Raises:
        IntegrityError: It differs from `twin`.
    """
    if key not in weights or twin not in weights:
        return
    if not _same(weights[key], weights[twin]):
        what = f"`{key}` and `{twin}` are one weight under two names, but differ"
        raise IntegrityError(what, file=file, key=key, do="Save the checkpoint again where the model was trained")
    del weights[key]


def hold_to_copies(weights: Mapping[str, Tensor], pattern: str, *, file: Path) -> None:
    """Refuse layers that are shared according to the settings but differ.

    Args:
        weights: From names to tensors of any shape.
        pattern: Prefix of the names of a layer, with {} for its number.
        file: Their source, for error messages.

    Raises:
        IntegrityError: A layer differs from the first.
    """
    # `re.escape` has made \{\} of the placeholder {}.
    numbered = re.compile(re.escape(pattern).replace(r"\{\}", r"([0-9]+)"))
    for name, weight in weights.items():
        found = numbered.match(name)
        first = weights.get(pattern.format(0) + name[found.end() :]) if found else None
        if first is not None and not _same(weight, first):
            what = f"The layers are shared by their settings, but `{name}` differs from that of the first"
            raise IntegrityError(what, file=file, key=name, do="Check where the checkpoint comes from")


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def renamed_last(weights: Mapping[str, Tensor], names: Mapping[str, str], *, file: Path) -> dict[str, Tensor]:
    """Rename the last part of each key: `LayerNorm.gamma` -> `LayerNorm.weight`.

    Raises:
        IntegrityError: A weight has both names.
    """
    result: dict[str, Tensor] = {}
    for key, weight in weights.items():
        head, dot, last = key.rpartition(".")
        present = head + dot + names.get(last, last)
        if present in result or (present != key and present in weights):
            raise IntegrityError(f"`{present}` is there under its old name too", file=file, key=key)
        result[present] = weight
    return result


def group(tree: Mapping[str, Any], key: str, *, file: Path, of: str = "the checkpoint") -> dict[str, Any]:
    """The mapping at `key` of a mapping.

    Raises:
        IntegrityError: There is none.
    """
    found = tree.get(key)
    if not isinstance(found, dict):
        what = "lacks it" if key not in tree else f"has a {type(found).__name__} there"
        raise IntegrityError(f"`{key}` must be a mapping, but {of} {what}", file=file, key=key)
    return found


def numbers(tree: Any) -> Any:
    """A configuration with texts read as numbers: "4e-4" becomes 0.0004 and "None" becomes None."""
    # YAML 1.1, as PyYAML reads the configurations of these toolkits, takes `4e-4` (no dot) and `None` for text.
    if isinstance(tree, dict):
        return {key: numbers(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [numbers(value) for value in tree]
    if not isinstance(tree, str):
        return tree
    text = tree.strip()
    if text in ("None", "none", "null"):
        return None
    if len(text) > _MAX_CHARACTERS or not _NUMBER.fullmatch(text):
        return tree
    return int(text) if text.lstrip("+-").isdigit() else float(text)


@contextmanager
def naming_file(file: Path) -> Iterator[None]:
    """Add `file` to a `UsageError` of the block that names no file."""
    try:
        yield
    except UsageError as fault:
        raise UsageError(fault.what, file=fault.file or file, key=fault.key, do=fault.do) from fault


def whole(value: object) -> int | None:
    """`value` if it is an int, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def refuse_layout(content: Mapping[str, Any], *, wanted: str, known: str, file: Path) -> IntegrityError:
    """The error for a file that is not a checkpoint of the requested upstream.

    Args:
        content: The outermost dict.
        wanted: The requested upstream, "mockingjay" or "apc".
        known: The outermost keys of its checkpoints, in words.
        file: The file.
    """
    other = model_of(content)
    if other is not None and other != wanted:
        return IntegrityError(
            f"The checkpoint is of the upstream `{other}`, not `{wanted}`",
            file=file,
            do=f"Use the upstream `{other}`, or give a checkpoint of `{wanted}`",
        )
    return IntegrityError(
        f"The checkpoint has a layout that is not known: its keys are {named(sorted(map(str, content))) or 'none'}",
        file=file,
        do=f"A checkpoint of `{wanted}` has {known}",
    )


def model_of(content: Mapping[str, Any]) -> str | None:
    """The upstream of a file, by its outermost keys; None if they are unknown."""
    if "Mockingjay" in content or "Transformer" in content:
        return "mockingjay"
    inner = content["model"] if isinstance(content.get("model"), dict) else content
    return "apc" if any(_GRU_KEY.match(_without_wrappers(str(key))) for key in inner) else None


def _without_wrappers(key: str) -> str:
    for prefix in (*_WRAPPERS, *_INNER_WRAPPERS) * 2:
        key = key.removeprefix(prefix)
    return key
