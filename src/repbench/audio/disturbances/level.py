"""Disturbances of level. Axes: T samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from repbench.audio.disturbances.base import Disturbance, Parameter, Samples, Voices


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain(Disturbance):
    """All samples multiplied by 10^(db / 20)."""

    db: float = 0.0

    kind: ClassVar[str] = "gain"
    ranges: ClassVar[Mapping[str, Parameter]] = {"db": Parameter(-80, 40, "dB", "change of the level")}

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        return samples * np.float32(10.0 ** (self.db / 20.0))
