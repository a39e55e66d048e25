"""The shared parts of the front ends, in examples of a few numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.audio.frames import (
    FrontEnd,
    Spectrum,
    centred_windows,
    normalise_utterances,
    reflect_ends,
    regression_slopes,
    savgol_slopes,
    scale_to_level,
    valid_mask,
    whole_windows,
    zero_past,
)
from repbench.errors import DataError


def front_end(*, centred: bool) -> FrontEnd:
    return FrontEnd(
        name="paper", width=1, window_samples=10, hop_samples=4, centred=centred, normalised=False,
        compute=lambda waveforms, lengths: (waveforms, lengths),
    )  # fmt: skip


def column(*values: float) -> Tensor:
    """One utterance of one dimension: (1, F, 1)."""
    return torch.tensor(values)[None, :, None]


def test_a_centred_window_needs_half_of_itself_to_reflect_and_a_whole_one_all() -> None:
    assert (front_end(centred=True).min_samples, front_end(centred=False).min_samples) == (6, 10)
    assert (front_end(centred=True).first_center_samples, front_end(centred=False).first_center_samples) == (0, 5)


@pytest.mark.parametrize("centred", [True, False])
def test_the_shortest_waveform_of_some_frames_is_the_shortest(centred: bool) -> None:
    shape = front_end(centred=centred)
    for num_frames in range(1, 8):
        enough = [size for size in range(shape.min_samples, 60) if shape.num_frames(size) >= num_frames]
        assert shape.min_samples_for(num_frames) == enough[0]


def test_lengths_that_the_waveforms_or_the_window_do_not_hold_are_refused() -> None:
    waveforms = torch.zeros(2, 12)
    with pytest.raises(DataError, match="reaches to 13, but the waveforms have 12 samples"):
        front_end(centred=True)(waveforms, torch.tensor([13, 8]))
    with pytest.raises(DataError, match="paper needs at least 6 samples, but a waveform has 5"):
        front_end(centred=True)(waveforms, torch.tensor([12, 5]))
    assert front_end(centred=True)(waveforms, torch.tensor([12, 6]))[0] is waveforms


def test_each_waveform_is_mirrored_at_its_own_ends() -> None:
    one = torch.tensor([[0.0, 1, 2, 3, 4]])
    assert reflect_ends(one, torch.tensor([5]), 2).tolist() == [[2, 1, 0, 1, 2, 3, 4, 3, 2]]
    two = torch.tensor([[0.0, 1, 2, 3, 4, 5], [5, 6, 7, 9, 9, 9]])
    assert reflect_ends(two, torch.tensor([6, 3]), 2).tolist() == [
        [2, 1, 0, 1, 2, 3, 4, 5, 4, 3], [7, 6, 5, 6, 7, 6, 5, 0, 0, 0]
    ]  # fmt: skip
    assert reflect_ends(two[1:], torch.tensor([3]), 2).tolist() == [[7, 6, 5, 6, 7, 6, 5, 0, 0, 0]]


@pytest.mark.parametrize("num_samples", [12, 500])
def test_windows_are_where_they_are_said_to_be(num_samples: int) -> None:
    """Of 500 samples there are more windows than go through a transform at once."""
    waveforms = torch.arange(2.0 * num_samples).view(2, num_samples)
    lengths = torch.tensor([num_samples, num_samples - 3])
    most = []

    def copies(block: int) -> object:
        most.append(block)
        return lambda windows, out: out.copy_(windows)

    whole, counts = whole_windows(waveforms, lengths, window=6, hop=2, width=6, transform=copies)  # type: ignore[arg-type]
    assert counts.tolist() == [1 + (num_samples - 6) // 2, 1 + (num_samples - 9) // 2]
    centred, centred_counts = centred_windows(waveforms, lengths, window=6, hop=2, width=6, transform=copies)  # type: ignore[arg-type]
    assert centred_counts.tolist() == [1 + num_samples // 2, 1 + (num_samples - 3) // 2]
    for row, length in enumerate(lengths.tolist()):
        for frame in range(int(counts[row])):
            assert torch.equal(whole[row, frame], waveforms[row, 2 * frame : 2 * frame + 6])
        mirrored = np.pad(waveforms[row, :length].numpy(), 3, mode="reflect")
        for frame in range(int(centred_counts[row])):
            assert centred[row, frame].tolist() == mirrored[2 * frame : 2 * frame + 6].tolist()
    assert most == [128, 128]


def test_on_another_device_all_windows_are_transformed_at_once() -> None:
    """`meta` knows shapes alone."""
    seen: list[tuple[int, ...]] = []

    def shapes(block: int) -> object:
        return lambda windows, out: seen.append((block, *windows.shape, *out.shape))

    waveforms = torch.empty(2, 12, device="meta")
    frames, _ = whole_windows(waveforms, torch.tensor([12, 9]), window=6, hop=2, width=5, transform=shapes)  # type: ignore[arg-type]
    assert frames.shape == (2, 4, 5)
    assert seen == [(8, 8, 6, 8, 5)]


def test_power_is_that_of_the_windowed_samples_padded_with_zeros() -> None:
    windows = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(6, dtype=torch.float64)
    spectrum = Spectrum(window, 8, 4)
    expected = np.abs(np.fft.rfft(windows.double().numpy() * window.numpy(), 8)) ** 2
    for some in (3, 2):
        power = spectrum.power(windows[:some])
        assert power.dtype == torch.float32
        np.testing.assert_allclose(power.numpy(), expected[:some], rtol=1e-6)


def test_a_line_has_its_slope_everywhere_whatever_its_height() -> None:
    lines = 5.0 + 2.0 * torch.arange(12.0)
    for count in (2, 3, 8, 9, 12):  # of fewer frames than the window, as many, and more
        slopes = savgol_slopes(column(*lines.tolist()), torch.tensor([count]), 9)
        assert slopes[0, :count, 0].tolist() == pytest.approx([2.0] * count)
    assert savgol_slopes(column(5.0), torch.tensor([1]), 9).tolist() == [[[0.0]]]


def test_the_first_and_last_frames_take_the_slope_of_the_first_and_last_whole_window() -> None:
    values = torch.randn(1, 11, 2, generator=torch.Generator().manual_seed(1))
    slopes = savgol_slopes(values, torch.tensor([11]), 5)[0]
    for frame in range(11):
        middle = min(max(frame, 2), 8)
        fitted = [np.polyfit(range(5), values[0, middle - 2 : middle + 3, dim].numpy(), 1)[0] for dim in (0, 1)]
        assert slopes[frame].tolist() == pytest.approx(fitted, abs=1e-5)
    padded = savgol_slopes(torch.cat([values, torch.zeros(1, 6, 2)], dim=1), torch.tensor([11]), 5)[0, :11]
    torch.testing.assert_close(padded, slopes)


def test_regression_slopes_repeat_the_first_and_last_frame() -> None:
    slopes = regression_slopes(column(0.0, 1.0, 4.0, 9.0, 99.0), torch.tensor([4]), reach=2)[0, :4, 0]
    # (1 (x[t+1] - x[t-1]) + 2 (x[t+2] - x[t-2])) / 10
    assert slopes.tolist() == pytest.approx([(1 + 8) / 10, (4 + 18) / 10, (8 + 18) / 10, (5 + 16) / 10])
    assert regression_slopes(column(0.0, 1.0, 4.0), torch.tensor([3]), reach=1)[0, 1, 0] == 2.0
    usual = regression_slopes(column(0.0, 1.0, 4.0, 9.0), torch.tensor([4]))
    assert torch.equal(usual, regression_slopes(column(0.0, 1.0, 4.0, 9.0), torch.tensor([4]), reach=2))


def test_epsilon_is_added_to_the_deviation_and_the_correction_taken_from_the_count() -> None:
    frames, counts = column(1.0, 3.0, 77.0), torch.tensor([2])
    assert normalise_utterances(frames, counts, epsilon=1.0)[0, :, 0].tolist() == [-0.5, 0.5, 0.0]
    unbiased = normalise_utterances(frames, counts, epsilon=0.0, correction=1)
    assert unbiased[0, :, 0].tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5), 0.0])
    assert normalise_utterances(column(3.0), torch.tensor([1]), epsilon=0.0, correction=1).tolist() == [[[0.0]]]


def test_a_constant_dimension_becomes_zero_whatever_its_rounding() -> None:
    values = torch.tensor([0.1, 0.2, 0.3, 0.7, 1.1, -0.1, -0.3, -0.7, 0.0, 1e9 / 3], dtype=torch.float64)
    for count in range(1, 12):
        frames = values.expand(1, 11, -1)
        assert not normalise_utterances(frames, torch.tensor([count]), epsilon=0.0).any(), count


def test_a_small_dimension_is_no_constant_one() -> None:
    steps = torch.arange(9.0, dtype=torch.float64)[None, :, None]
    frames = torch.cat([1e15 + 1e13 * steps, steps, 1e-9 * steps], dim=2)
    for count in (9, 7):
        normal = normalise_utterances(frames, torch.tensor([count]), epsilon=0.0)[0, :count]
        assert normal.std(dim=0, correction=0).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_lengths_say_what_is_valid() -> None:
    assert valid_mask(torch.tensor([0, 1, 3]), 3).int().tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 1]]
    frames = torch.ones(2, 3, 1)
    assert zero_past(frames, torch.tensor([1, 3])) is frames
    assert frames[..., 0].tolist() == [[1, 0, 0], [1, 1, 1]]


def test_a_level_is_the_root_mean_square_of_what_is_valid() -> None:
    waveforms = torch.tensor([[0.5, -0.5, 9.0], [0.1, 0.1, 0.1]])
    scaled = scale_to_level(waveforms, torch.tensor([2, 3]), -20.0)
    assert scaled.tolist() == [pytest.approx([0.1, -0.1, 0.0]), pytest.approx([0.1] * 3)]
    assert scaled.dtype == torch.float32
    assert scale_to_level(torch.zeros(1, 2), torch.tensor([2]), -20.0).tolist() == [[0.0, 0.0]], "silence stays"
    quiet = scale_to_level(torch.full((1, 4), 1e-10), torch.tensor([4]), -20.0)
    assert quiet.tolist() == [pytest.approx([0.05] * 4)], "near silence is not blown up without an end"
