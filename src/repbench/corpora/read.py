"""Reading the samples of an utterance at the rate of a model. Axes: T samples."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from repbench.audio.resample import RESAMPLER, resampled_length, to_rate
from repbench.audio.sound import read_sound
from repbench.corpora.conditions import DisturbedUtterance, samples_under
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.manifest.sound_notes import notes_on_channels
from repbench.errors import DataError


def samples_at(utterance: Utterance, rate_hz: int) -> int:
    """Number of samples of the utterance at the model's rate."""
    return resampled_length(utterance.num_samples, utterance.sample_rate_hz, rate_hz)


def check_rates(corpus: Corpus, name: str, rate_hz: int) -> tuple[str, ...]:
    """Notes on resampling and chosen channels; a corpus at another rate that forbids resampling is refused.

    Args:
        corpus: The corpus.
        name: Name of the upstream.
        rate_hz: Sample rate of the upstream, in hertz.

    Raises:
        DataError: Names the first utterance at another rate.
    """
    others = [each for each in corpus.utterances if each.sample_rate_hz != rate_hz]
    if others and corpus.resample == "refused":
        raise DataError(
            f"{name} expects {rate_hz} Hz, but the sound has {others[0].sample_rate_hz} Hz",
            file=others[0].audio,
            utterance=others[0].id,
            do="Prepare the corpus without --no-resample, or use an upstream of its rate",
        )
    rates = sorted({each.sample_rate_hz for each in others})
    resampled = (f"resampled from {rate} Hz to {rate_hz} Hz by {RESAMPLER}" for rate in rates)
    return (*resampled, *notes_on_channels(corpus.utterances))


def resampler_for(corpus: Corpus, rate_hz: int) -> str | None:
    """The resampler that a record names; None if all sounds have the model's rate."""
    return RESAMPLER if any(each.sample_rate_hz != rate_hz for each in corpus.utterances) else None


def read_utterance(utterance: Utterance, rate_hz: int, *, whole: bool = False) -> Tensor:
    """The utterance's samples (T,) at `rate_hz`, under its condition if it has one.

    Args:
        utterance: The utterance.
        rate_hz: Sample rate of the model, in hertz.
        whole: Whether the hash of the samples is compared with the manifest too, not only their number.

    Raises:
        DataError: The sound differs from the manifest.
    """
    if isinstance(utterance, DisturbedUtterance):
        samples, source_hz = _samples_of(utterance.source, whole=whole)
        return to_rate(samples_under(utterance, samples), source_hz, rate_hz)
    samples, source_hz = _samples_of(utterance, whole=whole)
    return to_rate(samples, source_hz, rate_hz)


def _samples_of(utterance: Utterance, *, whole: bool) -> tuple[NDArray[np.float32], int]:
    """The samples (T,) float32 of an utterance of the corpus, and their rate; errors as `read_utterance`."""
    samples, source_hz = read_sound(
        utterance.audio,
        start=utterance.start,
        end=utterance.end,
        utterance=utterance.id,
        channel=utterance.channel,
    )
    # Length and rate are compared at every reading, the hash only where `whole` is set.
    found, expected = (len(samples), source_hz), (utterance.num_samples, utterance.sample_rate_hz)
    if found != expected:
        raise DataError(
            f"The sound has {found[0]} samples at {found[1]} Hz, but the manifest has {expected[0]} at "
            f"{expected[1]} Hz",
            file=utterance.audio,
            utterance=utterance.id,
            do="Prepare the corpus again",
        )
    # little-endian, as `measure` hashed them; no copy on a machine that is
    if whole and hashlib.sha256(samples.astype("<f4", copy=False).data).hexdigest() != utterance.samples_sha256:
        raise DataError(
            "The sound is not the one that the manifest was made of",
            file=utterance.audio,
            utterance=utterance.id,
            do="Prepare the corpus again",
        )
    return samples, source_hz
