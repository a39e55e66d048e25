"""The memory and disk that a run may use: what the settings allow, or a share of what the machine has free."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from repbench.benchmark.features.allocation import free_bytes
from repbench.benchmark.protocol import ResourceSettings

GIB = 2**30
MEMORY_SHARE = 0.8
"""Of the memory that is free when a run begins: the rest is for others on the machine, and for the page cache."""
DISK_SHARE = 0.5
"""Of the free space on the disk of the cache folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may use, in bytes.

    Attributes:
        memory_bytes: Of the whole process, what it has taken already included.
        disk_bytes: New features in the store, and temporary files.
        used_bytes: Memory of the process when this was measured.
    """

    memory_bytes: int
    disk_bytes: int
    used_bytes: int

    @property
    def free_memory_bytes(self) -> int:
        """What is left of the memory."""
        return max(0, self.memory_bytes - self.used_bytes)


def budget_of(settings: ResourceSettings, folder: Path) -> Budget:
    """The budget of a run whose cache is in a folder, which need not exist."""
    used = resident_bytes()
    memory = settings.memory_gib * GIB if settings.memory_gib else used + MEMORY_SHARE * available_memory_bytes()
    disk = settings.disk_gib * GIB if settings.disk_gib is not None else DISK_SHARE * free_bytes(folder)
    return Budget(memory_bytes=int(memory), disk_bytes=int(disk), used_bytes=used)


def resident_bytes() -> int:
    """Resident memory of this process; where the system does not tell it, its peak."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Memory that this process can still take: of the machine, or of the control group where that is less.

    Args:
        root: Of the file system whose `proc` and `sys` are read.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():  # macOS: the whole memory, as it has no count of what is available
        return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE"))
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
    of_machine = int(lines.get("MemAvailable", lines.get("MemFree", "0 kB")).split()[0]) * 1024
    return min([of_machine, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> list[int]:
    """What is left of the limit of each control group that this process is in, version 2 or 1."""
    listed = root / "proc/self/cgroup"
    if not listed.exists():
        return []
    left = []
    for line in listed.read_text(encoding="utf-8").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            base, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container the path may be that of the host, of which only the root is mounted.
        own = base / path.lstrip("/")
        for folder in (own, *(each for each in own.parents if base in (each, *each.parents))):
            if (most := _number_in(folder / limit)) is not None:
                left.append(max(0, most - (_number_in(folder / used) or 0)))
    return left


def _number_in(file: Path) -> int | None:
    """The number that a file holds; None where there is no file, or `max` in it."""
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
