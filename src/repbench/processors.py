"""How many processors this process may use: its affinity mask and the quota of its control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cpus(*, own_groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may keep busy: those of its affinity mask, at most its cgroup's quota, rounded up.

    Args:
        own_groups: File that names the control groups of this process.
        mount: Folder of the control groups.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cgroup_quota(own_groups, mount))))


def cgroup_quota(own_groups: Path, mount: Path) -> float:
    """Processors that the control groups of a process, or one above them, grant it; infinite without a quota."""
    try:
        lines = own_groups.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # no Linux
        return math.inf
    quotas = [math.inf]
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
        if not controllers:  # version 2: one tree for all controllers
            quotas += [_quota_2(mount.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
        elif "cpu" in controllers.split(","):  # version 1; inside of a container its own group is the root of the tree
            tree = mount / controllers if (mount / controllers).is_dir() else mount / "cpu"
            quotas += [_quota_1(tree.joinpath(*parts[:depth])) for depth in range(len(parts) + 1)]
    return min(quotas)


def _quota_2(group: Path) -> float:
    """`cpu.max` holds the quota and its period in microseconds: `150000 100000`, or `max 100000`."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _quota_1(group: Path) -> float:
    """Two files hold quota and period in microseconds; a quota of -1 is none."""
    try:
        quota, period = (int((group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")) for name in _QUOTA_AND_PERIOD)
        return math.inf if quota <= 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


_QUOTA_AND_PERIOD = ("quota", "period")
