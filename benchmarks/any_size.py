"""A `weighted` probe on 13 layers of 768 over a corpus of any size, within a budget of memory and disk.

    python benchmarks/any_size.py [--utterances 28000] [--seconds 12.9] [--memory 4] [--disk 10] [--sizes …]

A corpus of noise at 1,000 Hz is written for each size; its speakers hum, its phones are bands of loudness. The upstream
is `stand_in.py`. While `repbench run` goes on, /proc is read every 50 ms: the peak of anonymous memory, of the resident
set, and of the space that the cache folder and the process's files without a name take on disk. `--resident` runs so
many utterances with all features in memory too. Seconds of the processors stand beside those of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from repbench.benchmark import environment
from repbench.corpora import manifest
from repbench.corpora.contract import Draft, DraftUtterance, Phone

RATE_HZ = 1_000
LABELS = tuple(f"p{number:02d}" for number in range(20))
GIB = 2**30
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[28_000], metavar="UTTERANCES")
    parser.add_argument("--seconds", type=float, default=12.9, help="of an utterance, in the mean")
    parser.add_argument("--memory", type=float, default=4.0, help="GiB")
    parser.add_argument("--disk", type=float, default=10.0, help="GiB")
    parser.add_argument("--downstream", default="phone")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--resident", type=int, help="so many utterances in memory, too")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "any_size.json")
    arguments = parser.parse_args()
    rows = []
    for size in arguments.sizes:
        rows.append(
            measured(
                size, arguments, f"resources.memory_gib={arguments.memory}", f"resources.disk_gib={arguments.disk}"
            )
        )
    if arguments.resident:
        rows.append(measured(arguments.resident, arguments, "resources.road=memory", "resources.memory_gib=100"))
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "arguments": {name: str(value) for name, value in vars(arguments).items() if name != "out"},
        "runs": rows,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measured(size: int, arguments: argparse.Namespace, *settings: str) -> dict[str, Any]:
    """A run on a corpus of some size: seconds, peaks and what it prints."""
    with tempfile.TemporaryDirectory(prefix="any-size-") as name:
        folder = Path(name)
        write_corpus(folder / "corpus", size, arguments.seconds)
        command = [
            sys.executable, "-m", "repbench", "run", "--plugin", str(HERE / "stand_in.py"), "--upstream", "stand-in",
            "--downstream", arguments.downstream, "--layer", "weighted", "--corpus", str(folder / "corpus"),
            "--out", str(folder / "runs"), "--set", "extraction.dtype=float16",
            "--set", f"probe.steps={arguments.steps}", *(each for one in settings for each in ("--set", one)),
        ]  # fmt: skip
        row: dict[str, Any] = {"utterances": size, "settings": settings, **watched(command, folder)}
        record = json.loads(next((folder / "runs").rglob("record.json")).read_text(encoding="utf-8"))
        row["utterances_scored"] = record["n_scored"]
        row["accuracy"] = record["metrics"]["accuracy"]["value"]
    print(json.dumps(row), flush=True)
    return row


def watched(command: list[str], folder: Path) -> dict[str, Any]:
    """Run a command; its seconds, the peaks of memory and disk in GiB, and its notes."""
    variables = {**os.environ, "REPBENCH_CACHE": str(folder / "cache")}
    peaks = {"anonymous_gib": 0.0, "resident_gib": 0.0, "disk_gib": 0.0}
    started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "log").open("w+", encoding="utf-8") as log:
        with subprocess.Popen(command, env=variables, stdout=log, stderr=log) as run:
            while run.poll() is None:
                now = {
                    "anonymous_gib": memory_bytes(run.pid, "RssAnon") / GIB,
                    "resident_gib": memory_bytes(run.pid, "VmRSS") / GIB,
                    "disk_gib": (bytes_below(folder / "cache") + unnamed_bytes(run.pid)) / GIB,
                }
                peaks = {name: max(peaks[name], value) for name, value in now.items()}
                time.sleep(0.05)
        log.seek(0)
        printed = log.read()
    if run.returncode:
        sys.exit(printed)
    notes = [line.strip() for line in printed.splitlines() if "resources.road" in line or " in " in line]
    now_used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = now_used.ru_utime + now_used.ru_stime - used.ru_utime - used.ru_stime
    return {"seconds": time.monotonic() - started, "processor_seconds": processor, **peaks, "printed": notes}


def memory_bytes(process: int, what: str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # a temporary file that has its name by now
    return total


def unnamed_bytes(process: int) -> int:
    """Blocks of the open files of a process that have no name; each counts once."""
    sizes: dict[int, int] = {}
    try:
        descriptors = list(Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return 0
    for descriptor in descriptors:
        try:
            if "(deleted)" in str(descriptor.readlink()):
                stat = descriptor.stat()
                sizes[stat.st_ino] = stat.st_blocks * 512
        except OSError:
            continue
    return sum(sizes.values())


def write_corpus(folder: Path, size: int, seconds: float) -> None:
    """A manifest of `size` utterances of noise, `seconds` long in the mean, with a phone each 0.25 s."""
    sounds = folder / "sounds"
    sounds.mkdir(parents=True)
    random = np.random.default_rng(0)
    drafts = []
    for number in range(size):
        count = max(4, int(random.normal(seconds, seconds / 5) / 0.25))
        labels = random.integers(len(LABELS), size=count)
        # (phones,) -> (samples,): the loudness of a frame tells the phone, with some overlap
        loudness = np.repeat(np.exp(labels / 5 - 5 + random.normal(0, 0.2, size=count)), RATE_HZ // 4)
        samples = loudness * random.standard_normal(len(loudness)).clip(-3, 3)
        file = sounds / f"u{number:06d}.wav"
        soundfile.write(file, samples.clip(-1, 1), RATE_HZ, subtype="PCM_16")
        phones = tuple(Phone(place / 4, (place + 1) / 4, LABELS[label]) for place, label in enumerate(labels))
        drafts.append(DraftUtterance(id=file.stem, audio=file, speaker=f"s{number % 250:03d}", phones=phones))
    draft = Draft(
        name="any-size", licence="CC0-1.0", root=folder, utterances=drafts,
        phone_map={label: label for label in LABELS}, phone_set=LABELS,
    )  # fmt: skip
    manifest.write(draft, folder)


if __name__ == "__main__":
    main()
