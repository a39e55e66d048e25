"""Tensors as the bytes of a safetensors file, the same bytes each time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LENGTH_BYTES = 8
_ALIGNMENT = 8


def encoded_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of tensors with metadata in alphabetical order.

    safetensors writes metadata in the order of a hash table that differs from call to call, so that equal content would
    have another digest each time.

    Args:
        tensors: By name; contiguous, on the CPU.
        metadata: Texts by name.

    Reference:
        https://huggingface.co/docs/safetensors: u64 length of the header, little endian; the header, JSON padded with
        blanks; the tensors, whose offsets count from the end of the header.
    """
    from safetensors.torch import save

    data = save(dict(tensors), metadata=dict(metadata))
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    header = json.loads(data[_LENGTH_BYTES:end])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + data[end:]
