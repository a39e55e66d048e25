"""Where a table of features lies: small ones in memory, large ones where the system may take the memory back."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from repbench.benchmark.features.extraction import FeatureTable
from repbench.files import TEMPORARY_PREFIX

MAPPED_BYTES = 4 * 2**20
"""Size from which a table lies in an unnamed file, whose pages the system may take back, and not in memory."""
SPARE_BYTES = 2**30
"""Room on the disk that is left to others."""
SPARE_DEVICE_BYTES = 2 * 2**30
"""Room on a GPU that is left to batches, probes and the upstream."""


def room_for(shape: tuple[int, int, int], folder: Path) -> Tensor:
    """Room for a float32 table: in memory if it is small or the disk is full, else in a file without a name.

    The pages of a file can be written back and dropped, so the memory of a run does not grow with the corpus.

    Args:
        shape: Of the table.
        folder: In which such a file may lie; need not exist.
    """
    num_bytes = math.prod(shape) * 4
    if num_bytes < MAPPED_BYTES or free_bytes(folder) < num_bytes + SPARE_BYTES:
        return torch.empty(shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX) as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)  # a hole in a full disk would be a SIGBUS later
            mapped = mmap.mmap(file.fileno(), num_bytes)
    except OSError:
        return torch.empty(shape)
    return torch.frombuffer(mapped, dtype=torch.float32).view(shape)


def tables_on(device: torch.device, *tables: FeatureTable) -> tuple[FeatureTable, ...]:
    """Tables on the device, if all fit there beside what probes need; else as they are, to be read batch by batch."""
    if device.type != "cuda":
        return tables
    free, _ = torch.cuda.mem_get_info(device)
    fits = sum(table.frames.nbytes for table in tables) + SPARE_DEVICE_BYTES <= free
    return tuple(table.to(device) for table in tables) if fits else tables


def free_bytes(folder: Path) -> int:
    """Free space on the disk where the folder lies, or would lie."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return 0
