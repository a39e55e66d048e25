"""Reverberation: rooms by the image-source method, or impulse responses of a folder.

A room is a box whose walls all reflect the same share of the pressure, -beta, at every frequency. The images of the
source in the walls are at known places; each adds an impulse at its delay, with the amplitude beta^reflections over
its distance. The sign of the coefficient keeps the impulses from adding up at 0 Hz.

Reference:
    Allen and Berkley, Image method for efficiently simulating small-room acoustics, 1979; Lehmann and Johansson,
    Prediction of energy decay in room impulse responses simulated with an image-source model, 2008.

Axes: T samples of sound, R samples of a response, J images along one axis of the room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from repbench.audio.disturbances.base import Disturbance, Parameter, Samples, Value, Voices, rounded
from repbench.audio.disturbances.folders import at_rate, digest_of, sounds_of
from repbench.errors import DataError

Response = NDArray[np.float64]

NUM_ROOMS = 8
"""Rooms of a reverberation time; each utterance is in one of them, drawn. Responses are computed once in a process."""

SOUND_SPEED = 343.0
"""Metres per second, at 20 °C."""

_LEAST_METRES, _MOST_METRES = (5.0, 4.0, 2.5), (10.0, 8.0, 4.0)
_WALL_METRES = 0.5
_SEED = 38
_DIRECTIONS = 50


@dataclass(frozen=True, slots=True)
class Room:
    """A box with a source and a microphone.

    Attributes:
        size: Length, width and height in metres.
        source: Place of the source in metres from a corner.
        microphone: Place of the microphone.
        beta: Reflection coefficient of the walls, without its sign.
    """

    size: tuple[float, float, float]
    source: tuple[float, float, float]
    microphone: tuple[float, float, float]
    beta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverb(Disturbance):
    """A drawn room of the reverberation time `t60`, the microphone at `distance` from the source.

    The direct sound keeps its level and its time, and reflections are added to it; what rings on after the end of the
    utterance is cut off.
    """

    t60: float = 0.0
    distance: float = 1.5

    kind: ClassVar[str] = "reverb"
    ranges: ClassVar[Mapping[str, Parameter]] = {
        "t60": Parameter(0.1, 2, "s", "reverberation time"),
        "distance": Parameter(0.3, 3, "m", "from the source to the microphone", default=1.5),
    }

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        place = int(random.integers(NUM_ROOMS))
        return _convolved(samples, response_of(room_of(self.t60, self.distance, place), self.t60, rate_hz))


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReverb(Disturbance):
    """A drawn impulse response of a folder; its largest sample, the direct sound, is at time 0 and scaled to 1."""

    path: str

    kind: ClassVar[str] = "reverb"
    variant: ClassVar[str] = "FOLDER"

    @property
    def place(self) -> str:
        """The folder as the user wrote it."""
        return self.path

    @property
    def parameters(self) -> Mapping[str, Value]:
        """The folder as the user wrote it."""
        return {} if self.severity == 0 else {"folder": self.path}

    def folder(self) -> Path:
        """Folder of impulse responses."""
        return Path(self.path)

    def _key_of_place(self) -> str:
        return digest_of(self.folder())

    def _disturbed(self, samples: Samples, rate_hz: int, random: np.random.Generator, voices: Voices) -> Samples:
        paths = sounds_of(self.folder())
        response, direct = _measured_response(paths[int(random.integers(len(paths)))], rate_hz)
        return _convolved(samples, response, direct)


def _convolved(samples: Samples, response: Response, direct: int = 0) -> Samples:
    """(T,) * (R,) -> (T,): the direct sound, at tap `direct`, keeps its time."""
    from scipy.signal import fftconvolve

    # (T,) * (R,) -> (T + R - 1,)
    full: NDArray[np.float64] = fftconvolve(samples.astype(np.float64), response)
    return full[direct : direct + len(samples)].astype(np.float32)


@lru_cache(maxsize=64)
def _measured_response(path: Path, rate_hz: int) -> tuple[Response, int]:
    """(R,) of a file, scaled so that its largest sample is 1, and the place of that sample."""
    response = at_rate(path, rate_hz)
    direct = int(np.argmax(np.abs(response)))
    if response[direct] == 0.0:
        raise DataError("The impulse response is silent", file=path, do="Take it out of the folder")
    return response / response[direct], direct


@lru_cache(maxsize=256)
def room_of(t60: float, distance: float, place: int) -> Room:
    """Room number `place` of a reverberation time in seconds, with the microphone `distance` metres from the source."""
    random = np.random.default_rng([_SEED, place])
    size = random.uniform(_LEAST_METRES, _MOST_METRES)
    low, high = np.full(3, _WALL_METRES), size - _WALL_METRES
    while True:
        source = random.uniform(low, high)
        direction = random.standard_normal(3)
        microphone = source + distance * direction / np.linalg.norm(direction)
        if np.all(microphone >= low) and np.all(microphone <= high):
            break
    # the decay is a function of ln(beta) * time alone: once for the room, scaled to the wanted time
    beta = math.exp(-_decay_metres(size) / (2.0 * SOUND_SPEED * t60))
    return Room(_triple(size), _triple(source), _triple(microphone), beta)


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = values.tolist()
    return first, second, third


def _decay_metres(size: NDArray[np.float64]) -> float:
    """The product -2 ln(beta) * path, in metres, at which the energy of a room has decayed by 60 dB.

    Sound in the direction u meets g(u) = |u_x| / L_x + |u_y| / L_y + |u_z| / L_z walls a metre, so that its energy is
    exp(-s g) after s = -2 ln(beta) * path. What is left of all directions from s on is the mean of exp(-s g) / g. As
    in a measurement, 60 dB are those of the line from -5 to -35 dB.
    """
    # directions evenly over an eighth of the sphere: heights and angles
    heights = (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS
    angles = (np.arange(_DIRECTIONS) + 0.5) / _DIRECTIONS * math.pi / 2
    radii = np.sqrt(1.0 - heights**2)
    walls = (
        radii[:, None] * (np.cos(angles) / size[0] + np.sin(angles) / size[1]) + heights[:, None] / size[2]
    ).ravel()  # (heights, angles) -> (n,)
    paths = np.linspace(0.0, 40.0 / float(walls.mean()), 200)
    # (200, n) -> (200,)
    left = (np.exp(-paths[:, None] * walls) / walls).mean(axis=1)
    return t60_of_decay(10.0 * np.log10(left / left[0]), paths)


def t60_of_decay(decay_db: NDArray[np.float64], times: NDArray[np.float64]) -> float:
    """Time in which a decay falls by 60 dB, by the line through it from -5 to -35 dB (T30 of ISO 3382).

    Args:
        decay_db: (n,) energy that is left, in dB below that at the start; falling.
        times: (n,), in any unit.
    """
    part = (decay_db <= -5.0) & (decay_db >= -35.0)
    slope = float(np.polyfit(times[part], decay_db[part], 1)[0])
    return -60.0 / slope


def t60_of_response(response: Response, rate_hz: int) -> float:
    """Reverberation time in seconds of an impulse response (R,), by Schroeder's backward integration."""
    left = np.cumsum(np.square(response)[::-1])[::-1]
    decay_db = 10.0 * np.log10(np.maximum(left, 1e-30) / left[0])
    return t60_of_decay(decay_db, np.arange(len(response)) / rate_hz)


@lru_cache(maxsize=64)
def response_of(room: Room, seconds: float, rate_hz: int) -> Response:
    """(R,) impulse response of a room from the direct sound on, which is 1 at tap 0.

    Args:
        room: The room.
        seconds: How long after the direct sound it lasts.
        rate_hz: Samples per second; each image is moved to the nearest sample.
    """
    direct = math.dist(room.source, room.microphone)
    farthest = direct + seconds * SOUND_SPEED
    axes = [
        _images(size, source, microphone, farthest)
        for size, source, microphone in zip(room.size, room.source, room.microphone, strict=True)
    ]
    (along_x, hits_x), (along_y, hits_y), (along_z, hits_z) = axes
    # (J_y, J_z) squares of distances across x, and reflections
    across = along_y[:, None] ** 2 + along_z**2
    hits = hits_y[:, None] + hits_z
    num_taps = rounded(seconds * rate_hz) + 1
    most_hits = int(hits_x.max() + hits.max())
    factors = (-room.beta) ** np.arange(most_hits + 1)
    response = np.zeros(num_taps)
    for offset, hits_here in zip(along_x, hits_x, strict=True):
        is_near = across <= farthest**2 - offset**2
        distances = np.sqrt(across[is_near] + offset**2)
        amplitudes = direct / distances * factors[hits[is_near] + hits_here]
        taps = np.floor((distances - direct) / SOUND_SPEED * rate_hz + 0.5).astype(np.int64)
        # (images,) -> (R,); the last may be rounded past the end
        response += np.bincount(taps, amplitudes, num_taps)[:num_taps]
    return response


def _images(
    size: float, source: float, microphone: float, farthest: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Along one axis: offsets (J,) of all images from the microphone up to `farthest`, and their reflections (J,)."""
    orders = np.arange(-math.ceil(farthest / (2.0 * size)) - 1, math.ceil(farthest / (2.0 * size)) + 2)
    # images in the same direction as the source after 2n reflections, and mirrored ones after 2n - 1
    offsets = np.concatenate([2.0 * orders * size + source, 2.0 * orders * size - source]) - microphone
    reflections = np.concatenate([np.abs(2 * orders), np.abs(2 * orders - 1)])
    is_near = np.abs(offsets) <= farthest
    return offsets[is_near], reflections[is_near]
