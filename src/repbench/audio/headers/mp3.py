"""MP3: all frames are read, because a file without a table of contents does not contain its length.

libsndfile takes the length from the first frame (the table of LAME and Xing, or Fraunhofer's) and estimates it if that
is missing: with a variable bit rate and no table it reads a part only, without an error. So a table is put in front of
a file that has none, and a table that contradicts the frames is refused.

Reference: ISO/IEC 11172-3 and 13818-3; G. Bouvigne, "Xing and LAME tags".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from repbench.audio.headers.header import CONVERT, FETCH, WRITE_AGAIN, Header, HeaderFault, read_at
from repbench.audio.headers.tags import is_tag

# by the bits of the version: 3 is MPEG 1, 2 MPEG 2 and 0 MPEG 2.5
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_LAYERS = {3: "I", 2: "II", 1: "III"}
_MPEG_1 = 3
_HAS_NUM_FRAMES, _HAS_NUM_BYTES = 1, 2
# samples by which a layer III decoder is late, 528 + 1 in LAME's documentation
_DECODER_DELAY = 529


class _Mp3Frame(NamedTuple):
    """One frame: its offset and the fields of its header."""

    start: int
    num_bytes: int
    rate_hz: int
    is_mono: bool
    is_mpeg_1: bool

    @property
    def num_samples(self) -> int:
        return 1_152 if self.is_mpeg_1 else 576

    @property
    def table_at(self) -> int:
        """Offset of a table of Xing: after the header and the side information."""
        if self.is_mpeg_1:
            return self.start + 4 + (17 if self.is_mono else 32)
        return self.start + 4 + (9 if self.is_mono else 17)


class _LengthTable(NamedTuple):
    """The table of a first frame; None for a number that it lacks. `is_known`: whether libsndfile uses it."""

    num_frames: int | None
    num_bytes: int | None
    is_known: bool


def is_mp3(head: bytes) -> bool:
    """Whether the bytes begin with the header of a frame of layer I, II or III."""
    return len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] >> 3 & 3 != 1 and head[1] & 6 != 0


def read_mp3(stream: BinaryIO, start: int, size: int) -> Header:
    """Read the frames of an MP3 that begins at `start` in a file of `size` bytes.

    A cut between two frames is detected if the file has a table; without one such a file looks complete.

    Raises:
        HeaderFault: The file is cut or damaged, has more or fewer frames than its table, or is of another layer.
    """
    content = read_at(stream, start, size - start)
    frames = list(_frames(content))
    end = frames[-1].start + frames[-1].num_bytes
    _refuse_rest(content, end)
    first = frames[0]
    table = _table(content, first)
    # a first frame that holds a table carries no sound
    num_frames = len(frames) if table is None else len(frames) - 1
    if table is not None:
        _refuse_other_table(table, num_frames, end)
    if num_frames == 0:
        raise HeaderFault("The MP3 holds 0 frames of sound")
    most_samples = num_frames * first.num_samples
    if table is not None and table.is_known:
        counted = _with_count(content[:end], first, num_frames)
        return Header(
            kind="MP3", most_samples=most_samples, num_samples=None, start=start, is_lossy=True, mended=counted
        )
    sound = content[0 if table is None else first.num_bytes : end]
    return Header(
        kind="MP3",
        most_samples=most_samples,
        num_samples=None,
        start=start,
        is_lossy=True,
        is_stream=table is None,
        mended=sound,
        decoded_samples=most_samples,
        with_table=_silence_with_table(content, first, num_frames, len(sound)) + sound,
        table_samples=first.num_samples - _DECODER_DELAY,
    )


def _frames(content: bytes) -> Iterator[_Mp3Frame]:
    """The consecutive frames from the first byte on.

    Raises:
        HeaderFault: There is no frame, the first is of another layer, or the rate or the channels change.
    """
    first: _Mp3Frame | None = None
    position = 0
    while (frame := _frame_at(content, position)) is not None:
        first = first or frame
        # from the rate on: offset and size differ between the frames of a variable bit rate
        if frame[2:] != first[2:]:
            what = f"The MP3 changes its sample rate or its channels at byte {frame.start}"
            raise HeaderFault(what, WRITE_AGAIN)
        if frame.start + frame.num_bytes > len(content):
            if frame is first:
                break
            return
        yield frame
        position += frame.num_bytes
    if first is None or position == 0:
        layer = _LAYERS.get(content[1] >> 1 & 3, "") if len(content) > 1 else ""
        if layer in ("I", "II"):
            raise HeaderFault(f"The file is MPEG audio of layer {layer}, which is not read", CONVERT)
        raise HeaderFault("The MP3 holds no whole frame, or frames of free bit rate, which are not read", WRITE_AGAIN)


def _frame_at(content: bytes, position: int) -> _Mp3Frame | None:
    """The frame of layer III whose header begins at `position`; None if there is none."""
    head = content[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, padding = head[2] >> 2 & 3, head[2] >> 1 & 1
    # bit rate 0 is free format and 15 forbidden; rate 3 is reserved
    if version not in _RATES_HZ or layer != 1 or rate == 3 or head[2] >> 4 in (0, 15):
        return None
    is_mpeg_1 = version == _MPEG_1
    bits = _KBITS[is_mpeg_1][head[2] >> 4] * 1_000
    rate_hz = _RATES_HZ[version][rate]
    # 1,152 or 576 samples of `bits` a second, in bytes of eight bits
    num_bytes = (144 if is_mpeg_1 else 72) * bits // rate_hz + padding
    return _Mp3Frame(position, num_bytes, rate_hz, head[3] >> 6 == 3, is_mpeg_1)


def _refuse_rest(content: bytes, end: int) -> None:
    """Refuse what follows the last whole frame unless it is a tag or zeros."""
    rest = content[end : end + 16]
    if not rest or is_tag(rest) or content.count(0, end) == len(content) - end:
        return
    if _frame_at(content, end) is not None or len(rest) < 4:
        raise HeaderFault("The MP3 ends inside a frame: it is cut")
    what = (
        f"The MP3 is damaged: there is no frame at byte {end} of its sound, {len(content) - end} bytes before the end"
    )
    raise HeaderFault(what, WRITE_AGAIN)


def _table(content: bytes, first: _Mp3Frame) -> _LengthTable | None:
    """The table in the first frame; None if that frame is sound."""
    at = first.table_at
    if content[at : at + 4] in (b"Xing", b"Info") and len(content) >= at + 16:
        flags = int.from_bytes(content[at + 4 : at + 8], "big")
        numbers = iter(struct.unpack(">2I", content[at + 8 : at + 16]))
        num_frames = next(numbers) if flags & _HAS_NUM_FRAMES else None
        return _LengthTable(num_frames, next(numbers) if flags & _HAS_NUM_BYTES else None, num_frames is not None)
    at = first.start + 4 + 32  # the offset of Fraunhofer's table does not depend on the channels
    if content[at : at + 4] == b"VBRI" and len(content) >= at + 18:
        num_bytes, num_frames = struct.unpack(">2I", content[at + 10 : at + 18])
        return _LengthTable(num_frames, num_bytes, is_known=False)
    return None


def _with_count(content: bytes, first: _Mp3Frame, num_frames: int) -> bytes:
    """The file with the counted number of frames in its table of Xing."""
    at = first.table_at + 8
    return content[:at] + struct.pack(">I", num_frames) + content[at + 4 :]


def _refuse_other_table(table: _LengthTable, num_frames: int, num_bytes: int) -> None:
    """Refuse a table with more or fewer frames than the file has.

    Programs differ by one in whether they count the frame of the table itself.
    """
    declared = table.num_frames
    is_cut = table.num_bytes is not None and num_bytes < table.num_bytes - 1
    if declared is not None and (num_frames < declared - 1 or (num_frames < declared and is_cut)):
        raise HeaderFault(f"The MP3 holds {num_frames} frames, but its first one declares {declared}: it is cut", FETCH)
    if declared is not None and num_frames > declared + 1:
        what = (
            f"The MP3 holds {num_frames} frames, but its first one declares {declared}: are several files joined in it?"
        )
        raise HeaderFault(what, WRITE_AGAIN)


def _silence_with_table(content: bytes, like: _Mp3Frame, num_frames: int, num_bytes: int) -> bytes:
    """A frame with a table that libsndfile uses, and a frame of silence.

    If a file has a table, the decoder drops its own delay from the start: here from the silence.
    """
    head = bytearray(content[like.start : like.start + 4])
    head[1] |= 1  # without checksum
    # the smallest bit rate whose frame has room for the table
    for index in range(1, len(_KBITS[like.is_mpeg_1])):
        head[2] = index << 4 | head[2] & 0x0C
        frame = _frame_at(bytes(head), 0)
        if frame is not None and frame.num_bytes >= frame.table_at + 16:
            break
    else:
        raise HeaderFault("The MP3 has frames too small for a table of its length", CONVERT)
    silence = bytes(head).ljust(frame.num_bytes, b"\0")
    counts = struct.pack(">3I", _HAS_NUM_FRAMES | _HAS_NUM_BYTES, num_frames + 1, 2 * frame.num_bytes + num_bytes)
    table = (silence[: frame.table_at] + b"Info" + counts).ljust(frame.num_bytes, b"\0")
    return table + silence
