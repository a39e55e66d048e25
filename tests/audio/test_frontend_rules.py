"""Front ends by small examples: what they declare, constants, epsilons, bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from repbench.audio import kaldi, legacy, online
from repbench.audio.frames import FrontEnd, check_waveforms
from repbench.errors import DataError
from tests.audio.test_frontends import batch, every_front_end, wave


@pytest.mark.parametrize(
    ("front_end", "name", "width", "window", "hop", "centred", "normalised"),
    [
        (legacy.MEL160, "mel160", 160, 800, 200, True, True),
        (legacy.MEL160_NO_CMVN, "mel160 without CMVN", 160, 800, 200, True, False),
        (legacy.FBANK160, "fbank160", 160, 400, 160, True, True),
        (legacy.MFCC52, "mfcc52", 52, 400, 160, True, True),
        (legacy.LINEAR1025, "linear1025", 1025, 800, 200, True, True),
        (kaldi.FBANK, "fbank", 240, 400, 160, False, True),
        (kaldi.FBANK_NO_CMVN, "fbank without CMVN", 240, 400, 160, False, False),
        (kaldi.MFCC, "mfcc", 39, 400, 160, False, True),
        (kaldi.SPECTROGRAM, "spectrogram", 257, 400, 160, False, True),
        (kaldi.FBANK80, "fbank80", 80, 400, 160, False, True),
        (online.MEL80, "mel80", 80, 400, 160, True, True),
        (online.LINEAR, "linear", 201, 400, 160, True, True),
    ],
)
def test_each_front_end_declares_what_it_is(
    front_end: FrontEnd, name: str, width: int, window: int, hop: int, centred: bool, normalised: bool
) -> None:
    assert (front_end.name, front_end.width) == (name, width)
    assert (front_end.window_samples, front_end.hop_samples) == (window, hop)
    assert (front_end.centred, front_end.normalised) == (centred, normalised)


def test_kaldi_cepstra_are_cosines_of_the_bands_times_the_lifter() -> None:
    samples, length = wave("wav1")[None, :2000], torch.tensor([2000])
    bands = kaldi.log_mel(samples, length, num_bands=23)[0][0].double()  # (F, 23)
    found = kaldi.cepstra(samples, length)[0][0]  # (F, 13)
    middles = (torch.arange(23, dtype=torch.float64) + 0.5) * torch.pi / 23
    for number in range(13):
        norm = (1 / 23 if number == 0 else 2 / 23) ** 0.5
        lifter = 1 + 11 * np.sin(np.pi * number / 22)
        expected = lifter * norm * (bands * torch.cos(number * middles)).sum(dim=-1)
        torch.testing.assert_close(found[:, number].double(), expected, rtol=1e-5, atol=1e-4)


TWO_FRAMES: dict[str, tuple[float, Callable[[Tensor, Tensor], Tensor]]] = {
    "kaldi": (
        1e-10,
        lambda frames, counts: kaldi.finished(lambda *_: (frames, counts), frames, counts, num_slopes=0, cmvn=True)[0],
    ),
    "online": (1e-10, lambda frames, counts: online._normalised(frames, counts, cmvn=True)),
}


@pytest.mark.parametrize("family", TWO_FRAMES)
def test_cmvn_divides_by_the_unbiased_deviation_plus_its_epsilon(family: str) -> None:
    """Of the frames e and -e, whose unbiased deviation is sqrt(2) e."""
    epsilon, normalise = TWO_FRAMES[family]
    frames = torch.tensor([[[epsilon], [-epsilon]]])  # (1, 2, 1)
    found = normalise(frames, torch.tensor([2])).flatten().tolist()
    assert found == pytest.approx([1 / (2**0.5 + 1), -1 / (2**0.5 + 1)], rel=1e-5)


def test_a_window_in_float64_leaves_nothing_of_a_constant_in_the_bins_beside_it() -> None:
    """In float32 the rounding of the window would leak 1 % of the floor of the logarithm into them."""
    frames, _ = online.log_linear(torch.ones(1, 4000), torch.tensor([4000]), cmvn=False)
    expected = torch.full_like(frames[0, 3:-3, 4:], float(np.log(1e-10)))
    torch.testing.assert_close(frames[0, 3:-3, 4:], expected, rtol=0, atol=1e-4)


@every_front_end
def test_waveforms_are_not_changed(front_end: FrontEnd) -> None:
    samples, lengths = batch([wave("wav2"), wave("wav1")])
    before = samples.clone()
    front_end(samples, lengths)
    assert torch.equal(samples, before)


def test_bands_of_mfcc52_reach_at_most_80_db_below_the_loudest_of_the_utterance() -> None:
    """All bands of a tone 90 dB below another one are at that bound, and so equal: their cosine sums are zero."""
    tone = torch.sin(torch.arange(8000) * 0.3)
    cepstra, _ = legacy.mfcc52(torch.cat([tone, 10 ** (-90 / 20) * tone])[None], torch.tensor([16000]), cmvn=False)
    assert cepstra[0, 60:, 1:26].abs().max() < 1e-3
    assert cepstra[0, :40, 1:26].abs().max() > 10


@pytest.mark.parametrize("length", [0, -3])
def test_a_length_below_one_is_refused(length: int) -> None:
    with pytest.raises(DataError, match=rf"`lengths` must be from 1 to T, but x was given {length}\."):
        check_waveforms(torch.zeros(2, 10), torch.tensor([10, length]), name="x")
