"""Additive noise at a signal-to-noise ratio: white, pink, babble of other speakers, or files of a folder.

The ratio is that of mean squares, each over the whole utterance, pauses included. The drawn noise is scaled by its own
mean square, so that the ratio is exact for each utterance and not only on average. A silent utterance stays silent:
the noise that is `snr` dB below nothing is none.

Axes: T samples, K bins of a real FFT.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from repbench.audio.disturbances.base import Disturbance, Parameter, Samples, Value, Voices, mean_square
from repbench.audio.disturbances.folders import digest_of, drawn_cut
from repbench.errors import DataError

NUM_VOICES = 8
"""Voices of babble: enough that no single one is understood."""

_LOWEST_PINK_HZ = 20.0
"""Below it pink noise is flat: its power would grow without bound towards 0 Hz, with the length of the utterance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise(Disturbance):
    """The part that all noises share: `snr`, and how a noise is scaled and added."""

    snr: float = math.inf

    kind: ClassVar[str] = "noise"
    bare: ClassVar[str | None] = "snr"
    ranges: ClassVar[Mapping[str, Parameter]] = {"snr": Parameter(-20, 60, "dB", "signal-to-noise ratio")}

    def _amount(self) -> str:
        # the number alone: severities have an `s`
        return f"s{self.severity}" if self.severity is not None else Disturbance._amount(self).removeprefix("snr=")

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        noise = self._noise(len(samples), rate_hz, random, voices)
        # (T,) + (T,); a scale of 0 where the sound is silent
        scale = math.sqrt(mean_square(samples) / (mean_square(noise) * 10.0 ** (self.snr / 10.0)))
        return (samples + scale * noise).astype(np.float32)

    def _noise(
        self, num_samples: int, rate_hz: int, random: np.random.Generator, voices: Voices
    ) -> NDArray[np.float64]:
        """Noise (T,) of any level above 0."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class White(Noise):
    """Independent Gaussian samples: the same power in every hertz."""

    variant: ClassVar[str] = "white"

    def _noise(
        self, num_samples: int, rate_hz: int, random: np.random.Generator, voices: Voices
    ) -> NDArray[np.float64]:
        return random.standard_normal(num_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pink(Noise):
    """Gaussian noise whose power falls as 1 / f from 20 Hz on: the same power in every octave."""

    variant: ClassVar[str] = "pink"

    def _noise(
        self, num_samples: int, rate_hz: int, random: np.random.Generator, voices: Voices
    ) -> NDArray[np.float64]:
        from scipy.fft import next_fast_len

        # twice as long, so that the end of the noise is not the continuation of its start; without large prime factors
        length: int = next_fast_len(max(2 * num_samples, 4), real=True)
        frequencies_hz = np.fft.rfftfreq(length, 1.0 / rate_hz)
        # (K,): amplitudes 1 / sqrt(f); none at 0 Hz
        amplitudes = 1.0 / np.sqrt(np.maximum(frequencies_hz, _LOWEST_PINK_HZ))
        amplitudes[0] = 0.0
        # (length,) -> (K,) -> (length,) -> (T,)
        spectrum = np.fft.rfft(random.standard_normal(length)) * amplitudes
        pink: NDArray[np.float64] = np.fft.irfft(spectrum, length)[:num_samples]
        return pink


@dataclass(frozen=True, slots=True, kw_only=True)
class Babble(Noise):
    """`NUM_VOICES` sounds of other speakers at once, each of the same mean square, each from a drawn instant on."""

    variant: ClassVar[str] = "babble"
    needs_voices: ClassVar[bool] = True

    def _noise(
        self, num_samples: int, rate_hz: int, random: np.random.Generator, voices: Voices
    ) -> NDArray[np.float64]:
        babble = np.zeros(num_samples)
        num_added = 0
        for voice in itertools.islice(voices(), NUM_VOICES):
            # (n,) -> (T,): from a drawn sample on, and again from the start where it ends
            turned = np.roll(voice.astype(np.float64), -int(random.integers(len(voice))))
            part = np.resize(turned, num_samples)
            power = mean_square(part)
            if power > 0.0:
                babble += part / math.sqrt(power)
                num_added += 1
        if mean_square(babble) == 0.0:
            raise DataError(
                f"Babble needs sounds of other speakers, but {num_added} were given that are not silent",
                key=self.text(),
                do="Use a corpus whose train split has other speakers, or noise:white",
            )
        return babble


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderNoise(Noise):
    """A cut of a sound of a folder, both drawn; a sound that is shorter than the utterance is repeated."""

    path: str

    variant: ClassVar[str] = "FOLDER"

    @property
    def place(self) -> str:
        """The folder as the user wrote it."""
        return self.path

    @property
    def parameters(self) -> Mapping[str, Value]:
        """Values by name, with the folder as the user wrote it."""
        return {} if self.severity == 0 else {"folder": self.path, "snr": self.snr}

    def folder(self) -> Path:
        """Folder of noises."""
        return Path(self.path)

    def _key_of_place(self) -> str:
        return digest_of(self.folder())

    def _noise(
        self, num_samples: int, rate_hz: int, random: np.random.Generator, voices: Voices
    ) -> NDArray[np.float64]:
        return drawn_cut(self.folder(), num_samples, rate_hz, random)
