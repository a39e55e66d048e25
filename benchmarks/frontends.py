"""Speed of every front end, of librosa and of torchaudio on the same 200 utterances, in one run, one thread each.

Usage: python benchmarks/frontends.py [--out benchmarks/results/frontends.json]

The sound is LibriSpeech, LJSpeech and nEMO below REPBENCH_TEST_DATA where that is set, else the synthetic corpus. Each
function is timed over all utterances, one call an utterance, in turns; the result is the median of the turns. A library
is compared where it computes the same features: 80 log-mel bands with slopes for librosa, Kaldi's fbank for
torchaudio's compliance module, an 80-band log-mel for its transform.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import torch
import torchaudio
from torch import Tensor

from repbench.audio import kaldi, legacy, online
from repbench.audio.resample import to_rate
from repbench.audio.sound import read_sound
from repbench.benchmark.features.extraction import length_batches
from turns import Way, time_in_turns, write_result

NUM_UTTERANCES = 200
TURNS = 5
RATE_HZ = 16_000


def sounds() -> tuple[str, list[Tensor]]:
    """200 utterances at 16 kHz, and where they are from."""
    place = os.environ.get("REPBENCH_TEST_DATA")
    if place:
        files = sorted(Path(place).glob("LibriSpeech/**/*.flac")) + sorted(Path(place).glob("LJSpeech35/wavs/*.wav"))
        files += sorted(Path(place).glob("nemo120/samples/*.wav"))
        return "LibriSpeech, LJSpeech, nEMO", [to_rate(*read_sound(file), RATE_HZ) for file in files[:NUM_UTTERANCES]]
    from repbench.corpora.open import open_corpus

    utterances = open_corpus("synthetic").utterances[:NUM_UTTERANCES]
    return "synthetic:noisy:small", [to_rate(*read_sound(each.audio), RATE_HZ) for each in utterances]


def one_by_one(compute: Callable[[Tensor], object]) -> Way:
    """A way that calls `compute` on each utterance."""

    def way(waves: list[Tensor]) -> None:
        for wave in waves:
            compute(wave)

    return way


def ours(features: Callable[[Tensor, Tensor], object]) -> Way:
    """A front end, one call an utterance."""
    return one_by_one(lambda wave: features(wave[None], torch.tensor([len(wave)])))


def batched(waves: list[Tensor]) -> None:
    """mel160 in batches of like length of at most two minutes, as `repbench run` does it."""
    for batch in length_batches([len(wave) for wave in waves], 120 * RATE_HZ):
        chosen = [waves[index] for index in batch]
        padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        legacy.MEL160_NO_CMVN(padded, torch.tensor([len(wave) for wave in chosen]))


def librosa_mel(wave: Tensor, shape: legacy.TransformShape) -> object:
    """librosa's log-mel and delta."""
    power = librosa.feature.melspectrogram(
        y=wave.numpy(), sr=RATE_HZ, n_fft=shape.fft, win_length=shape.window, hop_length=shape.hop, n_mels=80,
        pad_mode="reflect",
    )  # fmt: skip
    log_mel = np.log(power + legacy.LOG_FLOOR)
    return np.concatenate([log_mel, librosa.feature.delta(log_mel, width=legacy.DELTA_FRAMES)])


def torchaudio_fbank(wave: Tensor) -> Tensor:
    """torchaudio's Kaldi fbank with two orders of slopes."""
    fbank = torchaudio.compliance.kaldi.fbank(wave[None], num_mel_bins=80, sample_frequency=RATE_HZ).T
    once = torchaudio.functional.compute_deltas(fbank)
    return torch.cat([fbank, once, torchaudio.functional.compute_deltas(once)])


def ways() -> dict[str, Way]:
    """All that is timed; the first is what ratios are of."""
    transform = torchaudio.transforms.MelSpectrogram(RATE_HZ, n_fft=400, hop_length=160, n_mels=80)
    with_mel = {
        "librosa mel160": one_by_one(partial(librosa_mel, shape=legacy.LONG)),
        "librosa fbank160": one_by_one(partial(librosa_mel, shape=legacy.SHORT)),
        "torchaudio fbank + slopes": one_by_one(torchaudio_fbank),
        "torchaudio mel80, float32": one_by_one(lambda wave: (transform(wave[None]) + 1e-10).log()),
        "mel160, batched": batched,
    }
    front_ends = [
        legacy.MEL160_NO_CMVN, legacy.MEL160, legacy.FBANK160, legacy.MFCC52, legacy.LINEAR1025, kaldi.FBANK_NO_CMVN,
        kaldi.FBANK, kaldi.MFCC, kaldi.SPECTROGRAM, kaldi.FBANK80, online.MEL80, online.LINEAR,
    ]  # fmt: skip
    return {**with_mel, **{front_end.name: ours(front_end) for front_end in front_ends}}


def main() -> None:
    source, waves = sounds()
    result = time_in_turns(ways(), waves, baseline="librosa mel160", turns=TURNS, rate_hz=RATE_HZ, source=source)
    write_result(__file__, result)


if __name__ == "__main__":
    main()
