"""Disturbances of level and of single packets: gain, clipping, loss. Axes: T samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from repbench.audio.disturbances.base import Disturbance, Parameter, Samples, Voices, rounded

PACKET_SECONDS = 0.02
"""Length of a packet: a frame of the usual speech codecs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain(Disturbance):
    """All samples multiplied by 10^(db / 20)."""

    db: float = 0.0

    kind: ClassVar[str] = "gain"
    ranges: ClassVar[Mapping[str, Parameter]] = {"db": Parameter(-80, 40, "dB", "change of the level")}

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        return samples * np.float32(10.0 ** (self.db / 20.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip(Disturbance):
    """The loudest samples limited: the limit is the smallest of the `share` of samples with the largest values.

    The peak falls and nothing is scaled back. An utterance with fewer samples other than 0 than that keeps their
    smallest value as its limit.
    """

    share: float = 0.0

    kind: ClassVar[str] = "clip"
    bare: ClassVar[str | None] = "share"
    ranges: ClassVar[Mapping[str, Parameter]] = {"share": Parameter(0, 0.9, "", "share of samples that are clipped")}

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        values = np.abs(samples)
        num_clipped = min(rounded(self.share * len(samples)), int(np.count_nonzero(values)))
        if num_clipped == 0:
            return samples
        # the `num_clipped`-th largest
        limit = np.partition(values, len(values) - num_clipped)[len(values) - num_clipped]
        return np.clip(samples, -limit, limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Disturbance):
    """Packets of 20 ms replaced by zeros, in bursts: a chain of two states, "received" and "lost".

    The chain leaves "lost" with probability 1 / burst and enters it so that the expected share of lost packets is
    `share`; the first packet is lost with that probability.

    Reference:
        Gilbert, Capacity of a burst-noise channel, 1960.
    """

    share: float = 0.0
    burst: float = 2.0

    kind: ClassVar[str] = "loss"
    bare: ClassVar[str | None] = "share"
    ranges: ClassVar[Mapping[str, Parameter]] = {
        "share": Parameter(0, 0.5, "", "expected share of lost packets"),
        "burst": Parameter(1, 20, "packets", "mean number of packets lost in a row", default=2.0),
    }

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        packet = rounded(PACKET_SECONDS * rate_hz)
        # the last packet may be shorter
        lost = self.lost_packets(-(-len(samples) // packet), random)
        # (P,) -> (P * packet,) -> (T,)
        return np.where(np.repeat(lost, packet)[: len(samples)], np.float32(0.0), samples)

    def lost_packets(self, num_packets: int, random: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(num_packets,): whether each packet is lost."""
        leaves = 1.0 / self.burst
        # in the long run share * leaves = (1 - share) * enters
        enters = min(1.0, leaves * self.share / (1.0 - self.share))
        lost = np.zeros(num_packets, dtype=np.bool_)
        is_lost = False
        for place, draw in enumerate(random.random(num_packets)):
            if place == 0:
                is_lost = bool(draw < self.share)
            else:
                is_lost = bool(draw >= leaves) if is_lost else bool(draw < enters)
            lost[place] = is_lost
        return lost
