"""The built-in tasks: a perfect guess scores perfect, order does not matter, missing labels are said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repbench.corpora.contract import AttributeValue, Phone, Utterance
from repbench.downstream.contract import (
    Downstream,
    FramePrediction,
    MetricInfo,
    Prediction,
    Problem,
    SequencePrediction,
    UtterancePrediction,
)
from repbench.downstream.phone import Phone as PhoneTask
from repbench.downstream.phone_ctc import PhoneCTC
from repbench.downstream.sentiment import Sentiment
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, PluginError, Unlabelled, UsageError


def utterance(
    speaker: str | None = "s", phones: tuple[Phone, ...] | None = None, **attributes: AttributeValue
) -> Utterance:
    return Utterance(
        id="u1",
        audio=Path("/nowhere/u1.wav"),
        sample_rate_hz=16000,
        num_samples=16000,
        speaker=speaker,
        phones=phones,
        attributes=attributes,
        samples_sha256="0",
    )


def answer(reference: int, scores: tuple[float, ...]) -> UtterancePrediction:
    return UtterancePrediction(id="u", speaker="s", group=None, reference=reference, scores=scores)


def frames(*cells: tuple[int, int, int], edits: int = 0, length: int = 4) -> FramePrediction:
    return FramePrediction(id="u", speaker="s", group=None, confusion=cells, edits=edits, reference_length=length)


CLASSES = ("AA", "IY", "sil")


@pytest.mark.parametrize("task", [PhoneTask(), Speaker(), Sentiment()])
def test_a_task_is_a_downstream_and_measures_what_it_declares(task: Downstream) -> None:
    assert isinstance(task, Downstream)
    predictions: list[Prediction] = [frames((0, 0, 5))] if task.info.name == "phone" else [answer(0, (1.0, 0.0))]
    classes = CLASSES if task.info.name == "phone" else ("negative", "positive")
    assert set(task.measure(predictions, classes)) == set(task.info.metrics)


def test_a_perfect_phone_guess_scores_perfect_and_silence_is_left_out_where_said() -> None:
    measured = PhoneTask().measure([frames((0, 0, 5), (2, 2, 90)), frames((1, 1, 5))], CLASSES)
    assert {name: each.value for name, each in measured.items()} == {
        "accuracy": 1.0,
        "macro_f1": 1.0,
        "accuracy_nonsilence": 1.0,
        "phone_error_rate": 0.0,
    }
    measured = PhoneTask().measure([frames((0, 2, 10), (2, 2, 90), edits=4)], CLASSES)
    assert measured["accuracy"].value == 0.9
    assert measured["accuracy_nonsilence"].value == 0.0
    assert measured["accuracy_nonsilence"].counts == {"correct": 0, "total": 10}
    assert measured["phone_error_rate"].value == 1.0


def test_a_perfect_sequence_scores_zero_and_edits_are_pooled_before_they_are_divided() -> None:
    def said(reference: tuple[int, ...], hypothesis: tuple[int, ...], edits: int) -> SequencePrediction:
        return SequencePrediction(
            id="u", speaker="s", group=None, reference=reference, hypothesis=hypothesis, edits=edits
        )

    assert isinstance(PhoneCTC(), Downstream)
    perfect, wrong = said((0, 1), (0, 1), 0), said((0,) * 6, (), 6)
    assert PhoneCTC().measure([perfect], CLASSES)["phone_error_rate"].value == 0.0
    for order in ([perfect, wrong], [wrong, perfect]):
        measured = PhoneCTC().measure(order, CLASSES)["phone_error_rate"]
        assert (measured.value, measured.counts) == (0.75, {"edits": 6, "reference_phones": 8})
    assert PhoneCTC().measure([], CLASSES)["phone_error_rate"].value is None


def test_the_order_of_predictions_does_not_matter() -> None:
    answers = [answer(0, (0.9, 0.1)), answer(1, (0.8, 0.2)), answer(1, (0.1, 0.9)), answer(0, (0.3, 0.2))]
    for task in (Speaker(), Sentiment()):
        classes = ("negative", "positive")
        assert task.measure(answers, classes) == task.measure(answers[::-1], classes)


def test_what_a_corpus_does_not_know_is_said_not_guessed() -> None:
    with pytest.raises(Unlabelled, match="no phone alignment"):
        PhoneTask().labels(utterance())
    with pytest.raises(Unlabelled, match="no phone alignment"):
        PhoneCTC().labels(utterance())
    with pytest.raises(Unlabelled, match="no speaker"):
        Speaker().labels(utterance(speaker=None))
    with pytest.raises(Unlabelled, match="no attribute sentiment or valence or emotion"):
        Sentiment().labels(utterance(gender="f"))
    with pytest.raises(DataError, match="no phone alignments"):
        PhoneTask().classes({}, [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [("happiness", "positive"), ("ANGER", "negative"), (" sad ", "negative"), ("neutral", None)],
)
def test_sentiment_reads_words(value: AttributeValue, expected: str | None) -> None:
    assert Sentiment().labels(utterance(emotion=value)) == expected


@pytest.mark.parametrize(("value", "expected"), [(1.5, "positive"), (-0.1, "negative"), (0, None)])
def test_sentiment_reads_numbers_on_a_scale_that_the_corpus_declares(value: float, expected: str | None) -> None:
    on_scale = replace(utterance(valence=value), scales={"valence": 0.0})
    assert Sentiment().labels(on_scale) == expected
    assert Sentiment(midpoint=2).labels(on_scale) == "negative", "what the user says goes before"


@pytest.mark.parametrize("code", [-1, 0, 3, 2.0, "1", "+1"])
def test_fault_a_number_without_a_scale_may_be_the_code_of_a_class(code: AttributeValue) -> None:
    with pytest.raises(DataError, match=r"may be the code of a class.*task\.positive=.*task\.midpoint=0"):
        Sentiment().labels(replace(utterance(emotion=code), scales={"sentiment": 0.0}))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, "positive"), ("3", "positive"), (3.0, "positive"), (0, "negative"), (-1, None), ("sad", "negative")],
)
def test_fault_codes_are_named_like_words(value: AttributeValue, expected: str | None) -> None:
    task = Sentiment(positive=[3], negative=[0, 1.0, "sad"], unasked=["-1"])
    assert task.labels(utterance(emotion=value)) == expected
    with pytest.raises(DataError, match="`2` of the attribute `emotion` is neither positive, negative nor unasked"):
        task.labels(utterance(emotion=2))


@pytest.mark.parametrize(("value", "expected"), [(4, "positive"), ("2", "negative"), (3.0, None), (-1, None)])
def test_a_scale_may_have_its_middle_anywhere_and_codes_of_its_own(value: AttributeValue, expected: str | None) -> None:
    task = Sentiment(attribute="valence", midpoint=3, unasked=[-1])
    assert task.labels(utterance(valence=value)) == expected


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"positive": [1], "unasked": ["1"]}, "`1` is given two meanings"),
        ({"positive": [True]}, "`task.positive` must be a list of words and numbers"),
        ({"positive": 1}, "`task.positive` must be a list of words and numbers, but is 1"),
        ({"midpoint": "0"}, "`task.midpoint` must be a number, but is '0'"),
        ({"midpoint": True}, "`task.midpoint` must be a number"),
        ({"midpoint": float("nan")}, "`task.midpoint` must be a number"),
    ],
)
def test_options_of_sentiment_that_cannot_be_meant(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Sentiment(**options)


def test_sentiment_asks_what_a_strange_word_means() -> None:
    with pytest.raises(DataError, match=r"`bored` of the attribute `mood` is neither"):
        Sentiment(attribute="mood").labels(utterance(mood="bored"))
    assert Sentiment(attribute="mood", negative=("bored",)).labels(utterance(mood="bored")) == "negative"
    with pytest.raises(UsageError, match="two meanings"):
        Sentiment(positive=("surprise",))


def test_a_misspelt_choice_of_a_declaration_is_refused() -> None:
    with pytest.raises(
        PluginError,
        match=r"`split` must be speaker-disjoint or within-speaker, but is `speaker-disjunct` \(key speaker\)\. "
        r"Did you mean `speaker-disjoint`\?",
    ):
        replace(Speaker().info, split="speaker-disjunct")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match="`higher_is_better` must be True or False, but is 'no'"):
        MetricInfo(unit="share", higher_is_better="no")  # type: ignore[arg-type]
    with pytest.raises(PluginError, match=r"`batches` must be frames or utterances, but is `frame` \(key Mine\)"):
        type("Mine", (Problem,), {"batches": "frame"})
    with pytest.raises(PluginError, match=r"`splits` must be .*, but is `within`"):
        type("Mine", (Problem,), {"splits": ("speaker-disjoint", "within")})


def test_speaker_without_each_cluster_is_the_others_together() -> None:
    task = Speaker()
    classes = ("a", "b", "c", "d")
    clusters = [
        [answer(0, (1.0, 0.0, 0.0, 0.0)), answer(0, (0.0, 1.0, 0.0, 0.0))],
        [answer(1, (0.0, 1.0, 0.0, 0.0))],
        [answer(2, (0.0, 0.0, 0.0, 1.0)), answer(3, (0.0, 0.0, 0.0, 1.0))],
    ]
    tallies = [task.tally(cluster, classes) for cluster in clusters]
    for number, without in enumerate(task.without_each(tallies, classes)):
        others = [each for place, cluster in enumerate(clusters) if place != number for each in cluster]
        assert without == task.measure(others, classes)
        assert without["accuracy"].counts["total"] == len(others)
