"""Equal tensors and metadata are equal bytes, which safetensors reads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load

from repbench.tensor_files import encoded_tensors

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(1, dtype=torch.float16)}
METADATA = {f"name {number}": f"Käse {number}" for number in range(12)}


def test_the_bytes_are_the_same_each_time() -> None:
    assert len({encoded_tensors(TENSORS, METADATA) for _ in range(20)}) == 1


def test_safetensors_reads_what_was_written(tmp_path: Path) -> None:
    content = encoded_tensors(TENSORS, METADATA)
    (tmp_path / "file").write_bytes(content)

    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in load(content).items())
    with safe_open(tmp_path / "file", framework="pt") as stored:
        assert stored.metadata() == METADATA
    assert int.from_bytes(content[:8], "little") % 8 == 0, "tensors are aligned"


def test_metadata_may_be_empty() -> None:
    assert [*load(encoded_tensors({"a": torch.ones(2)}, {}))] == ["a"]
