"""The task `units`: clusters of frames as discrete units, and what they tell of the phones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from repbench.codebook import CODEBOOK_FILE, draw_frames, fit_codebook
from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    FrozenFeatures,
    Labels,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Outcome,
    Prediction,
    ReadSplit,
)
from repbench.downstream.metrics import boundaries, units
from repbench.downstream.metrics.boundaries import BoundaryCounts
from repbench.downstream.metrics.units import Counts
from repbench.downstream.phone import phone_set
from repbench.downstream.problems.units import UNITS, UnitsPrediction, boundary_counts
from repbench.errors import Unlabelled, UsageError


@dataclass(frozen=True, slots=True)
class UnitTally:
    """The counts of some predictions.

    Attributes:
        joint: (P, K) frames of each phone and unit.
        frames: (K,) frames of each unit, in phones or not.
        runs: (K,) runs of equal units.
        boundaries: Of phones.
        seconds: Durations of the utterances.
    """

    joint: Counts
    frames: Counts
    runs: Counts
    boundaries: BoundaryCounts
    seconds: tuple[float, ...]


class Units(MeasuredByTallies):
    """Units by k-means of a layer on train, compared with the phones of test.

    Options:
        clusters: K, the number of units (100).
        train_frames: Frames of train, drawn by the seed, that k-means is fitted to at most (50,000).

    Metrics: `pnmi` (primary), `phone_purity`, `cluster_purity`, `phone_entropy`; `boundary_precision`,
    `boundary_recall`, `boundary_f1` and `r_value` of the changes of the unit; `bitrate` of the units without repeats,
    and `frame_bitrate` with them. Labels of train are not read.
    """

    info = DownstreamInfo(
        name="units",
        problem=UNITS.name,
        split="speaker-disjoint",
        default_head="none",
        metrics={
            "pnmi": MetricInfo(unit="proportion of the entropy of phones", higher_is_better=True),
            "phone_purity": MetricInfo(unit="proportion of frames", higher_is_better=True),
            "cluster_purity": MetricInfo(unit="proportion of frames", higher_is_better=True),
            "phone_entropy": MetricInfo(unit="bits", higher_is_better=False, upper=None),
            "boundary_precision": MetricInfo(unit="proportion of changes", higher_is_better=True),
            "boundary_recall": MetricInfo(unit="proportion of boundaries", higher_is_better=True),
            "boundary_f1": MetricInfo(unit="proportion", higher_is_better=True),
            "r_value": MetricInfo(unit="1", higher_is_better=True, lower=None),
            "bitrate": MetricInfo(unit="bits per second", higher_is_better=False, lower=None, upper=None),
            "frame_bitrate": MetricInfo(unit="bits per second", higher_is_better=False, lower=None, upper=None),
        },
        primary_metric="pnmi",
    )
    reads: tuple[ReadSplit, ...] = ("train",)
    reads_labels = False

    def __init__(self, *, clusters: int = 100, train_frames: int = 50_000) -> None:
        for name, value, least in (("clusters", clusters, 2), ("train_frames", train_frames, clusters)):
            given: object = value
            if type(given) is not int or given < least:
                what = f"`{name}` must be a whole number from {least} on, but is {given!r}"
                raise UsageError(what, key=f"task.{name}", do=f"Give a number such as {100 if least == 2 else 50_000}")
        self._clusters, self._train_frames = clusters, train_frames

    def labels(self, utterance: Utterance) -> Labels:
        """The utterance's alignment."""
        if utterance.phones is None:
            raise Unlabelled("no phone alignment", utterance=utterance.id, do="Give --alignments to `corpus prepare`")
        return utterance.phones

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        """The corpus's phone set."""
        return phone_set(label_sets)

    def outcome(self, features: FrozenFeatures) -> Outcome:
        """The units of test by a codebook that is fitted to train, and the codebook.

        Raises:
            DataError: Train has fewer different frames than there are units.
            EnvironmentFault: The memory does not suffice for the frames of k-means.
        """
        assert features.train is not None
        frames = draw_frames(
            features.train.each(), self._train_frames, seed=features.seed, memory_bytes=features.memory_bytes
        )
        codebook = fit_codebook(frames, self._clusters, seed=features.seed)
        predictions = [
            UNITS.compared(features.context, example, codebook.units_of(own.to(features.device)).cpu().numpy())
            for example, own in zip(features.test.examples, features.test.each(), strict=True)
        ]
        return Outcome(predictions=predictions, files={CODEBOOK_FILE: codebook.encoded()})

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> UnitTally:
        """The pooled counts."""
        given = cast(Sequence[UnitsPrediction], predictions)
        num_units = 1 + max((unit for each in given for unit, _, _ in each.symbols), default=0)
        joint = np.zeros((len(classes), num_units), dtype=np.int64)
        symbols = np.zeros((2, num_units), dtype=np.int64)
        for each in given:
            for phone, unit, count in each.joint:
                joint[phone, unit] += count
            for unit, count, runs in each.symbols:
                symbols[:, unit] += count, runs
        return UnitTally(
            joint=joint,
            frames=symbols[0],
            runs=symbols[1],
            boundaries=boundaries.summed([boundary_counts(each) for each in given]),
            seconds=tuple(each.seconds for each in given),
        )

    def measure_tallies(self, tallies: Sequence[UnitTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The metrics over the counts of all."""
        num_units = max((len(each.frames) for each in tallies), default=1)
        joint = np.zeros((len(classes), num_units), dtype=np.int64)
        frames, runs = np.zeros(num_units, dtype=np.int64), np.zeros(num_units, dtype=np.int64)
        for each in tallies:  # a tally has as many units as its predictions name
            own = len(each.frames)
            joint[:, :own] += each.joint
            frames[:own] += each.frames
            runs[:own] += each.runs
        seconds = math.fsum(second for each in tallies for second in each.seconds)
        found = boundaries.summed([each.boundaries for each in tallies])
        in_phones = {"frames": int(joint.sum()), "units": int((frames > 0).sum())}
        of_boundaries = {"found": found.found, "reference": found.reference, "changes": found.estimated}
        return {
            "pnmi": Measurement(value=units.phone_normalised_mutual_information(joint), counts=in_phones),
            "phone_purity": Measurement(value=units.phone_purity(joint), counts=in_phones),
            "cluster_purity": Measurement(value=units.cluster_purity(joint), counts=in_phones),
            "phone_entropy": Measurement(value=units.conditional_entropy(joint), counts=in_phones),
            "boundary_precision": Measurement(value=boundaries.precision(found), counts=of_boundaries),
            "boundary_recall": Measurement(value=boundaries.recall(found), counts=of_boundaries),
            "boundary_f1": Measurement(value=boundaries.f1(found), counts=of_boundaries),
            "r_value": Measurement(value=boundaries.r_value(found), counts=of_boundaries),
            "bitrate": Measurement(value=units.bitrate(runs, seconds), counts={"symbols": int(runs.sum())}),
            "frame_bitrate": Measurement(value=units.bitrate(frames, seconds), counts={"symbols": int(frames.sum())}),
        }
