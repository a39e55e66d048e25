"""An upstream under test, and the suite that its checks are added to.

Axes: L layers, B batch, T samples, F frames, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from repbench.benchmark.features.invariance_check import (
    TOLERANCE,
    relative_difference,
    root_mean_square,
    speech_like,
    valid,
)
from repbench.benchmark.loading.certificates import CheckResult
from repbench.globalstate import preserved_global_state
from repbench.registry import Entry
from repbench.testing.conformance import Broken, Suite
from repbench.upstream.contract import HiddenStates, Upstream, UpstreamInfo

LONGEST_SECONDS = 30.0

Build = Callable[[str | None], Upstream]
"""From a checkpoint to a new upstream in eval mode on the CPU."""


class UpstreamSubject:
    """An upstream under test.

    Args:
        build: Builds it; called many times, as some checks change weights.
        checkpoint: Argument of `build`.
        seed: Seed of untrained weights, for the process that builds it by its entry.
        entry: Entry by which another process finds it; None if there is none.
        device: Device that it is run on.
    """

    def __init__(
        self,
        build: Build,
        *,
        checkpoint: str | None = None,
        seed: int = 0,
        entry: Entry | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.build_from = build
        self.checkpoint = checkpoint
        self.seed = seed
        self.entry = entry
        self.device = torch.device("cpu") if device is None else device
        self.results: dict[str, CheckResult] = {}
        self.upstream = self.build()
        self._alone: dict[tuple[int, int], Tensor] = {}
        self._scale: Tensor | None = None

    @property
    def info(self) -> UpstreamInfo:
        """Its declaration."""
        return self.upstream.info

    def build(self) -> Upstream:
        """A new instance on the device, frozen."""
        with preserved_global_state():
            upstream = self.build_from(self.checkpoint)
        module_of(upstream).eval().requires_grad_(False).to(self.device)
        return upstream

    def length(self, num_samples: float) -> int:
        """The length nearest to `num_samples` that the upstream takes."""
        longest = self.info.max_samples or math.inf
        return int(min(max(num_samples, self.info.min_samples), longest))

    @property
    def second(self) -> int:
        """Samples of one second, or the nearest length that it takes."""
        return self.length(self.info.sample_rate_hz)

    @property
    def longest(self) -> int:
        """Samples of 30 s, or the nearest length that it takes."""
        return self.length(LONGEST_SECONDS * self.info.sample_rate_hz)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths from the shortest to the longest, with some one sample before and after the start of a frame."""
        rate, hop, shortest = self.info.sample_rate_hz, self.info.hop_samples, self.info.min_samples
        wanted: list[float] = [
            shortest + offset for offset in (0, 1, 2, hop - 1, hop, hop + 1, 3 * hop - 1, 3 * hop, 7 * hop + 5)
        ]
        wanted += [0.025 * rate, 0.1 * rate, 0.5 * rate, rate - 1, rate, rate + 1, rate + hop // 2, 2.5 * rate]
        wanted += [3 * rate, 4 * rate + 1, LONGEST_SECONDS * rate]
        return tuple(sorted({self.length(each) for each in wanted}))

    def sound(self, num_samples: int, seed: int = 0) -> Tensor:
        """(T,) speech-like sound."""
        return speech_like(num_samples, self.info.sample_rate_hz, seed)

    def alone(self, num_samples: int, seed: int = 0) -> Tensor:
        """Hidden states (L, F, D) of `sound(num_samples, seed)` alone; cached up to 5 s."""
        if (num_samples, seed) in self._alone:
            return self._alone[num_samples, seed]
        states = self.states([self.sound(num_samples, seed)])[0]
        if num_samples <= 5 * self.info.sample_rate_hz:
            self._alone[num_samples, seed] = states
        return states

    def states(self, sounds: Sequence[Tensor]) -> list[Tensor]:
        """(L, F, D) of each sound in one batch, padded with zeros."""
        return valid(self.run(sounds))

    def run(self, sounds: Sequence[Tensor], upstream: Upstream | None = None) -> HiddenStates:
        """The output of the upstream, or of another one, for a batch of sounds, (T,) each."""
        lengths = torch.tensor([len(each) for each in sounds])
        # B of (T,) -> (B, T)
        return self.run_padded(nn.utils.rnn.pad_sequence(list(sounds), batch_first=True), lengths, upstream)

    def run_padded(self, waveforms: Tensor, lengths: Tensor, upstream: Upstream | None = None) -> HiddenStates:
        """As `run`, for a batch that is padded already: (B, T) waveforms, and (B,) samples of each."""
        with torch.inference_mode():
            return (upstream or self.upstream)(waveforms.to(self.device), lengths.to(self.device))

    def difference(self, reference: Tensor, other: Tensor) -> float:
        """Largest difference of hidden states (L, F, D), relative to each layer's root mean square on one second."""
        if self._scale is None:
            self._scale = root_mean_square(self.alone(self.second))
        return relative_difference(reference, other, self._scale)

    def hold_equal(self, reference: Tensor, other: Tensor, what: str) -> float:
        """The difference of two hidden states (L, F, D), as `difference` defines it.

        Raises:
            Broken: It is too large; `what` names the two.
        """
        found = self.difference(reference, other)
        if found > TOLERANCE:
            detail = f"{what} differ by {found:.1e} of the layer's root mean square"
            if reference.shape != other.shape:
                detail = f"{what} have the shapes {tuple(reference.shape)} and {tuple(other.shape)}"
            raise Broken(detail, measured=found, allowed=TOLERANCE)
        return found


def module_of(upstream: Upstream) -> nn.Module:
    """The upstream as an `nn.Module`."""
    return cast(nn.Module, upstream)


UPSTREAM_CHECKS: Suite[UpstreamSubject] = Suite()
"""Every check of an upstream, in order."""

SHAPED = ("layers-and-width",)
STEADY = (*SHAPED, "deterministic")
"""Ids of the checks without which most others would measure the same fault again."""
