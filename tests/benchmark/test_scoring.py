"""What varies from test set to test set, and intervals over it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from repbench.benchmark.scoring.metrics import clipped, clusters_of, intervals_of, measure_clusters, metrics_part
from repbench.benchmark.scoring.statistics import Interval, LeftOut
from repbench.downstream.contract import Measurement, MetricInfo, Prediction, UtterancePrediction
from repbench.downstream.speaker import Speaker
from repbench.downstream.utterances import measure_classes
from repbench.errors import PluginError


def answer(id_: str, speaker: str | None, group: str | None, right: bool = True) -> UtterancePrediction:
    scores = (1.0, 0.0) if right else (0.0, 1.0)
    return UtterancePrediction(id=id_, speaker=speaker, group=group, reference=0, scores=scores)


def ids(speaker_and_group: list[tuple[str | None, str | None]]) -> tuple[str | None, list[list[str]]]:
    """The unit, and which of the predictions, named 0, 1, …, form a cluster."""
    unit, clusters = clusters_of([answer(str(place), *each) for place, each in enumerate(speaker_and_group)])
    return unit, [[each.id for each in cluster] for cluster in clusters]


def test_speakers_are_the_clusters_even_where_there_are_groups() -> None:
    assert ids([("b", "x"), ("a", "y"), ("b", "y"), ("a", "z")]) == ("speaker", [["1", "3"], ["0", "2"]])


def test_groups_are_the_clusters_where_one_speaker_or_an_unknown_one_is_all_there_is() -> None:
    assert ids([("a", "y"), ("a", "x"), ("a", "y")]) == ("group", [["1"], ["0", "2"]])
    assert ids([("a", "y"), (None, "x"), ("b", "y")]) == ("group", [["1"], ["0", "2"]])
    assert ids([("a", "x"), ("a", None)]) == (None, [["0", "1"]])


def test_the_interval_of_a_record_is_over_speakers_and_says_so() -> None:
    sizes = {"a": 4, "b": 2, "c": 3}
    predictions = [
        answer(f"{speaker}{place}", speaker, f"g{place}", right=place < right)
        for speaker, right in sizes.items()
        for place in range(4)
    ]
    part = metrics_part(Speaker(), ("x", "y"), predictions)["accuracy"]
    assert (part["value"], part["ci_unit"], part["counts"]) == (0.75, "speaker", {"correct": 9, "total": 12})
    # Of means over equal speakers it is Student's: deviation 1/4, t of 2 degrees of freedom; clipped at 1.
    assert part["ci95"] == pytest.approx((0.75 - 4.302653 * 0.25 / math.sqrt(3), 1.0), abs=1e-6)
    assert metrics_part(Speaker(), ("x", "y"), predictions[:1])["accuracy"]["ci95"] is None
    assert (part["unit"], part["higher_is_better"]) == ("proportion of utterances", True)


PREDICTIONS = [answer("2", "b", None), answer("1", "b", None, right=False), answer("0", "a", None)]


class Plain(Speaker):
    """Speaker identification that measures predictions alone."""

    tally = measure_tallies = None  # type: ignore[assignment]

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        return measure_classes(predictions, len(classes))


class Other(Speaker):
    """Speaker identification whose tallies, which it inherits, do not say what its measure says."""

    def measure(self, predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Measurement]:
        return dict.fromkeys(self.info.metrics, Measurement(value=0.25))


class Both(Other):
    """The same with tallies of its own."""

    measure_tallies = Speaker.measure_tallies


def test_tallies_say_what_predictions_say() -> None:
    quick, slow = (measure_clusters(task, ("x", "y"), PREDICTIONS) for task in (Speaker(), Plain()))
    assert quick == slow
    assert quick.ids == (("0",), ("1", "2"))
    assert quick.values.whole["accuracy"] == pytest.approx(2 / 3)
    assert [each["accuracy"] for each in quick.values.without] == [0.5, 1.0]


def test_tallies_are_taken_unless_a_subclass_measures_otherwise() -> None:
    for task, accuracy in ((Speaker(), 2 / 3), (Other(), 0.25), (Both(), 2 / 3)):
        measured = measure_clusters(task, ("x", "y"), PREDICTIONS)
        assert measured.whole["accuracy"].value == pytest.approx(accuracy)
        assert measured.values.whole["accuracy"] == pytest.approx(accuracy)


def test_what_is_measured_already_is_not_measured_again() -> None:
    known = measure_clusters(Other(), ("x", "y"), PREDICTIONS)
    assert metrics_part(Speaker(), ("x", "y"), PREDICTIONS, known)["accuracy"]["value"] == 0.25


def test_an_interval_lies_within_what_the_metric_can_be() -> None:
    wide = Interval(-3.0, 7.0)
    for lower, upper, inside in (
        (None, None, wide),
        (None, 1.0, Interval(-3.0, 1.0)),
        (0.0, None, Interval(0.0, 7.0)),
        (0.0, 1.0, Interval(0.0, 1.0)),
    ):
        assert clipped(wide, MetricInfo(unit="", higher_is_better=True, lower=lower, upper=upper)) == inside
    assert clipped(None, MetricInfo(unit="", higher_is_better=True)) is None


def test_each_metric_has_its_interval_on_its_own_scale() -> None:
    infos = {
        "plain": MetricInfo(unit="", higher_is_better=False),
        "rate": MetricInfo(unit="", higher_is_better=False, interval="logit"),
    }
    small = LeftOut({"plain": 0.05, "rate": 0.05}, tuple({"plain": each, "rate": each} for each in (0.02, 0.06, 0.055)))
    found = intervals_of([small], infos)
    assert found["plain"] is not None
    assert found["rate"] is not None
    assert found["plain"].low == 0.0
    assert 0.0 < found["rate"].low < 0.05 < found["plain"].high < found["rate"].high
    # A rate that is 0 without one speaker has no log-odds there: the linear interval stays.
    zero = LeftOut({"plain": 0.05, "rate": 0.05}, tuple({"plain": each, "rate": each} for each in (0.0, 0.06, 0.055)))
    found = intervals_of([zero], infos)
    assert found["rate"] == found["plain"] is not None


def test_an_unknown_scale_of_intervals_is_refused() -> None:
    with pytest.raises(PluginError, match="`interval` must be linear or logit, but is 'log'"):
        MetricInfo(unit="edits", higher_is_better=False, interval="log")  # type: ignore[arg-type]
