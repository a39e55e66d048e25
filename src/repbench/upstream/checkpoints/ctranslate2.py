"""The reader of CTranslate2's `model.bin`: named tensors, whose quantised weights become floats again.

The format, little endian, as `ctranslate2/specs/model_spec.py` (`ModelSpec.save`) writes it, versions 4 to 6:

    u32 version, text name of the specification, u32 its revision
    u32 number of variables, each: text name, u8 rank, u32 sizes, u8 type, u32 number of bytes, the values
    u32 number of aliases, each: text alias, text name of a variable
    text: u16 number of bytes, with the zero byte that ends it

A quantised weight W (O, …) is stored as W * s, rounded to int8 or int16, with `NAME_scale` (O,) or one value.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repbench.errors import IntegrityError
from repbench.files import environment_faults

_VERSIONS = range(4, 7)
_TYPES = {
    0: ("<f4", torch.float32),
    1: ("<i1", torch.int8),
    2: ("<i2", torch.int16),
    3: ("<i4", torch.int32),
    4: ("<f2", torch.float16),
    5: ("<i2", torch.bfloat16),  # numpy has none: the bits are viewed
}
"""By the number that the file gives: the type of the values in the file, and in torch."""

_MOST_VARIABLES = 1 << 16
_MOST_RANK = 8
_SCALE = "_scale"


@dataclass(frozen=True, slots=True)
class CTranslate2File:
    """The content of a `model.bin`.

    Attributes:
        specification: Name of the kind of model, such as `WhisperSpec`.
        revision: Revision of the specification.
        tensors: By name; weights as floats, settings as integers of rank 0.
        quantised: Number of weights that were stored as int8 or int16.
    """

    specification: str
    revision: int
    tensors: dict[str, Tensor]
    quantised: int


def is_ctranslate2(file: Path) -> bool:
    """Whether a file begins as a `model.bin` does: a known version and the name of a specification."""
    with environment_faults(file), file.open("rb") as stream:
        head = stream.read(64)
    if len(head) < 8:
        return False
    version, size = struct.unpack_from("<IH", head)
    return version in range(1, 32) and 1 < size <= 58 and head[6 : 6 + size].endswith(b"Spec\0")


def read_ctranslate2(file: Path) -> CTranslate2File:
    """Read a `model.bin`; weights that were quantised are multiplied out.

    Raises:
        IntegrityError: It is not such a file, is cut off or damaged, of a version or of types that are not known.
        EnvironmentFault: It cannot be read.
    """
    with environment_faults(file):
        content = file.read_bytes()
    reader = _Reader(content, file)
    version = reader.number("I", "the version")
    if version not in _VERSIONS:
        what = f"This is no model.bin of CTranslate2, or of a version that is not known: {version}, not 4 to 6"
        raise IntegrityError(what, file=file, do="Convert the model again by a current ct2-transformers-converter")
    specification, revision = reader.text("the specification"), reader.number("I", "the revision")
    stored: dict[str, Tensor] = {}
    for _ in range(reader.count("variables")):
        name = reader.text("the name of a variable")
        if name in stored:
            raise reader.fault(f"the variable `{name}` stands twice")
        stored[name] = reader.tensor(name)
    aliases: dict[str, str] = {}
    for _ in range(reader.count("aliases")):
        alias, name = reader.text("an alias"), reader.text("the variable of an alias")
        if name not in stored or alias in stored or alias in aliases:
            raise reader.fault(f"the alias `{alias}` of `{name}` does not fit the variables")
        aliases[alias] = name
    if reader.rest:
        raise reader.fault(f"{reader.rest} bytes follow its last value")
    tensors, quantised = _multiplied_out(stored, file)
    # After the scales: an alias of a quantised weight may have none of its own, and that of a scale stands for nothing.
    tensors |= {alias: tensors[name] for alias, name in aliases.items() if name in tensors}
    return CTranslate2File(specification, revision, tensors, quantised)


class _Reader:
    """A position in the bytes of a file; nothing is read beyond their end, and no size is believed before it is there.

    Args:
        content: All bytes.
        file: Their source, for errors.
    """

    def __init__(self, content: bytes, file: Path) -> None:
        self._content, self._file, self._position = content, file, 0

    @property
    def rest(self) -> int:
        """Number of bytes that are not yet read."""
        return len(self._content) - self._position

    def fault(self, what: str) -> IntegrityError:
        """The error of a damaged file."""
        return IntegrityError(f"The model.bin is damaged: {what}", file=self._file, do="Fetch or copy it again")

    def take(self, size: int, what: str) -> memoryview:
        """The next `size` bytes."""
        if size > self.rest:
            raise self.fault(f"it ends within {what}: {size} bytes are announced and {self.rest} are left")
        self._position += size
        return memoryview(self._content)[self._position - size : self._position]

    def number(self, form: str, what: str) -> int:
        """An unsigned integer of the form of `struct`."""
        (value,) = struct.unpack("<" + form, self.take(struct.calcsize(form), what))
        return int(value)

    def count(self, what: str) -> int:
        """A number of entries."""
        value = self.number("I", f"the number of {what}")
        if value > _MOST_VARIABLES:
            raise self.fault(f"it announces {value} {what}")
        return value

    def text(self, what: str) -> str:
        """A text, without the zero byte that ends it."""
        data = bytes(self.take(self.number("H", what), what))
        if not data.endswith(b"\0"):
            raise self.fault(f"{what} has no end")
        try:
            return data[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fault(f"{what} is no text") from error

    def tensor(self, name: str) -> Tensor:
        """The shape, type and values of a variable."""
        rank = self.number("B", f"`{name}`")
        if rank > _MOST_RANK:
            raise self.fault(f"`{name}` has {rank} axes")
        shape = [self.number("I", f"the shape of `{name}`") for _ in range(rank)]
        kind, size = self.number("B", f"the type of `{name}`"), self.number("I", f"the size of `{name}`")
        if kind not in _TYPES:
            what = f"The values of `{name}` have the type {kind}, which is not known"
            raise IntegrityError(what, file=self._file, do="Convert the model again with --quantization float16")
        of_file, of_torch = np.dtype(_TYPES[kind][0]), _TYPES[kind][1]
        if size != math.prod(shape) * of_file.itemsize:
            raise self.fault(f"`{name}` of the shape {tuple(shape)} announces {size} bytes")
        values: NDArray[Any] = np.frombuffer(self.take(size, f"the values of `{name}`"), dtype=of_file).copy()
        tensor = torch.from_numpy(values).reshape(shape)
        return tensor.view(of_torch) if of_torch is torch.bfloat16 else tensor


def _multiplied_out(stored: dict[str, Tensor], file: Path) -> tuple[dict[str, Tensor], int]:
    """Weights without their scales, and the number of those that had one.

    Raises:
        IntegrityError: A scale does not fit its weight, or a quantised weight has none.
    """
    tensors: dict[str, Tensor] = {}
    quantised = 0
    for name, values in stored.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in stored:
            continue
        scale = stored.get(name + _SCALE)
        is_float = values.dtype.is_floating_point
        if scale is None:
            if values.ndim >= 2 and not is_float and name.endswith("weight"):
                what = f"The weight `{name}` is stored as {values.dtype} without its scale"
                raise IntegrityError(what, file=file, do="Convert the model again with --quantization float16")
            tensors[name] = values
            continue
        if is_float or scale.numel() not in (1, len(values)) or not bool((scale > 0).all()):
            what = f"The scale of the weight `{name}` {tuple(values.shape)} does not fit: {tuple(scale.shape)}"
            raise IntegrityError(what, file=file, do="Convert the model again with --quantization float16")
        # (O,) -> (O, 1, …), one scale an output
        each = scale.float().reshape(-1, *[1] * (values.ndim - 1))
        tensors[name] = values.float() / each
        quantised += 1
    return tensors, quantised
