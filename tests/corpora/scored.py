"""From a layout's folder to a record, the whole way, in little time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repbench.benchmark.protocol import ProbeSettings, Protocol
from repbench.benchmark.records.record import Record
from repbench.benchmark.run import RunRequest, run
from repbench.corpora import manifest
from repbench.corpora.audit.check import check
from repbench.corpora.contract import Corpus, CorpusLayout, PrepareOptions


def prepared(layout: CorpusLayout, root: Path, out: Path, options: PrepareOptions | None = None) -> Corpus:
    """The manifest of a folder, written, opened again and found without a problem."""
    written = manifest.write(layout.prepare(root, options or PrepareOptions()), out)
    corpus = manifest.read(out)
    assert corpus == written
    assert check(corpus).problems == ()
    return corpus


def scored(manifest_folder: Path, downstream: str, **task: Any) -> Record:
    """The record of a few steps of a probe on a manifest."""
    protocol = Protocol(probe=ProbeSettings(steps=20, batch_frames=256, hidden_units=16, selection_points=2), task=task)
    request = RunRequest(
        upstream="py:repbench.testing.fakes:envelope",
        downstream=downstream,
        corpus=str(manifest_folder),
        protocol=protocol,
        device="cpu",
        out=manifest_folder.parent / "runs",
    )
    (written,) = run(request)
    return written.record
