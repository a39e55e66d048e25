"""FLAC: STREAMINFO, and the last frame of the file. The decoder verifies the checksums of the frames.

Reference: RFC 9639.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from repbench.audio.headers.header import WRITE_AGAIN, Header, HeaderFault, read_at
from repbench.audio.headers.tags import is_tag

MAGIC = b"fLaC"

_STREAMINFO_AT = 8
_STREAMINFO_BYTES = 34
_TOTAL_BITS = 36
_LONGEST_BLOCK = 65_535
_FRAME_BYTES = 8
"""Bytes of the smallest frame without its subframes: six of its header and two of its checksum."""
_ID3V1_BYTES = 128
_TAIL_BYTES = 1 << 16
_SYNCS = (b"\xff\xf8", b"\xff\xf9")
# samples of a block by its code (RFC 9639, 9.1.1); 0: reserved, or written after the frame number (6, 7)
_BLOCKS = (0, 192, 576, 1_152, 2_304, 4_608, 0, 0, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)


def read_flac(stream: BinaryIO, start: int, size: int) -> Header:
    """Read STREAMINFO of a FLAC that begins at `start`.

    A FLAC written into a pipe declares 0 samples. It is decoded to the end to count them, if its last frame is
    complete; a cut between two frames cannot be detected.

    Raises:
        HeaderFault: STREAMINFO is missing, declares more samples than a FLAC of this size can hold, or fewer than its
            last frame reaches.
    """
    head = read_at(stream, start, _STREAMINFO_AT + _STREAMINFO_BYTES)
    if len(head) < _STREAMINFO_AT + _STREAMINFO_BYTES or head[4] & 0x7F != 0:
        raise HeaderFault("The sound cannot be read: the FLAC ends inside its header, or lacks STREAMINFO")
    info = head[_STREAMINFO_AT:]
    # STREAMINFO (RFC 9639, 8.2): the longest block in bytes 2 and 3; in bytes 10 to 17 the rate (20 bits), channels - 1
    # (3), bits of a sample - 1 (5) and the total (36)
    longest = int.from_bytes(info[2:4], "big")
    packed = int.from_bytes(info[10:18], "big")
    total = packed & (1 << _TOTAL_BITS) - 1
    sample_bits = (packed >> _TOTAL_BITS & 0x1F) + 1
    num_channels = (packed >> _TOTAL_BITS + 5 & 0x7) + 1
    # A constant channel takes one byte and one sample, however long the block is.
    smallest_frame = _FRAME_BYTES + num_channels * (8 + sample_bits) // 8
    # 16 is the shortest block that FLAC allows: less means that the encoder did not fill the field in
    most_samples = (size - start) // smallest_frame * (longest if longest >= 16 else _LONGEST_BLOCK)
    if total > most_samples:
        what = f"The header declares {total} samples, but a FLAC of {size - start} bytes holds {most_samples} at most"
        raise HeaderFault(what)
    if total:
        _refuse_uncounted(stream, start, size, total, longest)
        return Header(kind="FLAC", most_samples=most_samples, num_samples=total, start=start)
    end = size - _ID3V1_BYTES if is_tag(read_at(stream, max(start, size - _ID3V1_BYTES), 3)) else size
    # The decoder skips an incomplete last frame without an error, and would look for a frame in the tag.
    tail_bytes = max(_TAIL_BYTES, longest * num_channels * (sample_bits + 8) // 8)
    position = max(start, end - tail_bytes)
    tail = read_at(stream, position, end - position)
    if all(_checksum_16(tail[frame.at :]) for frame in _frames_from_the_end(tail, longest)):
        raise HeaderFault("The FLAC does not end with a whole frame: it is cut")
    mended = None if end == size else read_at(stream, start, end - start)
    return Header(kind="FLAC", most_samples=most_samples, num_samples=None, start=start, is_stream=True, mended=mended)


class _FlacFrame(NamedTuple):
    """Offset of a frame in the tail of a file, and the number of the sample after its last."""

    at: int
    end_sample: int


def _refuse_uncounted(stream: BinaryIO, start: int, size: int, total: int, longest: int) -> None:
    """Refuse a FLAC whose last frame exceeds the declared total: the decoder would skip its samples."""
    position = max(start, size - _TAIL_BYTES)
    tail = read_at(stream, position, size - position)
    if is_tag(tail[-_ID3V1_BYTES:]):
        tail = tail[:-_ID3V1_BYTES]
    for frame in _frames_from_the_end(tail, longest):
        if frame.end_sample <= total:
            return
        if _checksum_16(tail[frame.at :]) == 0:  # else the bytes of the header occur by chance inside a frame
            what = f"The header declares {total} samples, but the last frame of the FLAC reaches to {frame.end_sample}"
            raise HeaderFault(what, WRITE_AGAIN)


def _frames_from_the_end(tail: bytes, longest: int) -> Iterator[_FlacFrame]:
    """Positions that look like a frame header with a right checksum, the last first."""
    at = len(tail)
    # `at + 1` excludes a match at the position just tried: a sync has two bytes
    while (at := max(tail.rfind(sync, 0, at + 1) for sync in _SYNCS)) >= 0:
        frame = _frame_at(tail, at, longest)
        if frame is not None:
            yield frame
        at -= 1


def _frame_at(tail: bytes, at: int, longest: int) -> _FlacFrame | None:
    """The frame whose header begins at `at`; None if there is none."""
    head = tail[at : at + 16].ljust(16, b"\0")
    has_sample_number = head[1] & 1
    # The number of the frame or sample is coded like UTF-8: the leading ones of its first byte count its bytes, and
    # each further byte has six bits.
    number_bytes = 1 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length()
    if number_bytes > 7 or (head[4] >= 0x80 and number_bytes < 2):
        return None
    number = head[4] & (0x7F if number_bytes == 1 else 0x7F >> number_bytes)
    for byte in head[5 : 4 + number_bytes]:
        number = number << 6 | byte & 0x3F
    end = 4 + number_bytes
    block_code, rate_code = head[2] >> 4, head[2] & 0xF
    block_bytes = {6: 1, 7: 2}.get(block_code, 0)
    block = int.from_bytes(head[end : end + block_bytes], "big") + 1 if block_bytes else _BLOCKS[block_code]
    # codes of a rate that is written out, in kHz, Hz or tens of Hz
    end += block_bytes + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if block == 0 or rate_code == 15 or end >= len(head) or _checksum_8(head[:end]) != head[end]:
        return None
    return _FlacFrame(at, (number if has_sample_number else number * longest) + block)


def _checksum_8(content: bytes) -> int:
    """CRC-8 of the header of a frame: x^8 + x^2 + x + 1."""
    checksum = 0
    for byte in content:
        checksum ^= byte
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x07 if checksum & 0x80 else 0)) & 0xFF
    return checksum


def _checksum_16(content: bytes) -> int:
    """CRC-16 of a frame, x^16 + x^15 + x^2 + 1: 0 for a frame that is followed by its checksum."""
    checksum = 0
    for byte in content:
        # a table of all bytes, because the last frame may have tens of kilobytes
        checksum = (checksum << 8 & 0xFF00) ^ _CRC_16[checksum >> 8 ^ byte]
    return checksum


def _shifted(byte: int) -> int:
    checksum = byte << 8
    for _ in range(8):
        checksum = (checksum << 1 ^ (0x8005 if checksum & 0x8000 else 0)) & 0xFFFF
    return checksum


_CRC_16 = tuple(map(_shifted, range(256)))
