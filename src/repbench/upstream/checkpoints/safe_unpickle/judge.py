"""The values that a checkpoint may hold: sketches of them, the limits they are held to, and the refusals.

`KNOWN` is the whole allow-list of classes and functions. The machine builds sketches; `Judge` walks over them before
any tensor is allocated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from repbench.errors import IntegrityError

MAX_DEPTH: Final = 64
"""Levels of containers within containers."""

MAX_ALIASES: Final = 4
"""Mean number of places in a checkpoint that may share one value; tied weights have two."""

STORAGES = {  # bytes of one value
    f"torch {name}Storage": itemsize
    for name, itemsize in {
        "Half": 2, "BFloat16": 2, "Float": 4, "Double": 8, "Char": 1, "Byte": 1, "Bool": 1, "Short": 2, "Int": 4,
        "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16,
    }.items()
}  # fmt: skip
ORDERED = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
NAMESPACE = "argparse Namespace"
INERT = (
    "mockingjay.optimization WarmupLinearSchedule",
    "utility.timer Timer",
    "optimizers WarmupLinearSchedule",
)
"""Classes of Mockingjay and S3PRL whose instances hold plain attributes; their code is never needed."""

KNOWN = {ORDERED, TENSOR, PARAMETER, *STORAGES, NAMESPACE, *INERT}
"""Everything that a pickle may name, as `module name`."""

_KINDS_OF_TENSOR = {
    "torch._utils _rebuild_sparse_tensor": "sparse",
    "torch._utils _rebuild_qtensor": "quantized",
    "torch._utils _rebuild_meta_tensor_no_storage": "meta",
    "torch._utils _rebuild_nested_tensor": "nested",
}
SCALARS = (type(None), bool, int, float, str)
_WEIGHTS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_SHOWN_CHARACTERS = 120

FETCH = "Fetch the file again from its source, or use an older copy"
PLAIN_ONLY = "Save the weights as a plain state dict of tensors where the file was made; only plain values are read"


@dataclass(frozen=True)
class Global:
    """A class or function, as the pickle names it: `module name`."""

    name: str

    @property
    def known(self) -> bool:
        return self.name in KNOWN


@dataclass(frozen=True)
class UnknownObject:
    """The result of calling an unknown class or function."""

    name: str


@dataclass(frozen=True)
class StorageSketch:
    """A storage of `numel` values, which tensors view."""

    kind: str
    numel: int

    @property
    def num_bytes(self) -> int:
        return self.numel * STORAGES[self.kind]


@dataclass(frozen=True)
class TensorSketch:
    """A strided tensor of `num_bytes` when contiguous; `fault` is why it does not fit its storage, None if it does."""

    num_bytes: int
    fault: str | None


class OrderedSketch(dict[Any, Any]):
    """The items of an `OrderedDict`."""


class AttributesSketch(dict[str, Any]):
    """The attributes of an `argparse.Namespace` or of an instance of an inert class."""


class Judge:
    """Refuses a sketch that holds more than its file could, or anything but plain values and tensors.

    A container may appear in many places, and even in itself. Each appearance counts, because each becomes a copy.

    Args:
        max_values: Most values of all containers together.
        max_bytes: Most bytes of all tensors together.
    """

    def __init__(self, max_values: int, max_bytes: int) -> None:
        self._max_values = max_values
        self._max_bytes = max_bytes
        self._num_values = 0
        self._num_bytes = 0

    def visit(self, value: object, place: tuple[object, ...]) -> None:
        """Check `value` and its contents; `place` is the path of keys to it.

        Raises:
            RefusedError: A value is not allowed.
        """
        # Every appearance of a shared container is visited again: the count ends a pickle that doubles a list 60 times.
        self._num_values += 1
        if self._num_values > self._max_values or len(place) > MAX_DEPTH:
            raise RefusedError(f"{_at(place)} nests too deeply or repeats without end", PLAIN_ONLY)
        if isinstance(value, dict):
            for key, item in value.items():
                self.visit(item, (*place, key))
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                self.visit(item, (*place, index))
        elif isinstance(value, TensorSketch):
            self._visit_tensor(value, place)
        elif not isinstance(value, SCALARS):
            raise _refused_value(value, place)

    def _visit_tensor(self, tensor: TensorSketch, place: tuple[object, ...]) -> None:
        if tensor.fault is not None:
            raise corrupt(f"{_at(place)} {tensor.fault}")
        self._num_bytes += tensor.num_bytes
        if self._num_bytes > self._max_bytes:
            raise corrupt(f"its tensors up to {_at(place)} view the same values again and again")


def check_weights(state: Mapping[str, object], *, file: Path) -> dict[str, Tensor]:
    """Check the weights of a state dict more strictly than `load_state_dict`, which casts and accepts more.

    Args:
        state: Tensors of any shape by their names; float16, bfloat16, float32 or float64, strided.
        file: Where they come from, for error messages.

    Returns:
        Contiguous float32 copies, in the same order.

    Raises:
        IntegrityError: A value is not a tensor, has another dtype or layout, or is not finite in float32. Names
            file and key.
    """
    weights = {}
    for key, value in state.items():
        fault = _fault_of_weight(key, value)
        if fault is None:
            assert isinstance(value, Tensor)
            # A copy also of float32: two views of one storage must not change together in training.
            weights[key] = value.detach().to(torch.float32, copy=True).contiguous()
            if not bool(weights[key].isfinite().all()):
                fault = "holds NaN, infinity, or values beyond the range of float32"
        if fault is not None:
            do = "Use a checkpoint from before the weights were lost, or one that holds weights only"
            raise IntegrityError(f"The weight `{shown(key)}` {fault}", file=file, key=shown(key), do=do)
    return weights


def _fault_of_weight(key: object, value: object) -> str | None:
    if not isinstance(key, str):
        return f"must be named by a str, but is named by a {type(key).__name__}"
    if not isinstance(value, Tensor):
        return f"must be a tensor, but is a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return "must be a strided tensor that holds its values"
    if value.dtype not in _WEIGHTS:
        return f"must have a floating-point dtype, but has {str(value.dtype).removeprefix('torch.')}"
    return None


class RefusedError(Exception):
    """A refusal without the name of the file, which `read_pickle` adds."""

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what)
        self.what = what
        self.do = do


def corrupt(reason: str) -> RefusedError:
    return RefusedError(f"The checkpoint is corrupt: {reason}", FETCH)


def needs_code(name: str, place: tuple[object, ...]) -> RefusedError:
    if name in _KINDS_OF_TENSOR:
        return RefusedError(
            f"{_at(place)} is a {_KINDS_OF_TENSOR[name]} tensor; only strided ones are read", PLAIN_ONLY
        )
    dotted = name.replace(" ", ".").replace("__builtin__.", "builtins.")
    return RefusedError(f"{_at(place)} needs code to load: {shown(dotted)}", PLAIN_ONLY)


def _refused_value(value: object, place: tuple[object, ...]) -> RefusedError:
    if isinstance(value, (Global, UnknownObject)):
        return needs_code(value.name, place)
    return RefusedError(f"{_at(place)} is a {type_name(value)}, which is not a plain value", PLAIN_ONLY)


def _at(place: tuple[object, ...]) -> str:
    return f"`{shown('.'.join(map(str, place)))}`" if place else "The checkpoint"


def type_name(value: object) -> str:
    if isinstance(value, (Global, UnknownObject)):
        return value.name.replace(" ", ".")
    return {StorageSketch: "bare storage", TensorSketch: "tensor", AttributesSketch: "Namespace"}.get(
        type(value), type(value).__name__
    )


def shown(text: object) -> str:
    whole = str(text)
    return whole if len(whole) <= _SHOWN_CHARACTERS else f"{whole[:_SHOWN_CHARACTERS]}…"
