"""Noise at its signal-to-noise ratio, of its colour, of the wanted source."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.audio.disturbances.base import Samples
from repbench.audio.disturbances.condition import parse_condition
from repbench.errors import DataError
from tests.audio.disturbances.sounds import disturbed, hiss, no_voices, peak_hz, power_between, real_speech, tone

KINDS = ("white", "pink", "babble")


def snr_db(clean: Samples, noisy: Samples) -> float:
    noise = noisy.astype(np.float64) - clean
    return 10 * math.log10(np.mean(np.square(clean, dtype=np.float64)) / np.mean(np.square(noise)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [-5, 0, 7.5, 20, 40])
def test_the_ratio_is_exact_on_a_tone(kind: str, wanted: float) -> None:
    clean = tone(440.0)
    assert snr_db(clean, disturbed(f"noise:{kind}:{wanted}", clean)) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ratio_is_exact_on_speech_and_severities_are_those_of_the_table(kind: str, speech_data: Path) -> None:
    clean, rate_hz = real_speech(speech_data)
    measured = [snr_db(clean, disturbed(f"noise:{kind}:s{severity}", clean, rate_hz)) for severity in range(1, 6)]
    assert measured == pytest.approx([20, 15, 10, 5, 0], abs=0.01)


def test_white_has_the_same_power_in_every_hertz_and_pink_in_every_octave() -> None:
    clean = tone(440.0, seconds=8.0)
    bands = [(250.0 * 2**octave, 500.0 * 2**octave) for octave in range(5)]
    for kind, factor in (("white", 2.0), ("pink", 1.0)):
        noise = disturbed(f"noise:{kind}:0", clean) - clean
        powers = [power_between(noise, low, high) for low, high in bands]
        # an octave has twice the hertz of the one below it
        ratios = [upper / lower for lower, upper in itertools.pairwise(powers)]
        assert ratios == pytest.approx([factor] * 4, rel=0.12), kind


def test_utterances_have_their_own_noise_and_one_utterance_always_the_same() -> None:
    clean = tone(440.0)
    noises = [disturbed("noise:white:s3", clean, seed=seed) - clean for seed in (1, 1, 2)]
    assert noises[0].tobytes() == noises[1].tobytes()
    assert abs(np.corrcoef(noises[0], noises[2])[0, 1]) < 0.05


def test_babble_has_eight_voices_of_one_level() -> None:
    # voices are tones, so that each can be told; the first is loud and the ninth is not taken
    frequencies = [300.0 + 200.0 * place for place in range(10)]
    voices = [tone(hz, seconds=0.7, level=0.9 if not place else 0.01) for place, hz in enumerate(frequencies)]
    clean = hiss(16_000)
    babble = parse_condition("noise:babble:0").apply(clean, 16_000, np.random.default_rng(0), lambda: voices) - clean
    powers = [power_between(babble, hz - 50, hz + 50) for hz in frequencies]
    assert powers[1:8] == pytest.approx([powers[0]] * 7, rel=0.1)
    assert max(powers[8:]) < 0.01 * powers[0]


def test_babble_without_voices_is_refused_and_other_noise_asks_for_none() -> None:
    clean = hiss(100)
    with pytest.raises(DataError, match=r"needs sounds of other speakers, but 0 .*noise:white"):
        parse_condition("noise:babble:3").apply(clean, 16_000, np.random.default_rng(0), lambda: [])
    with pytest.raises(DataError, match="0 were given that are not silent"):
        parse_condition("noise:babble:3").apply(
            clean, 16_000, np.random.default_rng(0), lambda: [np.zeros(50, np.float32)]
        )
    parse_condition("noise:pink:3").apply(clean, 16_000, np.random.default_rng(0), no_voices)


@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_utterance_stays_silent(kind: str) -> None:
    assert not disturbed(f"noise:{kind}:s5", np.zeros(500, np.float32)).any()


def test_loud_noise_is_not_clipped_in_secret() -> None:
    clean = tone(440.0, level=0.9)
    noisy = disturbed("noise:white:-10", clean)
    assert np.abs(noisy).max() > 2.0
    assert snr_db(clean, noisy) == pytest.approx(-10, abs=0.01)


@pytest.fixture
def noises(tmp_path: Path) -> Path:
    folder = tmp_path / "my noises"
    (folder / "deep").mkdir(parents=True)
    # 8 kHz and short; 44.1 kHz, stereo and long
    soundfile.write(folder / "hum.wav", tone(600.0, 0.3, 8_000), 8_000, subtype="FLOAT")
    soundfile.write(folder / "deep" / "whistle.flac", np.stack([tone(3_000.0, 9.0, 44_100)] * 2, axis=1), 44_100)
    (folder / "README.txt").write_text("no sound")
    return folder


def test_noise_of_a_folder_is_drawn_cut_and_resampled(noises: Path) -> None:
    clean = hiss(16_000)
    text = f"noise:{noises}:3"
    taken = set()
    for seed in range(8):
        noisy = disturbed(text, clean, seed=seed)
        assert snr_db(clean, noisy) == pytest.approx(3, abs=0.01)
        taken.add(round(peak_hz(noisy - clean), -2))
    # at the rate of the utterance both tones keep their pitch, and both files are drawn
    assert taken == {600.0, 3_000.0}
    # cuts start at drawn samples
    cuts = {(disturbed(text, clean, seed=seed) - clean)[:50].tobytes() for seed in range(8)}
    assert len(cuts) == 8


def test_the_key_of_a_folder_is_that_of_its_files_wherever_it_lies(noises: Path, tmp_path: Path) -> None:
    def key(folder: Path) -> str:
        from repbench.audio.disturbances import folders

        folders.digest_of.cache_clear()
        folders.sounds_of.cache_clear()
        return parse_condition(f"noise:{folder}:3").key()

    first = key(noises)
    assert str(noises) not in first
    moved = noises.rename(tmp_path / "elsewhere")
    assert key(moved) == first
    assert parse_condition(f"noise:{moved}:3").folders() == (moved,)
    (moved / "README.txt").write_text("still no sound")
    assert key(moved) == first
    # the order of the files stays
    (moved / "hum.wav").rename(moved / "hun.wav")
    renamed = key(moved)
    soundfile.write(moved / "hun.wav", tone(700.0, 0.3, 8_000), 8_000, subtype="FLOAT")
    assert len({first, renamed, key(moved)}) == 3


def test_a_folder_that_cannot_serve_is_refused_by_name(tmp_path: Path) -> None:
    clean = hiss(1_000)
    with pytest.raises(DataError, match=r"missing.*nowhere"):
        disturbed(f"noise:{tmp_path}/nowhere:3", clean)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"no sound file.*empty"):
        parse_condition(f"noise:{empty}:3").key()
    silent = tmp_path / "silent"
    silent.mkdir()
    soundfile.write(silent / "nothing.wav", np.zeros(4_000), 16_000)
    with pytest.raises(DataError, match=r"cuts of 1000 samples in a row are silent.*Take silent files out"):
        disturbed(f"noise:{silent}:3", clean)
