"""Whether reading bounds an upstream that is many times faster than real time, from FLAC and from WAV.

The stand-in takes the time that a device would: for each batch it waits, without the processor, until the batch's
seconds of sound over `--speed` have passed since it was free, as a GPU computes while the processor goes on. Its share
of waiting for the processor is the time of the pass beyond that. A second stand-in takes no time: that is the rate of
reading, checking, padding and handing over. Both run through `run_batches`, with every sound decoded, held to its hash
and padded. The processor time of the pass gives the rate of one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor, nn

from repbench.audio.sound import measure
from repbench.benchmark import environment
from repbench.benchmark.features.extraction import (
    ExtractionOptions,
    batch_samples,
    length_batches,
    run_batches,
    table_index,
)
from repbench.corpora.contract import Utterance
from repbench.processors import usable_cpus
from repbench.training.threads import choose_threads
from repbench.upstream.contract import HiddenStates, UpstreamInfo

RATE_HZ = 16_000
HOP = 320


class StandIn(nn.Module):
    """An upstream that gives zeros after the time that a device of a given speed would take.

    Args:
        speed: Seconds of sound in a second; None: it takes no time.
    """

    runs_concurrently = False  # a device computes one batch after the other

    def __init__(self, speed: float | None) -> None:
        super().__init__()
        self.speed = speed
        self.free = 0.0
        self.info = UpstreamInfo(
            name="stand-in", sample_rate_hz=RATE_HZ, hop_samples=HOP, first_center_samples=0, min_samples=HOP,
            layer_names=("zeros",), width=8, utterance_normalised=False, trainable=False, citation="", licence="",
        )  # fmt: skip

    def num_frames(self, num_samples: int) -> int:
        """Whole hops."""
        return num_samples // HOP

    def forward(self, waveforms: Tensor, lengths: Tensor) -> HiddenStates:
        """(B, T) -> (1, B, F, 8)."""
        now = time.perf_counter()
        if self.speed is not None:
            self.free = max(now, self.free) + float(lengths.sum()) / RATE_HZ / self.speed
            time.sleep(max(0.0, self.free - now))
        counts = lengths // HOP
        return HiddenStates(torch.zeros(1, len(lengths), int(counts.max()), 8), counts)

    def fingerprint(self) -> str:
        """It has no weights."""
        return "stand-in"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sounds", type=Path, help="Folder of FLAC or WAV files at 16 kHz, as of LibriSpeech.")
    parser.add_argument("--minutes", type=float, default=120, help="Of sound in a pass; files are read again.")
    parser.add_argument("--speed", type=float, default=5000, help="Of the stand-in, in seconds of sound a second.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pipeline.json")
    arguments = parser.parse_args()
    threads = choose_threads(arguments.threads)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("FLAC", "WAV"):
            utterances = written_as(kind, sorted(arguments.sounds.rglob("*.flac")), Path(folder), arguments.minutes)
            for name, speed in ((f"{arguments.speed:.0f} x real time", arguments.speed), ("no time", None)):
                rows[f"{kind}, stand-in takes {name}"] = passes(StandIn(speed), utterances, arguments.turns)
    for name, row in rows.items():
        print(f"{name:40s} {row['times_real_time']:7.0f} x, {row['times_real_time_per_core']:7.0f} x a core in use")
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "usable_cpus": usable_cpus(),
        "threads": threads,
        "versions": {name: metadata.version(name) for name in ("torch", "soundfile", "numpy")},
        "asked": {"minutes": arguments.minutes, "speed": arguments.speed, "turns": arguments.turns},
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def written_as(kind: str, files: list[Path], folder: Path, minutes: float) -> list[Utterance]:
    """Utterances of `minutes` in all, from copies of the files in a format; after the last file the first again."""
    written, total = [], 0.0
    for file in files:
        copy = folder / f"{file.stem}.{kind.lower()}"
        samples, rate_hz = soundfile.read(file, dtype="int16")
        soundfile.write(copy, samples, rate_hz, subtype="PCM_16", format=kind)
        found = measure(copy)
        written.append(
            Utterance(
                id=file.stem,
                audio=copy,
                sample_rate_hz=rate_hz,
                num_samples=found.num_samples,
                samples_sha256=found.samples_sha256,
            )
        )
    utterances: list[Utterance] = []
    while total < 60 * minutes:
        utterances.append(written[len(utterances) % len(written)])
        total += utterances[-1].seconds
    return utterances


def passes(upstream: StandIn, utterances: list[Utterance], turns: int) -> dict[str, Any]:
    """The fastest of several passes over all utterances."""
    index = table_index(upstream, utterances)
    options = ExtractionOptions(batch_seconds=30, device=torch.device("cpu"))
    seconds = sum(each.seconds for each in utterances)
    taken = []
    for _ in range(turns):
        batches = length_batches(index.lengths, batch_samples(upstream, options.batch_seconds))
        upstream.free, processor, started = 0.0, time.process_time(), time.perf_counter()
        for _batch, _features in run_batches(upstream, index, [0], batches, options):
            pass
        taken.append((time.perf_counter() - started, time.process_time() - processor))
    wall, processor = min(taken)
    return {
        "seconds_of_sound": seconds,
        "seconds": wall,
        "processor_seconds": processor,
        "times_real_time": seconds / wall,
        "times_real_time_per_core": seconds / processor,
        "all_seconds": [each for each, _ in taken],
    }


if __name__ == "__main__":
    main()
