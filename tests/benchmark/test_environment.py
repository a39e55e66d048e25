"""What an upstream costs, as it is measured before a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from repbench.benchmark.environment import ProductCounter, batch_macs, macs_per_second, real_time_factor
from repbench.benchmark.features.cost import clear_costs, costs_folder, upstream_cost
from repbench.benchmark.loading.upstreams import load_upstream
from repbench.testing import Envelope
from repbench.training.threads import threads
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


class Recurrent(Counted):
    """An upstream with a recurrent layer over its frames."""

    def __init__(self, layer: torch.nn.RNNBase) -> None:
        super().__init__(Envelope(), 0.0)
        self.layer = layer

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        states = super().forward(waveforms, lengths)
        self.layer(states.layers[0])
        return states


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
def test_the_products_of_a_recurrent_layer_are_counted(kind: type[torch.nn.LSTM] | type[torch.nn.GRU]) -> None:
    cpu, plain = torch.device("cpu"), Envelope()
    layer = kind(plain.info.width, 64, batch_first=True).eval()
    frames = plain.num_frames(10 * plain.info.sample_rate_hz) / 10
    matrices = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)
    counted = macs_per_second(Recurrent(layer), cpu) - macs_per_second(Counted(plain, 0.0), cpu)
    assert counted == pytest.approx(frames * matrices, rel=0.01)
    assert torch.backends.mkldnn.enabled, "as before"


class EveryProduct(torch.nn.Module):
    """A network with each kind of product that models of speech have."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(8, 16, 3, groups=4)
        self.layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.recurrent = torch.nn.GRU(16, 8, bidirectional=True, batch_first=True)

    def forward(self, frames: Tensor) -> Tensor:
        hidden = self.convolution(frames).transpose(1, 2)  # (B, 8, F) -> (B, 16, F - 2) -> (B, F - 2, 16)
        attended = torch.nn.functional.scaled_dot_product_attention(hidden, hidden, hidden)
        hidden = self.recurrent(self.layer(hidden + attended))[0]
        products: Tensor = torch.einsum("bfd,bgd->bfg", hidden, hidden) + hidden @ hidden.mT
        return products


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_products_are_counted_as_torch_counts_them(mode: Callable[[], torch.no_grad]) -> None:
    network, frames = EveryProduct().eval(), torch.randn(2, 8, 30)
    expected, counted = FlopCounterMode(display=False), ProductCounter()
    with mode(), expected:
        result = network(frames)
    with mode(), counted:
        assert torch.equal(network(frames), result)
    assert counted.get_total_flops() == expected.get_total_flops() > 100_000


class Branching(Counted):
    """An upstream with an operation of torch that calls functions."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        square = torch.ones(100, 100)
        torch.cond(waveforms.sum() >= 0, lambda: square @ square, lambda: square + square)
        return super().forward(waveforms, lengths)


def test_products_within_branches_are_counted() -> None:
    plain = Counted(Envelope(), 0.0)
    cpu = torch.device("cpu")
    assert macs_per_second(Branching(Envelope(), 0.0), cpu) - macs_per_second(plain, cpu) == 100**3 / 10


class NotesThreads(Counted):
    """An upstream that notes the number of threads of each call."""

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        self.threads = torch.get_num_threads()
        return super().forward(waveforms, lengths)


@pytest.mark.parametrize(("num_weights", "expected"), [(10, 1), (20_000_000, 3), (0, 3)])
@pytest.mark.parametrize("measure", [macs_per_second, real_time_factor])
def test_little_work_is_measured_on_one_thread(
    measure: Callable[[Upstream, torch.device], object], num_weights: int, expected: int
) -> None:
    upstream = NotesThreads(load_upstream("mel"), 0.0)
    if num_weights:
        upstream.weights = torch.nn.Parameter(torch.empty(num_weights))
    with threads(3):
        measure(upstream, torch.device("cpu"))
        assert torch.get_num_threads() == 3
    assert upstream.threads == expected


def test_the_work_of_a_batch_is_known_of_networks_and_of_front_ends_of_ours() -> None:
    assert batch_macs(load_upstream("mel"), 3, 100) == 0
    assert batch_macs(Counted(load_upstream("mel"), 0.0), 3, 100) == math.inf
    envelope = Envelope()  # 16 weights, two layers of four
    assert batch_macs(envelope, 3, 100) == 3 * 100 * (16 + 2 * 100 * 4 * 2)


def test_a_cost_is_measured_once_for_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPBENCH_CACHE", str(tmp_path))
    cpu, upstream = torch.device("cpu"), Counted(load_upstream("mel"), 0.0)
    first = upstream_cost(upstream, "weights", cpu)
    forwards = upstream.forwards
    assert upstream_cost(upstream, "weights", cpu) == first
    assert upstream.forwards == forwards
    upstream_cost(upstream, "other weights", cpu)
    assert upstream.forwards > forwards  # how often depends on the time that a call takes
    for file in costs_folder().iterdir():
        file.write_text('{"macs_per_second": "many"}', encoding="utf-8")
    assert upstream_cost(upstream, "weights", cpu).macs_per_second == first.macs_per_second
    assert upstream.forwards == 3 * forwards
    clear_costs()
    assert not list(costs_folder().iterdir())
