"""The format of a sound file, by its first bytes and not by its name, and the reader of its header."""

from __future__ import annotations

from typing import BinaryIO

from repbench.audio import sphere
from repbench.audio.headers import aiff, au, flac, mp3, ogg, wav
from repbench.audio.headers.header import CONVERT, FETCH, Header, HeaderFault, SampleBytes, read_at, size_of
from repbench.audio.headers.tags import skip_id3
from repbench.other_files import other_file

_ASF = bytes.fromhex("3026b2758e66cf11")
_TO_CONVERT = (
    (0, _ASF, "an ASF file (WMA)"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"caff", "a CAF file"),
    (0, b"riff\x2e\x91\xcf\x11", "a Wave64 file"),
    (0, b"MAC ", "a Monkey's Audio file"),
    (0, b"wvpk", "a WavPack file"),
    (0, b"TTA1", "a True Audio file"),
    (0, b"MPCK", "a Musepack file"),
    (0, b"ajkg", "a Shorten file"),
    (4, b"ftyp", "an MPEG-4 file (M4A, AAC)"),
    (8, b"AVI ", "an AVI file"),
)
"""Offset and value of the first bytes of each format that is not read, and its name."""


def read_header(stream: BinaryIO) -> Header:
    """Read the header of a file, and compare it with the bytes of the file.

    Args:
        stream: The open file; its position changes.

    Raises:
        HeaderFault: The file is empty, of a format that is not read, cut or damaged, or contains more or fewer samples
            than its header declares.
    """
    size = size_of(stream)
    if size == 0:
        raise HeaderFault("The sound file is empty")
    start = skip_id3(stream, size)
    head = read_at(stream, start, 64)
    if head.startswith(flac.MAGIC):
        return flac.read_flac(stream, start, size)
    if head[:4] in wav.MAGICS and head[8:12] == b"WAVE":
        return wav.read_wav(stream, start, size)
    if head.startswith(sphere.MAGIC):
        return _read_sphere(stream, size)
    if head.startswith(ogg.MAGIC):
        return ogg.read_ogg(stream, start, size)
    if head[:4] == b"FORM" and head[8:12] in aiff.FORMS:
        return aiff.read_aiff(stream, start, size)
    if head[:4] in au.MAGICS:
        return au.read_au(stream, start, size)
    # last, because two bytes of another format may look like the sync of an MPEG frame
    if mp3.is_mp3(head):
        return mp3.read_mp3(stream, start, size)
    raise _other(head)


def _read_sphere(stream: BinaryIO, size: int) -> Header:
    try:
        header = sphere.read_header(stream)
    except sphere.SphereFault as fault:
        raise HeaderFault(str(fault), fault.do) from fault
    declared_bytes = header.num_samples * header.block_bytes
    sound = SampleBytes(header.block_bytes, declared_bytes, max(0, size - header.header_bytes))
    num_samples = sound.whole_samples(too_many=FETCH)
    return Header(kind="SPHERE", most_samples=num_samples, num_samples=num_samples, difference=header.difference)


def _other(head: bytes) -> HeaderFault:
    """The error for a file of another format, which names it where it is known."""
    for at, signature, name in _TO_CONVERT:
        if head[at:].startswith(signature):
            return HeaderFault(f"The file is {name}, which is not read", CONVERT)
    # ADTS: a sync of twelve bits and the layer 0, which `is_mp3` excludes
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return HeaderFault("The file is AAC, which is not read", CONVERT)
    if head[:4] in wav.MAGICS and len(head) < 12:
        return HeaderFault(f"The WAV ends inside its header, after {len(head)} bytes")
    found = None if head[:4] in wav.MAGICS else other_file(head)
    if found is not None:
        return HeaderFault(f"The file is {found.name}", found.do)
    return HeaderFault("The file is neither WAV nor FLAC nor another sound that is read", CONVERT)
