"""What an upstream costs, as it is measured before a run."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from repbench.benchmark.environment import real_time_factor
from repbench.benchmark.loading import load_upstream
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
