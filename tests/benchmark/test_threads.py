"""How many threads compute: the processors that may be used, and what a setting changes for whom."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from repbench.benchmark.sweep import forecast
from repbench.benchmark.sweep.sweep import SweepRequest, sweep
from repbench.errors import UsageError
from repbench.processors import cgroup_quota, usable_cpus
from repbench.training import threads as module
from repbench.training.threads import (
    SMALL_MACS,
    choose_threads,
    single_threaded_pool,
    threads,
    threads_for,
)


def tree(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """A file of own groups and a mount with these files."""
    mount = folder / "mount"
    for name, content in files.items():
        path = folder / "own" if name == "own" else mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder / "own", mount


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"own": "0::/a/b\n", "a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"own": "0::/a/b\n", "a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000"}, 3),
        ({"own": "0::/\n", "cpu.max": "200000 100000\n"}, 2),
        ({"own": "0::/../other\n", "cpu.max": "200000 100000\n"}, 2),
        ({"own": "0::/a\n", "a/cpu.max": "max 100000\n"}, math.inf),
        ({"own": "0::/a\n", "a/cpu.max": "nonsense"}, math.inf),
        ({"own": "4:cpu,cpuacct:/job\n", "cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
          "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"own": "4:cpu,cpuacct:/docker/1\n", "cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"own": "4:cpu:/job\n", "cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, math.inf),
        ({"own": "5:cpuset:/job\n", "cpuset/job/cpu.cfs_quota_us": "100000"}, math.inf),
        ({}, math.inf),
    ],
    ids=["v2", "v2 of a parent", "v2 in a container", "v2 outside of the namespace", "v2 without", "v2 broken", "v1",
         "v1 in a container", "v1 without", "v1 other controller", "no groups"],
)  # fmt: skip
def test_the_quota_is_the_smallest_of_the_own_groups_and_those_above(
    tmp_path: Path, files: dict[str, str], quota: float
) -> None:
    assert cgroup_quota(*tree(tmp_path, files)) == quota


@pytest.mark.parametrize(
    ("cpu_max", "expected"), [("150000 100000", 2), ("10000 100000", 1), ("max 100000", 4), ("900000 100000", 4)]
)
def test_processors_are_those_of_the_mask_up_to_the_quota_rounded_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpu_max: str, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3})
    own, mount = tree(tmp_path, {"own": "0::/\n", "cpu.max": cpu_max})
    assert usable_cpus(own_groups=own, mount=mount) == expected


@pytest.mark.parametrize(
    ("number", "given", "usable", "expected"),
    [(5, "", 1, 5), (None, "", 2, 2), (None, "", 64, 3), (None, "3", 1, 3)],
    ids=["as asked", "a quota that torch does not know", "as torch chooses", "as the variable says"],
)
def test_threads_are_chosen(
    monkeypatch: pytest.MonkeyPatch, number: int | None, given: str, usable: int, expected: int
) -> None:
    monkeypatch.setattr(module, "usable_cpus", lambda: usable)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with threads(3):
        assert choose_threads(number) == torch.get_num_threads() == expected


def test_a_number_of_threads_is_that_of_a_block() -> None:
    before = torch.get_num_threads()
    with threads(3):
        assert (torch.get_num_threads(), threads_for(SMALL_MACS + 1), threads_for(SMALL_MACS)) == (3, 3, 1)
    assert torch.get_num_threads() == before


def numbers(pool: ThreadPoolExecutor, count: int) -> list[int]:
    """torch's number of threads in each of `count` threads of a pool."""
    together = threading.Barrier(count)

    def number() -> int:
        together.wait(10)
        return torch.get_num_threads()

    return [each.result() for each in [pool.submit(number) for _ in range(count)]]


def test_a_pool_computes_on_one_thread_each_and_leaves_all_others_theirs() -> None:
    with threads(3):
        with single_threaded_pool(2, "one") as pool:
            assert numbers(pool, 2) == [1, 1]
            assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as later:
            assert numbers(later, 1) == [3]


@pytest.mark.parametrize(
    ("at_once", "number", "given", "expected"),
    [(1, None, "", ""), (2, None, "", "4"), (2, None, "6", "3"), (2, 5, "6", "2"), (1, 5, "", "5"), (9, 5, "", "1")],
)
def test_jobs_of_a_sweep_share_the_threads(
    monkeypatch: pytest.MonkeyPatch, at_once: int, number: int | None, given: str, expected: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(forecast, "usable_cpus", lambda: 8)
    assert forecast.environment_for(at_once, number)["OMP_NUM_THREADS"] == expected


def test_threads_of_a_cluster_are_those_of_the_plan(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"of this machine, not of a cluster.*slurm\.cpus_per_task"):
        sweep(SweepRequest(plan=tmp_path / "plan.yaml", launcher="slurm", threads=2))
