"""Certificates: run all checks of a registered upstream or task, and keep the result."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from repbench.benchmark.loading.certificates import Certificate, declared_as_json, keep, task_fingerprint
from repbench.benchmark.loading.tasks import build_task
from repbench.benchmark.loading.upstreams import build_upstream, origin_of
from repbench.corpora.contract import Corpus
from repbench.corpora.open import open_corpus
from repbench.errors import plugin_faults
from repbench.progress import Reporter, Silence
from repbench.registry import registry
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject
from repbench.testing.fakes import tone_corpus
from repbench.testing.upstreams import UPSTREAM_CHECKS, UpstreamSubject
from repbench.upstream.contract import provenance_of
from repbench.upstream.training_data import in_words


def certify_upstream(
    name: str,
    *,
    checkpoint: str | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    reporter: Reporter | None = None,
    keeps: bool = True,
) -> Certificate:
    """Run all checks of an upstream, and keep the certificate if none failed and all could be tried.

    Args:
        name: Name of the upstream.
        checkpoint: As in `UpstreamFactory`.
        seed: Seed of untrained weights.
        device: Device that it is run on; the CPU by default.
        reporter: Receives the progress.
        keeps: Whether the certificate is written to the cache.

    Raises:
        UsageError: There is no such upstream, or it needs a corpus to be built.
        PluginError: It cannot be built.
        EnvironmentFault: The cache cannot be written.
    """
    entry = registry().find("upstream", name).entry
    with (reporter or Silence()).stage(f"checking {name}") as advance:
        subject = UpstreamSubject(
            lambda place: build_upstream(entry, place, seed),
            checkpoint=checkpoint,
            seed=seed,
            entry=entry,
            device=device,
        )
        results = UPSTREAM_CHECKS.results(subject, advance)
    with plugin_faults(name):
        fingerprint = str(subject.upstream.fingerprint())
        trained_on = provenance_of(subject.upstream).trained_on
    (reporter or Silence()).say(f"note: trained on: {in_words(trained_on)}")
    certificate = Certificate(
        kind="upstream",
        name=name,
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        origin=origin_of(entry),
        info=declared_as_json(subject.info),
        device=str(subject.device),
        repbench=metadata.version("repbench"),
        results=results,
    )
    if keeps:
        keep(certificate)
    return certificate


def certify_downstream(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    corpus: str | None = None,
    reporter: Reporter | None = None,
    keeps: bool = True,
) -> Certificate:
    """Run all checks of a task, and keep the certificate if none failed and all could be tried.

    Args:
        name: Name of the task.
        options: Options of the task.
        corpus: Corpus whose labels it reads; None: a small corpus of tones with phones, speakers and sentiment.
        reporter: Receives the progress.
        keeps: Whether the certificate is written to the cache.

    Raises:
        UsageError: There is no such task, or it does not take its options.
        PluginError: It cannot be built.
        EnvironmentFault: The cache cannot be written.
    """
    reporter = reporter or Silence()
    entry = registry().find("downstream", name).entry
    task = build_task(entry, options or {})
    with tempfile.TemporaryDirectory(prefix="repbench-tones-") as folder:
        opened = _opened(corpus, Path(folder), reporter)
        with reporter.stage(f"checking {name}") as advance:
            results = DOWNSTREAM_CHECKS.results(DownstreamSubject(task, opened, remedy=_ANOTHER_CORPUS), advance)
    origin = origin_of(entry)
    certificate = Certificate(
        kind="downstream",
        name=name,
        checkpoint=None,
        fingerprint=task_fingerprint(entry.target, origin["file_sha256"], options or {}),
        origin=origin,
        info=declared_as_json(task.info),
        device="cpu",
        repbench=metadata.version("repbench"),
        results=results,
    )
    if keeps:
        keep(certificate)
    return certificate


_ANOTHER_CORPUS = "take one that has with --corpus, for example `--corpus synthetic:tiny`"


def _opened(corpus: str | None, folder: Path, reporter: Reporter) -> Corpus:
    if corpus is None:
        return tone_corpus(folder / "tones", num_speakers=3, per_session=2)
    with reporter.stage(f"corpus {corpus}") as advance:
        return open_corpus(corpus, progress=advance)
