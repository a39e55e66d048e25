"""mel160: what the released Mockingjay computed, the same alone and in any batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.audio.frontend import MEL160, mel160, savgol_slopes, slaney_mel_bank
from repbench.errors import DataError
from tests.conftest import GOLDEN


def wave(name: str) -> Tensor:
    with np.load(GOLDEN / "frontend" / "waves.npz") as waves:
        return torch.from_numpy(waves[name].astype(np.float32) / 32768)


def batch(waves: Sequence[Tensor], fill: float = 0.0) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(each) for each in waves])
    return torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True, padding_value=fill), lengths


def alone(samples: Tensor, *, cmvn: bool = True) -> Tensor:
    frames, _ = mel160(samples[None], torch.tensor([len(samples)]), cmvn=cmvn)
    return frames[0]


@pytest.mark.parametrize(("kind", "tolerance"), [("raw", 1e-5), ("cmvn", 5e-5)])
def test_mel160_matches_the_released_extractor(kind: str, tolerance: float) -> None:
    with np.load(GOLDEN / "frontend" / "legacy_librosa.npz") as golden:
        expected = golden[f"wav1_mel_{kind}"]
    found = alone(wave("wav1"), cmvn=kind == "cmvn").numpy()
    assert found.shape == expected.shape == (105, 160)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("cmvn", [True, False])
def test_an_utterance_is_the_same_alone_and_in_a_batch(cmvn: bool) -> None:
    waves = [wave("wav2"), wave("wav1"), wave("wav1")[:5000], wave("wav2")[:401]]
    frames, counts = mel160(*batch(waves, fill=9.0), cmvn=cmvn)
    for row, samples in enumerate(waves):
        count = int(counts[row])
        torch.testing.assert_close(frames[row, :count], alone(samples, cmvn=cmvn), rtol=1e-5, atol=1e-5)
        assert not frames[row, count:].any()


@pytest.mark.parametrize("num_samples", [401, 599, 600, 1599, 1600, 16000, 16001])
def test_frame_counts_are_exact(num_samples: int) -> None:
    frames = alone(wave("wav1")[:num_samples])
    assert len(frames) == MEL160.num_frames(num_samples) == 1 + num_samples // 200
    assert torch.isfinite(frames).all()


def test_cmvn_gives_zero_mean_and_unit_deviation_over_the_utterance() -> None:
    frames = alone(wave("wav1")).double()
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(160, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close(frames.std(dim=0, correction=0), torch.ones(160).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence_and_a_constant_are_finite_and_silence_is_zero(level: float) -> None:
    frames = alone(torch.full((8000,), level))
    assert torch.isfinite(frames).all()
    assert level or not frames.any()


def test_too_short_a_waveform_is_refused() -> None:
    with pytest.raises(DataError, match="at least 401 samples, but a waveform has 400"):
        mel160(torch.zeros(2, 8000), torch.tensor([8000, 400]))


def test_slopes_of_a_line_are_its_slope_everywhere_and_at_any_length() -> None:
    for count in (2, 5, 8, 9, 20):
        line = 3.0 * torch.arange(count, dtype=torch.float32)[None, :, None]
        slopes = savgol_slopes(line, torch.tensor([count]), 9)
        torch.testing.assert_close(slopes, torch.full_like(slopes, 3.0))
    assert not savgol_slopes(torch.ones(1, 1, 2), torch.tensor([1]), 9).any()


def test_each_mel_triangle_has_unit_area() -> None:
    bank = slaney_mel_bank(16000, 2**15, 80)
    torch.testing.assert_close(bank.sum(dim=0) * (16000 / 2**15), torch.ones(80), rtol=2e-2, atol=0)
