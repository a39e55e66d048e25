"""How a sound file becomes samples: WAV, FLAC and NIST SPHERE, one channel, never fewer samples than the header says.

libsndfile reads a truncated or lying WAV or SPHERE file in silence and hands back fewer samples, so the header is read
here (that of SPHERE in `sphere`) and compared with the size of the file before libsndfile sees it. A FLAC carries
checksums of its own; they are checked where samples are read. What a file is, its first bytes say, not its name.

Legend: T samples. Times are seconds; the sample of the time t is round(t * rate).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import numpy as np
import numpy.typing as npt

from repbench.audio import sphere
from repbench.errors import DataError, EnvironmentFault

if TYPE_CHECKING:
    import soundfile

Samples = npt.NDArray[np.float32]

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_CHECKABLE_ENCODINGS = {_PCM, _FLOAT, _ALAW, _MULAW}
_SIZE_ELSEWHERE = 0xFFFFFFFF
_CONVERT = "Convert it to WAV (PCM or float) or FLAC"
_REPLACE = "Fetch the file again or take the utterance out of the corpus"


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """What the header of a sound file says, after it has been compared with the file.

    Attributes:
        sample_rate_hz: Samples a second.
        num_samples: Samples in the file; at least 1.
    """

    sample_rate_hz: int
    num_samples: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_samples / self.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Measure:
    """What is known of a stretch of sound once it has been decoded.

    Attributes:
        sample_rate_hz: Samples a second.
        num_samples: Samples of the stretch.
        samples_sha256: SHA-256 of its samples (float32, little endian).
    """

    sample_rate_hz: int
    num_samples: int
    samples_sha256: str


def inspect(path: Path, *, utterance: str | None = None) -> SoundInfo:
    """Read the header of a sound file and check it against the file, without decoding samples.

    Args:
        path: A WAV, FLAC or NIST SPHERE file of one channel.
        utterance: The id that an error names.

    Raises:
        DataError: The file is missing, empty, truncated, holds more or fewer samples than its header says, has more
            than one channel, or is neither WAV nor FLAC nor SPHERE. (A FLAC cut short is found only by `read_sound`.)
        EnvironmentFault: The file may not be read.
    """
    with _opened(path, utterance) as sound:
        return SoundInfo(sound.samplerate, sound.frames)


def read_sound(
    path: Path, *, start: float | None = None, end: float | None = None, utterance: str | None = None
) -> tuple[Samples, int]:
    """Decode a sound file, or the part from `start` to `end`.

    Args:
        path: A WAV, FLAC or NIST SPHERE file of one channel.
        start: Where to start, in seconds; None for the start of the file.
        end: Where to end, in seconds; None for the end of the file.
        utterance: The id that an error names.

    Returns:
        The samples, float32 of shape (T,) within [-1, 1], and the sample rate in hertz.

    Raises:
        DataError: As `inspect`; or the samples cannot be decoded, are fewer than promised, NaN, infinite or outside
            [-1, 1]; or `start` and `end` lie outside the file.
        EnvironmentFault: The file may not be read.
    """
    with _opened(path, utterance) as sound:
        info = SoundInfo(sound.samplerate, sound.frames)
        first, last = sample_range(info, start, end, path=path, utterance=utterance)
        samples = _decode(sound, first, last - first, path, utterance)
    _refuse_broken_values(samples, path, utterance)
    return samples, info.sample_rate_hz


def measure(
    path: Path, *, start: float | None = None, end: float | None = None, utterance: str | None = None
) -> Measure:
    """Decode a stretch of sound and say its rate, length and hash. Arguments and errors as in `read_sound`."""
    samples, sample_rate_hz = read_sound(path, start=start, end=end, utterance=utterance)
    digest = hashlib.sha256(samples.astype("<f4", copy=False).data).hexdigest()
    return Measure(sample_rate_hz, samples.shape[0], digest)


def sample_range(
    info: SoundInfo,
    start: float | None,
    end: float | None,
    *,
    path: Path | None = None,
    utterance: str | None = None,
) -> tuple[int, int]:
    """The samples from `start` up to but not including `end` (seconds; None: the edge of the file).

    Raises:
        DataError: A time is not a number, lies outside the file, or no sample lies between the two.
    """
    begin_s = 0.0 if start is None else start
    end_s = info.seconds if end is None else end
    if not (math.isfinite(begin_s) and math.isfinite(end_s)):
        what = f"`start` and `end` must be finite, but are {begin_s} and {end_s}"
        raise DataError(what, file=path, utterance=utterance)
    first, last = round(begin_s * info.sample_rate_hz), round(end_s * info.sample_rate_hz)
    if not 0 <= first < last <= info.num_samples:
        raise DataError(
            f"The utterance from {begin_s:g} to {end_s:g} s does not lie in the file, which lasts {info.seconds:g} s",
            file=path,
            utterance=utterance,
            do="Times in seconds? Check `start` and `end`",
        )
    return first, last


@contextlib.contextmanager
def _opened(path: Path, utterance: str | None) -> Iterator[soundfile.SoundFile]:
    """The file opened by libsndfile after its header has been found true."""
    import soundfile

    with _bytes_of(path, utterance) as stream:
        promised = _promise(stream, path, utterance)
        stream.seek(0)
        try:
            sound = soundfile.SoundFile(stream.fileno(), closefd=False)
        except soundfile.LibsndfileError as error:
            _refuse(f"The sound cannot be read: {error.error_string}", path, utterance, _REPLACE)
        with sound:
            _refuse_layout(sound, promised, path, utterance)
            yield sound


@contextlib.contextmanager
def _bytes_of(path: Path, utterance: str | None) -> Iterator[BinaryIO]:
    try:
        os.fspath(path).encode("utf-8")
        stream = path.open("rb", buffering=0)
    except UnicodeEncodeError:
        _refuse("The name of the file is not valid UTF-8", path, utterance, "Rename the file")
    except FileNotFoundError:
        _refuse("The sound file is missing", path, utterance, "Put it back, or prepare the corpus again")
    except PermissionError as error:
        raise EnvironmentFault("The sound file may not be read", file=path, utterance=utterance) from error
    except OSError as error:
        _refuse(f"The sound file cannot be opened: {error.strerror}", path, utterance, _REPLACE)
    with stream:
        yield stream


def _refuse(what: str, path: Path, utterance: str | None, do: str) -> NoReturn:
    raise DataError(what, file=path, utterance=utterance, do=do)


def _refuse_layout(sound: soundfile.SoundFile, promised: _Promise | None, path: Path, utterance: str | None) -> None:
    if sound.channels != 1:
        what = f"The sound has {sound.channels} channels, but one is read"
        _refuse(what, path, utterance, "Choose or mix the channels yourself and say so where you report scores")
    if promised is not None and sound.frames != promised.num_samples:
        what = f"libsndfile finds {sound.frames} samples, but the header says {promised.num_samples}"
        _refuse(what, path, utterance, _REPLACE)
    if promised is not None and promised.header is not None:
        difference = promised.header.difference(sound)
        if difference is not None:
            _refuse(difference, path, utterance, _CONVERT)
    if not 0 < sound.frames < 2**48:
        _refuse("The file does not say how many samples it holds, or holds none", path, utterance, _REPLACE)


def _decode(sound: soundfile.SoundFile, first: int, num_samples: int, path: Path, utterance: str | None) -> Samples:
    import soundfile

    try:
        if first:
            sound.seek(first)
        samples: Samples = sound.read(num_samples, dtype="float32")
    except soundfile.LibsndfileError as error:
        _refuse(f"The sound cannot be decoded: {error.error_string}", path, utterance, _REPLACE)
    if samples.shape != (num_samples,):
        what = f"The file holds {first + samples.shape[0]} samples, but its header says {sound.frames}"
        _refuse(what, path, utterance, _REPLACE)
    return samples


def _refuse_broken_values(samples: Samples, path: Path, utterance: str | None) -> None:
    if max(samples.max(), -samples.min()) <= 1.0:  # False for NaN
        return
    num_broken = int(np.count_nonzero(~np.isfinite(samples)))
    if num_broken:
        what = f"{num_broken} of {samples.size} samples are NaN or infinite"
        _refuse(what, path, utterance, "Write the file again from its source")
    num_outside = int(np.count_nonzero(np.abs(samples) > 1.0))
    what = f"{num_outside} of {samples.size} samples lie outside [-1, 1]"
    _refuse(what, path, utterance, "Scale the file so that its peak is at most 1")


@dataclass(frozen=True, slots=True)
class _Promise:
    """Samples that the header promises and the file holds; and the header, where libsndfile may read it otherwise."""

    num_samples: int
    header: sphere.SphereHeader | None = None


def _promise(stream: BinaryIO, path: Path, utterance: str | None) -> _Promise | None:
    """What the header promises and the file holds; None for a FLAC, whose reader checks that itself."""
    size = os.fstat(stream.fileno()).st_size
    magic = stream.read(12)
    if size == 0:
        _refuse("The sound file is empty", path, utterance, _REPLACE)
    if magic[:4] == b"fLaC":
        return None
    if magic.startswith(sphere.MAGIC):
        return _sphere_promise(stream, size, path, utterance)
    if magic[:4] not in (b"RIFF", b"RIFX", b"RF64") or magic[8:12] != b"WAVE":
        _refuse("The file is neither WAV nor FLAC nor SPHERE", path, utterance, _CONVERT)
    try:
        wav = _walk_wav(stream, size, big_endian=magic[:4] == b"RIFX", is_rf64=magic[:4] == b"RF64")
    except _WavFault as fault:
        _refuse(str(fault), path, utterance, _REPLACE)
    if wav.encoding not in _CHECKABLE_ENCODINGS:
        _refuse(f"The WAV has encoding 0x{wav.encoding:04x}, which is not read", path, utterance, _CONVERT)
    return _Promise(_whole_samples(wav.sound, path, utterance))


def _sphere_promise(stream: BinaryIO, size: int, path: Path, utterance: str | None) -> _Promise:
    try:
        header = sphere.read_header(stream)
    except sphere.SphereFault as fault:
        _refuse(str(fault), path, utterance, fault.do)
    sound = _Sound(header.block_bytes, header.num_samples * header.block_bytes, max(0, size - header.header_bytes))
    return _Promise(_whole_samples(sound, path, utterance), header)


def _whole_samples(sound: _Sound, path: Path, utterance: str | None) -> int:
    declared, rest = divmod(sound.declared_bytes, sound.block_bytes)
    if sound.held_bytes != sound.declared_bytes:
        held = sound.held_bytes // sound.block_bytes
        what = f"The file holds {held} samples, but its header says {declared}"
        if held == declared:
            what = f"The file holds {sound.held_bytes} bytes of sound, but its header says {sound.declared_bytes}"
        _refuse(what, path, utterance, _REPLACE)
    if rest:
        _refuse(f"The sound ends {rest} bytes into a sample", path, utterance, _REPLACE)
    if declared == 0:
        _refuse("The sound holds 0 samples", path, utterance, _REPLACE)
    return declared


class _WavFault(Exception):  # noqa: N818 - becomes a DataError that names the file
    """Why a WAV header cannot be read."""


@dataclass(frozen=True, slots=True)
class _Sound:
    """What a file says of its sound (`declared_bytes`) and what is there (`held_bytes`)."""

    block_bytes: int
    declared_bytes: int
    held_bytes: int


@dataclass(frozen=True, slots=True)
class _Wav:
    """What the chunks of a WAV say."""

    encoding: int
    sound: _Sound


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    start: int
    num_bytes: int


def _walk_wav(stream: BinaryIO, size: int, *, big_endian: bool, is_rf64: bool) -> _Wav:
    """Walk the chunks of a WAV of `size` bytes; a data chunk counts as true if it, and all after it, fit the file."""
    order = ">" if big_endian else "<"
    form: tuple[int, int] | None = None
    long_size: int | None = None
    position = 12
    while (chunk := _chunk_at(stream, position, order)) is not None:
        if chunk.name == b"ds64" and is_rf64:
            long_size = struct.unpack(order + "8xQ", _payload(stream, chunk, 16))[0]
        elif chunk.name == b"fmt ":
            form = _encoding_and_block(_payload(stream, chunk, min(chunk.num_bytes, 40)), order)
        elif chunk.name == b"data":
            if form is None:
                raise _WavFault("The WAV has no `fmt ` chunk before its `data` chunk")
            if chunk.num_bytes == _SIZE_ELSEWHERE and long_size is not None:
                chunk = _Chunk(chunk.name, chunk.start, long_size)
            encoding, block_bytes = form
            return _Wav(encoding, _Sound(block_bytes, chunk.num_bytes, _held_bytes(stream, chunk, size, order)))
        position = chunk.start + chunk.num_bytes + chunk.num_bytes % 2
    raise _WavFault("The WAV has no `data` chunk, or its chunks do not follow one another")


def _held_bytes(stream: BinaryIO, data: _Chunk, size: int, order: str) -> int:
    """Bytes of sound in the file: as declared, or up to the end of the file where that cannot be true."""
    end = data.start + data.num_bytes
    if end > size:
        return size - data.start
    return data.num_bytes if _is_chunks_to_the_end(stream, end, size, order) else size - data.start


def _is_chunks_to_the_end(stream: BinaryIO, position: int, size: int, order: str) -> bool:
    """Whether what follows the data chunk is its padding and further chunks, and nothing else."""
    position += position % 2
    while position < size:
        chunk = _chunk_at(stream, position, order)
        if chunk is None:
            return False
        position = chunk.start + chunk.num_bytes
        if position > size:
            return False
        position += position % 2
    return True


def _chunk_at(stream: BinaryIO, position: int, order: str) -> _Chunk | None:
    """The chunk whose head stands at `position`; None where no head with a printable name stands."""
    stream.seek(position)
    head = stream.read(8)
    if len(head) < 8:
        return None
    name, num_bytes = struct.unpack(order + "4sI", head)
    if not all(0x20 <= byte < 0x7F for byte in name):
        return None
    return _Chunk(name, position + 8, num_bytes)


def _payload(stream: BinaryIO, chunk: _Chunk, num_bytes: int) -> bytes:
    stream.seek(chunk.start)
    payload = stream.read(num_bytes)
    if len(payload) < num_bytes:
        raise _WavFault(f"The WAV ends inside its `{chunk.name.decode('latin-1').strip()}` chunk")
    return payload


def _encoding_and_block(form: bytes, order: str) -> tuple[int, int]:
    """Encoding code and bytes per block (one sample of every channel) of a `fmt ` chunk."""
    if len(form) < 16:
        raise _WavFault(f"The `fmt ` chunk of the WAV has {len(form)} bytes, but at least 16 are needed")
    encoding, _, _, _, block_bytes = struct.unpack(order + "HHIIH", form[:14])
    if encoding == _EXTENSIBLE and len(form) >= 26:
        encoding = struct.unpack(order + "H", form[24:26])[0]
    if block_bytes == 0:
        raise _WavFault("The `fmt ` chunk of the WAV says that a sample has 0 bytes")
    return encoding, block_bytes
