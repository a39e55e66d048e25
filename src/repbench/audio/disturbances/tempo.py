"""Disturbances of speed. Axes: T samples before, T' after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from repbench.audio.disturbances.base import Disturbance, Parameter, Samples, Voices, fitted, rounded

_FACTOR = Parameter(0.5, 2, "", "how many times as fast")


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed(Disturbance):
    """Played `factor` times as fast by resampling: pitch and formants move by the same factor."""

    factor: float = 1.0

    kind: ClassVar[str] = "speed"
    ranges: ClassVar[Mapping[str, Parameter]] = {"factor": _FACTOR}

    def _num_samples(self, num_samples: int, rate_hz: int) -> int:
        return max(1, rounded(num_samples / self.factor))

    def _moved(self, seconds: float, duration: float) -> float:
        return seconds / self.factor

    def _lasting(self, duration: float) -> float:
        return duration / self.factor

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        # Imported here, so that other disturbances do not need it loaded.
        import soxr

        # (T,) -> (T',): read as sound at `factor` times its rate; soxr may round the length the other way
        faster = soxr.resample(samples, rate_hz * self.factor, rate_hz, quality="HQ")
        return fitted(faster, self.num_samples(len(samples), rate_hz))
