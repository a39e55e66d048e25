"""The story in minutes: one front end, three questions, on speech made on this machine."""

from __future__ import annotations

from pathlib import Path

from repbench.benchmark.run import RunRequest, Written, run
from repbench.progress import Reporter

UPSTREAM = "mel"
DOWNSTREAMS = ("phone", "speaker", "sentiment")
CORPUS = "synthetic"


def demo(out: Path, reporter: Reporter) -> list[Written]:
    """Run mel on phone, speaker and sentiment of the synthetic corpus; the records lie below `out`."""
    written = []
    for downstream in DOWNSTREAMS:
        reporter.say(f"repbench run --upstream {UPSTREAM} --downstream {downstream} --corpus {CORPUS} --out {out}")
        written += run(RunRequest(upstream=UPSTREAM, downstream=downstream, corpus=CORPUS, out=out), reporter)
    return written
