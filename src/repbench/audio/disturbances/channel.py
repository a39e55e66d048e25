"""Disturbances of the channel: telephone band, lower sample rate, codecs.

All filters have zero phase, and the delay of each codec is taken off, so that phones keep their times.

Axes: T samples, N taps of a filter.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from repbench.audio.disturbances.base import Disturbance, Parameter, Samples, Voices, fitted
from repbench.errors import EnvironmentFault

NARROW_HZ = 8_000
"""Rate of narrow-band telephony, of GSM and of mu-law."""

WIDE_HZ = 16_000
"""Rate of wide-band telephony, and of Opus and MP3 here, so that they mean the same for every corpus."""

_NARROW_EDGE_HZ = 3_600
_TRANSITION_HZ = 100

MP3_KBITS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Bit rates of MPEG-2 layer III, which is MP3 at 16 kHz."""

MP3_DELAY = 1_105
"""Samples by which MP3 is late where the decoder cannot take the delay off: 576 of the encoder and 529 of the decoder.

libsndfile writes the delay into a first frame, and takes it off when it reads that frame. At low bit rates the frame is
too small for it; then the sound is late and longer than it was. Measured by cross-correlation (docs/design/0038).
"""

_LEAST_MP3_LEVEL = 0.9999  # libsndfile 1.2.2 refuses 1


def _resampled(samples: Samples, source_hz: int, target_hz: int) -> Samples:
    """(T,) at `source_hz` -> at `target_hz`, in zero phase."""
    if source_hz == target_hz:
        return samples
    # Imported here, so that other disturbances do not need it loaded.
    import soxr

    resampled: Samples = soxr.resample(samples, source_hz, target_hz, quality="HQ")
    # soxr gives none of a sound of few samples at a much lower rate
    return resampled if len(resampled) else np.zeros(1, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telephone(Disturbance):
    """The band from `low` to `high` alone, at 8 kHz and back, or at 16 kHz where `high` needs it.

    The filter has 6 dB less at both edges and falls within 100 Hz around them. A sound at a lower rate keeps it.
    """

    low: float = 0.0
    high: float = 0.0

    kind: ClassVar[str] = "telephone"
    usual: ClassVar[int | None] = 3
    ranges: ClassVar[Mapping[str, Parameter]] = {
        "low": Parameter(50, 1_000, "Hz", "lower edge of the band"),
        "high": Parameter(1_500, 7_500, "Hz", "upper edge of the band"),
    }

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        line_hz = min(rate_hz, NARROW_HZ if self.high <= _NARROW_EDGE_HZ else WIDE_HZ)
        # (T,) -> at the rate of the line, through the band, and back -> (T,)
        at_line = _band(_resampled(samples, rate_hz, line_hz), self.low, self.high, line_hz)
        return fitted(_resampled(at_line, line_hz, rate_hz), len(samples))


def _band(samples: Samples, low: float, high: float, rate_hz: int) -> Samples:
    """(T,) with the band from `low` to `high` Hz alone, in zero phase."""
    from scipy.signal import fftconvolve, firwin

    # a Kaiser window of beta 8 has 80 dB and needs about 5.2 rates per Hz of transition; odd, so that it has a middle
    num_taps = round(5.2 * rate_hz / _TRANSITION_HZ) | 1
    edges = [low, high] if high < rate_hz / 2 - _TRANSITION_HZ else [low]
    taps = firwin(num_taps, edges, fs=rate_hz, pass_zero=False, window=("kaiser", 8.0))
    # (T,) * (N,) -> (T + N - 1,) -> (T,): the half of the filter before the middle is cut off
    full: NDArray[np.float64] = fftconvolve(samples.astype(np.float64), taps)
    half = num_taps // 2
    return full[half : half + len(samples)].astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate(Disturbance):
    """Resampled to a lower rate and back: nothing stays above half of it. A sound at that rate or below stays."""

    hz: float = 0.0

    kind: ClassVar[str] = "rate"
    bare: ClassVar[str | None] = "hz"
    ranges: ClassVar[Mapping[str, Parameter]] = {"hz": Parameter(2_000, 48_000, "Hz", "sample rate", whole=True)}

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        if rate_hz <= self.hz:
            return samples
        lower_hz = int(self.hz)
        return fitted(_resampled(_resampled(samples, rate_hz, lower_hz), lower_hz, rate_hz), len(samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec(Disturbance):
    """The part that all codecs share: coded in memory by libsndfile, decoded, and back at the sound's rate.

    A codec limits samples to [-1, 1], as it does in a telephone.
    """

    kind: ClassVar[str] = "codec"
    line_hz: ClassVar[int]
    container: ClassVar[str]
    subtype: ClassVar[str]

    @property
    def passes_through(self) -> int:
        """Number of times that the sound is coded."""
        return 1

    def options(self) -> Mapping[str, float | str]:
        """Options of libsndfile that set the bit rate."""
        return {}

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        at_line = _resampled(samples, rate_hz, self.line_hz)
        for _ in range(self.passes_through):
            at_line = self.decoded(self.encoded(at_line), len(at_line))
        return fitted(_resampled(at_line, self.line_hz, rate_hz), len(samples))

    def encoded(self, samples: Samples) -> bytes:
        """The file of (T,) samples at `line_hz`.

        Raises:
            EnvironmentFault: libsndfile lacks the codec.
        """
        import soundfile

        stream = io.BytesIO()
        try:
            soundfile.write(
                stream, samples, self.line_hz, format=self.container, subtype=self.subtype, **self.options()
            )
        except (soundfile.LibsndfileError, ValueError) as error:
            raise EnvironmentFault(
                f"libsndfile {soundfile.__libsndfile_version__} cannot write {self.container} {self.subtype}: {error}",
                key=self.text(),
                do="Install the `soundfile` wheel of your platform, which brings libsndfile 1.2 with MP3 and Opus; "
                "codec:gsm and codec:ulaw need neither",
            ) from error
        return stream.getvalue()

    def decoded(self, file: bytes, num_samples: int) -> Samples:
        """(num_samples,) of a file of `encoded`, without the delay of the codec."""
        import soundfile

        decoded, _ = soundfile.read(io.BytesIO(file), dtype="float32")
        return fitted(self.without_delay(decoded, num_samples), num_samples)

    def without_delay(self, decoded: Samples, num_samples: int) -> Samples:
        """The decoded samples from the first sample of the sound on."""
        return decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class Gsm(Codec):
    """GSM 06.10 full rate at 8 kHz, 13 kbit/s, `passes` times in a row, as over several networks."""

    passes: int = 1

    variant: ClassVar[str] = "gsm"
    usual: ClassVar[int | None] = 1
    ranges: ClassVar[Mapping[str, Parameter]] = {"passes": Parameter(1, 20, "", "codings in a row", whole=True)}
    line_hz: ClassVar[int] = NARROW_HZ
    container: ClassVar[str] = "WAV"
    subtype: ClassVar[str] = "GSM610"

    @property
    def passes_through(self) -> int:
        """Number of times that the sound is coded."""
        return self.passes


@dataclass(frozen=True, slots=True, kw_only=True)
class MuLaw(Codec):
    """G.711 mu-law at 8 kHz, 64 kbit/s. It has no severities: coding again changes nothing."""

    variant: ClassVar[str] = "ulaw"
    line_hz: ClassVar[int] = NARROW_HZ
    container: ClassVar[str] = "WAV"
    subtype: ClassVar[str] = "ULAW"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opus(Codec):
    """Opus at 16 kHz, with a variable bit rate whose target is `kbits`; the Ogg pages around it are not counted."""

    kbits: float = 0.0

    variant: ClassVar[str] = "opus"
    bare: ClassVar[str | None] = "kbits"
    ranges: ClassVar[Mapping[str, Parameter]] = {"kbits": Parameter(6, 256, "kbit/s", "bit rate")}
    line_hz: ClassVar[int] = WIDE_HZ
    container: ClassVar[str] = "OGG"
    subtype: ClassVar[str] = "OPUS"

    def options(self) -> Mapping[str, float | str]:
        """libsndfile takes level 1 for 6 kbit/s and level 0 for 256 kbit/s."""
        return {"compression_level": 1.0 - (self.kbits - 6.0) / 250.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp3(Codec):
    """MP3 (MPEG-2 layer III) at 16 kHz and a constant bit rate."""

    kbits: int = 0

    variant: ClassVar[str] = "mp3"
    bare: ClassVar[str | None] = "kbits"
    ranges: ClassVar[Mapping[str, Parameter]] = {
        "kbits": Parameter(8, 160, "kbit/s", "bit rate", whole=True, choices=MP3_KBITS)
    }
    line_hz: ClassVar[int] = WIDE_HZ
    container: ClassVar[str] = "MP3"
    subtype: ClassVar[str] = "MPEG_LAYER_III"

    def options(self) -> Mapping[str, float | str]:
        """libsndfile takes level 1 for the lowest bit rate and level 0 for the highest."""
        level = (MP3_KBITS[-1] - self.kbits) / (MP3_KBITS[-1] - MP3_KBITS[0])
        return {"compression_level": min(level, _LEAST_MP3_LEVEL), "bitrate_mode": "CONSTANT"}

    def without_delay(self, decoded: Samples, num_samples: int) -> Samples:
        """The decoded samples from the first sample of the sound on."""
        return decoded[MP3_DELAY:] if len(decoded) > num_samples else decoded
