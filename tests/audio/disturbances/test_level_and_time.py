"""Level, losses, speed, tempo, silence and shift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repbench.audio.disturbances.base import Samples
from repbench.audio.disturbances.condition import parse_condition
from repbench.audio.disturbances.level import Loss
from tests.audio.disturbances.sounds import disturbed, hiss, lag, peak_hz, real_speech, tone


@pytest.mark.parametrize("db", [-40, -6, 0, 20])
def test_a_gain_is_in_decibels(db: int) -> None:
    samples = hiss(1_000)
    after = disturbed(f"gain:db={db}", samples)
    assert 20 * np.log10(after.std() / samples.std()) == pytest.approx(db, abs=1e-3)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_the_share_of_clipped_samples_is_the_wanted_one(share: float, speech_data: Path) -> None:
    for samples in (hiss(10_000), real_speech(speech_data)[0]):
        after = disturbed(f"clip:{share}", samples)
        limit = np.abs(after).max()
        # real speech has 16 bits, so that several samples may have the value of the limit
        assert np.mean(np.abs(samples) >= limit) == pytest.approx(share, abs=2e-3)
        inside = np.abs(samples) < limit
        assert after[inside].tobytes() == samples[inside].tobytes()
        assert np.all(np.abs(after[~inside]) == limit)


def test_a_sound_that_is_mostly_zero_is_not_erased_by_clipping() -> None:
    samples = np.zeros(1_000, np.float32)
    samples[:20] = np.linspace(0.1, 0.5, 20)
    assert np.abs(disturbed("clip:0.1", samples)).max() == pytest.approx(0.1)


@pytest.mark.parametrize(("share", "burst"), [(0.02, 2), (0.1, 1), (0.3, 2), (0.3, 8)])
def test_packets_are_lost_at_the_wanted_share_in_bursts(share: float, burst: float) -> None:
    lost = Loss(share=share, burst=burst).lost_packets(200_000, np.random.default_rng(0))
    assert lost.mean() == pytest.approx(share, rel=0.06)
    starts = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(int)))
    # starts and ends in turn
    assert (starts[1::2] - starts[::2]).mean() == pytest.approx(burst, rel=0.06 + share * (burst == 1))


def test_the_first_packet_is_lost_as_often_as_others() -> None:
    firsts = [Loss(share=0.3).lost_packets(1, np.random.default_rng(seed))[0] for seed in range(2_000)]
    assert np.mean(firsts) == pytest.approx(0.3, abs=0.04)


def test_lost_packets_are_zero_and_the_others_untouched() -> None:
    samples = hiss(16_000 + 100)
    after = disturbed("loss:0.3", samples)
    packets = [slice(start, start + 320) for start in range(0, len(samples), 320)]
    kept = [bool(after[packet].any()) for packet in packets]
    assert 0.3 < np.mean(kept) < 0.95
    assert all(
        after[packet].tobytes() == samples[packet].tobytes()
        for packet, is_kept in zip(packets, kept, strict=True)
        if is_kept
    )


@pytest.mark.parametrize("factor", [0.8, 1.05, 1.5])
def test_speed_moves_the_pitch_and_tempo_keeps_it(factor: float) -> None:
    samples = tone(500.0, 2.0)
    faster, quicker = (disturbed(f"{kind}:factor={factor}", samples) for kind in ("speed", "tempo"))
    assert len(faster) == len(quicker) == round(32_000 / factor)
    assert peak_hz(faster) == pytest.approx(500.0 * factor, abs=2.0)
    assert peak_hz(quicker) == pytest.approx(500.0, abs=2.0)
    # a tone stays one: no period is cut in two
    assert quicker[2_000:-2_000].std() == pytest.approx(samples.std(), rel=0.02)


def test_tempo_and_speed_together_move_the_pitch_alone() -> None:
    samples = tone(500.0, 2.0)
    higher = disturbed("tempo:factor=0.8+speed:factor=1.25", samples)
    assert len(higher) == len(samples)
    assert peak_hz(higher) == pytest.approx(625.0, abs=2.0)


@pytest.mark.parametrize("kind", ["speed", "tempo"])
def test_instants_are_where_they_are_said_to_be(kind: str) -> None:
    """Beeps of different pitch, so that each can be found again."""
    samples = np.zeros(48_000, np.float32)
    starts = {600: 4_000, 900: 17_000, 1_500: 33_333}
    for hz, start in starts.items():
        samples[start : start + 3_200] = tone(float(hz), 0.2)
    condition = parse_condition(f"{kind}:s3")
    after = disturbed(condition.name, samples)
    loud = np.abs(after) > 0.02
    onsets = np.flatnonzero(np.diff(np.concatenate([np.zeros(800, bool), loud]).astype(int)) > 0) - 799
    firsts = [onset for place, onset in enumerate(onsets) if place == 0 or onset - onsets[place - 1] > 2_000]
    wanted = [condition.moved(start / 16_000, 3.0) for start in starts.values()]
    tolerance = 0.001 if kind == "speed" else 0.016
    assert [first / 16_000 for first in firsts] == pytest.approx(wanted, abs=tolerance)


def test_tempo_of_1_gives_the_sound_back() -> None:
    samples = hiss(16_000)
    after = disturbed("tempo:factor=1", samples)
    assert np.abs(after - samples).max() < 1e-6


def test_tempo_keeps_what_is_said(speech_data: Path) -> None:
    """Twice the tempo and half of it again: pieces are where they were, though waveforms are not the same."""
    speech, rate_hz = real_speech(speech_data)
    back = disturbed("tempo:factor=1.25+tempo:factor=0.8", speech, rate_hz)
    assert abs(len(back) - len(speech)) <= 1

    def loudness(samples: Samples) -> Samples:
        # (T,) -> (blocks of 50 ms,)
        whole = samples[: len(samples) // 800 * 800].reshape(-1, 800)
        root_mean_square: Samples = np.sqrt(np.mean(np.square(whole), axis=1))
        return root_mean_square

    num_blocks = min(len(speech), len(back)) // 800
    assert np.corrcoef(loudness(speech)[:num_blocks], loudness(back)[:num_blocks])[0, 1] > 0.95


def test_silence_is_added_around_and_nothing_is_cut() -> None:
    samples = hiss(1_000)
    after = disturbed("silence:before=0.5,after=0.25", samples)
    assert len(after) == 8_000 + 1_000 + 4_000
    assert after[8_000:9_000].tobytes() == samples.tobytes()
    assert not after[:8_000].any()
    assert not after[9_000:].any()


@pytest.mark.parametrize(("text", "num_samples"), [("shift:half-hop", 80), ("shift:ms=10", 160), ("shift:s1", 16)])
def test_a_shift_delays_and_cuts_nothing(text: str, num_samples: int) -> None:
    samples = hiss(2_000)
    after = disturbed(text, samples)
    assert lag(samples, after) == num_samples
    assert after[num_samples:].tobytes() == samples.tobytes()
    assert parse_condition(text).moved(0.1, 1.0) == pytest.approx(0.1 + num_samples / 16_000)
