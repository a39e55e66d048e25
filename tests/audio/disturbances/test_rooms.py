"""Rooms keep their reverberation time, and direct sound its time and level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from repbench.audio.disturbances import rooms
from repbench.audio.disturbances.condition import parse_condition
from repbench.audio.disturbances.severities import TABLE
from repbench.errors import DataError
from tests.audio.disturbances.sounds import disturbed, hiss, lag, real_speech, tone


@pytest.mark.parametrize("row", TABLE["reverb"], ids=str)
def test_the_reverberation_time_of_each_room_is_the_wanted_one(row: dict[str, float]) -> None:
    for place in range(rooms.NUM_ROOMS):
        response = rooms.response_of(rooms.room_of(row["t60"], row["distance"], place), row["t60"], 16_000)
        # by Schroeder's integration, as it is measured in a hall
        assert rooms.t60_of_response(response, 16_000) == pytest.approx(row["t60"], rel=0.1), place


def test_schroeder_integration_measures_a_decay_that_is_known() -> None:
    times = np.arange(32_000) / 16_000
    noise = np.random.default_rng(0).standard_normal(32_000) * 10.0 ** (-3.0 * times / 0.7)
    assert rooms.t60_of_response(noise, 16_000) == pytest.approx(0.7, rel=0.03)


def test_the_images_of_a_box_are_those_of_mirrors_reflected_by_hand() -> None:
    room = rooms.Room(size=(5.0, 4.0, 3.0), source=(1.0, 2.0, 1.5), microphone=(3.0, 2.0, 1.5), beta=0.5)
    response = rooms.response_of(room, 0.012, 16_000)

    def tap(distance: float) -> int:
        return round((distance - 2.0) / rooms.SOUND_SPEED * 16_000)

    assert response[0] == 1.0
    # by the wall behind the source: 1 m to it and 3 m on, one reflection
    assert response[tap(4.0)] == pytest.approx(-0.5 * 2.0 / 4.0)
    # by floor and ceiling, 1.5 m below and above: two paths of the same length
    floor = float(np.hypot(2.0, 3.0))
    assert response[tap(floor)] == pytest.approx(-0.5 * 2.0 / floor * 2)
    # by both side walls, 2 m away, one and the other at once
    side = float(np.hypot(2.0, 4.0))
    assert response[tap(side)] == pytest.approx(-0.5 * 2.0 / side * 2)
    first = sorted({tap(4.0), tap(floor), tap(side)})
    assert [int(place) for place in np.flatnonzero(response)[: 1 + len(first)]] == [0, *first]


def test_source_and_microphone_are_in_the_room_at_their_distance() -> None:
    for place in range(rooms.NUM_ROOMS):
        room = rooms.room_of(0.6, 3.0, place)
        for point in (room.source, room.microphone):
            assert all(0.5 <= at <= size - 0.5 for at, size in zip(point, room.size, strict=True))
        assert float(np.linalg.norm(np.subtract(room.source, room.microphone))) == pytest.approx(3.0)
    assert len({rooms.room_of(0.6, 3.0, place).size for place in range(rooms.NUM_ROOMS)}) == rooms.NUM_ROOMS


def test_the_direct_sound_keeps_time_and_level() -> None:
    samples = np.zeros(8_000, np.float32)
    samples[1_000] = 0.5
    after = disturbed("reverb:s4", samples)
    assert not np.abs(after[:1_000]).max() > 1e-6
    assert after[1_000] == pytest.approx(0.5, abs=1e-6)
    # and the room rings on
    assert np.abs(after[1_100:]).max() > 0.01


def test_utterances_are_in_different_rooms() -> None:
    samples = hiss(8_000)
    assert len({disturbed("reverb:s3", samples, seed=seed).tobytes() for seed in range(30)}) == rooms.NUM_ROOMS


def test_speech_keeps_its_times_in_a_room(speech_data: Path) -> None:
    samples, rate_hz = real_speech(speech_data)
    assert lag(samples, disturbed("reverb:s1", samples, rate_hz)) == 0


def test_responses_of_a_folder_start_at_their_direct_sound(tmp_path: Path) -> None:
    response = np.zeros(2_000)
    response[[300, 900]] = [-0.8, 0.2]
    soundfile.write(tmp_path / "hall.wav", response, 16_000, subtype="FLOAT")
    samples = np.zeros(4_000, np.float32)
    samples[10] = 0.5
    after = disturbed(f"reverb:{tmp_path}", samples)
    assert np.flatnonzero(np.abs(after) > 1e-4).tolist() == [10, 610]
    assert after[[10, 610]] == pytest.approx([0.5, -0.125], abs=1e-6)
    assert str(tmp_path) not in parse_condition(f"reverb:{tmp_path}").key()


def test_a_response_at_another_rate_is_resampled(tmp_path: Path) -> None:
    response = np.zeros(8_000)
    response[[100, 4_100]] = [1.0, 0.5]
    soundfile.write(tmp_path / "hall.wav", response, 8_000, subtype="FLOAT")
    samples = tone(1_000.0, 1.0)
    after = disturbed(f"reverb:{tmp_path}", samples)
    # the echo comes half a second later at 16 kHz too, after a whole number of periods
    assert np.abs(after[9_000:15_000]).max() == pytest.approx(1.5 * np.abs(after[1_000:7_000]).max(), rel=1e-3)
    assert lag(samples, after) == 0


def test_a_silent_response_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nothing.wav", np.zeros(100), 16_000)
    with pytest.raises(DataError, match=r"response is silent.*nothing\.wav"):
        disturbed(f"reverb:{tmp_path}", hiss(100))
