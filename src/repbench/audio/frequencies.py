"""Frequencies of the dimensions of a front end, for the axes of figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from repbench.audio.filterbanks import htk_edges, kaldi_edges, slaney_edges
from repbench.audio.frames import SAMPLE_RATE_HZ
from repbench.audio.frontends import FRONT_ENDS


@dataclass(frozen=True, slots=True)
class Dimensions:
    """The static dimensions of a front end; as many slopes follow, if it has any.

    Attributes:
        static: Number of static dimensions.
        quantity: Quantity of a value before normalisation, for the label of an axis.
        centres_hz: (static,) centre frequencies, ascending; None for cepstra.
    """

    static: int
    quantity: str
    centres_hz: Tensor | None


def dimensions_of(name: str) -> Dimensions:
    """The static dimensions of the front end called `name`, one of `FRONT_ENDS`."""
    return _DIMENSIONS[name]()


def _bands(edges: Tensor) -> Dimensions:
    # (bands + 2,) -> (bands,): band i peaks at edge i + 1
    return Dimensions(len(edges) - 2, "log-mel power", edges[1:-1])


def _slaney() -> Dimensions:
    return _bands(slaney_edges(SAMPLE_RATE_HZ, 80))


def _kaldi() -> Dimensions:
    return _bands(kaldi_edges(SAMPLE_RATE_HZ, 80))


def _bins(name: str, quantity: str) -> Dimensions:
    # Bin k of a real FFT of n samples is at k * rate / n: K = n / 2 + 1 bins from 0 to half the rate, evenly.
    num_bins = FRONT_ENDS[name].width
    return Dimensions(num_bins, quantity, torch.linspace(0.0, SAMPLE_RATE_HZ / 2, num_bins, dtype=torch.float64))


_DIMENSIONS: dict[str, Callable[[], Dimensions]] = {
    "mel160": _slaney,
    "mel160_no_cmvn": _slaney,
    "fbank160": _slaney,
    "mfcc52": lambda: Dimensions(26, "cepstrum", None),
    "linear1025": lambda: _bins("linear1025", "magnitude in dB"),
    "fbank240": _kaldi,
    "fbank240_no_cmvn": _kaldi,
    "mfcc39": lambda: Dimensions(13, "cepstrum", None),
    "spectrogram257": lambda: _bins("spectrogram257", "log power"),
    "fbank80": _kaldi,
    "mel80": lambda: _bands(htk_edges(SAMPLE_RATE_HZ, 80)),
    "linear201": lambda: _bins("linear201", "log power"),
}
