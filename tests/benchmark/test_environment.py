"""What an upstream costs, as it is measured before a run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from repbench.benchmark.environment import real_time_factor
from repbench.benchmark.features.cost import clear_costs, costs_folder, upstream_cost
from repbench.benchmark.loading.upstreams import load_upstream
from repbench.upstream.contract import HiddenStates, Upstream


class Counted(torch.nn.Module):
    """An upstream that counts its forwards, each of which takes some time."""

    def __init__(self, upstream: Upstream, seconds: float) -> None:
        super().__init__()
        self.info, self.upstream, self.seconds, self.forwards = upstream.info, upstream, seconds, 0

    def num_frames(self, num_samples: int) -> int:
        return self.upstream.num_frames(num_samples)

    def fingerprint(self) -> str:
        return "counted"

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.forwards += 1
        time.sleep(self.seconds)
        states: HiddenStates = self.upstream(waveforms, lengths)
        return states


@pytest.mark.parametrize(("seconds", "forwards"), [(0.02, 4), (1.05, 1)])
def test_the_real_time_factor_is_sound_over_computing_and_a_slow_upstream_is_run_once(
    seconds: float, forwards: int
) -> None:
    upstream = Counted(load_upstream("mel"), seconds)
    factor = real_time_factor(upstream, torch.device("cpu"))
    assert upstream.forwards == forwards
    assert factor is not None
    assert 0 < factor < 10 / seconds


def test_a_cost_is_measured_once_for_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path))
    cpu, upstream = torch.device("cpu"), Counted(load_upstream("mel"), 0.0)
    first = upstream_cost(upstream, "weights", cpu)
    forwards = upstream.forwards
    assert upstream_cost(upstream, "weights", cpu) == first
    assert upstream.forwards == forwards
    upstream_cost(upstream, "other weights", cpu)
    assert upstream.forwards == 2 * forwards
    for file in costs_folder().iterdir():
        file.write_text('{"macs_per_second": "many"}', encoding="utf-8")
    assert upstream_cost(upstream, "weights", cpu).macs_per_second == first.macs_per_second
    assert upstream.forwards == 3 * forwards
    clear_costs()
    assert not list(costs_folder().iterdir())
