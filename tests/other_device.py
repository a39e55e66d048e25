"""A device that is not there: tensors that say they lie elsewhere and are computed by the CPU.

Inside of `other_device()` the road to a GPU can be walked on any machine: what is moved to the device that it gives
becomes a tensor that refuses company from the CPU as a GPU's does (numbers without axes excepted), and cannot become an
array until it is brought back. It shows where tensors lie and that what is computed is the same, and nothing of speed
or memory. (The device calls itself `meta`, the only one that torch's autograd knows without a driver.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")

_CROSSING = {"aten::copy_", "aten::_to_copy"}
"""Operations that take tensors from one device to another."""


class Elsewhere(Tensor):
    """A tensor on the other device, whose numbers lie in `here`."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        options: dict[str, Any] = {"strides": here.stride(), "dtype": here.dtype, "requires_grad": here.requires_grad}
        tensor: Elsewhere = torch.Tensor._make_wrapper_subclass(cls, here.shape, device=ELSEWHERE, **options)
        tensor.here = here
        return tensor

    def tolist(self) -> Any:
        """As of a tensor on a GPU, which may be asked for its numbers."""
        return self.here.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """As of a tensor on a GPU, which is no array."""
        raise TypeError("can't convert another device's tensor to numpy")

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _computed(func, args, kwargs or {})


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def other_device() -> Iterator[torch.device]:
    """Inside, there is another device."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        fused = patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: ["cpu", "meta"])
        quiet = patch.object(torch, "inference_mode", torch.no_grad)  # whose views a subclass cannot be
        with fused, quiet, patch.object(torch, "tensor", _tensor), _Mode():  # type: ignore[no-untyped-call]
            yield ELSEWHERE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)


def _tensor(data: Any, *, device: torch.device | None = None, dtype: torch.dtype | None = None) -> Tensor:
    made = _made_here(data, dtype=dtype)
    return made if device is None else made.to(device)


_made_here = torch.tensor


def _computed(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    elsewhere = any(isinstance(each, Elsewhere) for each in tensors)
    strangers = [each for each in tensors if not isinstance(each, Elsewhere) and each.dim()]
    if elsewhere and strangers and func._schema.name not in _CROSSING:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found two")
    asked = kwargs.get("device")
    goes = elsewhere if asked is None else torch.device(asked) == ELSEWHERE
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = func(*tree_map(_here, args), **tree_map(_here, kwargs))
    if func._schema.is_mutable:  # what was given is what is returned
        return kwargs.get("out", args[0] if isinstance(args[0], Tensor) else None)
    return tree_map(lambda each: Elsewhere(each) if goes and isinstance(each, Tensor) else each, result)


def _here(value: Any) -> Any:
    return value.here if isinstance(value, Elsewhere) else value
