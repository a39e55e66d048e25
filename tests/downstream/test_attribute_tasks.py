"""Tasks on attributes of a corpus: the rule from values to classes, their metrics, and balanced draws."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from repbench.benchmark.probing.batches import WeightedOrder
from repbench.benchmark.probing.prediction import Predictor
from repbench.corpora.contract import AttributeValue, Utterance
from repbench.downstream.accent import Accent
from repbench.downstream.attribute import Attribute, AttributeTask
from repbench.downstream.contract import Downstream, LabelledUtterance, UtterancePrediction
from repbench.downstream.emotion import Emotion
from repbench.downstream.gender import Gender
from repbench.downstream.keywords import TWELVE, Keyword
from repbench.downstream.language import Language
from repbench.downstream.sentiment import Sentiment
from repbench.errors import DataError, PluginError, Unlabelled, UsageError
from repbench.testing import DownstreamSubject, Envelope, tone_corpus
from repbench.testing.downstreams import DOWNSTREAM_CHECKS
from tests.downstream.test_tasks import utterance


def drawn(num_classes: int, count: int = 200) -> list[UtterancePrediction]:
    """Scores of a poor system, and references among which one class is rare."""
    random = np.random.default_rng(num_classes)
    odds = np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum()
    return [
        UtterancePrediction(
            id=f"u{number}",
            speaker=f"s{number % 5}",
            group=None,
            reference=int(random.choice(num_classes, p=odds)),
            scores=tuple(random.normal(size=num_classes).round(1).tolist()),  # rounded, so that some are equal
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("num_classes", [2, 5])
def test_metrics_are_scikit_learns(num_classes: int) -> None:
    task, predictions = Attribute(attribute="a"), drawn(num_classes)
    reference = [each.reference for each in predictions]
    estimated = [each.estimated for each in predictions]
    expected: dict[str, float | None] = {
        "accuracy": accuracy_score(reference, estimated),
        "balanced_accuracy": balanced_accuracy_score(reference, estimated),
        "macro_f1": f1_score(reference, estimated, average="macro"),
        "auc": None,
    }
    if num_classes == 2:
        expected["auc"] = roc_auc_score(reference, [each.scores[1] - each.scores[0] for each in predictions])
    classes = [f"c{number}" for number in range(num_classes)]
    measured = {name: each.value for name, each in task.measure(predictions, classes).items()}
    assert measured == pytest.approx(expected, abs=1e-12)
    parts = [task.tally(predictions[first : first + 30], classes) for first in range(0, len(predictions), 30)]
    assert {name: each.value for name, each in task.measure_tallies(parts, classes).items()} == measured


def test_only_classes_that_occur_have_a_recall() -> None:
    predictions = [replace(each, reference=each.reference % 2) for each in drawn(3)]
    measured = Emotion().measure(predictions, ("a", "b", "c"))["balanced_accuracy"].value
    recalls = [
        np.mean([each.estimated == wanted for each in predictions if each.reference == wanted]) for wanted in (0, 1)
    ]
    assert measured == pytest.approx(np.mean(recalls), abs=1e-12)
    assert Emotion().measure([], ("a", "b"))["balanced_accuracy"].value is None


@pytest.mark.parametrize(
    ("value", "name"), [("angry", "angry"), (" Angry ", "Angry"), (1, "1"), (1.0, "1"), (0.5, "0.5"), (-2, "-2")]
)
def test_a_value_is_the_name_of_its_class(value: AttributeValue, name: str) -> None:
    assert Attribute(attribute="a").labels(utterance(a=value)) == name


MERGED = {"hap": "happy", "EXC": "happy", "0": "angry", "xxx": None}


@pytest.mark.parametrize(
    ("value", "name"), [("hap", "happy"), ("exc ", "happy"), (0, "angry"), ("0.0", "angry"), ("XXX", None)]
)
def test_a_mapping_merges_values_and_leaves_them_out(value: AttributeValue, name: str | None) -> None:
    assert Emotion(classes=MERGED).labels(utterance(emotion=value)) == name


def test_fault_a_value_that_a_mapping_does_not_name_is_an_error_unless_a_star_stands_for_it() -> None:
    with pytest.raises(
        DataError, match=r"`sad` of the attribute `emotion` is not in `task\.classes` \(utterance u1\)"
    ) as raised:
        Emotion(classes=MERGED).labels(utterance(emotion="sad"))
    assert "task.classes.sad=CLASS" in str(raised.value)
    assert "task.classes.*=CLASS" in str(raised.value)
    with pytest.raises(DataError, match=r"`0\.5: CLASS` under task\.classes in a file for --config"):
        Emotion(classes=MERGED).labels(utterance(emotion=0.5))
    assert Emotion(classes={**MERGED, "*": None}).labels(utterance(emotion="sad")) is None
    assert Emotion(classes={**MERGED, "*": "rest"}).labels(utterance(emotion="sad")) == "rest"
    assert Emotion(classes={"*": "rest"}).labels(utterance(emotion="sad")) == "rest"
    with pytest.raises(DataError, match="The attribute `emotion` is empty"):
        Emotion().labels(utterance(emotion=" "))


def test_a_list_keeps_its_values_and_leaves_the_others_out() -> None:
    task = Language(classes=["DE", "en", 3])
    assert [task.labels(utterance(lang=value)) for value in ("de", "en", 3, "fr")] == ["DE", "en", "3", None]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, r"reads an attribute that is named \(key task.attribute\)"),
        ({"attribute": 5}, "`task.attribute` must be a name, but is 5"),
        ({"attribute": ""}, "`task.attribute` must be a name"),
        ({"attribute": "a", "classes": "happy"}, "`task.classes` must be a list of values, or a mapping"),
        ({"attribute": "a", "classes": {"a": True}}, "`task.classes` must be a list of values, or a mapping"),
        ({"attribute": "a", "classes": [True]}, "`task.classes` must be a list"),
        ({"attribute": "a", "classes": []}, "`task.classes` names no class"),
        ({"attribute": "a", "classes": {"a": None, "*": None}}, "`task.classes` names no class"),
        ({"attribute": "a", "classes": {"a": "x", "A ": "y"}}, "`A ` is given two meanings"),
        ({"attribute": "a", "balanced": 1}, "`task.balanced` must be true or false, but is 1"),
        ({"attribute": "a", "split": "speakers"}, "`task.split` must be speaker-disjoint or within-speaker"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Attribute(**options)


def test_fields_of_an_utterance_are_read_like_attributes() -> None:
    task = Attribute(attribute="speaker", split="within-speaker")
    assert (task.labels(utterance(speaker="ann")), task.info.split) == ("ann", "within-speaker")
    assert task.labels(replace(utterance(speaker="ann"), attributes={"speaker": "bob"})) == "bob", "attributes go first"
    with pytest.raises(Unlabelled, match="no attribute group"):
        Attribute(attribute="group").labels(utterance())


@pytest.mark.parametrize(
    ("task", "attributes", "name"),
    [
        (Gender(), {"gender": "F"}, "female"),
        (Gender(), {"sex": "male_masculine"}, "male"),
        (Gender(), {"gender": "other"}, None),
        (Gender(classes={"w": "woman", "m": "man"}), {"gender": "W"}, "woman"),
        (Accent(), {"dialect": "DR1"}, "DR1"),
        (Language(), {"locale": "pl", "lang": "de"}, "de"),
        (Language(attribute="locale"), {"locale": "pl", "lang": "de"}, "pl"),
    ],
)
def test_defaults_of_the_tasks(task: AttributeTask, attributes: dict[str, AttributeValue], name: str | None) -> None:
    assert task.labels(replace(utterance(), attributes=attributes)) == name


def test_fault_a_word_that_gender_does_not_know_is_named() -> None:
    with pytest.raises(DataError, match="`x` of the attribute `gender`"):
        Gender().labels(utterance(gender="x"))
    with pytest.raises(Unlabelled, match="no attribute gender or sex"):
        Gender().labels(utterance())


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        ("all", ["yes", "bed", "3", None, None]),
        ("twelve", ["yes", "_unknown_", "_unknown_", "_silence_", "_unknown_"]),
        (["Bed", 3], ["_unknown_", "Bed", "3", "_silence_", "_unknown_"]),
    ],
)
def test_the_rule_of_keywords(words: Any, classes: list[str | None]) -> None:
    values = ("yes", "bed", 3, "_silence_", "_unknown_")
    assert [Keyword(words=words).labels(utterance(word=value)) for value in values] == classes


def test_keywords_that_cannot_be_meant() -> None:
    assert len(TWELVE) == 10
    for words in ("ten", [], [True], {"a": "b"}, 3):
        with pytest.raises(UsageError, match=r"`task\.words` must be all, twelve or a list of words"):
            Keyword(words=words)  # type: ignore[arg-type]
    assert Keyword().labels(utterance(digit=7)) == "7"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tone_corpus(tmp_path_factory.mktemp("tones") / "tones", num_speakers=3, per_session=3)


def with_attributes(corpus: Any, *names: str) -> Any:
    """The corpus with attributes of three, two and two values in turn."""
    values = {
        each.id: {name: f"{name}{place // (1 + which) % (3 if not which else 2)}" for which, name in enumerate(names)}
        for place, each in enumerate(corpus.utterances)
    }
    return replace(corpus, utterances=tuple(replace(each, attributes=values[each.id]) for each in corpus.utterances))


@pytest.mark.parametrize(
    ("task", "attribute"),
    [
        (Attribute(attribute="colour"), "colour"),
        (Keyword(), "word"),
        (Emotion(), "emotion"),
        (Language(), "language"),
        (Accent(), "accent"),
        (Gender(classes={"gender0": "f", "*": "m"}), "gender"),
    ],
)
def test_every_promise_holds_with_two_classes_and_with_three(task: Downstream, attribute: str, tones: Any) -> None:
    results = DOWNSTREAM_CHECKS.results(DownstreamSubject(task, with_attributes(tones, attribute)))
    assert {each.id: each.detail for each in results if each.status not in ("passed", "not applicable")} == {}


def test_sentiment_is_one_of_them_and_measures_what_it_did() -> None:
    predictions = drawn(2)
    measured = Sentiment().measure(predictions, ("negative", "positive"))
    binary = Attribute(attribute="sentiment").measure(predictions, ("negative", "positive"))
    assert isinstance(Sentiment(), AttributeTask)
    assert measured == {name: binary[name] for name in ("accuracy", "macro_f1", "auc")}


def labelled(*names: str) -> tuple[LabelledUtterance, ...]:
    return tuple(
        LabelledUtterance(
            Utterance(
                id=f"u{place}",
                audio=Path("/nowhere"),
                sample_rate_hz=16000,
                num_samples=1,
                samples_sha256="0",
            ),
            name,
        )
        for place, name in enumerate(names)
    )


def test_balanced_draws_give_each_class_an_equal_share_and_others_are_as_before() -> None:
    examples = labelled(*["rare"] * 3, *["common"] * 57)
    weights = Predictor(Keyword(balanced=True), ("common", "rare"), Envelope().info).sampling_weights(examples)
    assert weights is not None
    order = iter(WeightedOrder(weights, 16, torch.Generator().manual_seed(0), batches=100))
    counts = Counter(examples[index].labels for _ in range(100) for index in next(order).tolist())
    # 1600 draws at even odds: 800 ± 20
    assert abs(counts["rare"] - 800) < 80
    again = iter(WeightedOrder(weights, 16, torch.Generator().manual_seed(0), batches=100))
    first = iter(WeightedOrder(weights, 16, torch.Generator().manual_seed(0), batches=100))
    assert all(torch.equal(next(again), next(first)) for _ in range(20))
    assert Predictor(Keyword(), ("common", "rare"), Envelope().info).sampling_weights(examples) is None


def test_what_a_weighted_order_reads_ahead_is_what_it_draws() -> None:
    order = WeightedOrder(torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0]), 2, torch.Generator().manual_seed(1), batches=3)
    drawing = iter(order)
    next(drawing)
    ahead = next(order.ahead())
    assert torch.equal(next(drawing), ahead)


def test_fault_weights_that_are_no_odds_are_refused() -> None:
    class Odd(Keyword):
        def sampling_weights(self, labels: Any) -> list[float] | None:
            return [0.0] * len(labels)

    with pytest.raises(PluginError, match="`sampling_weights` must give a positive number for each of 2 utterances"):
        Predictor(Odd(), ("a", "b"), Envelope().info).sampling_weights(labelled("a", "b"))
