"""`invariance` calls the steps in order: model, corpus, sample, clean features, then each condition, files.

Whatever can be refused without reading data is refused first.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from repbench.audio.disturbances.condition import Condition, parse_condition
from repbench.benchmark import environment
from repbench.benchmark.comparison.models import Loader, Model
from repbench.benchmark.comparison.request import CompareRequest
from repbench.benchmark.comparison.run import (
    Written,
    extraction_options,
    folder_name,
    opened_corpus,
    usable_by_all,
    written,
)
from repbench.benchmark.features.invariance_check import check_invariance
from repbench.benchmark.features.source import exclusions, notes_of
from repbench.benchmark.protocol import Protocol
from repbench.benchmark.report.render.invariance import FIGURE_PREFIX, figure_of
from repbench.benchmark.scoring.statistics import Interval, LeftOut, crossed_intervals_of
from repbench.benchmark.similarity.document import ComparedCorpus, ComparisonCost, Value, sealed
from repbench.benchmark.similarity.frames import LayerFrames, read_frames_at
from repbench.benchmark.similarity.invariance import VALUE, CleanStates, deviations
from repbench.benchmark.similarity.invariance_document import (
    INVARIANCE_FILE,
    MADE_BY,
    SIGNATURE,
    ConditionInvariance,
    Invariance,
    InvarianceSample,
)
from repbench.benchmark.similarity.sample import Sample, draw_sample
from repbench.corpora.conditions import disturbed, voices_for
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.problems.scoring_grid import instants_s
from repbench.errors import DataError, UsageError
from repbench.files import ensure_writable, refuse_of_others
from repbench.progress import Reporter, Silence
from repbench.training.distributed import local_device
from repbench.upstream.adapters.corpus_features import FrameReader

RUNS = Path("runs/invariance")
"""Where results go without `--out`, each in a folder of its own."""

FILES = Written(INVARIANCE_FILE, SIGNATURE, MADE_BY, f'aria-labelledby="{FIGURE_PREFIX}'.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class InvarianceRequest:
    """The arguments of `repbench invariance`.

    Attributes:
        upstream: Name of the model.
        conditions: Texts of conditions, as `repbench run --condition` takes them; at least one.
        checkpoint: Weights of the model, as `repbench run` takes them.
        corpus: A registered name with options, or the folder of a manifest.
        layers: all, or first, last, a number or a name.
        most_frames: Most sampled instants; ten times as many are extracted, once for each condition.
        protocol: Of which `extraction` is read.
        seed: Of the sample, and of untrained weights.
        device: auto, cpu, cuda, cuda:N.
        out: Folder to write into; None: one below `runs/invariance`.
    """

    upstream: str
    conditions: tuple[str, ...]
    checkpoint: str | None = None
    corpus: str = "synthetic"
    layers: tuple[str, ...] = ("all",)
    most_frames: int = 4000
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0
    device: str = "auto"
    out: Path | None = None

    def parsed(self) -> tuple[Condition, ...]:
        """The conditions, each once.

        Raises:
            UsageError: There is none, or one cannot be read.
        """
        found = {each.name: each for each in map(parse_condition, self.conditions)}
        if not found:
            raise UsageError(
                "There is no condition", key="--condition", do="Give --condition noise:white:10, or --conditions robust"
            )
        return tuple(found.values())

    def model(self) -> CompareRequest:
        """The request that loads the model, as a comparison of it with itself."""
        return CompareRequest(
            first=self.upstream,
            second=self.upstream,
            first_checkpoint=self.checkpoint,
            second_checkpoint=self.checkpoint,
            corpus=self.corpus,
            layers=self.layers,
            protocol=self.protocol,
            seed=self.seed,
            device=self.device,
        )

    def settings(self) -> dict[str, Any]:
        """The settings that a number depends on, or that state how it was computed."""
        extraction = self.protocol.extraction.model_dump(mode="json")
        names = ("dtype", "precision", "window_seconds", "context_seconds")
        return {
            "layers": list(self.layers),
            "frames": self.most_frames,
            "seed": self.seed,
            "extraction": {name: extraction[name] for name in names},
        }


@dataclass(frozen=True, slots=True)
class MeasuredInvariance:
    """The result, and its files."""

    invariance: Invariance
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The clean states of a layer: at the sampled instants, and the means of utterances."""

    frames: CleanStates
    utterances: CleanStates


def invariance(request: InvarianceRequest, reporter: Reporter | None = None) -> MeasuredInvariance:
    """Measure how far conditions move the states of each layer; write `invariance.json` and a figure.

    Args:
        request: The arguments.
        reporter: Receives progress and notes.

    Raises:
        UsageError: A condition, layer or model does not exist, or a file of others would be replaced.
        DataError: The corpus has too few utterances, or a condition cannot be applied to them.
        PluginError: The model breaks its contract.
        EnvironmentFault: The folder cannot be written to.
    """
    reporter = reporter or Silence()
    conditions = request.parsed()
    if request.out is not None:
        _prepare(request.out)
    device = local_device(environment.choose_device(request.device))
    opened = functools.cache(lambda: opened_corpus(request.corpus, reporter))
    (model,) = Loader(request.model(), device, opened, reporter).models().each
    if isinstance(model.upstream, FrameReader):
        what = f"The frames of `{request.upstream}` are read from files: there is no sound to disturb"
        raise UsageError(what, do="Take a model that reads sound")
    corpus = opened()
    check_invariance(model.upstream, model.entry, model.part.fingerprint, device)
    usable, excluded = _usable(corpus, model, conditions)
    sample = draw_sample(usable, request.most_frames, seed=request.seed, salt=f"invariance {corpus.fingerprint}")
    warnings = (*notes_of(corpus, model.upstream), *_warnings(sample, excluded))
    for warning in warnings:
        reporter.say(f"note: {warning}")
    out = request.out or RUNS / _folder_name(request, conditions, model, corpus)
    _prepare(out)

    reader = _Reader(model, sample, request, device, reporter)
    started = time.monotonic()
    pool = _voices(usable)
    layers = _layers(sample, reader.read(sample.utterances, _times(sample), "clean"))
    measured, left_out = [], []
    for condition in conditions:
        given = [disturbed(each, condition, voices_for(each, pool, condition)) for each in sample.utterances]
        frames = reader.read(given, _times(sample, condition), condition.name)
        one, of_layers = _under(condition, layers, frames)
        measured.append(one)
        left_out.append(of_layers)
    result = sealed(
        Invariance(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            upstream=model.part,
            corpus=ComparedCorpus(name=corpus.name, fingerprint=corpus.fingerprint),
            sample=InvarianceSample(
                n_frames=len(sample.owners),
                n_utterances=len(sample.utterances),
                sha256=sample.sha256,
                interval_unit=sample.clusters.unit,
                n_clusters=sample.clusters.count,
                excluded=excluded,
            ),
            settings=request.settings(),
            conditions=tuple(measured),
            mean=tuple(_value(_mean(several)) for several in zip(*left_out, strict=True)),
            warnings=warnings,
            cost=ComparisonCost(
                extract_seconds=reader.seconds,
                measure_seconds=time.monotonic() - started - reader.seconds,
                peak_rss_bytes=environment.peak_rss_bytes(),
            ),
            environment=environment.describe(device, request.protocol.extraction.precision),
        )
    )
    figures = {"layers.svg": figure_of(result)}
    return MeasuredInvariance(result, written(result, FILES, figures, out, reporter))


def _prepare(out: Path) -> None:
    """Refuse a folder that holds another's `invariance.json`, or cannot be written to."""
    refuse_of_others(out / INVARIANCE_FILE, SIGNATURE, made_by=MADE_BY)
    ensure_writable(out)


def _folder_name(request: InvarianceRequest, conditions: Sequence[Condition], model: Model, corpus: Corpus) -> str:
    facts = [
        model.part.fingerprint, corpus.fingerprint, request.settings(), [each.key() for each in conditions]
    ]  # fmt: skip
    return folder_name(f"{request.upstream}-{corpus.name}", facts)


def _usable(corpus: Corpus, model: Model, conditions: Sequence[Condition]) -> tuple[list[Utterance], dict[str, str]]:
    """The utterances that the model can take under every condition, and of the others the reason.

    Raises:
        DataError: There is none.
    """
    usable, excluded = usable_by_all(corpus, [model])
    excludes = exclusions(model.upstream)
    kept = []
    for utterance in usable:
        # Only the number of samples decides.
        lengths = {each.num_samples(utterance.num_samples, utterance.sample_rate_hz): each for each in conditions}
        changed = [disturbed(utterance, each) for length, each in lengths.items() if length != utterance.num_samples]
        why = next((reason for each in changed if (reason := excludes(each)) is not None), None)
        if why is None:
            kept.append(utterance)
        else:
            excluded[utterance.id] = why
    if not kept:
        id_, reason = next(iter(excluded.items()))
        what = f"No utterance of {corpus.name} can be taken under all conditions; of this one: {reason}"
        raise DataError(what, utterance=id_, do="Take other conditions, or another corpus")
    return kept, excluded


def _voices(usable: Sequence[Utterance]) -> list[Utterance]:
    """What babble is made of: train, as in a run, where the corpus names it."""
    return [each for each in usable if each.split == "train"] or list(usable)


def _times(sample: Sample, condition: Condition | None = None) -> list[NDArray[np.float64]]:
    """The seconds of the sampled instants of each utterance, moved by the condition."""
    times = [instants_s(int(each.max(initial=-1)) + 1)[each] for each in sample.instants]
    if condition is None:
        return times
    return [
        np.array([condition.moved(time_s, utterance.seconds) for time_s in own.tolist()], dtype=np.float64)
        for utterance, own in zip(sample.utterances, times, strict=True)
    ]


@dataclass(slots=True)
class _Reader:
    """Reads the features of the model, and counts the seconds that this takes."""

    model: Model
    sample: Sample
    request: InvarianceRequest
    device: torch.device
    reporter: Reporter
    seconds: float = 0.0

    def read(self, utterances: Sequence[Utterance], times_s: Sequence[NDArray[np.float64]], name: str) -> LayerFrames:
        """Of all layers, at times of each utterance."""
        model, started = self.model, time.monotonic()
        options = extraction_options(self.request.protocol, self.device)
        with self.reporter.stage(f"features, {name}") as advance:
            frames = read_frames_at(
                model.upstream, utterances, times_s, model.layers, options, store=model.store, progress=advance
            )
        self.seconds += time.monotonic() - started
        return frames


def _layers(sample: Sample, frames: LayerFrames) -> list[_Layer]:
    found = []
    for layer in range(len(frames.frames)):
        states, means = frames.of_frames(layer), frames.of_utterances(layer)
        deviation = deviations(states)
        numbers = sample.clusters.numbers
        found.append(
            _Layer(
                CleanStates(states, sample.owners, numbers, deviation),
                CleanStates(means, np.arange(len(means)), numbers, deviation),
            )
        )
    return found


def _under(
    condition: Condition, layers: Sequence[_Layer], frames: LayerFrames
) -> tuple[ConditionInvariance, list[LeftOut]]:
    """The invariance of each layer to a condition."""
    of_frames = [each.frames.distance_to(frames.of_frames(place)) for place, each in enumerate(layers)]
    of_utterances = [each.utterances.distance_to(frames.of_utterances(place)) for place, each in enumerate(layers)]
    found = ConditionInvariance(
        name=condition.name,
        kind=condition.kind,
        severity=condition.severity,
        parameters=dict(condition.parameters),
        digest=hashlib.sha256(condition.key().encode("utf-8", "surrogatepass")).hexdigest()[:16],
        frames=tuple(map(_value, of_frames)),
        utterances=tuple(map(_value, of_utterances)),
    )
    return found, of_frames


def _mean(several: Sequence[LeftOut]) -> LeftOut:
    """The mean over conditions, whole and without each cluster."""
    without = zip(*(each.without for each in several), strict=True)
    return LeftOut(_mean_of([each.whole for each in several]), tuple(_mean_of(values) for values in without))


def _mean_of(several: Sequence[Any]) -> dict[str, float | None]:
    known = [each[VALUE] for each in several if each[VALUE] is not None]
    return {VALUE: math.fsum(known) / len(known) if len(known) == len(several) else None}


def _value(left_out: LeftOut) -> Value:
    value, interval = left_out.whole[VALUE], crossed_intervals_of([left_out])[VALUE]
    # A distance is never below 0, which Student's t may reach.
    ends = None if interval is None else Interval(max(interval.low, 0.0), interval.high)
    return Value(value=value, ci95=None if ends is None else (ends.low, ends.high))


def _warnings(sample: Sample, excluded: dict[str, str]) -> list[str]:
    warnings = []
    if excluded:
        id_, reason = min(excluded.items())
        warnings.append(f"{len(excluded)} utterances are left out, such as {id_}: {reason}")
    if sample.clusters.unit is None:
        warnings.append("there are no two speakers or groups, so there are no intervals")
    return warnings
