"""FLAC: what STREAMINFO says. Whether the samples are there, the checksums say that its decoder looks at.

Reference: RFC 9639.
"""

from __future__ import annotations

from typing import BinaryIO

from repbench.audio.headers.header import Header, HeaderFault, read_at
from repbench.audio.headers.tags import is_tag

MAGIC = b"fLaC"

_STREAMINFO_AT = 8
_STREAMINFO_BYTES = 34
_TOTAL_BITS = 36
_LONGEST_BLOCK = 65_535
_FRAME_BYTES = 8
"""Of the smallest frame, beside its subframes: six of its head and two of its checksum."""
_ID3V1_BYTES = 128


def read_flac(stream: BinaryIO, start: int, size: int) -> Header:
    """Read STREAMINFO of a FLAC that begins at `start`.

    A FLAC written into a pipe says that it has 0 samples. It is decoded to the end to count them; its decoder finds it
    cut unless the cut lies between two frames.

    Raises:
        HeaderFault: STREAMINFO is missing, or promises more samples than a FLAC of this size can hold.
    """
    head = read_at(stream, start, _STREAMINFO_AT + _STREAMINFO_BYTES)
    if len(head) < _STREAMINFO_AT + _STREAMINFO_BYTES or head[4] & 0x7F != 0:
        raise HeaderFault("The sound cannot be read: the FLAC ends inside its header, or lacks STREAMINFO")
    info = head[_STREAMINFO_AT:]
    longest = int.from_bytes(info[2:4], "big")
    packed = int.from_bytes(info[10:18], "big")
    total = packed & (1 << _TOTAL_BITS) - 1
    sample_bits = (packed >> _TOTAL_BITS & 0x1F) + 1
    num_channels = (packed >> _TOTAL_BITS + 5 & 0x7) + 1
    # A channel in which nothing changes takes one byte and one sample, however long the block is.
    smallest_frame = _FRAME_BYTES + num_channels * (8 + sample_bits) // 8
    most_samples = (size - start) // smallest_frame * (longest if longest >= 16 else _LONGEST_BLOCK)
    if total > most_samples:
        what = f"The header says {total} samples, but a FLAC of {size - start} bytes holds {most_samples} at most"
        raise HeaderFault(what)
    if total:
        return Header(kind="FLAC", most_samples=most_samples, num_samples=total, start=start)
    mended = None
    if is_tag(read_at(stream, max(start, size - _ID3V1_BYTES), 3)):
        mended = read_at(stream, start, size - start - _ID3V1_BYTES)  # else the decoder looks for a frame in the tag
    return Header(kind="FLAC", most_samples=most_samples, num_samples=None, start=start, is_stream=True, mended=mended)
