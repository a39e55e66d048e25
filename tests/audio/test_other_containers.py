"""AIFF and AU: the samples of libsndfile, and never fewer than the header declares."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.audio.sound import inspect, measure, read_sound
from repbench.errors import DataError

NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 1_000)
AIFF_CODES = ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "PCM_U8"]
AU_CODES = ["PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]


def written(tmp_path: Path, container: str, subtype: str = "PCM_16", *, endian: str = "FILE") -> Path:
    path = tmp_path / "sound"
    soundfile.write(path, NOISE, 16_000, format=container, subtype=subtype, endian=endian)
    return path


def changed(path: Path, at: int, new: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(new)] = new
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("container", "subtype"), [*(("AIFF", code) for code in AIFF_CODES), *(("AU", code) for code in AU_CODES)]
)
def test_every_code_is_read_as_libsndfile_reads_it(tmp_path: Path, container: str, subtype: str) -> None:
    path = written(tmp_path, container, subtype)
    np.testing.assert_array_equal(read_sound(path)[0], soundfile.read(path, dtype="float32")[0])
    np.testing.assert_allclose(read_sound(path, start=0.01)[0], NOISE[160:], atol=0.02)
    assert (inspect(path).num_samples, measure(path).kind) == (1_000, container)


@pytest.mark.parametrize("container", ["AIFF", "AU"])
def test_little_endian_samples_are_read(tmp_path: Path, container: str) -> None:
    path = written(tmp_path, container, endian="LITTLE")
    assert path.read_bytes()[:4] == {"AIFF": b"FORM", "AU": b"dns."}[container]
    np.testing.assert_allclose(read_sound(path)[0], NOISE, atol=1e-4)


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("container", ["AIFF", "AU"])
def test_a_cut_file_is_refused(tmp_path: Path, container: str, part: float) -> None:
    path = written(tmp_path, container)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(DataError, match=r"file holds \d+ samples, but its header declares 1000.*Fetch"):
        read_sound(path)


def test_an_au_that_does_not_say_its_size_reaches_to_the_end_of_the_file(tmp_path: Path) -> None:
    path = changed(written(tmp_path, "AU"), 8, b"\xff\xff\xff\xff")
    assert read_sound(path)[0].shape == (1_000,)
    assert measure(path).is_stream


@pytest.mark.parametrize("after", [b"\1\2\3", bytes(100), b"TAG" + b"x" * 125])
@pytest.mark.parametrize("container", ["AIFF", "AU"])
def test_what_follows_the_sound_is_no_sound(tmp_path: Path, container: str, after: bytes) -> None:
    path = written(tmp_path, container)
    path.write_bytes(path.read_bytes() + after)
    assert read_sound(path)[0].shape == (1_000,)


def test_chunks_around_the_sound_of_an_aiff_are_read_over(tmp_path: Path) -> None:
    content = written(tmp_path, "AIFF").read_bytes()
    at = content.index(b"COMM")
    common, rest = content[at : at + 26], content[at + 26 :]
    note = b"ANNO" + struct.pack(">I", 5) + b"hello\0"
    body = b"AIFF" + note + rest + common + note
    path = tmp_path / "sound"
    path.write_bytes(b"FORM" + struct.pack(">I", len(body)) + body)
    assert read_sound(path)[0].shape == (1_000,)


@pytest.mark.parametrize(
    ("container", "subtype", "what"),
    [
        ("AIFF", "IMA_ADPCM", r"AIFF is compressed \(`ima4`\), which is not read.*ffmpeg"),
        ("AU", "G721_32", r"AU has encoding 23, which is not read.*ffmpeg"),
    ],
)
def test_compressed_samples_are_refused(tmp_path: Path, container: str, subtype: str, what: str) -> None:
    path = tmp_path / "sound"
    soundfile.write(path, NOISE[:600], 16_000, format=container, subtype=subtype)
    with pytest.raises(DataError, match=what):
        inspect(path)


def test_a_header_may_not_claim_more_or_less_than_there_is(tmp_path: Path) -> None:
    aiff = written(tmp_path, "AIFF").read_bytes()
    path = tmp_path / "b"
    path.write_bytes(aiff)
    num_samples_at, size_at = aiff.index(b"COMM") + 10, aiff.index(b"SSND") + 4
    with pytest.raises(DataError, match="file holds 1000 samples, but its header declares 4294967295"):
        read_sound(changed(path, num_samples_at, b"\xff\xff\xff\xff"))
    with pytest.raises(DataError, match=r"file holds 1000 samples, but its header declares 900.*sox --ignore-length"):
        read_sound(changed(path, num_samples_at, struct.pack(">I", 900)))
    path.write_bytes(aiff)
    changed(path, size_at, b"\xff\xff\xff\xff")
    with pytest.raises(DataError, match=r"file holds 1000 samples, but its header declares 900.*sox --ignore-length"):
        read_sound(changed(path, num_samples_at, struct.pack(">I", 900)))
    au = written(tmp_path, "AU")
    with pytest.raises(DataError, match=r"file holds 1000 samples, but its header declares 500.*sox --ignore-length"):
        read_sound(changed(au, 8, struct.pack(">I", 1_000)))


@pytest.mark.parametrize("num_samples", [0, 1_000, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_the_aiff_of_a_pipe_is_read_to_its_end(tmp_path: Path, size: int, num_samples: int) -> None:
    path = written(tmp_path, "AIFF")
    content = path.read_bytes()
    changed(path, content.index(b"SSND") + 4, struct.pack(">I", size))
    changed(path, content.index(b"COMM") + 10, struct.pack(">I", num_samples))
    np.testing.assert_allclose(read_sound(path)[0], NOISE, atol=1e-4)
    assert measure(path).is_stream == (num_samples != 1_000)


def test_a_few_bytes_more_in_the_chunk_of_an_aiff_are_padding(tmp_path: Path) -> None:
    path = written(tmp_path, "AIFF")
    content = path.read_bytes()
    at = content.index(b"SSND") + 4
    path.write_bytes(content + bytes(1))
    changed(path, at, struct.pack(">I", 2_000 + 8 + 1))
    assert read_sound(path)[0].shape == (1_000,)
