"""Mel banks and their edges against their formulas in float64, and how a bank is cut into blocks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from repbench.audio.filterbanks import (
    MelBank,
    cosine_transform,
    htk_bank,
    htk_edges,
    kaldi_bank,
    kaldi_edges,
    slaney_bank,
    slaney_edges,
)

Array = npt.NDArray[np.float64]


def slaney(hz: Array) -> Array:
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def htk(hz: Array) -> Array:
    return 2595 * np.log10(1 + hz / 700)


def kaldi(hz: Array) -> Array:
    return 1127 * np.log(1 + hz / 700)


SCALES: dict[str, tuple[Callable[[int, int], Tensor], Callable[[Array], Array], float]] = {
    "slaney": (slaney_edges, slaney, 0.0),
    "htk": (htk_edges, htk, 0.0),
    "kaldi": (kaldi_edges, kaldi, 20.0),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("rate", "num_bands"), [(16_000, 80), (11_025, 9), (16_000, 1), (1_600, 5), (2_001, 5)])
def test_edges_are_equally_far_apart_on_their_scale(scale: str, rate: int, num_bands: int) -> None:
    edges_of, mel, low = SCALES[scale]
    edges = edges_of(rate, num_bands)
    assert (edges.shape, edges.dtype) == ((num_bands + 2,), torch.float64)
    assert [float(edges[0]), float(edges[-1])] == pytest.approx([low, rate / 2], abs=1e-9)
    steps = np.diff(mel(edges.numpy()))
    np.testing.assert_allclose(steps, (mel(np.array(rate / 2)) - mel(np.array(low))) / (num_bands + 1), rtol=1e-10)


def test_the_first_edge_of_kaldi_is_the_one_that_is_given() -> None:
    assert float(kaldi_edges(16_000, 23, 100.0)[0]) == pytest.approx(100.0)


def triangles(positions: Array, edges: Array) -> Array:
    """(bins, bands) by interpolation between the three edges of each band."""
    return np.stack([np.interp(positions, edges[i : i + 3], [0, 1, 0], 0, 0) for i in range(len(edges) - 2)], axis=1)


@pytest.mark.parametrize(("rate", "fft", "num_bands"), [(16_000, 512, 40), (11_025, 300, 10), (11_025, 301, 40)])
def test_banks_are_triangles_between_their_edges(rate: int, fft: int, num_bands: int) -> None:
    hz = np.arange(fft // 2 + 1) * rate / fft
    edges = slaney_edges(rate, num_bands).numpy()
    area = 2 / (edges[2:] - edges[:-2])
    np.testing.assert_allclose(slaney_bank(rate, fft, num_bands), triangles(hz, edges) * area, rtol=1e-6, atol=2e-10)
    edges = htk_edges(rate, num_bands).numpy()
    np.testing.assert_allclose(htk_bank(rate, fft, num_bands), triangles(hz, edges), rtol=0, atol=1e-7)
    edges = kaldi_edges(rate, num_bands).numpy()
    bank = kaldi_bank(rate, fft, num_bands)
    np.testing.assert_allclose(bank[:-1], triangles(kaldi(hz), kaldi(edges))[:-1], rtol=0, atol=1e-7)
    assert not bank[-1].any(), "the last bin"
    assert {each.dtype for each in (bank, htk_bank(rate, fft, num_bands), slaney_bank(rate, fft, num_bands))} == {
        torch.float32
    }


def test_a_bank_is_cut_into_blocks_of_multiples_of_16_bands_within_it() -> None:
    bank = MelBank(torch.eye(68))
    assert [(each.bins, each.bands) for each in bank._blocks] == [
        (slice(0, 17), slice(0, 32)), (slice(17, 34), slice(17, 49)), (slice(34, 51), slice(34, 66)),
        (slice(51, 68), slice(36, 68)),
    ]  # fmt: skip
    assert [each.bands.stop - each.bands.start for each in MelBank(torch.eye(64))._blocks] == [16] * 4
    assert [each.bins.stop for each in MelBank(torch.eye(70))._blocks] == [18, 35, 52, 70]
    assert [each.bands for each in MelBank(torch.eye(8))._blocks] == [slice(0, 8)] * 4, "as wide as the bank at most"
    mel = torch.ones(2, 68)
    power = torch.arange(136.0).view(2, 68)
    bank.to(torch.device("cpu")).add(power, mel)
    assert torch.equal(mel, power + 1), "added to what there was"
    assert all(each.weights.is_meta for each in bank.to(torch.device("meta"))._blocks)
    assert not any(each.weights.is_meta for each in bank._blocks)


def test_the_cosine_transform_is_that_of_its_formula() -> None:
    found = cosine_transform(5, 3).numpy()
    for number in range(3):
        norm = np.sqrt((1 if number == 0 else 2) / 5)
        np.testing.assert_allclose(
            found[:, number], norm * np.cos(np.pi * number * (np.arange(5) + 0.5) / 5), atol=1e-15
        )
