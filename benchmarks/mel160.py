"""mel160 against librosa's mel and delta, on the same 200 utterances, in one run, one thread each.

Usage: python benchmarks/mel160.py [--out benchmarks/results/mel160.json]

The sound is LibriSpeech and LJSpeech below REPBENCH_TEST_DATA where that is set, else the synthetic corpus. Each way is
timed over all utterances, in turns, and the result is the median of the turns. Both compute 80 log-mel bands and their
slopes; neither normalises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import librosa
import numpy as np
import torch
from torch import Tensor

from frontends import sounds
from repbench.audio.legacy import DELTA_FRAMES, LOG_FLOOR, LONG, MEL160_NO_CMVN
from repbench.benchmark.features.extraction import length_batches
from turns import time_in_turns, write_result

TURNS = 7
RATE_HZ = 16_000


def by_librosa(waves: Sequence[Tensor]) -> None:
    """One call an utterance, as librosa is used."""
    for wave in waves:
        power = librosa.feature.melspectrogram(
            y=wave.numpy(), sr=RATE_HZ, n_fft=LONG.fft, win_length=LONG.window,
            hop_length=LONG.hop, n_mels=80, pad_mode="reflect",
        )  # fmt: skip
        log_mel = np.log(power + LOG_FLOOR)
        np.concatenate([log_mel, librosa.feature.delta(log_mel, width=DELTA_FRAMES)])


def alone(waves: Sequence[Tensor]) -> None:
    """One call an utterance."""
    for wave in waves:
        MEL160_NO_CMVN(wave[None], torch.tensor([len(wave)]))


def batched(waves: Sequence[Tensor]) -> None:
    """Batches of like length of at most two minutes, as `repbench run` does it."""
    for batch in length_batches([len(wave) for wave in waves], 120 * RATE_HZ):
        chosen = [waves[index] for index in batch]
        padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        MEL160_NO_CMVN(padded, torch.tensor([len(wave) for wave in chosen]))


WAYS: dict[str, Callable[[Sequence[Tensor]], None]] = {
    "librosa mel + delta": by_librosa,
    "mel160, one by one": alone,
    "mel160, batched": batched,
}


def main() -> None:
    source, waves = sounds()
    result = time_in_turns(WAYS, waves, baseline="librosa mel + delta", turns=TURNS, rate_hz=RATE_HZ, source=source)
    write_result(__file__, result)


if __name__ == "__main__":
    main()
