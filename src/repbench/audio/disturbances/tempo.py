"""Disturbances of time: speed, tempo, silence around the speech, a shift. Axes: T samples before, T' after, N window.

There is no kind for the pitch alone: `tempo:factor=0.8+speed:factor=1.25` keeps the duration and raises the pitch by
1.25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from repbench.audio.disturbances.base import Disturbance, Parameter, Samples, Voices, fitted, rounded

_WINDOW_SECONDS = 0.03
_SEARCH_SECONDS = 0.01

_FACTOR = Parameter(0.5, 2, "", "how many times as fast")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Faster(Disturbance):
    """What speed and tempo share: lengths and times."""

    factor: float = 1.0

    ranges: ClassVar[Mapping[str, Parameter]] = {"factor": _FACTOR}

    def _num_samples(self, num_samples: int, rate_hz: int) -> int:
        return max(1, rounded(num_samples / self.factor))

    def _moved(self, seconds: float, duration: float) -> float:
        return seconds / self.factor

    def _lasting(self, duration: float) -> float:
        return duration / self.factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed(_Faster):
    """Played `factor` times as fast by resampling: pitch and formants move by the same factor."""

    kind: ClassVar[str] = "speed"

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        # Imported here, so that other disturbances do not need it loaded.
        import soxr

        # (T,) -> (T',): read as sound at `factor` times its rate; soxr may round the length the other way
        faster = soxr.resample(samples, rate_hz * self.factor, rate_hz, quality="HQ")
        return fitted(faster, self._num_samples(len(samples), rate_hz))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tempo(_Faster):
    """`factor` times as fast at the same pitch, by overlap-add of similar waveforms (WSOLA).

    An instant lies within 10 ms of where `moved` says, the range in which the most similar waveform is sought. Unlike
    a phase vocoder it repeats or leaves out whole periods of the waveform, so that plosives stay sharp and voices do
    not sound as in a hall.

    Reference:
        Verhelst and Roelands, An overlap-add technique based on waveform similarity, 1993.
    """

    kind: ClassVar[str] = "tempo"

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        hop = max(1, rounded(_WINDOW_SECONDS * rate_hz / 2))
        search = max(1, rounded(_SEARCH_SECONDS * rate_hz))
        length = self._num_samples(len(samples), rate_hz)
        window = 2 * hop
        # periodic: windows one hop apart add up to 1
        hann = 0.5 - 0.5 * np.cos(np.pi * np.arange(window) / hop)
        before, num_frames = hop + search, -(-length // hop) + 1
        # Frame k is centred on k * hop of the result and around k * hop * factor of the sound.
        needed = before + math.ceil(num_frames * hop * self.factor) + 2 * (window + search)
        # (T,) -> (before + T + silence,)
        padded = np.pad(samples.astype(np.float64), (before, max(0, needed - before - len(samples))))
        result = np.zeros(num_frames * hop + window)
        start = search
        for frame in range(num_frames):
            if frame:
                # what would follow the last frame, and where about the next lies
                following = padded[start + hop : start + hop + window]
                nominal = search + rounded(frame * hop * self.factor)
                start = nominal + _most_similar(padded[nominal - search : nominal + search + window], following, search)
            # (N,) into the result
            result[frame * hop : frame * hop + window] += hann * padded[start : start + window]
        # the first window is centred on sample 0
        return fitted(result[hop:], length)


def _most_similar(
    region: np.ndarray[tuple[int], np.dtype[np.float64]], wanted: np.ndarray[tuple[int], np.dtype[np.float64]], at: int
) -> int:
    """Offset from `at` of the window of `region` (2 `at` + N,) that correlates most with `wanted` (N,)."""
    # (2 at + 1,) products and energies of all windows of the region
    products = np.correlate(region, wanted, mode="valid")
    sums = np.concatenate([[0.0], np.cumsum(np.square(region))])
    energies = sums[len(wanted) :] - sums[: -len(wanted)]
    scores = products / np.sqrt(np.maximum(energies, 1e-12))
    best = int(np.argmax(scores))
    # in silence all are alike: no offset
    return best - at if scores[best] > scores[at] else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence(Disturbance):
    """Zeros before and after the utterance, or one of both."""

    before: float = 0.0
    after: float = 0.0

    kind: ClassVar[str] = "silence"
    ranges: ClassVar[Mapping[str, Parameter]] = {
        "before": Parameter(0, 30, "s", "silence before the utterance", default=0.0),
        "after": Parameter(0, 30, "s", "silence after it", default=0.0),
    }

    def _num_samples(self, num_samples: int, rate_hz: int) -> int:
        return num_samples + rounded(self.before * rate_hz) + rounded(self.after * rate_hz)

    def _moved(self, seconds: float, duration: float) -> float:
        return seconds + self.before

    def _lasting(self, duration: float) -> float:
        return self.before + duration + self.after

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        return np.pad(samples, (rounded(self.before * rate_hz), rounded(self.after * rate_hz)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift(Disturbance):
    """Zeros of less than a frame before the utterance, so that frames are centred elsewhere in it; nothing is cut off.

    `shift:half-hop` is 5 ms, half of the hop of 10 ms of the front ends; for models with a hop of 20 ms it is
    `shift:ms=10`.
    """

    ms: float = 0.0

    kind: ClassVar[str] = "shift"
    ranges: ClassVar[Mapping[str, Parameter]] = {"ms": Parameter(0, 100, "ms", "delay")}
    names: ClassVar[Mapping[str, Mapping[str, float]]] = {"half-hop": {"ms": 5.0}}

    def _num_samples(self, num_samples: int, rate_hz: int) -> int:
        return num_samples + rounded(self.ms * rate_hz / 1000)

    def _moved(self, seconds: float, duration: float) -> float:
        return seconds + self.ms / 1000

    def _lasting(self, duration: float) -> float:
        return duration + self.ms / 1000

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        return np.pad(samples, (rounded(self.ms * rate_hz / 1000), 0))
