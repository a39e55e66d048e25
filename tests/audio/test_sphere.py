"""NIST SPHERE files, written byte by byte: they are read whole or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repbench.audio.sound import inspect, measure, read_sound
from repbench.errors import DataError
from tests.corpora.sounds import sphere_bytes

RATE_HZ = 16_000
NOISE = np.random.default_rng(0).integers(-20_000, 20_000, 4_000)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def without(content: bytes, line: bytes) -> bytes:
    """The file without the line of its header that starts so; the header keeps its size."""
    head, sound = content[:1024], content[1024:]
    start = head.index(b"\n" + line) + 1
    end = head.index(b"\n", start) + 1
    return (head[:start] + head[end:]).ljust(1024, b" ") + sound


@pytest.mark.parametrize("order", ["01", "10"])
@pytest.mark.parametrize("name", ["SA1.WAV", "sa1.wav", "sa1.sph", "sa1.wav.wav", "ü"])
def test_sphere_is_known_by_its_first_bytes_and_read_as_it_was_written(tmp_path: Path, name: str, order: str) -> None:
    path = write(tmp_path / name, sphere_bytes(NOISE, sample_byte_format=order))
    samples, rate_hz = read_sound(path)
    assert (str(samples.dtype), samples.shape, rate_hz) == ("float32", (4_000,), RATE_HZ)
    np.testing.assert_array_equal(samples * 2**15, NOISE)
    assert inspect(path).seconds == 0.25


def test_a_part_and_its_hash_are_those_of_the_same_wav(tmp_path: Path) -> None:
    import soundfile

    sphere = write(tmp_path / "a.wav", sphere_bytes(NOISE))
    soundfile.write(tmp_path / "b.wav", NOISE.astype(np.int16), RATE_HZ, subtype="PCM_16")
    assert measure(sphere, start=0.1, end=0.2) == measure(tmp_path / "b.wav", start=0.1, end=0.2)
    assert measure(sphere).num_samples == 4_000


@pytest.mark.parametrize("coding", ["ulaw", "mu-law"])
def test_mu_law_is_expanded_as_g711_says(tmp_path: Path, coding: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    inverted = ~codes
    exponent, mantissa = (inverted >> 4) & 7, inverted & 15
    magnitude = ((mantissa.astype(np.int64) * 8 + 132) << exponent) - 132
    expected = np.where(inverted & 128, -magnitude, magnitude)
    content = sphere_bytes(codes, sample_rate=8_000, sample_n_bytes=1, sample_byte_format="1", sample_coding=coding)
    path = write(tmp_path / "a.sph", content[:1024] + codes.tobytes())
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, expected)


def test_a_law_is_expanded_as_g711_says(tmp_path: Path) -> None:
    codes = np.arange(256, dtype=np.uint8)
    toggled = codes ^ 0x55
    exponent, mantissa = (toggled >> 4) & 7, (toggled & 15).astype(np.int64)
    magnitude = np.where(exponent == 0, mantissa * 16 + 8, (mantissa * 16 + 264) << np.maximum(exponent, 1) - 1)
    expected = np.where(toggled & 128, magnitude, -magnitude)
    content = without(sphere_bytes(codes, sample_coding="alaw"), b"sample_n_bytes")
    path = write(tmp_path / "a.sph", content[:1024] + codes.tobytes())
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, expected)


@pytest.mark.parametrize("part", [0.0, 0.25, 0.5, 0.99])
def test_fault_15_truncated_sphere_is_refused_by_both_lengths(tmp_path: Path, part: float) -> None:
    content = sphere_bytes(NOISE)
    held = int(4_000 * part)
    path = write(tmp_path / "a.wav", content[: 1024 + 2 * held])
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match=rf"file holds {held} samples, but its header declares 4000.*utterance u1"):
            read(path, utterance="u1")


def test_fault_15_sphere_cut_inside_a_sample_or_with_bytes_left_over_is_refused(tmp_path: Path) -> None:
    content = sphere_bytes(NOISE)
    with pytest.raises(DataError, match="file holds 3999 samples, but its header declares 4000"):
        inspect(write(tmp_path / "a.wav", content[:-1]))
    with pytest.raises(DataError, match="file holds 4001 samples, but its header declares 4000"):
        inspect(write(tmp_path / "a.wav", content + b"\0\0"))
    with pytest.raises(DataError, match="file holds 8001 bytes of sound, but its header declares 8000"):
        inspect(write(tmp_path / "a.wav", content + b"\0"))


def test_fault_15_sphere_cut_inside_its_header_is_refused(tmp_path: Path) -> None:
    for num_bytes in (8, 20, 500, 1023):
        with pytest.raises(DataError, match=f"ends inside its SPHERE header, after {num_bytes} bytes"):
            inspect(write(tmp_path / "a.wav", sphere_bytes(NOISE)[:num_bytes]))


def test_fault_16_sphere_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 0 samples"):
        inspect(write(tmp_path / "a.wav", sphere_bytes(NOISE[:0])))


def test_fault_18_stereo_sphere_is_refused_by_its_channels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 channels"):
        read_sound(write(tmp_path / "a.wav", sphere_bytes(NOISE.reshape(2_000, 2))))


def test_shorten_is_refused_with_what_decompresses_it(tmp_path: Path) -> None:
    content = sphere_bytes(NOISE, sample_coding="pcm,embedded-shorten-v2.00")
    with pytest.raises(DataError, match=r"compressed \(`pcm,embedded-shorten-v2\.00`\).*Decompress it with `sph2pipe"):
        read_sound(write(tmp_path / "a.wav", content))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"sample_coding": "pculaw"}, "coding `pculaw`, which is not read"),
        ({"sample_n_bytes": 3, "sample_byte_format": "012"}, "`pcm` samples of 3 bytes, which are not read"),
        ({"sample_n_bytes": 4}, "`pcm` samples of 4 bytes, which are not read"),
        ({"sample_n_bytes": 1, "sample_byte_format": "1"}, "`pcm` samples of 1 bytes, which are not read"),
        ({"sample_byte_format": "mixed"}, "`sample_byte_format` .* must be `01` or `10`, but is `mixed`"),
        ({"sample_byte_format": "0123"}, "`sample_byte_format` .* must be `01` or `10`, but is `0123`"),
        ({"sample_rate": 0}, "`sample_rate` .* must be a whole number from 1, but is `0`"),
        ({"sample_count": -4}, "`sample_count` .* must be a whole number from 0, but is `-4`"),
        ({"channel_count": "one"}, "`channel_count` .* must be a whole number from 1, but is `one`"),
        ({"sample_count": 10**30}, "`sample_count` .* must be a whole number"),
    ],
    ids=str,
)
def test_a_field_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, int | str], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        inspect(write(tmp_path / "a.wav", sphere_bytes(NOISE, **changes)))


@pytest.mark.parametrize(
    "name", [b"sample_count", b"sample_rate", b"channel_count", b"sample_n_bytes", b"sample_byte_format"]
)
def test_a_field_that_is_missing_is_named(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(DataError, match=f"`?{name.decode()}`?"):
        inspect(write(tmp_path / "a.wav", without(sphere_bytes(NOISE), name)))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b"end_head", b"end_hand", "has no `end_head`"),
        (b"   1024", b"   1000", "size of the SPHERE header must be a multiple of 1024, but is `1000`"),
        (b"   1024", b"   abcd", "size of the SPHERE header must be"),
        (b"database_id -s5 TIMIT", b"database_id TIMIT    ", "is not `NAME -TYPE VALUE`: `database_id TIMIT"),
        (b"database_id -s5 TIMIT", b"sample_count -i 39999", "is repeated: `sample_count"),
    ],
)
def test_a_broken_header_is_refused(tmp_path: Path, old: bytes, new: bytes, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        inspect(write(tmp_path / "a.wav", sphere_bytes(NOISE).replace(old, new)))


def test_a_longer_header_and_what_follows_its_end_are_read_over(tmp_path: Path) -> None:
    content = sphere_bytes(NOISE)
    head = content[:1024].replace(b"   1024", b"   2048").rstrip(b" ")
    path = write(tmp_path / "a.wav", head.ljust(1024, b"\xff") + bytes(1024) + content[1024:])
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, NOISE)


def test_a_rate_that_libsndfile_takes_from_another_field_is_refused(tmp_path: Path) -> None:
    content = sphere_bytes(NOISE).replace(b"database_id -s5 TIMIT", b"original_sample_rate -i 44100")
    head = content[:-8000].rstrip(b" ").ljust(1024, b" ")
    path = write(tmp_path / "a.wav", head + content[-8000:])
    with pytest.raises(DataError, match="libsndfile finds a rate of 44100, but the header declares 16000"):
        inspect(path)
