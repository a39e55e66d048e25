"""What is asked, what is left out and why, and which part of the labels is taken, in small examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from repbench.benchmark.data.dataset import label_splits, splits_for_probe
from repbench.benchmark.data.seeded_shuffle import digest, grouped, shuffled, uniform
from repbench.benchmark.data.subsets import missing_classes, subset
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.corpora.contract import Phone as Segment
from repbench.downstream.contract import LabelledUtterance, Labels
from repbench.downstream.phone import Phone
from repbench.downstream.problems import FRAMES, SEQUENCES, UTTERANCES
from repbench.downstream.sentiment import Sentiment
from repbench.downstream.speaker import Speaker
from repbench.errors import DataError, PluginError, UsageError
from tests.benchmark.test_plan import corpus, utterance

SPLIT = SplitSettings()


def said(*moods: str) -> Corpus:
    """A corpus of one speaker an utterance: `+` positive, `-` negative, `0` neutral, `?` unknown; `=split` after it."""
    utterances = []
    for number, mood in enumerate(moods):
        sign, _, split = mood.partition("=")
        words = {"+": "positive", "-": "negative", "0": "neutral"}
        attributes = {"sentiment": words[sign]} if sign in words else {}
        each = utterance(f"s{number}", 0, split=split or None)  # type: ignore[arg-type]
        utterances.append(dataclasses.replace(each, id=f"u{number}", attributes=attributes))
    return corpus(utterances)


def short(*ids: str) -> Callable[[Utterance], str | None]:
    return lambda each: "too short" if each.id in ids else None


OFFICIAL = ["+=train", "-=train", "+=dev", "-=dev"]


def test_a_problem_knows_its_labels_and_the_classes_that_they_score() -> None:
    one = utterance("s", 0)
    segments = (Segment(0.0, 0.5, "AA"),)
    forms: tuple[object, ...] = ("AA", "", ("AA", "IY"), segments, ())
    assert [UTTERANCES.is_label(labels) for labels in forms] == [True, True, False, False, False]
    assert [SEQUENCES.is_label(labels) for labels in forms] == [False, False, True, False, True]
    assert [FRAMES.is_label(labels) for labels in forms] == [False, False, False, True, True]
    assert SEQUENCES.scored_classes(LabelledUtterance(one, ("AA", "zz", "AA")), {"AA": 3}).tolist() == [3, -1, 3]
    assert FRAMES.scored_classes(LabelledUtterance(one, segments), {"AA": 3}).tolist() == [3] * 50 + [-1] * 50


def test_what_is_not_asked_cannot_be_asked_or_is_too_short_is_counted_apart() -> None:
    heard = said("+=train", *OFFICIAL, "?=train", "?=dev", "+=test", "-=test", "0=test", "?=test", "+=test")
    plan = label_splits(heard, Sentiment(), SPLIT, excludes=short("u0", "u11", "u10"))
    unlabelled = "no attribute sentiment or valence or emotion"
    assert plan.test.num_listed == 4
    assert {name: why.startswith(unlabelled) or why for name, why in plan.test.excluded.items()} == {
        "u10": True, "u11": "too short"
    }  # fmt: skip
    assert [example.id for example in plan.test.open()] == ["u7", "u8"]
    assert plan.unusable == {"u0": "too short"}
    assert plan.warnings[:1] == ("1 of 5 test utterances are left out by the rule of `sentiment`",)
    assert plan.warnings[1].startswith("2 utterances of train cannot be used, such as u0: too short")
    assert plan.warnings[2].startswith("1 utterances of dev cannot be used, such as u6: no attribute")


@pytest.mark.parametrize(
    ("ids", "name"), [(("u0", "u1"), "train"), (("u2", "u3"), "dev"), (("nobody",), None), (("u0",), "only the class")]
)
def test_a_split_of_which_nothing_can_be_used_is_refused(ids: tuple[str, ...], name: str | None) -> None:
    heard = said(*OFFICIAL, "+=test", "-=test")
    if name is None:
        assert label_splits(heard, Sentiment(), SPLIT, excludes=short(*ids)).classes == ("negative", "positive")
        return
    message = (
        f"The {name} split of paper holds no utterance" if name in {"train", "dev"} else f"train .*{name} negative"
    )
    with pytest.raises(DataError, match=message):
        label_splits(heard, Sentiment(), SPLIT, excludes=short(*ids))


def test_a_test_split_without_an_answer_is_refused() -> None:
    with pytest.raises(DataError, match="The test split of paper holds no utterance that `sentiment` can use"):
        label_splits(said(*OFFICIAL, "?=test", "?=test"), Sentiment(), SPLIT, excludes=short())


class Listed(Speaker):
    """Speaker identification among the speakers it is told."""

    info = dataclasses.replace(Speaker.info, split="speaker-disjoint")
    known: tuple[str, ...] = ("s0", "s1", "s2", "s3", "s4", "s5")

    def classes(self, label_sets: object, train: object) -> tuple[str, ...]:
        return self.known


@pytest.mark.parametrize(("missing", "name"), [("s1", "train"), ("s3", "dev"), ("s5", "test")])
def test_a_class_that_training_cannot_know_is_named_with_its_split(missing: str, name: str) -> None:
    task = Listed()
    heard = said(*OFFICIAL, "+=test", "-=test")
    assert len(label_splits(heard, task, SPLIT, excludes=short()).classes) == 6
    task.known = tuple(each for each in task.known if each != missing)
    where = f"The {name} split of paper has classes that training cannot know: {missing}"
    if name == "train":
        where = (
            r"`classes` of the task `speaker` returned \(s0, s2, s3, s4, s5\), but its `labels` gave \(s1\) for the "
            r"train split of paper\. Correct one of them"
        )
    with pytest.raises(DataError, match=where):
        label_splits(heard, task, SPLIT, excludes=short())
    task.known = ("s0", "s1")
    many = said(*OFFICIAL, *["+=test"] * 5)
    with pytest.raises(DataError, match="The dev split of paper has classes that training cannot know: s2, s3"):
        label_splits(many, task, SPLIT, excludes=short())
    task.known = ("s0", "s1", "s2", "s3")
    with pytest.raises(DataError, match=r"The test split of paper has .* cannot know: s4, s5, s6, s7, s8"):
        label_splits(many, task, SPLIT, excludes=short())
    task.known = ("s0",)
    with pytest.raises(DataError, match="`speaker` on paper has only the class s0"):
        label_splits(heard, task, SPLIT, excludes=short())


@pytest.mark.parametrize("labels", [3, ("AA", Segment(0.0, 1.0, "IY")), (1, 2), {"AA"}])
def test_labels_that_are_none_are_the_plugins_fault(labels: object) -> None:
    class Odd(Sentiment):
        def labels(self, utterance: Utterance) -> Labels | None:
            return labels if utterance.id == "u0" else super().labels(utterance)  # type: ignore[return-value]

    with pytest.raises(PluginError, match=r"`labels` must give a class name.*utterance u0"):
        label_splits(said(*OFFICIAL, "+=test", "-=test"), Odd(), SPLIT, excludes=short())


def test_classes_that_are_no_names_are_the_plugins_fault() -> None:
    task = Listed()
    task.known = ("s0", 1)  # type: ignore[assignment]
    with pytest.raises(PluginError, match="`classes` must give names, but gives 1"):
        label_splits(said(*OFFICIAL, "+=test", "-=test"), task, SPLIT, excludes=short())


def test_an_utterance_with_one_labelled_instant_has_an_answer() -> None:
    segments = (Segment(0.0, 0.02, "AA"),)
    utterances = [dataclasses.replace(each, phones=segments) for each in said(*OFFICIAL, "+=test").utterances]
    labelled = dataclasses.replace(corpus(utterances), label_sets={"phones": ("AA", "sil")})
    with pytest.raises(DataError, match="The train split of paper holds only the class AA"):
        label_splits(labelled, Phone(), SPLIT, excludes=short())


CLASSES = ("negative", "positive")


def test_a_probe_from_elsewhere_scores_the_official_test_split() -> None:
    heard = said("+=train", "-=test", "+=test", "0=test", "?=test", "+=test")
    plan = splits_for_probe(heard, Sentiment(), CLASSES, "LibriSpeech", excludes=short("u5", "u0", "u4"))
    assert (plan.train, plan.dev, dict(plan.unusable), plan.classes, plan.warnings) == ((), (), {}, CLASSES, ())
    assert plan.policy == "official test split, scored by the probe of LibriSpeech"
    assert (plan.test.num_listed, sorted(plan.test.excluded)) == (4, ["u4", "u5"])
    assert [example.id for example in plan.test.open()] == ["u1", "u2"]


def test_a_probe_from_elsewhere_scores_every_utterance_where_there_is_no_test_split() -> None:
    plan = splits_for_probe(said("+", "-=train"), Sentiment(), CLASSES, "LibriSpeech", excludes=short())
    assert plan.policy == "every utterance, scored by the probe of LibriSpeech"
    assert [example.id for example in plan.test.open()] == ["u0", "u1"]


def test_a_probe_from_elsewhere_needs_something_to_score_and_knows_its_classes() -> None:
    with pytest.raises(DataError, match=r"paper holds no utterance that `sentiment` can score \(such as u0: no attr"):
        splits_for_probe(said("?", "?"), Sentiment(), CLASSES, "x", excludes=short())
    with pytest.raises(DataError, match=r"that `sentiment` can score\. "):
        splits_for_probe(said("0"), Sentiment(), CLASSES, "x", excludes=short())
    with pytest.raises(DataError, match="has classes that the probe does not know: s0, s1, s3, s4, s5, s6, s7, s8"):
        splits_for_probe(said(*"+-+-+-+-+"), Speaker(), ("s2", "s9"), "x", excludes=short())


def moods(signs: str) -> tuple[LabelledUtterance, ...]:
    heard = said(*signs)
    return tuple(LabelledUtterance(each, str(each.attributes["sentiment"])) for each in heard.utterances)


def test_a_part_is_the_nearest_number_of_utterances_and_at_least_one() -> None:
    whole = moods("+-+-+-+")
    sizes = [
        len(subset(whole, fraction, problem=UTTERANCES, seed=0, salt=""))
        for fraction in (0.01, 0.2, 0.25, 0.5, 0.9, 1.0)
    ]
    assert sizes == [1, 1, 2, 4, 6, 7]


def test_large_strata_give_more_than_small_ones() -> None:
    of = [utterance("s", number) for number in range(12)] + [utterance("t", number) for number in range(0, 8, 2)]
    part = subset(tuple(LabelledUtterance(each, "a") for each in of), 0.25, problem=UTTERANCES, seed=0, salt="")
    assert sorted(example.utterance.speaker or "" for example in part) == ["s", "s", "s", "t"]


def test_the_same_part_is_taken_for_ever() -> None:
    utterances = [utterance("s", number) for number in range(12)]
    whole = tuple(LabelledUtterance(each, str(each.attributes["sentiment"])) for each in utterances)
    timed = tuple(LabelledUtterance(each, (Segment(0.0, 1.0, "AA"),)) for each in utterances)
    both = ((whole, UTTERANCES), (timed, FRAMES))
    taken = [subset(some, 0.4, problem=problem, seed=1, salt="c t") for some, problem in both]
    assert [[int(each.id[-3:]) for each in some] for some in taken] == TAKEN


TAKEN = [[3, 4, 6, 9, 10], [0, 4, 6, 9, 10]]
"""Stratified by class, and where classes vary within an utterance by speaker alone."""


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_lost_class_is_refused_for_utterances_and_said_for_frames_unless_all_is_there(fraction: float) -> None:
    train = moods("++")
    classes = ("b", "negative", "a", "positive")
    with pytest.raises(UsageError, match="2 training utterances, none of the classes a, b, negative"):
        missing_classes(Sentiment(), classes, train, fraction)
    found = missing_classes(Phone(), classes, train, fraction)
    assert found == (() if fraction == 1.0 else (
        "The fraction 0.5 leaves 2 training utterances, none of the classes a, b, negative",
    ))  # fmt: skip
    assert missing_classes(Sentiment(), ("positive",), train, fraction) == ()
    with pytest.raises(DataError, match=f"The fraction {fraction:g} leaves no training utterance"):
        missing_classes(Phone(), classes, (), fraction)


def test_shuffles_follow_from_names_alone_and_numbers_lie_in_the_unit_interval() -> None:
    assert grouped(["b1", "a1", "b0"], lambda name: name[0]) == {"a": ["a1"], "b": ["b1", "b0"]}
    assert list(grouped(["b1", "a1"], lambda name: name[0])) == ["a", "b"]
    assert shuffled("abcdef", 0, "x") == shuffled("fedcba", 0, "x") != shuffled("abcdef", 0, "y")
    numbers = [uniform(str(number)) for number in range(1000)]
    assert 0 <= min(numbers) < 0.01
    assert 0.99 < max(numbers) < 1
    assert digest("\udcff") != digest("\udcfe"), "names that are no UTF-8 have one too"
