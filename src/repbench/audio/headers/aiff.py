"""AIFF and AIFF-C with PCM, float, A-law or mu-law samples.

Reference: Apple, "Audio Interchange File Format AIFF-C", 1991.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from repbench.audio.headers.header import (
    CONVERT,
    COUNT_AGAIN,
    FETCH,
    PADDING_BYTES,
    Header,
    HeaderFault,
    SampleBytes,
    read_at,
)
from repbench.audio.headers.tags import is_no_sound
from repbench.audio.headers.wav import is_placeholder

FORMS = (b"AIFF", b"AIFC")

_SAMPLE_BYTES = {
    b"NONE": None, b"twos": None, b"sowt": None, b"raw ": None, b"in24": 3, b"in32": 4, b"42ni": 4, b"23ni": 4,
    b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8, b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1,
}  # fmt: skip
"""From each compression that is read to the bytes of a sample; None: given by the COMM chunk."""


class _Common(NamedTuple):
    num_samples: int
    block_bytes: int


class _SoundData(NamedTuple):
    start: int
    num_bytes: int


def read_aiff(stream: BinaryIO, start: int, size: int) -> Header:
    """Read the chunks of an AIFF that begins at `start` in a file of `size` bytes.

    Raises:
        HeaderFault: The file is cut, its chunks contradict each other, or its samples are compressed.
    """
    common, sound = _chunks(stream, start, size)
    declared = common.num_samples * common.block_bytes
    # written into a pipe: the sound reaches to the end of the file
    is_open = is_placeholder(sound.num_bytes)
    actual = size - sound.start if is_open else min(sound.num_bytes, size - sound.start)
    is_stream = is_open and is_placeholder(common.num_samples)
    if is_stream:
        declared = actual
    elif 0 < actual - declared <= PADDING_BYTES:
        actual = declared
    num_samples = SampleBytes(common.block_bytes, declared, actual).whole_samples()
    end = sound.start + sound.num_bytes
    if not is_open and end < size and not _is_chunks(stream, end, size):
        what = f"The file holds {size - end} bytes after its sound that are neither a chunk nor padding"
        raise HeaderFault(what, COUNT_AGAIN)
    return Header(kind="AIFF", most_samples=num_samples, num_samples=num_samples, start=start, is_stream=is_stream)


def _chunks(stream: BinaryIO, start: int, size: int) -> tuple[_Common, _SoundData]:
    """Read the chunks COMM and SSND, in any order."""
    common: _Common | None = None
    sound: _SoundData | None = None
    # after `FORM`, the size of the file and `AIFF` or `AIFC`
    position = start + 12
    while (common is None or sound is None) and len(head := read_at(stream, position, 8)) == 8:
        name, num_bytes = struct.unpack(">4sI", head)
        if name == b"COMM":
            common = _common(read_at(stream, position + 8, min(num_bytes, 22)))
        elif name == b"SSND":
            # SSND begins with an offset and a block size, four bytes each; the sound starts `offset` bytes after them
            offset = int.from_bytes(read_at(stream, position + 8, 4), "big")
            sound = _SoundData(position + 16 + offset, max(0, num_bytes - 8 - offset))
        # a chunk of odd size is followed by a byte of padding that its size does not count
        position += 8 + num_bytes + num_bytes % 2
    if common is None or sound is None or sound.start > size:
        missing = "COMM" if common is None else "SSND"
        raise HeaderFault(f"The AIFF has no `{missing}` chunk, or its chunks do not follow one another")
    return common, sound


def _common(chunk: bytes) -> _Common:
    if len(chunk) < 18:
        raise HeaderFault("The AIFF ends inside its `COMM` chunk", FETCH)
    # then the rate, an 80-bit float, which libsndfile reads, and in AIFF-C the compression
    num_channels, num_samples, sample_bits = struct.unpack(">HIH", chunk[:8])
    compression = chunk[18:22] or b"NONE"
    if compression not in _SAMPLE_BYTES:
        shown = compression.decode("latin-1")
        raise HeaderFault(f"The AIFF is compressed (`{shown}`), which is not read", CONVERT)
    sample_bytes = _SAMPLE_BYTES[compression] or (sample_bits + 7) // 8
    if num_channels == 0 or sample_bytes == 0:
        raise HeaderFault("The `COMM` chunk of the AIFF declares samples of 0 bytes")
    return _Common(num_samples, num_channels * sample_bytes)


def _is_chunks(stream: BinaryIO, position: int, size: int) -> bool:
    """Whether the rest of the file from `position`, or from the next even byte, is chunks, tags, zeros or padding."""
    return any(_is_chain(stream, each, size) for each in (position + position % 2, position))


def _is_chain(stream: BinaryIO, position: int, size: int) -> bool:
    while not is_no_sound(stream, position, size, most_padding=PADDING_BYTES):
        name, num_bytes = struct.unpack(">4sI", read_at(stream, position, 8))
        if not all(0x20 <= byte < 0x7F for byte in name) or position + 8 + num_bytes > size:
            return False
        position += 8 + num_bytes + num_bytes % 2
    return True
