"""WAV and FLAC files from the field: data around the sound, headers of streams, and limits of declared sizes."""

from __future__ import annotations

import io
import itertools
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile

from repbench.audio.sound import inspect, measure, read_sound
from repbench.errors import DataError

SAMPLES = (np.arange(800) * 37 % 2000 - 1000).astype("<i2")
SOUND = SAMPLES.tobytes()
ID3V2 = b"ID3\4\0\0\0\0\0\x14TIT2" + bytes(16)
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")


def chunk(name: bytes, content: bytes, size: int | None = None, *, pad: bool = True) -> bytes:
    size = len(content) if size is None else size
    return name + struct.pack("<I", size) + content + b"\0" * (pad and len(content) % 2)


FORM = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 32_000, 2, 16))
FORM_8_BIT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 16_000, 16_000, 1, 8))
DATA = chunk(b"data", SOUND)
NOTE = b"INFOISFT\4\0\0\0abcd"


def wav(*chunks: bytes, riff: int | None = None) -> bytes:
    body = b"".join(chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body) if riff is None else riff) + b"WAVE" + body


AROUND = {
    "a few zeros, counted": wav(FORM, DATA, bytes(4)),
    "a few bytes": wav(FORM, DATA) + b"\xff\x01\x02",
    "7 bytes, counted": wav(FORM, DATA, b"\xc3\x01" * 3 + b"\1"),
    "a sector of zeros": wav(FORM, DATA) + bytes(2048 - 1644),
    "LIST, size too large": wav(FORM, DATA, chunk(b"LIST", NOTE, 2_000)),
    "LIST, size too small": wav(FORM, DATA, chunk(b"LIST", NOTE, 9)),
    "LIST, size 0": wav(FORM, DATA, chunk(b"LIST", NOTE, 0)),
    "LIST of a stream": wav(FORM, DATA, chunk(b"LIST", NOTE, 0xFFFFFFFF)),
    "LIST, then zeros": wav(FORM, DATA, chunk(b"LIST", NOTE)) + bytes(100),
    "ID3v2": wav(FORM, DATA) + ID3V2,
    "ID3v1, counted": wav(FORM, DATA, ID3V1),
    "a chunk with a name of other bytes": wav(FORM, DATA, chunk(b"\xa9xyz", b"1234")),
    "ID3v2 before": ID3V2 + wav(FORM, DATA),
    "a size of 0 for the whole": wav(FORM, DATA, riff=0),
    "fillers before": wav(chunk(b"JUNK", bytes(28)), FORM, chunk(b"FLLR", bytes(4_000)), DATA),
}

NOT_OF_SCIPY = {"ID3v2 before", "a size of 0 for the whole", "LIST, size too small", "7 bytes, counted"}
"""What scipy does not read; libsndfile does."""


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_the_sound_of_a_wav_is_no_sound(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(AROUND[name])
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, SAMPLES)
    assert inspect(path).num_samples == 800


@pytest.mark.parametrize("after", [chunk(b"LIST", NOTE), ID3V1, b"\1\2\3", b""])
def test_odd_sound_may_lack_its_padding(tmp_path: Path, after: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(FORM_8_BIT, chunk(b"data", SOUND[:801], pad=False), after))
    assert read_sound(path)[0].shape == (801,)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (wav(FORM, chunk(b"data", SOUND, 100)), "file holds 800 samples, but its header declares 50"),
        (wav(FORM, chunk(b"data", SOUND, 1_590)), "file holds 800 samples, but its header declares 795"),
        (wav(FORM, chunk(b"data", SOUND, 1_000), riff=1_036), "file holds 800 samples, but its header declares 500"),
        (wav(FORM, DATA) + b"\xc3\x01" * 20, "file holds 820 samples, but its header declares 800"),
        (wav(FORM, chunk(b"data", SOUND[:800]), chunk(b"data", SOUND[800:])), "but its header declares 400"),
    ],
)
def test_sound_that_the_header_does_not_count_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{says}.*sox --ignore-length a\.wav a-mended\.wav") as refused:
        read_sound(path)
    assert "Fetch" not in str(refused.value)


PLACEHOLDERS = (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFF0, 0x7FFFF000, 0x80000000)


@pytest.mark.parametrize("size", PLACEHOLDERS)
@pytest.mark.parametrize("riff", ["the same", "in step", "0"])
def test_the_wav_of_a_pipe_is_read_to_its_end(tmp_path: Path, size: int, riff: str) -> None:
    path = tmp_path / "a.wav"
    whole = {"the same": size, "in step": (size + 36) & 0xFFFFFFFF, "0": 0}[riff]
    path.write_bytes(wav(FORM, chunk(b"data", SOUND, size), riff=whole))
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, SAMPLES)
    assert measure(path).is_stream


@pytest.mark.parametrize("size", [*PLACEHOLDERS, 0])
def test_a_stream_that_contradicts_itself_is_refused_with_what_helps(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(FORM, chunk(b"data", SOUND, size)))
    what = (
        rf"holds 800 samples, but its header declares {size // 2}.*sox --ignore-length.*ffmpeg -i a\.wav a-mended\.wav"
    )
    with pytest.raises(DataError, match=what) as refused:
        read_sound(path)
    assert "Fetch" not in str(refused.value)


def test_a_long_file_cut_short_is_no_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(FORM, chunk(b"data", SOUND, 2_500_000_000), riff=2_500_000_036))
    with pytest.raises(DataError, match=r"holds 800 samples, but its header declares 1250000000.*Fetch the file again"):
        read_sound(path)


@pytest.mark.parametrize(
    ("size", "do"), [(5_000_000_000, "Fetch the file again"), (1 << 31, "sox"), (0, "sox --ignore-length")]
)
def test_an_rf64_cut_short_is_no_stream(tmp_path: Path, size: int, do: str) -> None:
    body = chunk(b"ds64", struct.pack("<QQQI", 2 * size, size, size // 2, 0)) + FORM
    path = tmp_path / "a.wav"
    path.write_bytes(b"RF64\xff\xff\xff\xffWAVE" + body + chunk(b"data", SOUND, 0xFFFFFFFF))
    with pytest.raises(DataError, match=f"holds 800 samples, but its header declares {size // 2}.*{do}"):
        read_sound(path)


def test_a_stream_that_ends_inside_a_sample_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(FORM, chunk(b"data", SOUND + b"\1", 0xFFFFFFFF, pad=False), riff=0xFFFFFFFF))
    with pytest.raises(DataError, match="ends 1 bytes into a sample"):
        read_sound(path)


def test_a_big_endian_wav_with_an_extended_format_is_read(tmp_path: Path) -> None:
    guid = struct.pack(">IHH", 1, 0, 16) + bytes.fromhex("800000aa00389b71")
    form = struct.pack(">HHIIHHHHI", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 4) + guid
    body = b"fmt " + struct.pack(">I", 40) + form + b"data" + struct.pack(">I", 1600) + SAMPLES.astype(">i2").tobytes()
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFX" + struct.pack(">I", 4 + len(body)) + b"WAVE" + body)
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, SAMPLES)


def test_a_wav_that_libsndfile_does_not_decode_is_to_be_converted(tmp_path: Path) -> None:
    form = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8_000, 40_000, 5, 36))
    path = tmp_path / "a.wav"
    path.write_bytes(wav(form, chunk(b"data", bytes(25))))
    with pytest.raises(DataError, match=r"cannot be read.*Convert it"):
        read_sound(path)


def test_every_variant_is_read_as_libsndfile_and_scipy_read_it_or_refused(tmp_path: Path) -> None:
    """What both read alike is right; a file of which they read fewer samples than it holds is refused."""
    path = tmp_path / "a.wav"
    counts = {"right": 0, "refused": 0}
    sounds = [FORM + DATA, FORM + chunk(b"data", SOUND, 1_000), FORM_8_BIT + chunk(b"data", SOUND[:801], pad=False)]
    afters = [b"", bytes(3), bytes(40), b"\1\2\3\4", chunk(b"LIST", NOTE), chunk(b"LIST", NOTE, 5), b"\1" * 40, ID3V2]
    for sound, after, counted in itertools.product(sounds, afters, (True, False)):
        path.write_bytes(wav(sound, after) if counted else wav(sound) + after)
        try:
            samples, _ = read_sound(path)
        except DataError:
            counts["refused"] += 1
            continue
        np.testing.assert_array_equal(samples, soundfile.read(path, dtype="float32")[0])
        assert samples.shape in ((800,), (801,))
        counts["right"] += 1
    assert counts == {"right": 28, "refused": 20}


@pytest.mark.filterwarnings("ignore::scipy.io.wavfile.WavFileWarning")
@pytest.mark.parametrize("name", sorted(set(AROUND) - NOT_OF_SCIPY))
def test_scipy_agrees_on_what_stands_around(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(AROUND[name])
    np.testing.assert_array_equal(wavfile.read(path)[1], SAMPLES)


def flac(samples: np.ndarray = SAMPLES, total: int | None = None) -> bytes:
    """A FLAC that declares `total` samples; None: the right number."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16_000, format="FLAC", subtype="PCM_16")
    content = bytearray(stream.getvalue())
    if total is not None:
        packed = int.from_bytes(content[18:26], "big") >> 36 << 36
        content[18:26] = (packed | total).to_bytes(8, "big")
    return bytes(content)


@pytest.mark.parametrize("content", [ID3V2 + flac(), flac() + ID3V1, flac(total=0), ID3V2 + flac(total=0) + ID3V1])
def test_flac_with_tags_or_without_a_total_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, SAMPLES)
    np.testing.assert_array_equal(read_sound(path, start=0.01, end=0.02)[0] * 2**15, SAMPLES[160:320])
    assert inspect(path).num_samples == 800


@pytest.mark.parametrize("num_bytes", [1, 2, 9, 100, 1_000, 5_000])
def test_flac_without_a_total_is_refused_where_it_is_cut(tmp_path: Path, num_bytes: int) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(flac(np.tile(SAMPLES, 40), total=0)[:-num_bytes])
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match=r"does not end with a whole frame: it is cut.*a\.flac.*utterance u1"):
            read(path, utterance="u1")


def test_damage_within_a_flac_without_a_total_is_found_by_its_decoder(tmp_path: Path) -> None:
    content = bytearray(flac(np.tile(SAMPLES, 40), total=0))
    content[len(content) // 2] ^= 0x55
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be decoded"):
        read_sound(path)


@pytest.mark.parametrize("total", [2**36 - 1, 10**9])
def test_a_flac_cannot_claim_more_than_its_size_allows(tmp_path: Path, total: int) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(flac(total=total))
    for read in (inspect, read_sound):
        with pytest.raises(
            DataError, match=rf"header declares {total} samples, but a FLAC of \d+ bytes holds \d+ at most"
        ):
            read(path)


@pytest.mark.parametrize("after", [b"", ID3V1])
@pytest.mark.parametrize("total", [1, 4_096, 28_672, 31_999])
def test_a_flac_that_counts_fewer_samples_than_it_holds_is_refused(tmp_path: Path, total: int, after: bytes) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(flac(np.tile(SAMPLES, 40), total=total) + after)
    assert len(soundfile.read(path)[0]) == total
    with pytest.raises(DataError, match=rf"header declares {total} samples, but the last frame .* reaches to 32000"):
        inspect(path)


@pytest.mark.parametrize("num_samples", [1, 16, 4_095, 4_096, 4_097, 1_000_000])
def test_no_flac_is_taken_to_hold_more_than_it_does(tmp_path: Path, num_samples: int) -> None:
    path = tmp_path / "a.flac"
    noise = np.random.default_rng(num_samples).integers(-(2**15), 2**15, num_samples).astype(np.int16)
    path.write_bytes(flac(noise))
    np.testing.assert_array_equal(read_sound(path)[0] * 2**15, noise)


def test_a_long_silence_is_within_what_a_flac_may_claim(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(flac(np.zeros(2_000_000, dtype=np.int16)))
    assert path.stat().st_size < 20_000
    assert read_sound(path)[0].shape == (2_000_000,)


def test_a_claim_takes_no_memory(tmp_path: Path) -> None:
    """A FLAC of 25 MB may claim 10 G samples, 40 GB: they are decoded block by block, and the first is missing."""
    content = flac(np.tile(SAMPLES, 40))
    path = tmp_path / "a.flac"
    path.write_bytes(flac(np.tile(SAMPLES, 40), total=9_000_000_000) + bytes(25_000_000 - len(content)))
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from repbench.audio.sound import read_sound\n"
        "from repbench.errors import DataError\n"
        "import soundfile\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({2 << 30}, {2 << 30}))\n"
        "try:\n    read_sound(Path(sys.argv[1]))\n"
        "except DataError as error:\n    print(error.what)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[1] == resource.RLIM_INFINITY
    found = subprocess.run([sys.executable, "-c", code, path], check=False, capture_output=True, text=True)
    assert found.stdout.startswith("The sound cannot be decoded"), found.stderr
