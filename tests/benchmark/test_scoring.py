"""What varies from test set to test set, and intervals over it."""

from __future__ import annotations

import math

import pytest

from repbench.benchmark.scoring import clusters_of, metrics_part
from repbench.downstream.contract import UtterancePrediction
from repbench.downstream.speaker import Speaker


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
