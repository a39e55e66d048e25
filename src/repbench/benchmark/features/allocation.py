"""Memory for tables of features: small tables in RAM, large ones in a file that the system may page out."""

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

from repbench.benchmark.features.table import Features, FeatureTable
from repbench.files import TEMPORARY_PREFIX

MAPPED_BYTES = 4 * 2**20
"""Size from which a table is mapped from an unnamed file, whose pages the system may write back and drop."""
SPARE_BYTES = 2**30
"""Free space on the disk that is never used."""
SPARE_DEVICE_BYTES = 2 * 2**30
"""Free memory of a GPU that is left to batches, probes and the upstream."""


def allocate_table(shape: tuple[int, int, int], folder: Path) -> Tensor:
    """Allocate a float32 table: in RAM if it is small or the disk is full, else mapped from a file without a name.

    The pages of a file can be written back and dropped, so the memory of a run does not grow with the corpus.

    Args:
        shape: (L, N, D).
        folder: Folder of the file; need not exist.

    Returns:
        (L, N, D) float32, not initialised.
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


def tables_on(device: torch.device, *tables: Features) -> tuple[Features, ...]:
    """Move the tables to the device if all fit; else leave them on the CPU, to be moved batch by batch."""
    whole = [table for table in tables if isinstance(table, FeatureTable)]
    if device.type != "cuda" or len(whole) < len(tables):
        return tables
    free, _ = torch.cuda.mem_get_info(device)
    fits = sum(table.frames.nbytes for table in whole) + SPARE_DEVICE_BYTES <= free
    return tuple(table.to(device) for table in whole) if fits else tables


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of the folder, which need not exist."""
    for existing in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(existing).free
    return 0
