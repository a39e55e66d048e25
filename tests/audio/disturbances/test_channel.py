"""Bands, rates and codecs: what passes, at how many bits, and when."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import soundfile

from repbench.audio.disturbances.channel import MP3_KBITS, Codec
from repbench.audio.disturbances.condition import parse_condition
from repbench.errors import EnvironmentFault
from tests.audio.disturbances.sounds import disturbed, hiss, lag, power_between, real_speech, tone

CODECS = [
    *(f"codec:gsm:s{severity}" for severity in range(1, 6)),
    "codec:ulaw",
    *(f"codec:{name}:s{severity}" for name in ("opus", "mp3") for severity in range(1, 6)),
]


def level_db(text: str, frequency_hz: float, rate_hz: int = 16_000) -> float:
    """Level of a tone after a condition, against the level before; the ends are left out."""
    samples = tone(frequency_hz, 1.0, rate_hz)
    after = disturbed(text, samples, rate_hz)
    inner = slice(rate_hz // 4, -rate_hz // 4)
    return float(10 * np.log10(np.mean(np.square(after[inner])) / np.mean(np.square(samples[inner]))))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("telephone:s1", 50, 7_000), ("telephone:s2", 200, 5_000), ("telephone", 300, 3_400),
        ("telephone:s4", 400, 2_800), ("telephone:s5", 500, 2_200), ("telephone:low=100,high=3000", 100, 3_000),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_a_telephone_passes_its_band_alone(text: str, low: int, high: int, rate_hz: int) -> None:
    for inside in (low + 100, (low + high) // 2, high - 100):
        assert level_db(text, inside, rate_hz) == pytest.approx(0.0, abs=0.3), inside
    for edge in (low, high):
        assert level_db(text, edge, rate_hz) == pytest.approx(-6.0, abs=0.7), edge
    for outside in (low - 100, high + 100, high + 400):
        if outside > 0:
            assert level_db(text, outside, rate_hz) < -40, outside


def test_a_telephone_at_its_own_rate_keeps_the_band() -> None:
    assert level_db("telephone", 3_000, 8_000) == pytest.approx(0.0, abs=0.3)
    assert level_db("telephone", 3_700, 8_000) < -40
    # 7 kHz do not fit into 8 kHz: the lower edge alone is left
    assert level_db("telephone:s1", 3_500, 8_000) == pytest.approx(0.0, abs=0.3)


@pytest.mark.parametrize(("text", "hz"), [("rate:s1", 12_000), ("rate:8000", 8_000), ("rate:s5", 4_000)])
def test_nothing_is_left_above_half_of_a_lower_rate(text: str, hz: int) -> None:
    assert level_db(text, 0.4 * hz) == pytest.approx(0.0, abs=0.2)
    noise = disturbed(text, hiss(32_000))
    assert power_between(noise, 0.55 * hz, 8_000) < 1e-5 * power_between(noise, 0, 0.4 * hz)


def test_a_rate_that_is_not_lower_changes_nothing() -> None:
    samples = hiss(1_000)
    assert disturbed("rate:16000", samples).tobytes() == samples.tobytes()


@pytest.mark.parametrize("text", [*CODECS, "telephone:s1", "telephone", "telephone:s5", "rate:8000"])
@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
def test_speech_keeps_its_times_through_a_channel(text: str, rate_hz: int, speech_data: Path) -> None:
    speech, _ = real_speech(speech_data)
    # heard as sound of the other rate, it is speech as well
    after = disturbed(text, speech, rate_hz)
    assert len(after) == len(speech)
    assert abs(lag(speech, after)) <= 1
    # a block of its middle keeps its time too
    middle = slice(len(speech) // 2, len(speech) // 2 + rate_hz // 2)
    assert abs(lag(speech[middle], after[middle])) <= 2


def _opus_kbits(file: bytes, seconds: float) -> float:
    """Bit rate of the packets of an Ogg file, without pages and without the two packets of its header."""
    num_bytes, place, page = 0, 0, 0
    while place < len(file):
        assert file[place : place + 4] == b"OggS"
        num_segments = file[place + 26]
        body = sum(file[place + 27 : place + 27 + num_segments])
        num_bytes += body if page >= 2 else 0
        place, page = place + 27 + num_segments + body, page + 1
    return num_bytes * 8 / seconds / 1_000


@pytest.mark.parametrize("kbits", [6, 8, 12, 16, 24, 48])
def test_the_bit_rate_of_opus_is_near_its_target(kbits: int, speech_data: Path) -> None:
    speech, rate_hz = real_speech(speech_data)
    codec = cast("Codec", parse_condition(f"codec:opus:{kbits}").steps[0])
    # variable: quiet parts take less
    assert _opus_kbits(codec.encoded(speech), len(speech) / rate_hz) == pytest.approx(kbits, rel=0.25)


@pytest.mark.parametrize("kbits", MP3_KBITS)
def test_the_bit_rate_of_mp3_is_the_wanted_one(kbits: int) -> None:
    codec = cast("Codec", parse_condition(f"codec:mp3:{kbits}").steps[0])
    # constant: the file of a longer sound minus that of a shorter one
    shorter, longer = (len(codec.encoded(hiss(seconds * 16_000))) for seconds in (2, 12))
    assert (longer - shorter) * 8 / 10 / 1_000 == pytest.approx(kbits, rel=0.02)


@pytest.mark.parametrize(("text", "kbits"), [("codec:gsm", 13.0), ("codec:ulaw", 64.0)])
def test_the_bit_rate_of_telephony_is_fixed(text: str, kbits: float) -> None:
    codec = cast("Codec", parse_condition(text).steps[0])
    shorter, longer = (len(codec.encoded(hiss(seconds * 8_000))) for seconds in (2, 12))
    assert (longer - shorter) * 8 / 10 / 1_000 == pytest.approx(kbits, rel=0.01)


@pytest.mark.slow
def test_more_severe_codecs_differ_more_from_the_sound(speech_data: Path) -> None:
    speech, rate_hz = real_speech(speech_data)
    for name in ("gsm", "opus", "mp3"):
        errors = [
            float(np.mean(np.square(disturbed(f"codec:{name}:s{severity}", speech, rate_hz) - speech)))
            for severity in range(1, 6)
        ]
        assert errors == sorted(errors), name


def test_coding_with_mu_law_again_changes_nothing() -> None:
    codec = cast("Codec", parse_condition("codec:ulaw").steps[0])
    once = codec.decoded(codec.encoded(hiss(5_000)), 5_000)
    assert codec.decoded(codec.encoded(once), 5_000).tobytes() == once.tobytes()


def test_a_libsndfile_without_the_codec_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # a subtype that the container does not have, as Opus is for a libsndfile that was built without it
    monkeypatch.setattr("repbench.audio.disturbances.channel.Opus.subtype", "GSM610")
    with pytest.raises(
        EnvironmentFault, match=rf"libsndfile {soundfile.__libsndfile_version__} cannot write OGG.*codec:gsm"
    ):
        disturbed("codec:opus:16", hiss(1_000))
