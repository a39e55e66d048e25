"""One upstream, one downstream: from the corpus to the records.

`run` reads like the way of the data: corpus, plan, features, probe, answers, measures, record. Whatever can be refused
without reading data is refused first; the test split is opened once, when nothing is left to select.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repbench.benchmark.features import FeatureTable
from repbench.benchmark.identity import alone_if_missing_only, answered_before
from repbench.benchmark.plan import (
    Plan,
    Questions,
    make_plan,
    missing_classes,
    seconds_of,
    subset,
)
from repbench.benchmark.precomputed import exclusions, notes_of
from repbench.benchmark.probe import (
    Examiner,
    Examples,
    ProbeShape,
    statistics_of,
    train_probe,
)
from repbench.benchmark.record import Record
from repbench.benchmark.result import score
from repbench.benchmark.saved_probe import heard_by, score_with_probe
from repbench.benchmark.stage import (
    Answered,
    RunRequest,
    Setting,
    Stage,
    Written,
    open_corpus_of,
    prepare,
    refuse_exclusions,
)
from repbench.corpora.contract import Corpus
from repbench.downstream.contract import Downstream
from repbench.progress import Reporter, Silence
from repbench.upstream.contract import Upstream, provenance_of

__all__ = ["RunRequest", "Written", "evaluate", "run"]


def run(request: RunRequest, reporter: Reporter | None = None) -> list[Written]:
    """Do what is asked, and write one record for each layer, label fraction and seed.

    Raises:
        UsageError: The question cannot be meant; nothing was read.
        DataError: The corpus cannot answer it.
        PluginError: The upstream or the task breaks its contract.
    """
    reporter = reporter or Silence()
    with alone_if_missing_only(request, reporter):
        return _run(request, reporter)


def _run(request: RunRequest, reporter: Reporter) -> list[Written]:
    if request.probe is not None:
        return score_with_probe(request, reporter)
    if _untrained(request) and len(request.seeds) > 1:
        each_seed = (replace(request, seeds=(seed,)) for seed in request.seeds)
        return [written for one in each_seed for written in _run(one, reporter)]
    opened = functools.cache(lambda: open_corpus_of(request, reporter))
    stage = prepare(request, reporter, opened)
    settings = settings_of(request, stage.upstream)
    for note in _said_of_weights(request, stage.upstream):
        reporter.say(f"note: {note}")
    corpus = opened()
    before, settings = answered_before(stage, corpus, settings) if request.missing_only else ([], settings)
    if not settings:
        return before
    rates = notes_of(corpus, stage.upstream)
    plan = make_plan(corpus, stage.task, request.protocol.split, excludes=exclusions(stage.upstream))
    refuse_exclusions(plan.test, request.allow_excluded)
    subsets = _subsets(corpus, stage.task, plan, settings)
    for warning in (*plan.warnings, *rates, *(each for one in subsets.values() for each in one.warnings)):
        reporter.say(f"note: {warning}")

    train = stage.extract("features of train", plan.usable(plan.train))
    dev = stage.extract("features of dev", plan.usable(plan.dev))
    answered = [
        _train(stage, plan, train, dev, subsets[setting.fraction, setting.seed], setting) for setting in settings
    ]

    heard = heard_by(plan)
    test_questions = plan.test.open()
    test = stage.extract("features of test", test_questions)
    return [
        *before,
        *(
            score(
                stage, corpus, plan, each, Examples(stage.view(test, each.setting.layer), test_questions), rates, heard
            )
            for each in answered
        ),
    ]


def evaluate(
    upstream: str, downstream: str, *, corpus: str = "synthetic", out: str | Path = "runs", **options: Any
) -> list[Record]:
    """Run one upstream on one downstream and return the records, which are also written below `out`.

    Args:
        upstream: Name of the model.
        downstream: Name of the task.
        corpus: A registered name with options, or the folder of a manifest.
        out: Folder of the records.
        **options: Any other field of `repbench.benchmark.run.RunRequest`.

    Example:
        >>> records = evaluate("mel", "phone", corpus="synthetic:tiny")  # doctest: +SKIP
        >>> records[0].primary.value  # doctest: +SKIP
        0.52
    """
    request = RunRequest(upstream=upstream, downstream=downstream, corpus=corpus, out=Path(out), **options)
    return [written.record for written in run(request)]


def _untrained(request: RunRequest) -> bool:
    return request.checkpoint is not None and request.checkpoint.partition(":")[0] == "random"


def _said_of_weights(request: RunRequest, upstream: Upstream) -> list[str]:
    provenance = provenance_of(upstream)
    unsaid = request.checkpoint in {None, "random"} and provenance.checkpoint is not None
    return [*([f"the checkpoint is {provenance.checkpoint}"] if unsaid else []), *provenance.notes]


@dataclass(frozen=True, slots=True)
class _Labelled:
    """The labelled utterances of a fraction and seed, and what to say of them."""

    train: Questions
    dev: Questions
    warnings: tuple[str, ...]


def settings_of(request: RunRequest, upstream: Upstream) -> list[Setting]:
    """What the records of a request are made with, one each."""
    every = [str(index) for index in range(len(upstream.info.layer_names))]
    layers = every if request.layer == "all" else [request.layer]
    return [
        Setting(layer=layer, fraction=fraction, seed=seed)
        for layer in layers
        for fraction in request.label_fractions
        for seed in request.seeds
    ]


def _subsets(
    corpus: Corpus, task: Downstream, plan: Plan, settings: Iterable[Setting]
) -> dict[tuple[float, int], _Labelled]:
    """Train and dev of each fraction and seed: chosen by corpus, task, seed and fraction alone, then what is usable."""
    salt = f"{corpus.fingerprint} {task.info.name}"
    subsets: dict[tuple[float, int], _Labelled] = {}
    for setting in settings:
        train, dev = (
            plan.usable(subset(part, setting.fraction, seed=setting.seed, salt=f"{salt} {name}"))
            for name, part in (("train", plan.train), ("dev", plan.dev))
        )
        warnings = missing_classes(task, plan.classes, train, setting.fraction)
        subsets[setting.fraction, setting.seed] = _Labelled(train, dev or plan.usable(plan.dev)[:1], warnings)
    return subsets


def _train(
    stage: Stage,
    plan: Plan,
    train: FeatureTable,
    dev: FeatureTable,
    labelled: _Labelled,
    setting: Setting,
) -> Answered:
    train, dev = stage.view(train, setting.layer), stage.view(dev, setting.layer)
    settings = stage.request.protocol.probe
    shape = ProbeShape(
        head=stage.head,
        pools=stage.task.info.problem == "utterance-classification",
        num_layers=len(train.frames),
        width=stage.upstream.info.width,
        hidden_units=settings.hidden_units,
        classes=plan.classes,
        mix="weighted" if setting.layer == "weighted" else "mean",
    )
    started = time.monotonic()
    labels = "all labels" if setting.fraction == 1.0 else f"{100 * setting.fraction:g} % of the labels"
    title = f"probe: layer {setting.layer}, {labels}, seed {setting.seed}"
    with stage.reporter.stage(title) as advance:
        trained = train_probe(
            Examiner(stage.task, plan.classes, stage.upstream.info),
            shape,
            Examples(train, labelled.train),
            Examples(dev, labelled.dev),
            settings,
            seed=setting.seed,
            statistics=statistics_of(train),
            progress=advance,
        )
    return Answered(
        setting=setting,
        trained=trained,
        label_seconds={"train": seconds_of(labelled.train), "dev": seconds_of(labelled.dev)},
        warnings=labelled.warnings,
        train_seconds=time.monotonic() - started,
    )
