"""AU (Sun and NeXT, `.au` and `.snd`) with PCM, float, A-law or mu-law samples.

Reference: Oracle, "Audio File Format", audio.h; a size of FFFFFFFF means that the sound extends to the end of the file.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from repbench.audio.headers.header import CONVERT, COUNT_AGAIN, PADDING_BYTES, Header, HeaderFault, SampleBytes, read_at
from repbench.audio.headers.tags import is_no_sound

MAGICS = (b".snd", b"dns.")

_HEAD_BYTES = 24
_TO_THE_END = 0xFFFFFFFF
# mu-law, PCM of 8, 16, 24 and 32 bits, float, double, A-law
_SAMPLE_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def read_au(stream: BinaryIO, start: int, size: int) -> Header:
    """Read the header of an AU that begins at `start` in a file of `size` bytes.

    Raises:
        HeaderFault: The file is cut, its length differs from the header, or its samples are not read.
    """
    head = read_at(stream, start, _HEAD_BYTES)
    if len(head) < _HEAD_BYTES:
        raise HeaderFault(f"The file ends inside its AU header, after {len(head)} bytes")
    order = ">" if head[:4] == b".snd" else "<"
    offset, declared, encoding, _, num_channels = struct.unpack(order + "5I", head[4:])
    if encoding not in _SAMPLE_BYTES:
        raise HeaderFault(f"The AU has encoding {encoding}, which is not read", CONVERT)
    if offset < _HEAD_BYTES or num_channels == 0:
        raise HeaderFault(f"The AU header puts the sound at byte {offset}, with {num_channels} channels")
    actual = max(0, size - start - offset)
    is_stream = declared == _TO_THE_END
    if is_stream:
        declared = actual
    elif actual > declared and is_no_sound(stream, start + offset + declared, size, most_padding=PADDING_BYTES):
        actual = declared
    block_bytes = num_channels * _SAMPLE_BYTES[encoding]
    num_samples = SampleBytes(block_bytes, declared, actual).whole_samples(too_many=COUNT_AGAIN)
    return Header(kind="AU", most_samples=num_samples, num_samples=num_samples, start=start, is_stream=is_stream)
