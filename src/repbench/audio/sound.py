"""Decoding of sound files: one channel, and exactly as many samples as the header declares.

The formats are WAV, FLAC, NIST SPHERE, AIFF and AU, and the lossy MP3, Ogg Vorbis and Ogg Opus. The first bytes of a
file decide on its format, not its name. libsndfile reads many files that are truncated, or whose header is wrong,
without an error and returns fewer samples, so the header is read here (`repbench.audio.headers`) and compared with the
bytes of the file before libsndfile opens it. The size of the file bounds the memory that a header can make it take.

A sound may be a cell of a table (`repbench.audio.table_files`): a path below a file.

Axes: T samples, C channels. Times are in seconds; the sample at the time t is round(t * rate).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from repbench.audio.headers.header import CONVERT, FETCH, WRITE_AGAIN, Header, HeaderFault
from repbench.audio.headers.reading import read_header
from repbench.audio.table_files import place_of_cell, read_cell
from repbench.errors import DataError, EnvironmentFault, UsageError

if TYPE_CHECKING:
    import soundfile

Samples = npt.NDArray[np.float32]

Channel = int | Literal["mix"]
"""Selected channel of a sound: its number, from 1 on, or "mix" for the mean of all."""

ENDINGS = (
    ".wav", ".flac", ".sph", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".snd",
)  # fmt: skip
"""Suffixes of the formats that are read, in lower case."""

ENDINGS_TO_CONVERT = (".m4a", ".aac", ".mp4", ".wma", ".webm", ".amr", ".caf", ".mp2")
"""Suffixes of formats that are not read, but can be converted."""

_BLOCK_SAMPLES = 1 << 20
_CHOOSE = (
    "Choose with `--channel N` or `--channel mix` of `repbench corpus prepare` (`channel=` of `read_sound`), or write "
    "one channel to a file: `sox IN OUT remix 1`"
)


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """Rate and size of a sound file, by a header that agrees with the file.

    Attributes:
        sample_rate_hz: Samples per second.
        num_samples: Samples of each channel; at least 1.
        num_channels: Number of channels of the file.
    """

    sample_rate_hz: int
    num_samples: int
    num_channels: int = 1

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_samples / self.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Measure:
    """Rate, length and hash of decoded sound, and the format of its file. Two are equal if their samples are.

    Attributes:
        sample_rate_hz: Samples per second.
        num_samples: Number of decoded samples.
        samples_sha256: SHA-256 of the samples (float32, little endian).
        num_channels: Number of channels of the file.
        kind: Name of the format: WAV, FLAC, MP3, …
        is_lossy: Whether the format is lossy, so that the samples depend on the decoder.
        is_stream: Whether the file does not contain its length, so that a truncated one looks complete.
    """

    sample_rate_hz: int
    num_samples: int
    samples_sha256: str
    num_channels: int = field(default=1, compare=False)
    kind: str = field(default="WAV", compare=False)
    is_lossy: bool = field(default=False, compare=False)
    is_stream: bool = field(default=False, compare=False)


def inspect(
    path: Path | str, *, utterance: str | None = None, channel: Channel | None = None, any_channels: bool = False
) -> SoundInfo:
    """Read the header of a sound file and compare it with the file.

    Samples are decoded only to count them: those of MP3, Ogg, and FLAC without a total.

    Args:
        path: Sound file.
        utterance: Id of the utterance, for errors.
        channel: Selected channel; None: the only one.
        any_channels: Whether the number of channels is not checked.

    Raises:
        DataError: The file is missing, empty or truncated, contains more or fewer samples than its header declares,
            does not have the channel, has several and none is selected, or is of a format that is not read. (A
            truncated FLAC is detected by `read_sound` only.)
        EnvironmentFault: The file may not be read.
    """
    with _opened(path, utterance) as file:
        if not any_channels:
            file.refuse_channels(channel)
        return file.info()


def read_sound(
    path: Path | str,
    *,
    start: float | None = None,
    end: float | None = None,
    utterance: str | None = None,
    channel: Channel | None = None,
) -> tuple[Samples, int]:
    """Decode a sound file, or the part from `start` to `end`.

    A lossy file is always decoded from its first sample, because a jump into its middle gives other samples, and
    clipped to [-1, 1].

    Args:
        path: WAV, FLAC, NIST SPHERE, AIFF, AU, MP3, Ogg Vorbis or Ogg Opus file.
        start: Start in seconds; None: the start of the file.
        end: End in seconds; None: the end of the file.
        utterance: Id of the utterance, for errors.
        channel: Number of the channel, from 1 on, or "mix" for the mean of all; None: the only one.

    Returns:
        The samples, float32 of shape (T,) within [-1, 1], and the sample rate in hertz.

    Raises:
        DataError: As `inspect`; or the samples cannot be decoded, are fewer than declared, NaN, infinite or outside
            [-1, 1]; or `start` and `end` are outside the file.
        UsageError: `channel` is neither a number nor "mix".
        EnvironmentFault: The file may not be read.
    """
    with _opened(path, utterance) as file:
        return file.samples(start, end, channel), file.sound.samplerate


def measure(
    path: Path | str,
    *,
    start: float | None = None,
    end: float | None = None,
    utterance: str | None = None,
    channel: Channel | None = None,
) -> Measure:
    """Rate, length and hash of decoded sound; arguments and errors as in `read_sound`."""
    with _opened(path, utterance) as file:
        samples = file.samples(start, end, channel)
        return Measure(
            sample_rate_hz=file.sound.samplerate,
            num_samples=samples.shape[0],
            samples_sha256=hashlib.sha256(samples.astype("<f4", copy=False).data).hexdigest(),
            num_channels=file.sound.channels,
            kind=file.header.kind,
            is_lossy=file.header.is_lossy,
            is_stream=file.header.is_stream,
        )


def sample_range(
    info: SoundInfo,
    start: float | None,
    end: float | None,
    *,
    path: Path | None = None,
    utterance: str | None = None,
) -> tuple[int, int]:
    """The range of samples from `start` to `end` in seconds; None: the start or end of the file.

    Returns:
        The first sample, and the sample after the last.

    Raises:
        DataError: A time is not finite or outside the file, or the range is empty.
    """
    begin_s = 0.0 if start is None else start
    end_s = info.seconds if end is None else end
    if not (math.isfinite(begin_s) and math.isfinite(end_s)):
        what = f"`start` and `end` must be finite, but are {begin_s} and {end_s}"
        raise DataError(what, file=path, utterance=utterance)
    # Rounded, not cut off: 1.001 * 16000 is 16015.999… in float64.
    first, last = round(begin_s * info.sample_rate_hz), round(end_s * info.sample_rate_hz)
    if not 0 <= first < last <= info.num_samples:
        raise DataError(
            f"The utterance from {begin_s:g} to {end_s:g} s does not lie in the file, which lasts {info.seconds:g} s",
            file=path,
            utterance=utterance,
            do="Times in seconds? Check `start` and `end`",
        )
    return first, last


@dataclass(frozen=True, slots=True)
class _File:
    """An open sound file whose header agrees with the file.

    Attributes:
        sound: Decoder, at the first sample.
        header: Header of the file.
        path: Path of the file, for errors.
        utterance: Id of the utterance, for errors.
        num_skipped: Samples that the decoder gives before those of the file.
    """

    sound: soundfile.SoundFile
    header: Header
    path: Path
    utterance: str | None
    num_skipped: int = 0

    def info(self) -> SoundInfo:
        num_samples = self.header.num_samples
        if num_samples is None:
            # counted block by block, so that the sound is never in memory as a whole
            num_samples = sum(len(block) for block in self._blocks(None))
            self._refuse_other_count(num_samples)
        return SoundInfo(self.sound.samplerate, num_samples, self.sound.channels)

    def samples(self, start: float | None, end: float | None, channel: Channel | None) -> Samples:
        self.refuse_channels(channel)
        if self.header.num_samples is None:
            samples = self._decode_all(start, end, channel)
        else:
            info = self.info()
            first, last = sample_range(info, start, end, path=self.path, utterance=self.utterance)
            samples = self._decode_range(first, last - first, channel)
        # Lossy codecs overshoot full scale. A sound with NaN stays as it is and is refused below.
        if self.header.is_lossy and not np.isnan(samples).any():
            np.clip(samples, -1.0, 1.0, out=samples)
        _refuse_broken_values(samples, self.path, self.utterance)
        return samples

    def _decode_all(self, start: float | None, end: float | None, channel: Channel | None) -> Samples:
        """The samples from `start` to `end` of a sound whose length only the decoder knows: (T,)."""
        # blocks (T, C) -> (T,)
        whole = _joined([_select_channel(block, channel) for block in self._blocks(None)])
        self._refuse_other_count(len(whole))
        info = SoundInfo(self.sound.samplerate, len(whole), self.sound.channels)
        first, last = sample_range(info, start, end, path=self.path, utterance=self.utterance)
        # A copy of a part, or a view of it would keep the whole sound in memory.
        return whole if last - first == len(whole) else whole[first:last].copy()

    def _decode_range(self, first: int, num_samples: int, channel: Channel | None) -> Samples:
        """The `num_samples` from `first` on of a sound whose header declares its length: (T,)."""
        samples = _joined([_select_channel(block, channel) for block in self._blocks(num_samples, first)])
        if samples.shape != (num_samples,):
            what = f"The file holds {first + samples.shape[0]} samples, but its header declares {self.sound.frames}"
            self.refuse(what, FETCH)
        return samples

    def _blocks(self, num_samples: int | None, first: int = 0) -> Iterator[Samples]:
        """Decode `num_samples` from `first` on, or up to the end, as blocks (T, C).

        A block is read if the one before it was full, so that the memory depends on the samples that exist and not on
        the number that is declared.
        """
        import soundfile

        try:
            if first or self.header.is_lossy:  # the MP3 decoder rounds differently before and after its first seek
                self.sound.seek(first)
            if self.num_skipped:
                self.sound.read(self.num_skipped, dtype="float32")
            # One more than possible, so that the last read reaches the end.
            left = self.header.most_samples + 1 if num_samples is None else num_samples
            while left > 0:
                wanted = min(left, max(1, _BLOCK_SAMPLES // self.sound.channels))
                block: Samples = self.sound.read(wanted, dtype="float32", always_2d=True)
                yield block
                if len(block) < wanted:
                    return
                left -= wanted
        except soundfile.LibsndfileError as error:
            self.refuse(f"The sound cannot be decoded: {error.error_string}", FETCH)

    def _refuse_other_count(self, num_samples: int) -> None:
        """Refuse a sound if the decoder gave more or fewer samples than it announced."""
        announced = self.header.decoded_samples or self.sound.frames
        if self.header.is_lossy and num_samples != announced:
            self.refuse(
                f"The decoder gives {num_samples} samples of the {self.header.kind}, not {announced}", WRITE_AGAIN
            )
        if num_samples == 0:
            self.refuse("The sound holds 0 samples", FETCH)

    def refuse_channels(self, channel: Channel | None) -> None:
        """Refuse a sound of several channels if none is selected, or one without the selected channel.

        Raises:
            DataError: The sound is refused.
            UsageError: `channel` is neither a number nor "mix".
        """
        num_channels = self.sound.channels
        if channel is not None and channel != "mix" and type(channel) is not int:
            raise UsageError(f'`channel` must be a number from 1 on or "mix", but is {channel!r}', key="channel")
        if channel is None and num_channels != 1:
            self.refuse(f"The sound has {num_channels} channels, but one is read", _CHOOSE)
        if channel is not None and channel != "mix" and not 1 <= channel <= num_channels:
            what = f"Channel {channel} is selected, but the sound has {num_channels} channel{'s' * (num_channels != 1)}"
            self.refuse(what, "Channels count from 1; check `channel`")

    def refuse_layout(self) -> None:
        """Refuse a file that libsndfile reads otherwise than its header declares."""
        declared, found = self.header.num_samples, self.sound.frames
        if declared is not None and found != declared:
            self.refuse(f"libsndfile finds {found} samples, but the header declares {declared}", CONVERT)
        is_claimed = self.header.is_lossy and self.header.decoded_samples is None
        if is_claimed and not 0 < found <= self.header.most_samples:
            what = f"The header declares {found} samples, but the frames or pages of the {self.header.kind} hold "
            self.refuse(what + f"{self.header.most_samples} at most", FETCH)
        difference = self.header.difference(self.sound) if self.header.difference is not None else None
        if difference is not None:
            self.refuse(difference, CONVERT)

    def refuse(self, what: str, do: str) -> NoReturn:
        _refuse(what, self.path, self.utterance, do)


def _select_channel(block: Samples, channel: Channel | None) -> Samples:
    """The selected channel of a block: (T, C) -> (T,)."""
    if channel == "mix":
        # (T, C) -> (T,): a mean in float64, rounded once
        mixed: Samples = block.mean(axis=1, dtype=np.float64).astype(np.float32)
        return mixed
    return block[:, 0 if channel is None else channel - 1]


def _joined(blocks: list[Samples]) -> Samples:
    # (T,) each. A channel of (T, C) has strides, but hashing reads adjacent samples; the empty array makes the join of
    # no block float32.
    return np.ascontiguousarray(blocks[0]) if len(blocks) == 1 else np.concatenate([np.empty(0, np.float32), *blocks])


@contextlib.contextmanager
def _opened(path: Path | str, utterance: str | None) -> Iterator[_File]:
    """Open a file with libsndfile, after its header was compared with the file."""
    import soundfile

    from repbench.audio.decoding import ForwardSoundFile

    path = Path(path)
    with _bytes_of(path, utterance) as stream:
        try:
            header = read_header(stream)
        except HeaderFault as fault:
            _refuse(str(fault), path, utterance, fault.do)
        try:
            sound = ForwardSoundFile(_source(stream, header), closefd=False)
            num_skipped = 0
            if header.with_table is not None and sound.frames < (header.decoded_samples or 0):
                sound.close()
                sound, num_skipped = ForwardSoundFile(io.BytesIO(header.with_table)), header.table_samples
        except soundfile.LibsndfileError as error:
            do = CONVERT if header.num_samples is not None and header.kind != "FLAC" else FETCH
            _refuse(f"The sound cannot be read: {error.error_string}", path, utterance, do)
        with sound:
            file = _File(sound, header, path, utterance, num_skipped)
            file.refuse_layout()
            yield file


def _source(stream: BinaryIO, header: Header) -> int | io.BytesIO:
    """What libsndfile opens: the descriptor of a file, or bytes in memory."""
    if header.mended is not None:
        return io.BytesIO(header.mended)
    # libsndfile takes the descriptor where it is: `_bytes_of` opens it unbuffered, so that `seek` moves it at once.
    stream.seek(header.start)
    # of bytes it knows no start but the first
    return io.BytesIO(stream.read()) if isinstance(stream, io.BytesIO) else stream.fileno()


@contextlib.contextmanager
def _bytes_of(path: Path, utterance: str | None) -> Iterator[BinaryIO]:
    try:
        os.fspath(path).encode("utf-8")
        stream: BinaryIO = path.open("rb", buffering=0)
    except NotADirectoryError:
        stream = _cell(path, utterance)
    except UnicodeEncodeError:
        _refuse("The name of the file is not valid UTF-8", path, utterance, "Rename the file")
    except FileNotFoundError:
        _refuse("The sound file is missing", path, utterance, "Put it back, or prepare the corpus again")
    except PermissionError as error:
        raise EnvironmentFault("The sound file may not be read", file=path, utterance=utterance) from error
    except OSError as error:
        _refuse(f"The sound file cannot be opened: {error.strerror}", path, utterance, FETCH)
    with stream:
        yield stream


def _cell(path: Path, utterance: str | None) -> io.BytesIO:
    """The bytes of a sound below a file, which must be a cell of a table."""
    if (place := place_of_cell(path)) is None:
        _refuse("The sound file is missing: a part of its path is a file", path, utterance, "Prepare the corpus again")
    return io.BytesIO(read_cell(place, utterance=utterance))


def _refuse(what: str, path: Path, utterance: str | None, do: str) -> NoReturn:
    if "{name}" in do and place_of_cell(path) is not None:
        do = "Write the sound of this row as WAV or FLAC, or take the row out of the table"
    made = path.stem + (".wav" if path.suffix.lower() != ".wav" else "-mended.wav")
    do = do.replace("{name}", shlex.quote(path.name)).replace("{wav}", shlex.quote(made))
    raise DataError(what, file=path, utterance=utterance, do=do)


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
