"""Sound files: they are read whole or refused."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.audio.sound import inspect, measure, read_sound
from repbench.errors import DataError, UsageError

RATE_HZ = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 4_000)


def write(path: Path, samples: np.ndarray = NOISE, *, subtype: str = "PCM_16", rate_hz: int = RATE_HZ) -> Path:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return path


def cut(path: Path, num_bytes: int) -> Path:
    path.write_bytes(path.read_bytes()[:num_bytes])
    return path


def with_data_size(path: Path, num_bytes: int) -> Path:
    """The WAV with another size written into the head of its data chunk."""
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", num_bytes)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
def test_every_wav_is_read_as_it_was_written(tmp_path: Path, container: str, subtype: str) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, NOISE, RATE_HZ, format=container, subtype=subtype)
    samples, rate_hz = read_sound(path)
    assert (str(samples.dtype), samples.shape, rate_hz) == ("float32", (4_000,), RATE_HZ)
    np.testing.assert_allclose(samples, NOISE, atol=1 / 100 if subtype == "PCM_U8" else 1 / 30_000)
    assert inspect(path).num_samples == 4_000


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_flac_is_read_as_it_was_written(tmp_path: Path, subtype: str) -> None:
    path = write(tmp_path / "sound.flac", subtype=subtype)
    np.testing.assert_allclose(read_sound(path)[0], NOISE, atol=1 / 30_000)
    assert inspect(path).seconds == 0.25


def test_a_big_endian_wav_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    soundfile.write(path, NOISE, RATE_HZ, subtype="PCM_16", endian="BIG", format="WAV")
    assert path.read_bytes()[:4] == b"RIFX"
    assert read_sound(path)[0].shape == (4_000,)


def test_chunks_before_and_after_the_sound_are_read_over(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav", NOISE[:3_999], subtype="PCM_U8")
    content = path.read_bytes()
    note = b"LIST" + struct.pack("<I", 5) + b"hello\0"
    body = content[12:36] + content[36:] + note
    body = note + body
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    assert inspect(path).num_samples == 3_999


def test_an_odd_data_chunk_may_lack_its_padding(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav", NOISE[:3_999], subtype="PCM_U8")
    cut(path, 44 + 3_999)
    assert read_sound(path)[0].shape == (3_999,)


@pytest.mark.parametrize(("start", "end"), [(None, 0.1), (0.1, None), (0.05, 0.2), (0.00003, 0.1), (None, None)])
@pytest.mark.parametrize("ending", ["wav", "flac"])
def test_a_part_is_the_samples_between_the_rounded_times(
    tmp_path: Path, ending: str, start: float | None, end: float | None
) -> None:
    path = write(tmp_path / f"sound.{ending}")
    whole = read_sound(path)[0]
    first = 0 if start is None else round(start * RATE_HZ)
    last = len(whole) if end is None else round(end * RATE_HZ)
    np.testing.assert_array_equal(read_sound(path, start=start, end=end)[0], whole[first:last])


@pytest.mark.parametrize(
    ("start", "end"), [(-0.1, None), (0.0, 0.2502), (0.2, 0.1), (0.1, 0.1), (0.3, None), (0.0, 25.0)]
)
def test_a_part_outside_the_file_is_refused_with_both_lengths(
    tmp_path: Path, start: float | None, end: float | None
) -> None:
    path = write(tmp_path / "sound.wav")
    with pytest.raises(
        DataError, match=r"does not lie in the file, which lasts 0\.25 s.*utterance u1.*Times in seconds\?"
    ):
        read_sound(path, start=start, end=end, utterance="u1")


@pytest.mark.parametrize("time", [float("nan"), float("inf")])
def test_a_part_at_no_time_is_refused(tmp_path: Path, time: float) -> None:
    with pytest.raises(DataError, match="must be finite"):
        read_sound(write(tmp_path / "sound.wav"), start=time)


def test_measure_hashes_the_float32_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.flac")
    found = measure(path, start=0.1)
    samples = read_sound(path, start=0.1)[0]
    assert (found.sample_rate_hz, found.num_samples) == (RATE_HZ, 2_400)
    assert found.samples_sha256 == hashlib.sha256(samples.astype("<f4").tobytes()).hexdigest()


def test_the_same_samples_have_the_same_hash_in_wav_and_flac(tmp_path: Path) -> None:
    whole_numbers = np.round(NOISE * 2**15).astype(np.int16)
    wav, flac = write(tmp_path / "sound.wav", whole_numbers), write(tmp_path / "sound.flac", whole_numbers)
    assert measure(wav) == measure(flac)


@pytest.mark.parametrize("part", [0.01, 0.25, 0.5, 0.99])
def test_fault_14_truncated_flac_is_refused(tmp_path: Path, part: float) -> None:
    path = write(tmp_path / "sound.flac")
    cut(path, int(path.stat().st_size * part))
    with pytest.raises(DataError, match=r"cannot be (read|decoded).*sound\.flac.*utterance u1"):
        read_sound(path, utterance="u1")


def test_fault_14_flac_with_flipped_bytes_is_refused_or_unharmed(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.flac")
    whole, good = path.read_bytes(), measure(path)
    generator = np.random.default_rng(1)
    num_refused = 0
    for _ in range(50):
        broken = bytearray(whole)
        for at in generator.integers(len(whole), size=2):
            broken[at] ^= 0x10
        path.write_bytes(broken)
        try:
            assert measure(path) == good
        except DataError:
            num_refused += 1
    assert num_refused >= 40


@pytest.mark.parametrize("part", [0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_fault_15_truncated_wav_is_refused(tmp_path: Path, subtype: str, part: float) -> None:
    path = write(tmp_path / "sound.wav", subtype=subtype)
    cut(path, int(path.stat().st_size * part))
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match=r"file holds \d+ samples, but its header declares 4000.*utterance u1"):
            read(path, utterance="u1")


def test_fault_15_wav_cut_inside_its_last_sample_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav")
    cut(path, path.stat().st_size - 1)
    with pytest.raises(DataError, match="file holds 3999 samples, but its header declares 4000"):
        inspect(path)


@pytest.mark.parametrize("num_bytes", [0, 100, 7_990, 8_002, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
def test_fault_15_wav_with_a_lying_data_size_is_refused(tmp_path: Path, num_bytes: int) -> None:
    path = with_data_size(write(tmp_path / "sound.wav"), num_bytes)
    with pytest.raises(DataError, match=f"file holds 4000 samples, but its header declares {num_bytes // 2}"):
        read_sound(path)


def test_fault_15_wav_cut_inside_its_header_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav")
    for num_bytes in range(1, 44):
        with pytest.raises(DataError, match=r"neither WAV nor FLAC|The WAV (has no|ends inside)"):
            inspect(cut(write(path), num_bytes))


def test_fault_16_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.touch()
    with pytest.raises(DataError, match="sound file is empty"):
        inspect(path)


def test_fault_16_wav_of_44_bytes_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav", np.zeros(0))
    assert path.stat().st_size == 44
    with pytest.raises(DataError, match="holds 0 samples"):
        read_sound(path)


def test_fault_16_flac_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_sound(write(tmp_path / "sound.flac", np.zeros(0)))


def test_fault_16_one_sample_is_a_sound(tmp_path: Path) -> None:
    assert read_sound(write(tmp_path / "sound.wav", np.zeros(1)))[0].shape == (1,)


@pytest.mark.parametrize("ending", ["wav", "flac"])
@pytest.mark.parametrize("num_channels", [2, 6])
def test_fault_18_stereo_is_refused_by_its_channels(tmp_path: Path, ending: str, num_channels: int) -> None:
    path = write(tmp_path / f"sound.{ending}", np.zeros((4_000, num_channels)))
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match=rf"has {num_channels} channels.*`--channel N` or `--channel mix`.*sox"):
            read(path)
    assert inspect(path, any_channels=True).num_channels == num_channels


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_channel_is_read_where_one_is_chosen(tmp_path: Path, ending: str) -> None:
    both = np.stack([NOISE, NOISE[::-1]], axis=1) / 2
    path = tmp_path / f"sound.{ending}"
    soundfile.write(path, both, RATE_HZ)
    decoded, _ = soundfile.read(path, dtype="float32")
    for channel in (1, 2):
        np.testing.assert_array_equal(read_sound(path, channel=channel)[0], decoded[:, channel - 1])
        part, _ = read_sound(path, channel=channel, start=0.1, end=0.2)
        np.testing.assert_array_equal(part, decoded[1_600:3_200, channel - 1])
    np.testing.assert_allclose(read_sound(path, channel="mix")[0], decoded.mean(axis=1), atol=1e-7)
    assert (measure(path, channel="mix").num_channels, inspect(path, channel=2).num_samples) == (2, 4_000)
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match="Channel 3 is selected, but the sound has 2 channels"):
            read(path, channel=3)


def test_the_channels_of_one_channel_are_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav")
    assert measure(path, channel=1) == measure(path, channel="mix") == measure(path)
    with pytest.raises(DataError, match=r"Channel 2 is selected, but the sound has 1 channel \("):
        read_sound(path, channel=2)
    for channel in ("left", True, 1.0):
        with pytest.raises(UsageError, match="`channel` must be a number from 1 on or"):
            read_sound(path, channel=channel)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([float("nan")], "1 of 4000 samples are NaN or infinite"),
        ([float("inf"), -float("inf"), 2.0], "2 of 4000 samples are NaN or infinite"),
        ([2.0, -1.5], r"2 of 4000 samples lie outside \[-1, 1\]"),
        ([-1.0000001], r"1 of 4000 samples lie outside \[-1, 1\]"),
    ],
)
def test_fault_19_broken_values_are_refused_with_their_count(tmp_path: Path, values: list[float], text: str) -> None:
    samples = NOISE.copy()
    samples[100 : 100 + len(values)] = values
    path = write(tmp_path / "sound.wav", samples, subtype="FLOAT")
    with pytest.raises(DataError, match=f"{text}.*utterance u1"):
        read_sound(path, utterance="u1")


def test_full_scale_is_within_range(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav", np.array([1.0, -1.0]), subtype="FLOAT")
    assert read_sound(path)[0].tolist() == [1.0, -1.0]


@pytest.mark.parametrize("name", ["ü \n'\".wav", "名前.flac", "sound.raw.wav", "a%s.wav"])
def test_fault_20_strange_names_work(tmp_path: Path, name: str) -> None:
    assert read_sound(write(tmp_path / name))[0].shape == (4_000,)


def test_fault_20_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    path.write_bytes(write(tmp_path / "sound.wav").read_bytes())
    with pytest.raises(DataError, match=r"not valid UTF-8.*\\udcff\.wav"):
        read_sound(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.*gone\.wav.*utterance u1"):
        read_sound(tmp_path / "gone.wav", utterance="u1")
    with pytest.raises(DataError, match="cannot be opened: Is a directory"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"not a sound at all", "neither WAV nor FLAC.*Convert it"),
        (b"RIFF\0\0\0\0WEBP" + bytes(100), "neither WAV nor FLAC.*Convert it"),
        (b"RIFF\0\0\0\0AVI " + bytes(100), r"is an AVI file.*`ffmpeg -i 'a b\.wav' 'a b-mended\.wav'`"),
        (b"\0\0\0\x20ftypM4A " + bytes(100), r"is an MPEG-4 file \(M4A, AAC\), which is not read.*ffmpeg"),
        (b"\xff\xf1\x50\x80" + bytes(100), "is AAC, which is not read.*ffmpeg"),
        (bytes.fromhex("3026b2758e66cf11") + bytes(100), r"is an ASF file \(WMA\).*ffmpeg"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a git-LFS pointer, not the file.*`git lfs pull`"),
        (b"/annex/objects/SHA256E-s1--0.wav\n", "a git-annex pointer.*`git annex get`"),
        (b"\r\n<!DOCTYPE html><title>404</title>", "an HTML or XML page.*Fetch the file again"),
        (b"\x1f\x8b\x08" + bytes(20), "a gzip file.*Unpack it"),
        (b"PK\x03\x04" + bytes(20), "a zip archive.*Unpack it"),
    ],
)
def test_another_kind_of_file_is_called_by_its_name(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "a b.wav"
    path.write_bytes(content)
    for read in (inspect, read_sound):
        with pytest.raises(DataError, match=what):
            read(path)


def test_a_compressed_wav_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="encoding 0x0002, which is not read"):
        inspect(write(tmp_path / "sound.wav", subtype="MS_ADPCM"))


def test_importing_the_module_does_not_import_soundfile() -> None:
    code = (
        "import sys, repbench.audio.sound, repbench.corpora.manifest; print({'soundfile', 'torch'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "set()"


def test_a_path_may_be_text(tmp_path: Path) -> None:
    path = write(tmp_path / "sound.wav")
    assert inspect(str(path)) == inspect(path)
    assert measure(str(path)) == measure(path)
    assert np.array_equal(read_sound(str(path))[0], read_sound(path)[0])
    with pytest.raises(DataError, match=r"missing.*gone\.wav"):
        read_sound(str(tmp_path / "gone.wav"))
