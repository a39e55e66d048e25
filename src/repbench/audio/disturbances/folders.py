"""Folders of sounds that disturb: noises and impulse responses.

Files are found at any depth by the suffixes of `repbench.audio.sound`, and sorted by name, so that what is drawn does
not depend on the order of the folder. Sounds of several channels are read as the mean of all.

Axes: T samples.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from repbench.audio.sound import ENDINGS, inspect, read_sound
from repbench.errors import DataError

_TRIES = 20


@lru_cache(maxsize=16)
def sounds_of(folder: Path) -> tuple[Path, ...]:
    """Sound files of a folder at any depth, sorted by their path in it; symbolic links to folders are not followed.

    Raises:
        DataError: The folder is missing, or holds no sound file.
    """
    if not folder.is_dir():
        raise DataError("The folder of sounds is missing", file=folder, do="Correct the path in the condition")
    found = [
        Path(place, name)
        for place, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in ENDINGS
    ]
    if not found:
        raise DataError(
            "The folder holds no sound file", file=folder, do=f"Put sounds into it, of: {', '.join(ENDINGS)}"
        )
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


@lru_cache(maxsize=16)
def digest_of(folder: Path) -> str:
    """SHA-256 of names and contents of the sound files of a folder, computed once in a process.

    Raises:
        DataError: The folder is missing, or holds no sound file.
    """
    digest = hashlib.sha256()
    for path in sounds_of(folder):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def drawn_cut(folder: Path, num_samples: int, rate_hz: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(num_samples,) of a drawn sound of the folder from a drawn sample on, at `rate_hz`; not silent.

    A sound that is shorter is repeated. A silent cut is drawn again.

    Raises:
        DataError: A file cannot be read, or many cuts in a row are silent.
    """
    paths = sounds_of(folder)
    for _ in range(_TRIES):
        path = paths[int(random.integers(len(paths)))]
        info = inspect(path, any_channels=True)
        # enough of the file's own samples for `num_samples` at the other rate
        needed = -(-num_samples * info.sample_rate_hz // rate_hz) + 1
        first = int(random.integers(info.num_samples))
        if needed < info.num_samples:
            first = min(first, info.num_samples - needed)
            cut = at_rate(path, rate_hz, first, first + needed)
        else:
            cut = np.roll(at_rate(path, rate_hz), -first * rate_hz // info.sample_rate_hz)
        # (n,) -> (num_samples,): cut, or repeated
        whole = np.resize(cut, num_samples)
        if np.any(whole):
            return whole
    raise DataError(
        f"{_TRIES} cuts of {num_samples} samples in a row are silent", file=folder, do="Take silent files out of it"
    )


def at_rate(path: Path, rate_hz: int, first: int | None = None, end: int | None = None) -> NDArray[np.float64]:
    """(T,) of a file at `rate_hz`, the mean of its channels, as float64.

    Args:
        path: Sound file.
        rate_hz: Wanted samples per second.
        first: First sample at the file's own rate; None: the first of the file.
        end: The sample after the last; None: the end of the file.

    Raises:
        DataError: The file cannot be read.
    """
    # Imported here: it needs torch, and a condition is parsed without.
    from repbench.audio.resample import to_rate

    source_hz = inspect(path, any_channels=True).sample_rate_hz
    samples, _ = read_sound(
        path,
        start=None if first is None else first / source_hz,
        end=None if end is None else end / source_hz,
        channel="mix",
    )
    # (n,) -> (T,)
    resampled: NDArray[np.float64] = to_rate(samples, source_hz, rate_hz).numpy().astype(np.float64)
    return resampled
