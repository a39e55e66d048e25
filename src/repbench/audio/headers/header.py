"""What a header says, in the terms of every format; and why a file is refused before a decoder sees it."""

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
"""So many bytes after the last chunk are padding, whatever they are: the head of a chunk has 8."""

_BLOCK_BYTES = 1 << 20


class HeaderFault(Exception):  # noqa: N818 - becomes a DataError that names the file
    """Why a sound file is not read, and what to do (`do`; `{name}` is the file, `{wav}` one to be made)."""

    def __init__(self, what: str, do: str = FETCH) -> None:
        super().__init__(what)
        self.do = do


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of its sound, after it has been compared with the bytes of the file.

    Attributes:
        kind: What the file is, as notes call it: WAV, FLAC, MP3, …
        most_samples: More samples of each channel than a file of its size and format can hold.
        num_samples: Samples of each channel that the header promises; None: only the decoder can count them.
        start: Where the sound begins in the file, behind the tags in front of it.
        is_lossy: Whether the samples are what a decoder makes of them. Its values may exceed full scale, and a jump
            into the middle gives other samples than decoding from the start.
        is_stream: Whether the header was written before the length was known, so that a file cut short looks whole.
        difference: What the decoder understands otherwise, in words; None where there is nothing to compare.
        mended: What the decoder is given in the place of the file; None: the file.
        decoded_samples: Samples of each channel that the decoder must give; None: as many as it says itself.
        with_table: What it is given if it says that there are fewer than `decoded_samples`.
        table_samples: Samples that `with_table` has in front of the sound.
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
    """What a file says of its uncompressed sound (`declared_bytes`) and what is there (`held_bytes`)."""

    block_bytes: int
    declared_bytes: int
    held_bytes: int

    def whole_samples(self, *, too_many: str = COUNT_AGAIN) -> int:
        """Samples of each channel, after the file has been found to hold exactly what it says.

        Args:
            too_many: What to do about a file that holds more than its header says.

        Raises:
            HeaderFault: It holds fewer or more, ends inside a sample, or holds none.
        """
        declared, rest = divmod(self.declared_bytes, self.block_bytes)
        if self.held_bytes != self.declared_bytes:
            held = self.held_bytes // self.block_bytes
            what = f"The file holds {held} samples, but its header says {declared}"
            if held == declared:
                what = f"The file holds {self.held_bytes} bytes of sound, but its header says {self.declared_bytes}"
            raise HeaderFault(what, FETCH if self.held_bytes < self.declared_bytes else too_many)
        if rest:
            raise HeaderFault(f"The sound ends {rest} bytes into a sample")
        if declared == 0:
            raise HeaderFault("The sound holds 0 samples")
        return declared


def size_of(stream: BinaryIO) -> int:
    """Bytes of an open file."""
    return os.fstat(stream.fileno()).st_size


def read_at(stream: BinaryIO, position: int, num_bytes: int) -> bytes:
    """Up to `num_bytes` from `position` on; fewer at the end of the file."""
    stream.seek(position)
    return stream.read(num_bytes)


def is_zeros(stream: BinaryIO, position: int, size: int) -> bool:
    """Whether every byte from `position` up to `size` is 0."""
    stream.seek(position)
    while position < size:
        block = stream.read(min(_BLOCK_BYTES, size - position))
        if not block or block.count(0) != len(block):
            return False
        position += len(block)
    return True
