"""Each promise of a downstream: broken tasks that fail its check and no other, and built-ins that fail none."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.loading.certificates import CheckResult
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.contract import (
    Downstream,
    DownstreamInfo,
    Labels,
    LabelSets,
    Measurement,
    MetricInfo,
    Prediction,
)
from repbench.downstream.phone import Phone
from repbench.downstream.sentiment import Sentiment
from repbench.downstream.speaker import Speaker
from repbench.errors import Unlabelled
from repbench.testing import tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS, DownstreamSubject

Measured = dict[str, Measurement]


def declared(info: DownstreamInfo, **changes: Any) -> DownstreamInfo:
    return dataclasses.replace(info, **changes)


class UnknownHead(Speaker):
    info = declared(Speaker.info, default_head="transformer")


class ClassesAsTheyCome(Speaker):
    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(label for label in list(train)[::-1] if isinstance(label, str)))


class ForgetsAPhone(Phone):
    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        return tuple(label for label in super().classes(label_sets, train) if label != "UW")


class NumbersForNames(Speaker):
    def labels(self, utterance: Utterance) -> Any:
        return ((0.0, 1.0, str(super().labels(utterance))),)

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        return ("s0", "s1", "s2")


class MakesUpASpeaker(Speaker):
    def labels(self, utterance: Utterance) -> Labels:
        return "unknown" if utterance.speaker is None else super().labels(utterance)


class FailsWithoutASpeaker(Speaker):
    def labels(self, utterance: Utterance) -> Labels:
        return {"s0": "s0", "s1": "s1", "s2": "s2"}[str(utterance.speaker)]


class MeasuresMore(Speaker):
    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        return {**super().measure(predictions, classes), "errors": Measurement(value=0.0)}


class BelowChance(Speaker):
    """Corrected for chance, which is below zero for who does worse."""

    info = declared(
        Speaker.info, metrics={"kappa": MetricInfo(unit="proportion", higher_is_better=True)}, primary_metric="kappa"
    )

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        accuracy = super().measure(predictions, classes)["accuracy"].value
        chance = 1 / len(classes)
        value = None if accuracy is None else (accuracy - chance) / (1 - chance)
        return {"kappa": Measurement(value=value)}


def only_accuracy(task: Speaker, predictions: Sequence[Prediction], classes: Sequence[str]) -> tuple[int, int]:
    counts = Speaker.measure(task, predictions, classes)["accuracy"].counts
    return counts["correct"], counts["total"]


ACCURACY = {"accuracy": MetricInfo(unit="proportion of utterances", higher_is_better=True)}


class Smoothed(Speaker):
    info = declared(Speaker.info, metrics=ACCURACY)

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        correct, total = only_accuracy(self, predictions, classes)
        return {"accuracy": Measurement(value=correct / (total + 1) if total else None)}


class UpsideDown(Speaker):
    info = declared(
        Speaker.info, metrics={"accuracy": MetricInfo(unit="proportion of utterances", higher_is_better=False)}
    )

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        return {"accuracy": super().measure(predictions, classes)["accuracy"]}


class DropsTheLast(Speaker):
    """As if the last partial batch had been left out."""

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        return super().measure(predictions[: len(predictions) // 5 * 5], classes)


class NothingIsZero(Speaker):
    info = declared(Speaker.info, metrics=ACCURACY)

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        correct, total = only_accuracy(self, predictions, classes)
        return {"accuracy": Measurement(value=correct / max(total, 1))}


class DividesByNothing(Speaker):
    info = declared(Speaker.info, metrics=ACCURACY)

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        correct, total = only_accuracy(self, predictions, classes)
        return {"accuracy": Measurement(value=correct / total)}


class CountsInstants(Phone):
    def collapse(self, path: Sequence[int], classes: Sequence[str]) -> list[int]:
        return list(path)


class Seeds(Speaker):
    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        random.seed(0)
        return super().measure(predictions, classes)


BROKEN: dict[type[Any], str] = {
    UnknownHead: "declaration",
    ClassesAsTheyCome: "classes-sorted",
    ForgetsAPhone: "labels-inside-the-set",
    NumbersForNames: "labels-inside-the-set",
    MakesUpASpeaker: "unlabelled-said",
    FailsWithoutASpeaker: "unlabelled-said",
    MeasuresMore: "metrics-as-declared",
    BelowChance: "inside-the-bounds",
    Smoothed: "perfect-scores-perfect",
    UpsideDown: "perfect-scores-perfect",
    DropsTheLast: "order-does-not-matter",
    NothingIsZero: "empty-is-undefined",
    DividesByNothing: "empty-is-undefined",
    CountsInstants: "collapse",
    Seeds: "global-state",
}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return tone_corpus(tmp_path_factory.mktemp("checks") / "tones", num_speakers=3, per_session=2)


def examined(task: Downstream, corpus: Corpus) -> dict[str, CheckResult]:
    return {result.id: result for result in DOWNSTREAM_CHECKS.results(DownstreamSubject(task, corpus))}


def failed(results: dict[str, CheckResult]) -> dict[str, str]:
    return {id_: result.detail for id_, result in results.items() if result.status == "failed"}


def test_every_check_has_a_task_that_breaks_it() -> None:
    assert set(BROKEN.values()) == {check.id for check in DOWNSTREAM_CHECKS}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.__name__}-{BROKEN[broken]}")
def test_a_broken_task_fails_its_check_and_no_other(broken: type[Any], tones: Corpus) -> None:
    results = examined(broken(), tones)

    assert list(failed(results)) == [BROKEN[broken]], failed(results)


@pytest.mark.parametrize("task", [Phone(), Speaker(), Sentiment()], ids=lambda task: task.info.name)
def test_the_built_in_tasks_keep_their_promises(task: Downstream, tones: Corpus) -> None:
    results = examined(task, tones)

    unmade = {id_ for id_, each in results.items() if each.status != "passed"}
    assert unmade == (set() if task.info.name == "phone" else {"collapse"}), failed(results)


def test_a_task_that_the_corpus_has_no_labels_for_is_not_measured(tones: Corpus) -> None:
    results = examined(Sentiment(attribute="mood"), tones)

    assert failed(results) == {}
    detail = results["labels-inside-the-set"].detail
    assert detail.startswith("the corpus tones has no label for it: no attribute mood; override the fixture ")


class KnowsNoClasses(Speaker):
    def classes(self, label_sets: object, train: object) -> tuple[str, ...]:
        raise ValueError("not today")


def test_one_failure_is_told_in_full_once(tones: Corpus) -> None:
    first, *others = failed(examined(KnowsNoClasses(), tones)).items()
    assert first == ("classes-sorted", "it raised ValueError: not today")
    assert {detail for _, detail in others} == {"same failure as classes-sorted"}


class AsksForWeather(Speaker):
    """A task that the tones have no label for; it knows its classes, and cannot measure."""

    def labels(self, utterance: Utterance) -> Labels:
        raise Unlabelled("no weather")

    def classes(self, label_sets: LabelSets, train: Iterable[Labels]) -> tuple[str, ...]:
        return ("rain", "sun")

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> Measured:
        raise RuntimeError("no barometer")


def test_a_measure_is_tried_without_labels_where_the_classes_are_known(tones: Corpus) -> None:
    assert failed(examined(AsksForWeather(), tones)) == {"metrics-as-declared": "it raised RuntimeError: no barometer"}


def test_the_labels_of_another_corpus_can_be_asked_for(tmp_path: Path) -> None:
    results = examined(Speaker(), tone_corpus(tmp_path / "other", num_speakers=2, per_session=1))

    assert results["labels-inside-the-set"].detail == "the labels of 4 utterances of tones"
