"""The header of a NIST SPHERE file.

A SPHERE file is lines of ASCII (`NIST_1A`, the size of the header, `NAME -TYPE VALUE` …, `end_head`), filled up to the
size of the header, and the samples. libsndfile decodes the samples, but derives their number from the size of the file
and searches the whole header for names, so the header is read here and both are compared.

Reference: NIST, "Speech Header Resources (SPHERE)", header.doc. The files of TIMIT are SPHERE, though named .WAV.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import soundfile

MAGIC = b"NIST_1A\n"

_HEAD_BYTES = 1024
_FIELD = re.compile(r"(\S+)[ \t]+-(i|r|s[0-9]+)[ \t](.*)")
_CODINGS = {"pcm": "pcm", "ulaw": "ulaw", "mu-law": "ulaw", "alaw": "alaw"}
_SUBTYPES = {("pcm", 2): "PCM_16", ("ulaw", 1): "ULAW", ("alaw", 1): "ALAW"}
_ENDIANS = {"01": "LITTLE", "10": "BIG"}
_DECOMPRESS = "Decompress it with `sph2pipe -p -f rif IN OUT`"
_MEND = "Fetch the file again, or convert it to WAV"


class SphereFault(Exception):  # noqa: N818 - becomes a DataError that names the file
    """A SPHERE file is not read; `do` is the advice."""

    def __init__(self, what: str, do: str = _MEND) -> None:
        super().__init__(what)
        self.do = do


@dataclass(frozen=True, slots=True)
class SphereHeader:
    """Fields of the header of a SPHERE file.

    Attributes:
        header_bytes: Size of the header, and so the offset of the samples.
        sample_rate_hz: Samples per second.
        num_samples: Samples of each channel.
        num_channels: Number of channels, interleaved.
        sample_bytes: Bytes of one sample of one channel.
        subtype: Coding of the samples, as libsndfile names it: PCM_16, ULAW or ALAW.
        endian: LITTLE or BIG; None if a sample has one byte.
    """

    header_bytes: int
    sample_rate_hz: int
    num_samples: int
    num_channels: int
    sample_bytes: int
    subtype: str
    endian: str | None

    @property
    def block_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self.num_channels * self.sample_bytes

    def difference(self, sound: soundfile.SoundFile) -> str | None:
        """A sentence on the first field that libsndfile reads otherwise; None if both agree."""
        for what, found, declared in (
            ("a rate of", sound.samplerate, self.sample_rate_hz),
            ("the coding", sound.subtype, self.subtype),
            ("the byte order", sound.endian, self.endian or sound.endian),
        ):
            if found != declared:
                return f"libsndfile finds {what} {found}, but the header declares {declared}"
        return None


def read_header(stream: BinaryIO) -> SphereHeader:
    """Read the header from the start of a file.

    Raises:
        SphereFault: The header is cut, lacks a field or is inconsistent, or the samples are compressed or have a
            coding that is not read.
    """
    stream.seek(0)
    # A larger header is not read further: its fields and `end_head` must be in the first 1,024 bytes.
    head = stream.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES:
        raise SphereFault(f"The file ends inside its SPHERE header, after {len(head)} bytes")
    # latin-1 decodes any byte, so that a damaged header is refused by its fields and not by its encoding
    lines = head.decode("latin-1").split("\n")
    size = lines[1].strip()
    if not size.isdecimal() or int(size) < _HEAD_BYTES or int(size) % _HEAD_BYTES:
        raise SphereFault(f"The size of the SPHERE header must be a multiple of {_HEAD_BYTES}, but is `{size[:20]}`")
    if "end_head" not in lines:
        raise SphereFault(f"The SPHERE header has no `end_head` in its first {_HEAD_BYTES} bytes")
    fields = _fields(lines[2 : lines.index("end_head")])
    coding = _coding(fields)
    sample_bytes = _whole(fields, "sample_n_bytes", default=1 if coding != "pcm" else None)
    if (coding, sample_bytes) not in _SUBTYPES:
        raise SphereFault(f"The SPHERE file has `{coding}` samples of {sample_bytes} bytes, which are not read")
    return SphereHeader(
        header_bytes=int(size),
        sample_rate_hz=_whole(fields, "sample_rate"),
        num_samples=_whole(fields, "sample_count", least=0),
        num_channels=_whole(fields, "channel_count"),
        sample_bytes=sample_bytes,
        subtype=_SUBTYPES[coding, sample_bytes],
        endian=_endian(fields, sample_bytes),
    )


def _fields(lines: list[str]) -> dict[str, str]:
    """From name to value; a line that starts with `;` is a comment."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line.strip() or line.startswith(";"):
            continue
        named = _FIELD.fullmatch(line.rstrip())
        if named is None or named[1] in fields:
            fault = "is repeated" if named is not None else "is not `NAME -TYPE VALUE`"
            raise SphereFault(f"A line of the SPHERE header {fault}: `{line[:60]}`")
        fields[named[1]] = named[3].strip()
    return fields


def _coding(fields: dict[str, str]) -> str:
    """`pcm`, `ulaw` or `alaw`; `pcm` if the header has no `sample_coding`."""
    declared = fields.get("sample_coding", "pcm")
    coding, _, compression = declared.partition(",")
    if compression:
        raise SphereFault(f"The samples are compressed (`{declared}`), which is not read", _DECOMPRESS)
    if coding not in _CODINGS:
        raise SphereFault(f"The SPHERE file has the coding `{declared}`, which is not read")
    return _CODINGS[coding]


def _whole(fields: dict[str, str], name: str, *, default: int | None = None, least: int = 1) -> int:
    value = fields.get(name, "" if default is None else str(default))
    if not value:
        raise SphereFault(f"The SPHERE header has no `{name}`")
    # 18 digits fit into 64 bits; Python refuses to read thousands
    if not value.isdecimal() or len(value) > 18 or int(value) < least:
        raise SphereFault(f"`{name}` of the SPHERE header must be a whole number from {least}, but is `{value[:20]}`")
    return int(value)


def _endian(fields: dict[str, str], sample_bytes: int) -> str | None:
    if sample_bytes == 1:
        return None
    order = fields.get("sample_byte_format", "")
    if order not in _ENDIANS:
        raise SphereFault(f"`sample_byte_format` of the SPHERE header must be `01` or `10`, but is `{order[:20]}`")
    return _ENDIANS[order]
