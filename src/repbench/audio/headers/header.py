"""Content of a header in terms that all formats share, and the error for a file that no decoder should open."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

FETCH = "Fetch the file again or take the utterance out of the corpus"
CONVERT = "Convert it to WAV (PCM or float) or FLAC, like `ffmpeg -i {name} {wav}`"
COUNT_AGAIN = (
    "If all of it is sound, write the header again, with `sox --ignore-length {name} {wav}` or `ffmpeg -i {name} "
    "{wav}`; else take the utterance out of the corpus"
)
WRITE_AGAIN = (
    "Write it as WAV, like `ffmpeg -i {name} {wav}`, and listen to it, or take the utterance out of the corpus"
)

PADDING_BYTES = 7
"""Most bytes after the last chunk that count as padding, whatever their value: the head of a chunk has 8."""

_BLOCK_BYTES = 1 << 20


class HeaderFault(Exception):  # noqa: N818 - becomes a DataError that names the file
    """A sound file is not read; `do` is the advice, with `{name}` for the file and `{wav}` for a new one."""

    def __init__(self, what: str, do: str = FETCH) -> None:
        super().__init__(what)
        self.do = do


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Content of a header, after it has been compared with the bytes of the file.

    Attributes:
        kind: Name of the format: WAV, FLAC, MP3, …
        most_samples: Upper bound of the samples of each channel, from the size of the file and its format.
        num_samples: Samples of each channel by the header; None: only the decoder can count them.
        start: First byte of the sound file proper, after the tags in front of it.
        is_lossy: Whether the format is lossy. Decoded values may exceed full scale, and a jump into the middle gives
            other samples than decoding from the start.
        is_stream: Whether the header was written before the length was known, so that a file cut short looks whole.
        difference: Function from the open file to what libsndfile reads otherwise, in words; None: nothing to compare.
        mended: Bytes to decode in place of the file; None: the file itself.
        decoded_samples: Samples of each channel that the decoder must give; None: as many as it announces.
        with_table: Bytes to decode if the decoder announces fewer than `decoded_samples`.
        table_samples: Samples at the start of `with_table` that precede the sound.
    """

    kind: str
    most_samples: int
    num_samples: int | None
    start: int = 0
    is_lossy: bool = False
    is_stream: bool = False
    difference: Callable[..., str | None] | None = None
    mended: bytes | None = None
    decoded_samples: int | None = None
    with_table: bytes | None = None
    table_samples: int = 0


@dataclass(frozen=True, slots=True)
class SampleBytes:
    """Size of uncompressed sound, by the header and in the file.

    Attributes:
        block_bytes: Bytes of one sample of every channel.
        declared_bytes: Bytes of sound by the header.
        actual_bytes: Bytes of sound in the file.
    """

    block_bytes: int
    declared_bytes: int
    actual_bytes: int

    def whole_samples(self, *, too_many: str = COUNT_AGAIN) -> int:
        """Number of samples of each channel, if the header and the file agree.

        Args:
            too_many: Advice for a file that contains more than its header declares.

        Raises:
            HeaderFault: The file contains fewer or more, ends inside a sample, or contains none.
        """
        declared, rest = divmod(self.declared_bytes, self.block_bytes)
        if self.actual_bytes != self.declared_bytes:
            actual = self.actual_bytes // self.block_bytes
            what = f"The file holds {actual} samples, but its header declares {declared}"
            if actual == declared:
                what = (
                    f"The file holds {self.actual_bytes} bytes of sound, but its header declares {self.declared_bytes}"
                )
            raise HeaderFault(what, FETCH if self.actual_bytes < self.declared_bytes else too_many)
        if rest:
            raise HeaderFault(f"The sound ends {rest} bytes into a sample")
        if declared == 0:
            raise HeaderFault("The sound holds 0 samples")
        return declared


def size_of(stream: BinaryIO) -> int:
    """Size of an open file, or of bytes in memory; the position changes."""
    return stream.seek(0, os.SEEK_END)


def read_at(stream: BinaryIO, position: int, num_bytes: int) -> bytes:
    """Up to `num_bytes` from `position` on; fewer at the end of the file."""
    stream.seek(position)
    return stream.read(num_bytes)


def is_zeros(stream: BinaryIO, position: int, size: int) -> bool:
    """Whether every byte from `position` up to `size` is 0."""
    # block by block: a file may end in gigabytes of zeros
    stream.seek(position)
    while position < size:
        block = stream.read(min(_BLOCK_BYTES, size - position))
        if not block or block.count(0) != len(block):
            return False
        position += len(block)
    return True
