"""MP3, Ogg Vorbis and Ogg Opus: all samples of the decoder are read, and truncated files are refused."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from repbench.audio.headers import ogg
from repbench.audio.sound import inspect, measure, read_sound
from repbench.errors import DataError

RATE_HZ = 16_000
TIMES = np.arange(24_000) / RATE_HZ
SWEEP = 0.4 * np.sin(2 * np.pi * (200 + 600 * TIMES) * TIMES) * np.minimum(1, TIMES * 20)
LOSSY = {"mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}


def encoded(kind: str, samples: npt.NDArray[np.float64] = SWEEP, rate_hz: int = RATE_HZ, **settings: object) -> bytes:
    stream = io.BytesIO()
    container, codec = LOSSY[kind]
    soundfile.write(stream, samples, rate_hz, format=container, subtype=codec, **settings)
    return stream.getvalue()


def decoded(content: bytes) -> npt.NDArray[np.float32]:
    """What libsndfile makes of it, clipped."""
    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    clipped: npt.NDArray[np.float32] = np.clip(samples, -1, 1)
    return clipped


def saved(tmp_path: Path, content: bytes, name: str = "a.wav") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
@pytest.mark.parametrize("kind", LOSSY)
def test_the_samples_are_those_that_libsndfile_decodes(tmp_path: Path, kind: str, rate_hz: int) -> None:
    content = encoded(kind, rate_hz=rate_hz)
    path = saved(tmp_path, content)
    samples, found_hz = read_sound(path)
    np.testing.assert_array_equal(samples, decoded(content))
    assert (samples.shape, found_hz, inspect(path).num_samples) == ((24_000,), rate_hz, 24_000)
    assert np.corrcoef(samples, SWEEP)[0, 1] > 0.9  # and those are the sound, at its place


@pytest.mark.parametrize("kind", LOSSY)
def test_a_part_is_cut_out_of_the_whole(tmp_path: Path, kind: str) -> None:
    content = encoded(kind)
    path = saved(tmp_path, content)
    for start, end in ((0.0, 0.1), (0.33, 0.9), (1.2, None)):
        part, _ = read_sound(path, start=start, end=end)
        last = None if end is None else round(end * RATE_HZ)
        np.testing.assert_array_equal(part, decoded(content)[round(start * RATE_HZ) : last])
    with pytest.raises(DataError, match=r"which lasts 1\.5 s"):
        read_sound(path, start=1.0, end=1.6)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", LOSSY)
def test_a_cut_file_is_refused(tmp_path: Path, kind: str, part: float) -> None:
    content = encoded(kind)
    path = saved(tmp_path, content[: int(len(content) * part)])
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match=r"ends inside a (frame|page): it is cut.*utterance u1"):
            read(path, utterance="u1")


def test_values_that_the_decoder_puts_outside_are_clipped(tmp_path: Path) -> None:
    loud = np.sign(np.sin(2 * np.pi * 440 * TIMES))
    content = encoded("ogg", loud)
    assert np.abs(soundfile.read(io.BytesIO(content))[0]).max() > 1
    assert np.abs(read_sound(saved(tmp_path, content))[0]).max() == 1


def test_measure_says_what_the_file_is(tmp_path: Path) -> None:
    found = measure(saved(tmp_path, encoded("opus")))
    assert (found.kind, found.is_lossy, found.is_stream) == ("Ogg Opus", True, False)


# MP3


def frames_of(content: bytes) -> list[bytes]:
    """The frames of an MP3 of MPEG-2 at 16 kHz, in whose table of bit rates a step is 8 kbit/s up to 64."""
    kbits = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    frames, at = [], 0
    while at < len(content):
        length = 72 * kbits[content[at + 2] >> 4] * 1_000 // RATE_HZ + (content[at + 2] >> 1 & 1)
        frames.append(content[at : at + length])
        at += length
    return frames


NOISY = SWEEP * (TIMES < 0.8) + 0.1 * np.random.default_rng(0).standard_normal(len(SWEEP)) * (TIMES < 1.1)
VARIABLE = encoded("mp3", NOISY, bitrate_mode="VARIABLE", compression_level=0.4)
ENCODER_DELAY = 576 + 529


def test_a_variable_bit_rate_without_a_table_is_read_to_its_end(tmp_path: Path) -> None:
    frames = frames_of(VARIABLE)
    bare = b"".join(frames[1:])
    assert len(decoded(bare)) < len(SWEEP)  # libsndfile estimates the length, and stops there
    samples, _ = read_sound(saved(tmp_path, bare))
    assert len(samples) == 576 * (len(frames) - 1)
    inner = samples[ENCODER_DELAY : ENCODER_DELAY + len(SWEEP)]
    np.testing.assert_allclose(inner, decoded(VARIABLE)[: len(inner)], atol=1e-6)


def test_a_constant_bit_rate_without_a_table_is_what_libsndfile_reads(tmp_path: Path) -> None:
    bare = b"".join(frames_of(encoded("mp3", bitrate_mode="CONSTANT", compression_level=0.5))[1:])
    path = saved(tmp_path, bare)
    np.testing.assert_array_equal(read_sound(path)[0], decoded(bare))
    assert measure(path).is_stream


@pytest.mark.parametrize("table", ["Fraunhofer's", "without the number of frames"])
def test_a_table_by_which_the_decoder_does_not_count_is_replaced(tmp_path: Path, table: str) -> None:
    first, *sound = frames_of(VARIABLE)
    num_bytes = len(VARIABLE)
    if table == "Fraunhofer's":
        content = struct.pack(">4sHHHII", b"VBRI", 1, 0, 75, num_bytes, len(sound))
        head = bytes([first[0], first[1], 0x50 | first[2] & 0x0C, first[3]])  # 40 kbit/s: 180 bytes
        first = (head + bytes(32) + content).ljust(180, b"\0")
    else:
        at = max(first.find(b"Xing"), first.find(b"Info"))
        first = first[: at + 4] + bytes(len(first) - at - 4)
    samples, _ = read_sound(saved(tmp_path, first + b"".join(sound)))
    assert len(samples) == 576 * len(sound)


@pytest.mark.parametrize("step", [-1, 1])
def test_a_table_may_count_its_own_frame_or_leave_out_one(tmp_path: Path, step: int) -> None:
    content = bytearray(VARIABLE)
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[at : at + 4] = struct.pack(">I", len(frames_of(VARIABLE)) - 1 + step)
    np.testing.assert_array_equal(read_sound(saved(tmp_path, bytes(content)))[0], decoded(VARIABLE))


@pytest.mark.parametrize("around", ["ID3v2", "ID3v1", "APE", "zeros"])
def test_tags_around_an_mp3_are_no_sound(tmp_path: Path, around: str) -> None:
    before = b"ID3\4\0\0\0\0\1\0" + bytes(128) if around == "ID3v2" else b""
    after = {"ID3v1": b"TAG" + bytes(125), "APE": b"APETAGEX" + b"\1" * 50, "zeros": bytes(500)}.get(around, b"")
    np.testing.assert_array_equal(read_sound(saved(tmp_path, before + VARIABLE + after))[0], decoded(VARIABLE))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"".join(frames_of(VARIABLE)[:-1]), r"holds \d+ frames, but its first one declares \d+: it is cut.*Fetch"),
        (VARIABLE + VARIABLE, "are several files joined in it.*ffmpeg -i a.mp3 a.wav"),
        (b"".join(frames_of(VARIABLE)[:9]) + b"junk" + b"".join(frames_of(VARIABLE)[9:]), "damaged: there is no frame"),
        (VARIABLE + frames_of(encoded("mp3", rate_hz=24_000)[:2_000])[0], "changes its sample rate"),
        (b"\xff\xfd\x90\x04" + bytes(600), "MPEG audio of layer II, which is not read.*ffmpeg"),
        (b"\xff\xf3\x04\xc0" + bytes(600), "no whole frame, or frames of free bit rate"),
        (frames_of(VARIABLE)[0], "holds 0 frames, but its first one declares 44"),
        (b"ID3\4\0\0\0\0\0\x14" + bytes(20), "ends inside its ID3 tag"),
    ],
)
def test_an_mp3_that_loses_samples_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read_sound(saved(tmp_path, content, "a.mp3"))


def test_an_mp3_cannot_claim_frames_that_it_does_not_hold(tmp_path: Path) -> None:
    content = bytearray(VARIABLE)
    at = max(content.find(b"Xing"), content.find(b"Info")) + 8
    content[at : at + 4] = b"\x7f\xff\xff\xff"
    with pytest.raises(DataError, match="first one declares 2147483647"):
        inspect(saved(tmp_path, bytes(content)))


# Ogg


def pages_of(content: bytes) -> list[bytes]:
    starts = [at for at in range(len(content)) if content.startswith(b"OggS\0", at)]
    return [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)]


def with_checksum(page: bytes) -> bytes:
    return page[:22] + struct.pack("<I", ogg._checksum(page[:22] + bytes(4) + page[26:])) + page[26:]


OGG = pages_of(encoded("opus", np.tile(SWEEP, 3)))


def test_the_checksum_is_that_of_libogg() -> None:
    assert [with_checksum(page) for page in OGG] == OGG


def test_padding_after_the_last_page_is_no_sound(tmp_path: Path) -> None:
    content = b"".join(OGG)
    np.testing.assert_array_equal(read_sound(saved(tmp_path, content + bytes(300)))[0], decoded(content))


@pytest.mark.parametrize(
    ("pages", "what"),
    [
        (OGG[:-1], "ends before the last page of its sound: it is cut"),
        ([*OGG[:3], *OGG[4:]], "lacks pages: 4 follows 2"),
        (
            [*OGG[:3], OGG[3][:-1] + b"\0" if OGG[3][-1] else OGG[3][:-1] + b"\1", *OGG[4:]],
            "does not have its checksum",
        ),
        ([*OGG[:3], b"junk", *OGG[3:]], "damaged: there is no page at byte"),
        (OGG + OGG, "several streams.*ffmpeg -i a.opus a.wav"),
        ([with_checksum(OGG[0].replace(b"OpusHead", b"Speex   ")), *OGG[1:]], "holds Speex, which is not read.*ffmpeg"),
    ],
)
def test_an_ogg_that_loses_samples_is_refused(tmp_path: Path, pages: list[bytes], what: str) -> None:
    with pytest.raises(DataError, match=what):
        read_sound(saved(tmp_path, b"".join(pages), "a.opus"))


@pytest.mark.parametrize("kind", ["ogg", "opus"])
def test_an_ogg_cannot_claim_more_than_its_packets_hold(tmp_path: Path, kind: str) -> None:
    *pages, last = pages_of(encoded(kind, np.tile(NOISY, 10)))
    last = with_checksum(last[:6] + struct.pack("<q", 1 << 40) + last[14:])
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match=r"declares \d{12,} samples, but .* hold \d+ at most"):
            read(saved(tmp_path, b"".join([*pages, last])))


def test_an_ogg_that_says_more_than_its_packets_give_is_refused(tmp_path: Path) -> None:
    *pages, last = pages_of(encoded("opus"))
    position = struct.unpack("<q", last[6:14])[0]
    last = with_checksum(last[:6] + struct.pack("<q", position + 30_000) + last[14:])
    with pytest.raises(DataError, match=r"decoder gives 24\d{3} samples of the Ogg Opus, not 34000"):
        read_sound(saved(tmp_path, b"".join([*pages, last])))
