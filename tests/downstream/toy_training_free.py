"""A task without training in one file: how far the loudest of the mean features differs between speakers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, cast

from repbench.corpora.contract import Utterance
from repbench.downstream.contract import (
    DownstreamInfo,
    FrozenFeatures,
    LabelledUtterance,
    LabelSets,
    MeasuredByTallies,
    Measurement,
    MetricInfo,
    Outcome,
    Prediction,
    ReadSplit,
    TaskContext,
    TrainingFreeProblem,
)
from repbench.downstream.problems.contract import Quality
from repbench.errors import Unlabelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour(Prediction):
    """The speaker of the nearest other utterance."""

    marker: ClassVar[str] = "neighbour"

    neighbour: str


class Nearest(TrainingFreeProblem):
    """The speaker of the nearest utterance among others of the test split, or of train."""

    name = "nearest-speaker"
    prediction = Neighbour
    labels_are = "a speaker"

    def is_label(self, labels: object) -> bool:
        return isinstance(labels, str)

    def values(self, labels: Any) -> tuple[Any, ...]:
        return (labels,)

    def with_values(self, labels: Any, values: Iterator[Any]) -> Any:
        return next(values)

    def perfect(self, context: TaskContext, example: LabelledUtterance) -> Neighbour:
        return self.made(example, example.labels)

    def made_up(self, context: TaskContext, number: int, quality: Quality, **who: str) -> Neighbour:
        others = {"right": who["speaker"], "wrong": "nobody", "guess": f"s{Random(number).randrange(4)}"}
        return Neighbour(id=who["id"], speaker=who["speaker"], group=who["group"], neighbour=others[quality])

    def made(self, example: LabelledUtterance, neighbour: str) -> Neighbour:
        utterance = example.utterance
        return Neighbour(id=utterance.id, speaker=utterance.speaker, group=utterance.group, neighbour=neighbour)


class NearestSpeaker(MeasuredByTallies):
    """The share of utterances whose nearest neighbour is of the same speaker; `among` test, or train."""

    info = DownstreamInfo(
        name="nearest-speaker",
        problem=Nearest(),
        split="within-speaker",
        default_head="none",
        metrics={"hits": MetricInfo(unit="proportion", higher_is_better=True)},
        primary_metric="hits",
    )

    def __init__(self, *, among: str = "test") -> None:
        self.reads: tuple[ReadSplit, ...] = ("train",) if among == "train" else ()

    def labels(self, utterance: Utterance) -> str:
        if utterance.speaker is None:
            raise Unlabelled("it has no speaker")
        return utterance.speaker

    def classes(self, label_sets: LabelSets, train: Iterable[Any]) -> tuple[str, ...]:
        return ()

    def outcome(self, features: FrozenFeatures) -> Outcome:
        own = [frames.mean(dim=0) for frames in features.test.each()]
        among = features.train or features.test
        others = [among.of(number).mean(dim=0) for number in range(len(among.examples))]
        predictions = []
        for number, (example, vector) in enumerate(zip(features.test.examples, own, strict=True)):
            distances = [
                float("inf") if among is features.test and number == other else float((vector - each).norm())
                for other, each in enumerate(others)
            ]
            nearest = among.examples[distances.index(min(distances))].labels
            predictions.append(cast(Nearest, self.info.problem).made(example, nearest))
        return Outcome(
            predictions=predictions, files={"speakers.txt": "\n".join(sorted(set(map(str, distances)))).encode()}
        )

    def tally(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> tuple[int, int]:
        return sum(cast(Neighbour, each).neighbour == each.speaker for each in predictions), len(predictions)

    def measure_tallies(self, tallies: Sequence[tuple[int, int]], classes: Sequence[str]) -> dict[str, Measurement]:
        hits, count = (sum(each) for each in zip(*tallies, strict=True)) if tallies else (0, 0)
        value = hits / count if count else None
        return {"hits": Measurement(value=value, counts={"utterances": count})}
