"""mel160 against librosa's mel and delta, on the same 200 utterances, in one run, one thread each.

Usage: python benchmarks/mel160.py [--out benchmarks/results/mel160.json]

The sound is LibriSpeech and LJSpeech below REPBENCH_TEST_DATA where that is set, else the synthetic corpus. Each way is
timed over all utterances, in turns, and the median of the turns is told. Both compute 80 log-mel bands and their
slopes; neither normalises.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor

import repbench.benchmark.environment as environment
from frontends import sounds
from repbench.audio.legacy import DELTA_FRAMES, LOG_FLOOR, LONG, MEL160_NO_CMVN
from repbench.benchmark.features import length_batches

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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "mel160.json")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    source, waves = sounds()
    seconds = sum(len(wave) for wave in waves) / RATE_HZ
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for way in WAYS.values():
        way(waves[:5])
    for _ in range(TURNS):
        for name, way in WAYS.items():
            started = time.perf_counter()
            way(waves)
            taken[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    baseline = medians["librosa mel + delta"]
    print(f"{len(waves)} utterances, {seconds:.0f} s of {source}, one thread, median of {TURNS} turns")
    for name, median in medians.items():
        print(f"{name:20s} {median:7.3f} s  {seconds / median:7.0f} x real time  {baseline / median:5.2f} x librosa")
    result = {
        "utterances": len(waves), "seconds_of_sound": seconds, "source": source, "turns": taken,
        "median_s": medians, "ratio_to_librosa": {name: baseline / median for name, median in medians.items()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "librosa": librosa.__version__,
                     "numpy": np.__version__},
        "machine": environment.describe(torch.device("cpu"))["cpu"], "threads": 1,
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
