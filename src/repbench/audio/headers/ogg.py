"""Ogg Vorbis and Ogg Opus: the checksum and the number of every page are checked.

libsndfile skips damaged and missing pages without an error, and finds 0 samples if the last page is missing.

Reference: RFC 3533 (Ogg), RFC 7845 (Opus), the Vorbis I specification.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from repbench.audio.headers.header import CONVERT, PADDING_BYTES, WRITE_AGAIN, Header, HeaderFault, read_at
from repbench.audio.headers.tags import is_tag

MAGIC = b"OggS"

# magic, version, flags, granule position, serial, page number, checksum, number of segments
_HEAD = struct.Struct("<4sBBqIIIB")
_IS_FIRST, _IS_LAST = 2, 4
_CODECS = {b"\x01vorbis": ("Ogg Vorbis", 8_192), b"OpusHead": ("Ogg Opus", 5_760)}
"""From the first bytes of the first packet to the name of the format and the most samples of one packet."""
_OTHER_CODECS = {b"\x7fFLAC": "Ogg FLAC", b"Speex   ": "Speex", b"\x80theora": "a video", b"fishead": "a video"}
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    serial: int
    number: int
    end: int
    num_packets: int
    payload: bytes


def read_ogg(stream: BinaryIO, start: int, size: int) -> Header:
    """Read the pages of an Ogg file that begins at `start` in a file of `size` bytes.

    Raises:
        HeaderFault: A page is cut, damaged or missing, there are several streams, or it is neither Vorbis nor Opus.
    """
    content = read_at(stream, start, size - start)
    pages: list[_Page] = []
    position = 0
    while not pages or not _is_end(content, position):
        page = _page_at(content, position)
        _refuse_other_page(page, pages, position)
        pages.append(page)
        position = page.end
    if not pages[-1].flags & _IS_LAST:
        raise HeaderFault("The Ogg file ends before the last page of its sound: it is cut")
    kind, most_samples = _codec(pages[0].payload)
    return Header(
        kind=kind,
        most_samples=sum(page.num_packets for page in pages) * most_samples,
        num_samples=None,
        start=start,
        is_lossy=True,
    )


def _is_end(content: bytes, position: int) -> bool:
    """Whether the rest is nothing but padding or a tag."""
    rest = len(content) - position
    return rest <= PADDING_BYTES or is_tag(content[position : position + 16]) or content.count(0, position) == rest


def _page_at(content: bytes, position: int) -> _Page:
    head = content[position : position + _HEAD.size]
    if len(head) < _HEAD.size or not head.startswith(MAGIC):
        if len(head) < _HEAD.size:
            raise HeaderFault("The Ogg file ends inside a page: it is cut")
        raise HeaderFault(f"The Ogg file is damaged: there is no page at byte {position}")
    _, _, flags, _, serial, number, checksum, num_segments = _HEAD.unpack(head)
    at = position + _HEAD.size
    segments = content[at : at + num_segments]
    end = at + num_segments + sum(segments)
    if len(segments) < num_segments or end > len(content):
        raise HeaderFault("The Ogg file ends inside a page: it is cut")
    # the checksum is of the page with its own four bytes set to 0
    if _checksum(content[position : position + 22] + bytes(4) + content[position + 26 : end]) != checksum:
        raise HeaderFault(f"The Ogg file is damaged: the page at byte {position} does not have its checksum")
    # A packet is cut into segments of 255 bytes; a shorter one, or one of 0, ends it.
    num_packets = sum(segment < 255 for segment in segments)
    return _Page(flags, serial, number, end, num_packets, content[at + num_segments : min(end, at + num_segments + 16)])


def _checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial with the bits the other way round, from 0 and without a final inversion."""
    # zlib starts from the complement of what it is given and inverts its result; both are undone
    reversed_sum = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(reversed_sum.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


def _refuse_other_page(page: _Page, before: list[_Page], position: int) -> None:
    """Refuse a page that does not continue the pages before it."""
    if not before:
        return
    last = before[-1]
    if page.serial != last.serial or page.flags & _IS_FIRST or last.flags & _IS_LAST:
        raise HeaderFault("The Ogg file holds several streams, of which one is read", WRITE_AGAIN)
    # page numbers wrap around at 32 bits
    if page.number != (last.number + 1) & 0xFFFFFFFF:
        raise HeaderFault(f"The Ogg file lacks pages: {page.number} follows {last.number} at byte {position}")


def _codec(packet: bytes) -> tuple[str, int]:
    for signature, codec in _CODECS.items():
        if packet.startswith(signature):
            return codec
    name = next((name for signature, name in _OTHER_CODECS.items() if packet.startswith(signature)), "an unknown codec")
    raise HeaderFault(f"The Ogg file holds {name}, which is not read", CONVERT)
