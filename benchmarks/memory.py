"""Peak of anonymous memory of a run with half of a corpus and with all of it.

Anonymous memory is what the system cannot reclaim; pages of files, such as those of a large feature table, are not
counted. It is read from /proc every 20 ms while `repbench run` goes on, with an empty feature store and a full one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from repbench.benchmark import environment
from repbench.corpora.open import open_corpus
from repbench.files import cache_dir


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", default="synthetic:small")
    parser.add_argument("--upstream", default="mel")
    parser.add_argument("--checkpoint")
    parser.add_argument("--downstream", default="phone")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory.json")
    arguments = parser.parse_args()
    open_corpus(arguments.corpus)  # builds a synthetic one
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, share in (("half", 2), ("whole", 1)):
            manifest = part_of(arguments.corpus, folder / part, share)
            for store in ("empty store", "full store"):
                rows[f"{part}, {store}"] = peak_of(arguments, folder, manifest)
    for what, row in rows.items():
        print(f"{what:<20} {row['utterances']:6d} utterances  {row['peak_bytes'] / 2**20:8.1f} MiB")
    growth = {
        store: rows[f"whole, {store}"]["peak_bytes"] / rows[f"half, {store}"]["peak_bytes"] - 1
        for store in ("empty store", "full store")
    }
    for store, more in growth.items():
        print(f"twice the utterances, {store}: {100 * more:+.1f} %")
    result = {
        "machine": environment.describe(torch.device("cpu")),
        "question": {key: str(value) for key, value in vars(arguments).items() if key != "out"},
        "runs": rows,
        "growth": growth,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def part_of(corpus: str, folder: Path, share: int) -> Path:
    """A manifest of every `share`-th utterance of the corpus, with its sounds where they are."""
    opened = open_corpus(corpus)
    source = next(path.parent for path in (cache_dir() / "corpora").glob("*/corpus.json") if _names(path, opened.name))
    folder.mkdir()
    lines = (source / "manifest.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = lines[::share]
    (folder / "manifest.jsonl").write_text("".join(kept), encoding="utf-8")
    digest = hashlib.sha256("\n".join(json.loads(line)["samples_sha256"] for line in kept).encode("ascii"))
    head = json.loads((source / "corpus.json").read_text(encoding="utf-8"))
    root = Path(head.get("root") or ".")
    head["root"] = str(root if root.is_absolute() else (source / root).resolve())
    head["samples_sha256"] = digest.hexdigest()
    (folder / "corpus.json").write_text(json.dumps(head), encoding="utf-8")
    return folder


def _names(head: Path, name: str) -> bool:
    return bool(json.loads(head.read_text(encoding="utf-8")).get("name") == name)


def peak_of(arguments: argparse.Namespace, folder: Path, manifest: Path) -> dict[str, Any]:
    """The most anonymous memory of a run, in bytes."""
    command = [
        sys.executable, "-m", "repbench", "run", "--upstream", arguments.upstream, "--downstream", arguments.downstream,
        "--corpus", str(manifest), "--out", str(folder / "runs"), "--set", f"probe.steps={arguments.steps}",
        *(["--checkpoint", arguments.checkpoint] if arguments.checkpoint else []),
    ]  # fmt: skip
    variables = {**os.environ, "REPBENCH_CACHE": str(folder / f"cache-{manifest.name}")}
    peak = 0
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None:
            peak = max(peak, anonymous_bytes(run.pid))
            time.sleep(0.02)
        if run.returncode:
            sys.exit(run.stderr.read() if run.stderr else run.returncode)
    lines = (manifest / "manifest.jsonl").read_text(encoding="utf-8").count("\n")
    return {"utterances": lines, "peak_bytes": peak}


def anonymous_bytes(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
    main()
