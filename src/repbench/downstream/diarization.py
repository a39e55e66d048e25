"""The task `diarization`: who speaks when in recordings of several speakers that are not in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.metrics.diarization import (
    Durations,
    Overlap,
    diarization_error_rate,
    jaccard_error_rate,
    summed,
)
from repbench.downstream.problems.multilabel import DiarizationPrediction, SpeakerTurns
from repbench.errors import DataError, Unlabelled, UsageError

MOST_SPEAKERS = 4
"""Tracks at most: the loss tries every assignment of speakers to tracks, 24 of four."""

_SHARE = "share of the speakers' time"


@dataclass(frozen=True, slots=True)
class DiarizationTally:
    """The errors of some predictions."""

    durations: Durations
    overlaps: tuple[Overlap, ...]


class Diarization(MeasuredByTallies):
    """Who speaks when, from turns whose speakers have no names.

    Options:
        speakers: Most speakers of a recording, and so the tracks of the head: 1 to 4.

    A recording may have fewer speakers, or none; what is found where nobody speaks is an error.

    Metrics: `diarization_error_rate` (primary), without a collar and with overlaps; its parts `missed_speech`,
    `false_alarm` and `confusion`; `jaccard_error_rate`.
    """

    info = DownstreamInfo(
        name="diarization",
        problem="frame-multilabel",
        split="speaker-disjoint",
        default_head="blstm",
        metrics={
            "diarization_error_rate": MetricInfo(unit=_SHARE, higher_is_better=False, upper=None),
            "jaccard_error_rate": MetricInfo(unit="mean over speakers", higher_is_better=False),
            "missed_speech": MetricInfo(unit=_SHARE, higher_is_better=False),
            "false_alarm": MetricInfo(unit=_SHARE, higher_is_better=False, upper=None),
            "confusion": MetricInfo(unit=_SHARE, higher_is_better=False),
        },
        primary_metric="diarization_error_rate",
    )

    def __init__(self, *, speakers: int = 2) -> None:
        given: object = speakers
        if type(given) is not int or not 1 <= given <= MOST_SPEAKERS:
            what = f"`speakers` must be a whole number from 1 to {MOST_SPEAKERS}, but is {speakers!r}"
            raise UsageError(what, key="task.speakers", do="Give the most speakers of a recording")
        self._speakers = speakers

    def labels(self, utterance: Utterance) -> SpeakerTurns:
        """The turns of the utterance.

        Raises:
            Unlabelled: It is not known who speaks when.
            DataError: There are more speakers than tracks.
        """
        turns = utterance.turns
        if turns is None:
            raise Unlabelled("no turns", utterance=utterance.id, do="Give them: corpus prepare … --rttm FILE")
        found = len({turn.speaker for turn in turns})
        if found > self._speakers:
            what = f"The utterance has {found} speakers, but the task {self._speakers}"
            do = f"Set task.speakers={found}" if found <= MOST_SPEAKERS else f"Cut it: {MOST_SPEAKERS} are the most"
            raise DataError(what, utterance=utterance.id, key="task.speakers", do=do)
        return SpeakerTurns(turns, utterance.seconds)

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        """The tracks, which have no other names."""
        return tuple(f"speaker {number}" for number in range(1, self._speakers + 1))

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> DiarizationTally:
        """Durations, summed, and the overlaps of every speaker."""
        own = [cast(DiarizationPrediction, each) for each in predictions]
        overlaps = tuple(overlap for each in own for overlap in each.overlaps)
        return DiarizationTally(summed(each.durations for each in own), overlaps)

    def measure_tallies(self, tallies: Sequence[DiarizationTally], classes: Sequence[str]) -> dict[str, Measurement]:
        """The rates of the pooled durations; counts are microseconds."""
        total = summed(each.durations for each in tallies)
        overlaps = [overlap for each in tallies for overlap in each.overlaps]
        found = {
            "diarization_error_rate": Measurement(
                value=diarization_error_rate([total]),
                counts={"error": total.missed + total.false_alarm + total.confusion, "scored": total.scored},
            ),
            "jaccard_error_rate": Measurement(value=jaccard_error_rate(overlaps), counts={"speakers": len(overlaps)}),
        }
        for name, part in (
            ("missed_speech", total.missed),
            ("false_alarm", total.false_alarm),
            ("confusion", total.confusion),
        ):
            value = part / total.scored if total.scored else None
            found[name] = Measurement(value=value, counts={"error": part, "scored": total.scored})
        return found
