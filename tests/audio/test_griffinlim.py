"""Inversion of linear spectrograms: the sound is restored, up to its phases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from repbench.audio.frames import scale_to_level
from repbench.audio.frontends import FRONT_ENDS
from repbench.audio.griffinlim import LINEAR, griffin_lim, sound_of, with_statistics_of

TONE_HZ = 1000.0
every_target = pytest.mark.parametrize("target", list(LINEAR))


def beeps(num_samples: int = 16_000) -> Tensor:
    """A tone that comes and goes, in noise; its dB stay inside the scale of linear1025."""
    times = torch.arange(num_samples) / 16_000
    tone = 0.03 * torch.sin(2 * torch.pi * TONE_HZ * times) * ((times * 4).floor() % 2)
    return tone + 0.0005 * torch.randn(num_samples, generator=torch.Generator().manual_seed(0))


def frames_of(target: str, samples: Tensor) -> Tensor:
    frames, counts = FRONT_ENDS[target](samples[None], torch.tensor([len(samples)]))
    return frames[0, : int(counts[0])]


@every_target
def test_the_sound_of_a_true_spectrogram_has_its_tone_and_level(target: str) -> None:
    samples = beeps()
    sound = sound_of(frames_of(target, samples), target, samples)
    assert sound.shape == samples.shape
    peak_hz = float(torch.fft.rfft(sound).abs().argmax()) * 16_000 / len(sound)
    assert peak_hz == pytest.approx(TONE_HZ, abs=10)
    assert float(sound.std()) == pytest.approx(float(samples.std()), rel=0.05)
    # Loud where the tone was, quiet between.
    assert float(sound[5_000:7_000].std()) > 20 * float(sound[1_000:3_000].std())


@every_target
def test_the_statistics_of_an_utterance_undo_its_normalisation(target: str) -> None:
    samples, linear = beeps(), LINEAR[target]
    plain, _ = linear.plain(samples[None], torch.tensor([len(samples)]))
    restored = with_statistics_of(plain[0], frames_of(target, samples), correction=linear.correction)
    torch.testing.assert_close(restored.float(), plain[0], rtol=1e-5, atol=1e-5)


@every_target
@pytest.mark.parametrize("num_samples", [401, 799, 3_001])
def test_short_sounds_come_back_whole(target: str, num_samples: int) -> None:
    samples = beeps(num_samples)
    sound = sound_of(frames_of(target, samples), target, samples)
    assert sound.shape == (num_samples,)
    assert bool(torch.isfinite(sound).all())


def test_frames_that_are_missing_at_the_end_shorten_the_sound() -> None:
    samples = beeps(4_000)
    assert sound_of(frames_of("linear1025", samples)[:18], "linear1025", samples).shape == (18 * 200 - 1,)


def test_before_the_first_frame_there_is_silence() -> None:
    samples = beeps()
    sound = sound_of(frames_of("linear201", samples)[30:], "linear201", samples, first_frame=30)
    assert sound.shape == samples.shape
    assert float(sound[: 30 * 160 - 400].abs().max()) < 1e-3 * float(sound.abs().max())


def test_a_target_of_another_level_comes_back_at_that_level() -> None:
    samples = beeps()
    loud = scale_to_level(samples[None], torch.tensor([len(samples)]), -25.0)[0]
    sound = sound_of(frames_of("linear201", loud), "linear201", samples, level_db=-25.0)
    assert float(sound.std()) == pytest.approx(float(loud.std()), rel=0.05)


def test_the_phases_come_from_the_seed_alone() -> None:
    magnitudes = torch.rand(20, 201, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    one, same, other = (
        griffin_lim(magnitudes, window=400, hop=160, num_samples=3_100, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_iterations_bring_the_spectrum_closer() -> None:
    samples = beeps(8_000).double()
    hann = torch.hann_window(400, dtype=torch.float64)

    def magnitudes(sound: Tensor) -> Tensor:
        return torch.stft(sound, 400, 160, 400, hann, pad_mode="constant", return_complex=True).abs().T

    def distance(iterations: int) -> float:
        guessed = griffin_lim(goal, window=400, hop=160, num_samples=8_000, iterations=iterations)
        return float((magnitudes(guessed) - goal).norm() / goal.norm())

    goal = magnitudes(samples)
    assert distance(32) < 0.5 * distance(1)
