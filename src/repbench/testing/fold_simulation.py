"""Simulated corpora that are probed in folds, for a test of the interval of the pooled score.

The folds, the statistics, the probes, the predictions and the interval are those of a run; the features are drawn. A
speaker has a voice that is added to all of their features, and a clarity with which they express two classes, so that
utterances of one speaker are right or wrong together. All draws follow from a seed.

Axes: S speakers, U utterances of a speaker, D width, N utterances of all speakers together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from repbench.benchmark.data.labelled_folds import label_folds
from repbench.benchmark.features.table import FeatureTable
from repbench.benchmark.probing.prediction import LabelledFeatures, Predictor
from repbench.benchmark.probing.probe import Probe, ProbeShape, statistics_of_parts
from repbench.benchmark.probing.training import ProbeJob, ProbeTraining, train_probes
from repbench.benchmark.protocol import ProbeSettings, SplitSettings
from repbench.benchmark.scoring.metrics import metrics_part
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.sentiment import Sentiment
from repbench.testing.fakes import Envelope

_CLASSES = ("negative", "positive")
_SETTINGS = ProbeSettings(steps=40, learning_rate=3e-2, batch_utterances=32, selection_points=2)
_WIDTH = 4
_FRESH_SPEAKERS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldWorld:
    """Where corpora come from.

    Attributes:
        num_speakers: S.
        num_folds: K.
        utterances: U.
        distance: Of the two classes from their middle, in standard deviations of an utterance.
        voice: Standard deviation of what a speaker adds to each of the D features.
        clarity: Standard deviation of the natural logarithm of what a speaker multiplies the distance by.
    """

    num_speakers: int
    num_folds: int
    utterances: int = 20
    distance: float = 0.8
    voice: float = 0.5
    clarity: float = 0.3


@dataclass(frozen=True, slots=True)
class FoldTrial:
    """One corpus.

    Attributes:
        value: The accuracy of the pooled predictions.
        interval: Its 95 % interval over speakers.
        of_probes: The accuracy that the probes of the folds have on the utterances of 400 other speakers, on average.
    """

    value: float
    interval: tuple[float, float]
    of_probes: float


def fold_trial(world: FoldWorld, seed: int) -> FoldTrial:
    """Draw a corpus, probe it in folds, and compute its interval."""
    generator = np.random.default_rng(seed)
    features, positive = _drawn(world, world.num_speakers, generator)
    corpus = _corpus(world, positive)
    task = Sentiment()
    splits = label_folds(corpus, task, SplitSettings(folds=world.num_folds, seed=seed), excludes=lambda each: None)
    ids = tuple(each.id for each in corpus.utterances)
    # (N, D) -> (1, N, D): one layer, one frame an utterance
    table = FeatureTable(torch.from_numpy(features)[None].float(), (1,) * len(ids), ids)
    of_trains = statistics_of_parts(table, [[example.id for example in fold.train] for fold in splits.folds])
    predictor = Predictor(task, splits.classes, Envelope().info)
    shared = ProbeTraining(
        predictor=predictor,
        shape=ProbeShape(
            head="linear", pools=True, num_layers=1, width=_WIDTH, hidden_units=1, classes=splits.classes, mix="mean"
        ),
        train=table,
        dev=table,
        statistics=None,
        settings=_SETTINGS,
    )
    jobs = [
        ProbeJob(train=fold.train, dev=fold.dev, seed=seed, statistics=own)
        for fold, own in zip(splits.folds, of_trains, strict=True)
    ]
    probes = [trained[0].probe for trained in train_probes(shared, jobs)]
    test = splits.test.open()
    predictions = [
        prediction
        for fold, probe in zip(splits.folds, probes, strict=True)
        for prediction in predictor.predict(
            probe, LabelledFeatures(table, tuple(each for each in test if each.id in fold.test))
        )
    ]
    metric = metrics_part(task, splits.classes, predictions)["accuracy"]
    fresh = _drawn(world, _FRESH_SPEAKERS, generator)
    of_probes = math.fsum(_accuracy(probe, *fresh) for probe in probes) / len(probes)
    return FoldTrial(metric["value"], metric["ci95"], of_probes)


def _drawn(
    world: FoldWorld, num_speakers: int, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(N, D) features and (N,) whether they are of the positive class, speaker after speaker."""
    shape = num_speakers, world.utterances
    positive = generator.permuted(np.tile(np.arange(world.utterances) % 2 == 0, (num_speakers, 1)), axis=1)  # (S, U)
    voices = world.voice * generator.standard_normal((num_speakers, 1, _WIDTH))
    clarity = np.exp(world.clarity * generator.standard_normal((num_speakers, 1)))
    features = voices + generator.standard_normal((*shape, _WIDTH))  # (S, 1, D) + (S, U, D)
    features[..., 0] += np.where(positive, 1, -1) * world.distance * clarity  # (S, U) * (S, 1)
    return features.reshape(-1, _WIDTH), positive.reshape(-1)  # (S, U, D) -> (N, D), (S, U) -> (N,)


def _corpus(world: FoldWorld, positive: NDArray[np.bool_]) -> Corpus:
    utterances = tuple(
        Utterance(
            id=f"u{number:05d}",
            audio=Path("/drawn.wav"),
            sample_rate_hz=16_000,
            num_samples=16_000,
            speaker=f"s{number // world.utterances:03d}",
            attributes={"sentiment": _CLASSES[int(each)]},
            samples_sha256=str(number),
        )
        for number, each in enumerate(positive)
    )
    return Corpus(
        name="drawn", licence="CC0-1.0", utterances=utterances, label_sets={}, resample="allowed", fingerprint="drawn"
    )


def _accuracy(probe: Probe, features: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    frames = torch.from_numpy(features)[None].float()  # (N, D) -> (1, N, D)
    with torch.inference_mode():
        scores = probe(frames, torch.ones(len(features), dtype=torch.int64))  # (N, C)
    return float((scores.argmax(dim=1) == torch.from_numpy(positive)).double().mean())
