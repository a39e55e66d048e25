"""The contract of a disturbance, and the parameters and severities that its text may have.

Axes: T samples before a disturbance, T' samples after it. Samples are float32; a disturbance may give samples outside
[-1, 1] and never clips them, except `clip`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Voices = Callable[[], Iterable[Samples]]
"""Gives sounds of other speakers, each (T,) at the rate of the disturbed sound, in an order that the caller draws."""

Value = float | int | str

SEVERITIES = range(6)
"""Severity 0 is the undisturbed sound; 1 to 5 are the values of `repbench.audio.disturbances.severities`."""


class Parameter(NamedTuple):
    """A parameter of a disturbance.

    Attributes:
        low: Lowest value.
        high: Highest value.
        unit: Unit, as it is printed; "" for a ratio.
        what: Meaning, for the manual and for errors.
        default: Value where the text does not give it; None: the text must give it.
        whole: Whether it is an integer.
        choices: The values that it may have; empty: all of the range.
    """

    low: float
    high: float
    unit: str
    what: str
    default: float | None = None
    whole: bool = False
    choices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """One change of a sound: a frozen dataclass whose fields are the values of `ranges`.

    A subclass implements `_disturbed`, and `_num_samples`, `_moved` and `_lasting` where it changes lengths or times.
    None of them is called at severity 0, which is the identity.

    Attributes:
        severity: Severity, 0 to 5; None where the text gives values instead.
        kind: First word of the text.
        variant: Second word of the text; "" where the kind has no variants.
        ranges: Parameters by their name in the text, which is the name of the field too.
        bare: Parameter that a number without a name means, where it is not a severity; None: there is none.
        usual: Severity where the text has no amount; None: the text must have one.
        names: Named amounts, and the values that they stand for.
        needs_voices: Whether `apply` calls `voices`.
        code_version: Raised with every change of the samples that a disturbance gives.
    """

    severity: int | None = None

    kind: ClassVar[str]
    variant: ClassVar[str] = ""
    ranges: ClassVar[Mapping[str, Parameter]] = {}
    bare: ClassVar[str | None] = None
    usual: ClassVar[int | None] = None
    names: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    needs_voices: ClassVar[bool] = False
    code_version: ClassVar[int] = 1

    @property
    def parameters(self) -> Mapping[str, Value]:
        """Values by name, of a severity too; empty at severity 0."""
        return {} if self.severity == 0 else {name: getattr(self, name) for name in self.ranges}

    @property
    def place(self) -> str:
        """Second word of the text: the variant, or the folder as the user wrote it."""
        return self.variant

    def folder(self) -> Path | None:
        """Folder of noises or impulse responses that it reads; None for most."""
        return None

    def text(self, *, place: str | None = None) -> str:
        """Canonical text of the disturbance.

        Args:
            place: Takes the place of the variant or folder.
        """
        return ":".join(part for part in (self.kind, self.place if place is None else place, self._amount()) if part)

    def _amount(self) -> str:
        if self.severity is not None:
            return f"s{self.severity}"
        return ",".join(
            f"{name}={number(getattr(self, name))}"
            for name, parameter in self.ranges.items()
            if parameter.default is None or getattr(self, name) != parameter.default
        )

    def key(self) -> str:
        """What the samples depend on: the text, with the digest of a folder in the place of its path, and the version.

        Raises:
            DataError: The folder is missing or holds no sound.
        """
        return f"{self.text(place=self._key_of_place())}@{self.code_version}"

    def _key_of_place(self) -> str | None:
        return None

    def num_samples(self, num_samples: int, rate_hz: int) -> int:
        """T', the number of samples after it, of a sound of `num_samples` at `rate_hz`; at least 1."""
        return num_samples if self.severity == 0 else self._num_samples(num_samples, rate_hz)

    def moved(self, seconds: float, duration: float) -> float:
        """Where an instant of a sound that lasts `duration` lies afterwards, in seconds from the start."""
        return seconds if self.severity == 0 else self._moved(seconds, duration)

    def lasting(self, duration: float) -> float:
        """Seconds that a sound of `duration` seconds lasts afterwards, before it is rounded to samples."""
        return duration if self.severity == 0 else self._lasting(duration)

    def apply(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        """Disturb (T,) samples.

        Args:
            samples: (T,), T at least 1; not changed.
            rate_hz: Samples per second.
            random: Everything that is drawn is drawn from it.
            voices: Gives sounds of other speakers at `rate_hz`; called only if `needs_voices`.

        Returns:
            (T',) float32 with T' = `num_samples(T, rate_hz)`; at severity 0 `samples` itself.

        Raises:
            DataError: A folder or `voices` gives no sound that can be used, or a file of the folder cannot be read.
            EnvironmentFault: libsndfile lacks the codec.
        """
        return samples if self.severity == 0 else self._disturbed(samples, rate_hz, random, voices)

    def _num_samples(self, num_samples: int, rate_hz: int) -> int:
        return num_samples

    def _moved(self, seconds: float, duration: float) -> float:
        return seconds

    def _lasting(self, duration: float) -> float:
        return duration

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        raise NotImplementedError


def number(value: float | int) -> str:
    """A number as canonical text: the shortest that reads back the same, without ".0"."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def fitted(samples: NDArray[np.floating], num_samples: int) -> Samples:
    """(n,) -> (num_samples,) float32: cut at the end, or filled up with zeros."""
    fitting = samples[:num_samples].astype(np.float32)
    return fitting if len(fitting) == num_samples else np.pad(fitting, (0, num_samples - len(fitting)))


def mean_square(samples: NDArray[np.floating]) -> float:
    """Mean square of all samples (T,), in float64."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def rounded(value: float) -> int:
    """The nearest integer, halves up, as `repbench.audio.resample` rounds lengths."""
    return math.floor(value + 0.5)
