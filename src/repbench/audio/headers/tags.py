"""Tags that players add to sound files: ID3v2 before or after the sound, ID3v1, APE and Lyrics3 after it."""

from __future__ import annotations

from typing import BinaryIO

from repbench.audio.headers.header import HeaderFault, is_zeros, read_at

_ID3_HEAD_BYTES = 10
_BEHIND = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")


def skip_id3(stream: BinaryIO, size: int) -> int:
    """Offset of the sound, after the ID3v2 tags at the start of the file.

    Raises:
        HeaderFault: A tag is longer than the file.
    """
    position = 0
    while (head := read_at(stream, position, _ID3_HEAD_BYTES))[:3] == b"ID3":
        length = _id3_bytes(head)
        if length is None:
            break
        position += length
        if position >= size:
            raise HeaderFault("The file ends inside its ID3 tag and holds no sound")
    return position


def _id3_bytes(head: bytes) -> int | None:
    """Bytes of the tag with its header and footer; None if this is no header of a tag."""
    if len(head) < _ID3_HEAD_BYTES or head[3] == 0xFF or max(head[6:]) > 0x7F:
        return None
    # "synchsafe": seven bits a byte, so that no size looks like the sync of an MPEG frame
    length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return length + _ID3_HEAD_BYTES * (2 if head[5] & 0x10 else 1)


def is_tag(head: bytes) -> bool:
    """Whether the bytes begin one of the tags that may follow a sound."""
    return head.startswith(_BEHIND)


def is_no_sound(stream: BinaryIO, position: int, size: int, *, most_padding: int) -> bool:
    """Whether the rest of the file from `position` is a tag, zeros, or at most `most_padding` bytes."""
    return size - position <= most_padding or is_tag(read_at(stream, position, 16)) or is_zeros(stream, position, size)
