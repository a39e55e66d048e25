"""Seconds and memory of what reads a manifest, against its size: opening, planning, `corpus prepare`, `corpus check`.

Manifests of three kinds are made: `phones` is shaped like read speech, with texts, speakers, chapters, official splits
and 30 phones an utterance; `clips` are clips of one second without phones. Both list sounds that are not there, since
opening and planning read none. `sounds` has sounds: cuts of 0.1 s out of files of a thousand, which `corpus prepare`
reads from a table and `corpus check` reads again.

Every measurement is a process of its own. `cpu_s` and `wall_s` do not count its imports, except for the two commands,
which are timed as a whole; `peak_mb` is its highest resident memory and `before_mb` what it had after its imports.
`--source` measures other versions of the package too, such as that of another checkout, one after the other.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PHONES = (*(f"P{number:02}" for number in range(39)), "sil")
WORDS = ("the", "of", "and", "to", "a", "in", "that", "he", "was", "it", "his", "had", "with", "as", "for", "you")
PHONES_EACH, UTTERANCES_OF_SPEAKER, UTTERANCES_OF_CHAPTER = 30, 120, 24
CUT_SAMPLES, CUTS_OF_FILE, RATE_HZ = 800, 1_000, 8_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phones", type=int, nargs="*", default=[10_000, 100_000, 300_000], help="sizes with phones")
    parser.add_argument("--clips", type=int, nargs="*", default=[10_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--sounds", type=int, nargs="*", default=[10_000, 100_000], help="sizes with sounds")
    parser.add_argument("--source", type=Path, nargs="+", default=[REPOSITORY / "src"], help="`src` of each version")
    parser.add_argument("--folder", type=Path, help="keep the manifests here; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "manifests.json")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        rows = [
            {"version": number, **row}
            for number, source in enumerate(arguments.source)
            for row in measured(arguments, source.resolve(), folder)
        ]
    result = {"machine": machine(), "rows": rows}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def measured(arguments: argparse.Namespace, source: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each measurement of a version; printed as it is made."""
    variables = {**os.environ, "PYTHONPATH": str(source), "REPBENCH_CACHE": str(folder / "cache")}
    for kind in ("phones", "clips"):
        for size in getattr(arguments, kind):
            manifest = folder / f"{kind}-{size}"
            if not manifest.exists():
                write_manifest(manifest, size, PHONES_EACH if kind == "phones" else 0)
            for trace in [*manifest.glob("*index*"), folder / "cache"]:
                shutil.rmtree(trace) if trace.is_dir() else trace.unlink(missing_ok=True)
            tasks = ("speaker", "phone") if kind == "phones" else ("speaker",)
            for what in ("open cold", "open warm", *(f"plan {task}" for task in tasks)):
                row = in_process([__file__, "--child", str(manifest), what], variables)
                yield shown({"kind": kind, "utterances": size, "what": what, **row})
    for size in arguments.sounds:
        table = sounds(folder / f"sounds-{size}", size)
        shutil.rmtree(table.parent / "manifest", ignore_errors=True)
        prepare = ["corpus", "prepare", "csv", "--root", str(table.parent), "--table", str(table)]
        manifest = table.parent / "manifest"
        commands = {"prepare": [*prepare, "--out", str(manifest)], "check": ["corpus", "check", str(manifest)]}
        for what, command in commands.items():
            row = in_process(["-m", "repbench", *command, "--json"], variables)
            yield shown({"kind": "sounds", "utterances": size, "what": what, **row})


def shown(row: dict[str, Any]) -> dict[str, Any]:
    print("  ".join(f"{value:>10.2f}" if isinstance(value, float) else f"{value:>10}" for value in row.values()))
    return row


def in_process(command: list[str], variables: dict[str, str]) -> dict[str, float]:
    """What a process took; one that measures itself prints that as its last line."""
    started, peak_mb = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen([sys.executable, *command], env=variables, stdout=printed)
        while True:
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            if ended:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            peak_mb = max(peak_mb, resident_mb("VmHWM", process.pid))
            time.sleep(0.02)
        printed.seek(0)
        lines = printed.read().splitlines()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {lines}")
    if "--child" in command:
        found: dict[str, float] = json.loads(lines[-1])
        return found
    wall_s = time.perf_counter() - started
    return {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall_s, "peak_mb": peak_mb, "before_mb": 0.0}


def child(manifest: str, what: str) -> None:
    """One measurement, printed as JSON."""
    from repbench.benchmark.data.dataset import label_splits
    from repbench.benchmark.data.subsets import subset
    from repbench.benchmark.loading.tasks import build_task
    from repbench.benchmark.protocol import Protocol
    from repbench.corpora.open import open_corpus
    from repbench.downstream.contract import problem_of
    from repbench.registry import registry

    way, _, name = what.partition(" ")
    task = build_task(registry().find("downstream", name).entry, {}) if way == "plan" else None
    before_mb = resident_mb("VmRSS")
    if task is None:
        clocks = time.process_time(), time.perf_counter()
        corpus = open_corpus(manifest)
    else:
        corpus = open_corpus(manifest)
        clocks = time.process_time(), time.perf_counter()
        splits = label_splits(corpus, task, Protocol().split, excludes=lambda each: None)
        problem = problem_of(task)
        for fraction in (1.0, 0.1):
            subset(splits.train, fraction, problem=problem, seed=0, salt=f"{corpus.name} {name}")
    cpu_s, wall_s = time.process_time() - clocks[0], time.perf_counter() - clocks[1]
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "peak_mb": resident_mb("VmHWM"), "before_mb": before_mb}))


def resident_mb(field: str, process: int | str = "self") -> float:
    """Memory of a process; 0 when it has ended."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    found = next((each for each in lines if each.startswith(field)), f"{field} 0")
    return int(found.split()[1]) * 1024 / 1e6


def write_manifest(folder: Path, size: int, phones_each: int) -> None:
    """A manifest whose sounds are not there; speakers are in one official split each."""
    root = folder.parent / "no-sounds"
    root.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    draw = random.Random(size)
    hashes, speakers = [], set()
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(size):
            fields = utterance_fields(number, phones_each, draw)
            hashes.append((fields["id"], fields["samples_sha256"]))
            speakers.add(fields["speaker"])
            stream.write(json.dumps(fields, sort_keys=True, separators=(",", ":")) + "\n")
    label_sets = {"speakers": sorted(speakers), **({"phones": sorted(PHONES)} if phones_each else {})}
    listed = "\n".join(each for _, each in sorted(hashes))
    header: dict[str, Any] = {
        "schema": "repbench.corpus/1", "name": folder.name, "licence": "none", "root": str(root),
        "label_sets": label_sets, "phone_map": None, "resample": "allowed",
        "samples_sha256": hashlib.sha256(listed.encode()).hexdigest(), "notes": [], "tools": {},
    }  # fmt: skip
    (folder / "corpus.json").write_text(json.dumps(header), encoding="utf-8")


def utterance_fields(number: int, phones_each: int, draw: random.Random) -> dict[str, Any]:
    speaker, chapter = number // UTTERANCES_OF_SPEAKER, number // UTTERANCES_OF_CHAPTER
    identifier = f"{speaker + 100}-{chapter + 10_000}-{number % UTTERANCES_OF_CHAPTER:04}"
    split = "test" if speaker % 20 == 0 else "dev" if speaker % 20 == 1 else "train"
    fields: dict[str, Any] = {
        "id": identifier, "speaker": f"{speaker + 100}", "group": f"{chapter + 10_000}", "split": split,
        "audio": f"{split}/{speaker + 100}/{chapter + 10_000}/{identifier}.flac", "sample_rate_hz": 16_000,
        "samples_sha256": hashlib.sha256(identifier.encode()).hexdigest(), "attributes": {"subset": f"{split}-clean"},
    }  # fmt: skip
    if not phones_each:
        return {**fields, "num_samples": 16_000, "attributes": {"word": draw.choice(WORDS)}}
    time_s, phones = 0.0, []
    for _ in range(phones_each):
        end_s = round(time_s + draw.randrange(3, 20) / 100, 2)
        phones.append([time_s, end_s, draw.choice(PHONES)])
        time_s = end_s
    text = " ".join(draw.choices(WORDS, k=phones_each // 3))
    return {**fields, "num_samples": round(16_000 * time_s), "phones": phones, "text": text}


def sounds(folder: Path, size: int) -> Path:
    """Files of noise and a table of their cuts."""
    import numpy as np
    import soundfile

    table = folder / "table.csv"
    if table.exists():
        return table
    folder.mkdir(parents=True)
    lines = ["id,path,start,end,speaker,split"]
    for first in range(0, size, CUTS_OF_FILE):
        file = folder / f"{first:07}.wav"
        noise = np.random.default_rng(first).integers(-9_000, 9_000, CUTS_OF_FILE * CUT_SAMPLES, dtype=np.int16)
        soundfile.write(file, noise, RATE_HZ)
        for number in range(first, min(size, first + CUTS_OF_FILE)):
            start = (number - first) * CUT_SAMPLES / RATE_HZ
            speaker = number // UTTERANCES_OF_SPEAKER
            lines.append(f"u{number:07},{file.name},{start},{start + CUT_SAMPLES / RATE_HZ},s{speaker},train")
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def machine() -> dict[str, Any]:
    import torch

    from repbench.benchmark import environment

    return {**environment.describe(torch.device("cpu")), "cores": len(os.sched_getaffinity(0))}


if __name__ == "__main__":
    main()
