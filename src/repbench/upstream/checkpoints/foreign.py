"""What checkpoints of other toolkits have in common once they are read: a configuration, and weights by our names.

Nothing is loaded in part. Every weight of the file must have a place in the model and every place a weight of its
shape; what is missing, unexpected or misshapen is one error, in the words of the file.
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
"""How many keys of each kind of fault are named before the rest is counted."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_MAX_CHARACTERS = 100
"""Longest text that is read as a number; `int` refuses more than 4300 digits."""

_GRU_KEY = re.compile(r"(?:rnns|rnn_layers)\.[0-9]+\.")

Shapes = Mapping[str, tuple[int, ...]]
"""From the names of weights to their shapes."""

_WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.")
"""What DataParallel, torch.compile, FSDP and Lightning Fabric put before every name of the model that they wrap."""

_INNER_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What stands within a name where a part of the model was wrapped."""

AVERAGING_COUNTER = "n_averaged"
"""What torch's AveragedModel saves beside the weights of the model that it wraps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignCheckpoint:
    """A checkpoint of another toolkit.

    Attributes:
        kind: Which toolkit wrote it: "released Mockingjay code", "S3PRL of 2020", "original APC", …
        config: Settings of the model, as a tree.
        weights: By the names of our module's `state_dict`, float32.
        step: Updates it was trained for, if it says so.
        notes: What a reader should know of it.
    """

    kind: str
    config: dict[str, Any]
    weights: dict[str, Tensor]
    step: int | None
    notes: tuple[str, ...]


def unwrapped(
    weights: Mapping[str, Any], *, file: Path, expected: Iterable[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take off what a wrapper of torch put before or within the names of weights.

    Args:
        weights: By the names in the file.
        file: Where they come from.
        expected: The names that the model has; a prefix that all of them have belongs to the model and stays.

    Returns:
        The weights by the names of the model that was wrapped, and a note that says what was taken off, if anything.

    Raises:
        IntegrityError: Two weights would have one name.
    """
    own = [*expected]
    names = {key: str(key) for key in weights if key != AVERAGING_COUNTER}
    taken = list[str]()
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
    """The wrapper's prefix that every name begins with, if there is one."""
    every = [*names]
    shared = (prefix for prefix in _WRAPPERS if every and all(name.startswith(prefix) for name in every))
    return next(shared, None)


def _quoted(prefixes: Iterable[str]) -> str:
    return f"`{''.join(prefixes)}`"


def hold_to_keys(module: nn.Module, weights: Mapping[str, Tensor], *, file: Path) -> None:
    """Refuse weights that are not exactly those of the module.

    Raises:
        IntegrityError: Keys are missing, unexpected or of another shape; lists them.
    """
    hold_to_shapes({name: tuple(each.shape) for name, each in module.state_dict().items()}, weights, file=file)


def hold_to_shapes(expected: Shapes, weights: Mapping[str, Tensor], *, file: Path) -> None:
    """As `hold_to_keys`, for the names and shapes that a file is expected to have.

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
    """The first keys by name, the others by their number."""
    texts = [str(key) for key in keys]
    others = len(texts) - _MAX_NAMED
    return ", ".join(texts[:_MAX_NAMED]) + (f" and {others} more" if others > 0 else "")


def _size(shape: Iterable[int]) -> str:
    return "x".join(str(each) for each in shape) or "a scalar"


def without_twin(weights: dict[str, Tensor], key: str, twin: str, *, file: Path) -> None:
    """Take out `key`, which is written twice under two names, if it is there.

    Raises:
        IntegrityError: It is not the same as `twin`.
    """
    if key not in weights or twin not in weights:
        return
    if not _same(weights[key], weights[twin]):
        what = f"`{key}` and `{twin}` are one weight under two names, but differ"
        raise IntegrityError(what, file=file, key=key, do="Save the checkpoint again where the model was trained")
    del weights[key]


def hold_to_copies(weights: Mapping[str, Tensor], pattern: str, *, file: Path) -> None:
    """Refuse layers that are said to be shared but differ.

    Args:
        weights: By name.
        pattern: What every name of a layer starts with, its number written as {}.
        file: Where they come from.

    Raises:
        IntegrityError: A layer differs from the first.
    """
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
    """Give the last part of each key its present name: `LayerNorm.gamma` -> `LayerNorm.weight`.

    Raises:
        IntegrityError: A weight is there under both names.
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
    """A mapping within a mapping.

    Raises:
        IntegrityError: There is none.
    """
    found = tree.get(key)
    if not isinstance(found, dict):
        what = "lacks it" if key not in tree else f"has a {type(found).__name__} there"
        raise IntegrityError(f"`{key}` must be a mapping, but {of} {what}", file=file, key=key)
    return found


def numbers(tree: Any) -> Any:
    """A configuration whose numbers are numbers: "4e-4" becomes 0.0004 and "None" becomes None."""
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
def told_of(file: Path) -> Iterator[None]:
    """Name the file in a `UsageError` about what stands in it."""
    try:
        yield
    except UsageError as fault:
        raise UsageError(fault.what, file=fault.file or file, key=fault.key, do=fault.do) from fault


def whole(value: object) -> int | None:
    """`value` if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def refuse_layout(content: Mapping[str, Any], *, wanted: str, known: str, file: Path) -> IntegrityError:
    """What to say of a file whose outermost keys are none that `wanted` is known by.

    Args:
        content: The outermost dict.
        wanted: The upstream that was asked for, "mockingjay" or "apc".
        known: The outermost keys that it is known by, in words.
        file: The file.
    """
    other = model_of(content)
    if other is not None and other != wanted:
        return IntegrityError(
            f"The checkpoint is of the upstream `{other}`, not `{wanted}`",
            file=file,
            do=f"Take the upstream `{other}`, or give a checkpoint of `{wanted}`",
        )
    return IntegrityError(
        f"The checkpoint has a layout that is not known: its keys are {named(sorted(map(str, content))) or 'none'}",
        file=file,
        do=f"A checkpoint of `{wanted}` has {known}",
    )


def model_of(content: Mapping[str, Any]) -> str | None:
    """Which upstream a file is of, by its outermost keys; None if they do not say so."""
    if "Mockingjay" in content or "Transformer" in content:
        return "mockingjay"
    inner = content["model"] if isinstance(content.get("model"), dict) else content
    return "apc" if any(_GRU_KEY.match(_without_wrappers(str(key))) for key in inner) else None


def _without_wrappers(key: str) -> str:
    for prefix in (*_WRAPPERS, *_INNER_WRAPPERS) * 2:
        key = key.removeprefix(prefix)
    return key
