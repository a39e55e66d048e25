"""WAV: RIFF, RIFX (big-endian) and RF64 with PCM, float, A-law or mu-law samples.

libsndfile reads a truncated file, or one with a wrong size, without an error and returns fewer samples, so the chunks
are read here. The bytes after the `data` chunk show whether its size is right: further chunks, tags, zeros or fewer
than 8 bytes may follow; anything else may be sound that the header does not count.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from repbench.audio.headers.header import (
    CONVERT,
    COUNT_AGAIN,
    PADDING_BYTES,
    Header,
    HeaderFault,
    SampleBytes,
    read_at,
)
from repbench.audio.headers.tags import is_no_sound

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 0x0001, 0x0003, 0x0006, 0x0007, 0xFFFE
_CHECKABLE_ENCODINGS = {_PCM, _FLOAT, _ALAW, _MULAW}
_SIZE_ELSEWHERE = 0xFFFFFFFF
_KNOWN_CHUNKS = frozenset({
    b"LIST", b"list", b"fact", b"cue ", b"plst", b"smpl", b"inst", b"bext", b"iXML", b"axml", b"qlty", b"mext", b"levl",
    b"link", b"cart", b"id3 ", b"ID3 ", b"JUNK", b"junk", b"PAD ", b"FLLR", b"PEAK", b"DISP", b"acid", b"afsp", b"umid",
    b"_PMX", b"LGWV", b"minf", b"regn",
})  # fmt: skip
"""Names that samples do not form by chance: such a chunk ends the sound even if its own size is wrong."""

MAGICS = (b"RIFF", b"RIFX", b"RF64")


@dataclass(frozen=True, slots=True)
class _Chunk:
    name: bytes
    start: int
    num_bytes: int


def read_wav(stream: BinaryIO, start: int, size: int) -> Header:
    """Read the chunks of a WAV that begins at `start` in a file of `size` bytes.

    Raises:
        HeaderFault: The file is cut, its length differs from the header, or its samples are not read.
    """
    magic = read_at(stream, start, 12)
    order = ">" if magic[:4] == b"RIFX" else "<"
    form, data = _form_and_data(stream, start, order, is_rf64=magic[:4] == b"RF64")
    encoding, block_bytes = form
    if encoding not in _CHECKABLE_ENCODINGS:
        raise HeaderFault(f"The WAV has encoding 0x{encoding:04x}, which is not read", CONVERT)
    riff_bytes = struct.unpack(order + "I", magic[4:8])[0]
    sound = SampleBytes(block_bytes, data.num_bytes, _actual_bytes(stream, data, size, order))
    is_stream = magic[:4] != b"RF64" and _is_stream(riff_bytes, data, start, size)
    if is_stream:
        sound = SampleBytes(block_bytes, sound.actual_bytes, sound.actual_bytes)
    elif is_placeholder(data.num_bytes) and sound.actual_bytes:
        declared = data.num_bytes // block_bytes
        what = f"The file holds {sound.actual_bytes // block_bytes} samples, but its header declares {declared}"
        raise HeaderFault(what, COUNT_AGAIN)
    num_samples = sound.whole_samples()
    return Header(kind="WAV", most_samples=num_samples, num_samples=num_samples, start=start, is_stream=is_stream)


def is_placeholder(num_bytes: int) -> bool:
    """Whether programs that write into a pipe use this number for a size that they do not know yet.

    0 is Python's and GStreamer's; 7FFFF000, 7FFFFFF0, 7FFFFFFF and 80000000 are those of sox, arecord and others;
    FFFFFFFF is ffmpeg's.
    """
    return num_bytes == 0 or 0x7FFF0000 <= num_bytes <= 0x80000000 or 0xFFFFFF00 <= num_bytes <= 0xFFFFFFFF


def _is_stream(riff_bytes: int, data: _Chunk, start: int, size: int) -> bool:
    """Whether the header was written before the length was known: then the size of the whole is a placeholder too.

    A size of 0 is not one of these: decoders then read no sample.
    """
    if not is_placeholder(data.num_bytes) or data.start + data.num_bytes <= size:
        return False
    # the size of RIFF that a program derives from its placeholder for `data`; it may wrap around
    in_step = (data.num_bytes + data.start - start - 8) & 0xFFFFFFFF
    return is_placeholder(riff_bytes) or riff_bytes == in_step


def _form_and_data(stream: BinaryIO, start: int, order: str, *, is_rf64: bool) -> tuple[tuple[int, int], _Chunk]:
    """The encoding and the bytes of a block of `fmt `, and the `data` chunk."""
    form: tuple[int, int] | None = None
    long_size: int | None = None
    position = start + 12
    while (chunk := _chunk_at(stream, position, order)) is not None:
        if chunk.name == b"ds64" and is_rf64:
            # ds64 (EBU Tech 3306): the size of the whole, then that of `data`, eight bytes each
            long_size = struct.unpack(order + "8xQ", _payload(stream, chunk, 16))[0]
        elif chunk.name == b"fmt ":
            form = _encoding_and_block(_payload(stream, chunk, min(chunk.num_bytes, 40)), order)
        elif chunk.name == b"data":
            if form is None:
                raise HeaderFault("The WAV has no `fmt ` chunk before its `data` chunk")
            if chunk.num_bytes == _SIZE_ELSEWHERE and long_size is not None:
                chunk = _Chunk(chunk.name, chunk.start, long_size)
            return form, chunk
        # a chunk of odd size is followed by a byte of padding that its size does not count
        position = chunk.start + chunk.num_bytes + chunk.num_bytes % 2
    do = "Fetch the file again; if it comes the same, write it again from its source or take it out of the corpus"
    raise HeaderFault("The WAV has no `data` chunk, or its chunks do not follow one another", do)


def _actual_bytes(stream: BinaryIO, data: _Chunk, size: int, order: str) -> int:
    """Bytes of sound in the file: as declared, or up to the end of the file if that cannot be right."""
    end = data.start + data.num_bytes
    if end > size:
        return size - data.start
    # Some programs do not write the byte that pads an odd size.
    # both are tried, the padded one and the end as declared
    ends = {end + end % 2, end}
    return data.num_bytes if any(_is_no_sound(stream, each, size, order) for each in ends) else size - data.start


def _is_no_sound(stream: BinaryIO, position: int, size: int, order: str) -> bool:
    """Whether the rest of the file from `position` is chunks, tags, zeros and padding, and nothing else."""
    is_after_known = False
    while not is_no_sound(stream, position, size, most_padding=PADDING_BYTES):
        name, num_bytes = struct.unpack(order + "4sI", read_at(stream, position, 8))
        # a second `data` chunk is sound that the first one does not count
        if name == b"data":
            return False
        is_after_known = is_after_known or name in _KNOWN_CHUNKS
        position += 8 + num_bytes
        if position == size and num_bytes:  # samples do not form the size of the rest by chance
            return True
        if position > size or not _is_printable(name):
            return is_after_known
        position += num_bytes % 2
    return True


def _chunk_at(stream: BinaryIO, position: int, order: str) -> _Chunk | None:
    """The chunk whose head begins at `position`; None if there is no head with a printable name."""
    head = read_at(stream, position, 8)
    if len(head) < 8:
        return None
    name, num_bytes = struct.unpack(order + "4sI", head)
    return _Chunk(name, position + 8, num_bytes) if _is_printable(name) else None


def _is_printable(name: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in name)


def _payload(stream: BinaryIO, chunk: _Chunk, num_bytes: int) -> bytes:
    payload = read_at(stream, chunk.start, num_bytes)
    if len(payload) < num_bytes:
        raise HeaderFault(f"The WAV ends inside its `{chunk.name.decode('latin-1').strip()}` chunk")
    return payload


def _encoding_and_block(form: bytes, order: str) -> tuple[int, int]:
    """Encoding code and bytes per block (one sample of every channel) of a `fmt ` chunk."""
    if len(form) < 16:
        raise HeaderFault(f"The `fmt ` chunk of the WAV has {len(form)} bytes, but at least 16 are needed")
    encoding, _, _, _, block_bytes = struct.unpack(order + "HHIIH", form[:14])
    if encoding == _EXTENSIBLE and len(form) >= 28:
        encoding = struct.unpack(order + "I", form[24:28])[0]  # the first field of a GUID, in the order of the file
    if block_bytes == 0:
        raise HeaderFault("The `fmt ` chunk of the WAV declares samples of 0 bytes")
    return encoding, block_bytes
