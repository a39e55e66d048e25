"""The task `units`: clusters of frames as discrete units, and what they tell of the phones.

Axes: F frames, P phones, K units, N cells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from repbench.codebook import CODEBOOK_FILE, draw_frames, fit_codebook
from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    FrozenFeatures,
    LabelledUtterance,
    Labels,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Outcome,
    Prediction,
    ReadSplit,
)
from repbench.downstream.discrimination.cells import Condition
from repbench.downstream.discrimination.cutting import TokenFrames, cells_of
from repbench.downstream.discrimination.tokens import Token, tokens_of
from repbench.downstream.metrics import abx, boundaries, units
from repbench.downstream.metrics.abx import Rates
from repbench.downstream.metrics.boundaries import BoundaryCounts
from repbench.downstream.metrics.frame_distances import FRAME_DISTANCES
from repbench.downstream.metrics.units import Counts
from repbench.downstream.phone import SILENCES, phone_set
from repbench.downstream.problems.units import UNITS, UnitsPrediction, boundary_counts
from repbench.errors import Unlabelled, UsageError

if TYPE_CHECKING:
    from torch import Tensor

ABX_CONDITION = Condition(on="phone", speakers="within", in_context=False, max_size_group=10, max_x_across=None)
"""Which triples `abx_error_rate` is of: those of the task `abx` by default."""


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerCells:
    """The cells of ABX of one speaker.

    Attributes:
        sums: (P, P) error rates, summed; phone of A and X by phone of B.
        counts: (P, P) numbers of cells.
        triples: Number of triples.
    """

    sums: Rates
    counts: Counts
    triples: int


@dataclass(frozen=True, slots=True)
class UnitTally:
    """The counts of some predictions.

    Attributes:
        joint: (P, K) frames of each phone and unit.
        frames: (K,) frames of each unit, in phones or not.
        runs: (K,) runs of equal units.
        boundaries: Of phones.
        seconds: Durations of the utterances.
        speakers: Of the utterances.
        abx: The cells of ABX of each speaker who has some; None where predictions are older than the metric.
    """

    joint: Counts
    frames: Counts
    runs: Counts
    boundaries: BoundaryCounts
    seconds: tuple[float, ...]
    speakers: frozenset[str]
    abx: Mapping[str, SpeakerCells] | None

    def without_cells_of(self, speakers: frozenset[str]) -> UnitTally:
        """The tally without the cells of some speakers."""
        if not self.abx or speakers.isdisjoint(self.abx):
            return self
        return replace(self, abx={name: each for name, each in self.abx.items() if name not in speakers})


class Units(MeasuredByTallies):
    """Units by k-means of a layer on train, compared with the phones of test.

    Options:
        clusters: K, the number of units (100).
        train_frames: Frames of train, drawn by the seed, that k-means is fitted to at most (50,000).

    Metrics: `pnmi` (primary), `phone_purity`, `cluster_purity`, `phone_entropy`; `abx_error_rate` of the sequences of
    units of phones within a speaker, as the task `abx` with the distance `identical`; `boundary_precision`,
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
            "abx_error_rate": MetricInfo(unit="proportion of triples", higher_is_better=False),
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
        sequences = [codebook.units_of(own.to(features.device)).cpu() for own in features.test.each()]
        cells = self._cells(features, sequences)
        predictions = [
            UNITS.compared(features.context, example, own.numpy(), cells.get(number, ()))
            for number, (example, own) in enumerate(zip(features.test.examples, sequences, strict=True))
        ]
        return Outcome(predictions=predictions, files={CODEBOOK_FILE: codebook.encoded()})

    def _cells(self, features: FrozenFeatures, units: Sequence[Tensor]) -> dict[int, list[tuple[int, int, int, int]]]:
        """From the number of an utterance to the cells of ABX whose first X lies in it.

        Args:
            features: With the test utterances.
            units: (F,) int64 of each of them.
        """
        times, index = features.context.times, features.context.index
        assert times is not None, "a run knows the times of its frames"
        of_utterance = [_tokens(each, index) for each in features.test.examples]
        owners = [number for number, own in enumerate(of_utterance) for _ in own]
        cut = TokenFrames(
            [token for own in of_utterance for token in own],
            owners,
            # (F,) -> (F, 1): a unit is a frame of one number, which float32 holds exactly
            (each.float().unsqueeze(-1) for each in units),
            sample_rate_hz=times.sample_rate_hz,
            hop=times.hop_samples,
            first_center=times.first_center_samples,
        )
        found: dict[int, list[tuple[int, int, int, int]]] = {}
        for cell in cells_of(
            cut,
            ABX_CONDITION,
            FRAME_DISTANCES["identical"],
            pooling="dtw",
            seed=features.seed,
            device=features.device,
            memory_bytes=features.memory_bytes,
        ):
            counted = index[cell.a], index[cell.b], cell.twice_errors, cell.triples
            found.setdefault(owners[cell.first_x], []).append(counted)
        return found

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
        has_cells = any(each.abx is not None for each in given)
        return UnitTally(
            joint=joint,
            frames=symbols[0],
            runs=symbols[1],
            boundaries=boundaries.summed([boundary_counts(each) for each in given]),
            seconds=tuple(each.seconds for each in given),
            speakers=frozenset(each.speaker for each in given if each.speaker is not None),
            abx=_cells_by_speaker(given, len(classes)) if has_cells else None,
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
            "abx_error_rate": _abx_error_rate(tallies, len(classes)),
            "boundary_precision": Measurement(value=boundaries.precision(found), counts=of_boundaries),
            "boundary_recall": Measurement(value=boundaries.recall(found), counts=of_boundaries),
            "boundary_f1": Measurement(value=boundaries.f1(found), counts=of_boundaries),
            "r_value": Measurement(value=boundaries.r_value(found), counts=of_boundaries),
            "bitrate": Measurement(value=units.bitrate(runs, seconds), counts={"symbols": int(runs.sum())}),
            "frame_bitrate": Measurement(value=units.bitrate(frames, seconds), counts={"symbols": int(frames.sum())}),
        }

    def without_each(self, tallies: Sequence[UnitTally], classes: Sequence[str]) -> Iterator[Mapping[str, Measurement]]:
        """Without each cluster: a speaker of whom a part is left out has no cells, as tokens are of all utterances."""
        for absent, left in enumerate(tallies):
            others = [each.without_cells_of(left.speakers) for number, each in enumerate(tallies) if number != absent]
            yield self.measure_tallies(others, classes)


def _tokens(example: LabelledUtterance, index: Mapping[str, int]) -> tuple[Token, ...]:
    """The phones of an utterance without silences; none without a speaker, within whom they would be compared."""
    speaker = example.utterance.speaker
    if speaker is None:
        return ()
    return tuple(each for each in tokens_of(example.labels, speaker, SILENCES) if each.label in index)


def _cells_by_speaker(predictions: Sequence[UnitsPrediction], num_phones: int) -> dict[str, SpeakerCells]:
    of_speaker: dict[str, list[tuple[int, int, int, int]]] = {}
    for each in predictions:
        if each.speaker is not None and each.abx:
            of_speaker.setdefault(each.speaker, []).extend(each.abx)
    return {speaker: _tables_of(cells, num_phones) for speaker, cells in of_speaker.items()}


def _tables_of(cells: Sequence[tuple[int, int, int, int]], num_phones: int) -> SpeakerCells:
    a, b, twice_errors, triples = np.array(sorted(cells), dtype=np.int64).T  # (N, 4) -> 4 times (N,)
    sums = np.zeros((num_phones, num_phones))
    counts = np.zeros((num_phones, num_phones), dtype=np.int64)
    np.add.at(sums, (a, b), twice_errors / (2 * triples))
    np.add.at(counts, (a, b), 1)
    return SpeakerCells(sums, counts, int(triples.sum()))


def _abx_error_rate(tallies: Sequence[UnitTally], num_phones: int) -> Measurement:
    """The error rate of ABX; without counts where predictions are older than the metric."""
    if all(each.abx is None for each in tallies):
        return Measurement(value=None)
    of_speaker: dict[str, list[SpeakerCells]] = {}
    for tally in tallies:
        for speaker, cells in (tally.abx or {}).items():
            of_speaker.setdefault(speaker, []).append(cells)
    shape = (len(of_speaker), num_phones, num_phones)
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for number, speaker in enumerate(sorted(of_speaker)):
        for cells in of_speaker[speaker]:
            sums[number] += cells.sums
            counts[number] += cells.counts
    triples = sum(cells.triples for several in of_speaker.values() for cells in several)
    return Measurement(
        value=abx.error_rate_of_tables(sums, counts), counts={"cells": int(counts.sum()), "triples": triples}
    )
