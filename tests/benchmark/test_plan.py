"""Divisions and subsets: functions of corpus, task and seed alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from repbench.benchmark.data.dataset import LabelledSplits, LabelledUtterances, label_splits
from repbench.benchmark.data.splits import divide
from repbench.benchmark.data.subsets import missing_classes, subset
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Split, Utterance
from repbench.corpora.contract import Phone as Interval
from repbench.downstream.contract import LabelledUtterance, SplitPolicy
from repbench.downstream.phone import Phone
from repbench.downstream.problems import UTTERANCES
from repbench.downstream.sentiment import Sentiment
from repbench.downstream.speaker import Speaker
from repbench.downstream.verification import Verification
from repbench.errors import DataError, UsageError

SPLIT = SplitSettings()


def utterance(speaker: str | None, number: int, group: str | None = None, split: Split | None = None) -> Utterance:
    return Utterance(
        id=f"{speaker}-{number:03d}",
        audio=Path("/nowhere.wav"),
        sample_rate_hz=16000,
        num_samples=16000,
        speaker=speaker,
        group=group,
        split=split,
        attributes={"sentiment": "positive" if number % 2 else "negative"},
        samples_sha256=f"{speaker}{number}",
    )


def corpus(utterances: Sequence[Utterance]) -> Corpus:
    ordered = tuple(sorted(utterances, key=lambda each: each.id))
    return Corpus(
        name="paper", licence="CC0", utterances=ordered, label_sets={}, resample="allowed", fingerprint="f" * 64
    )


def speakers(count: int, each: int, sessions: int = 0) -> list[Utterance]:
    return [
        utterance(f"s{speaker:02d}", number, f"s{speaker:02d}-{number % sessions}" if sessions else None)
        for speaker in range(count)
        for number in range(each)
    ]


def plan_of(utterances: Sequence[Utterance], task: Speaker | Sentiment | Phone) -> LabelledSplits:
    return label_splits(corpus(utterances), task, SPLIT, excludes=lambda each: None)


def values(utterances: Sequence[Utterance], name: str) -> set[object]:
    return {getattr(each, name) for each in utterances}


def test_speakers_are_kept_apart() -> None:
    parts = divide(corpus(speakers(20, 5)), "speaker-disjoint", SPLIT)
    sets = [values(part, "speaker") for part in (parts.train, parts.dev, parts.test)]
    assert [len(each) for each in sets] == [16, 2, 2]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]


@pytest.mark.parametrize(("count", "heldout"), [(3, 1), (14, 1), (15, 2), (16, 2), (24, 2), (26, 3)])
def test_a_share_is_the_nearest_whole_number_and_at_least_one(count: int, heldout: int) -> None:
    parts = divide(corpus(speakers(count, 1)), "speaker-disjoint", SplitSettings(test_share=0.1, dev_share=0.1))
    assert [len(parts.train), len(parts.dev), len(parts.test)] == [count - 2 * heldout, heldout, heldout]


def test_one_speaker_is_divided_by_group_and_without_groups_by_utterance_with_a_warning() -> None:
    by_group = divide(corpus(speakers(1, 40, sessions=10)), "speaker-disjoint", SPLIT)
    assert not values(by_group.train, "group") & values(by_group.test, "group")
    assert "by group" in by_group.policy
    assert "may also be in train" in by_group.warnings[0]
    by_utterance = divide(corpus(speakers(1, 40)), "speaker-disjoint", SPLIT)
    assert [len(part) for part in (by_utterance.train, by_utterance.dev, by_utterance.test)] == [32, 4, 4]
    assert by_utterance.warnings[0].startswith("divided by utterance, because the corpus has one speaker and has no")


def test_unknown_speakers_are_not_called_one_speaker() -> None:
    unknown = [dataclasses.replace(each, speaker=None) for each in speakers(4, 10)]
    parts = divide(corpus(unknown), "speaker-disjoint", SPLIT)
    assert "because the corpus has no speaker labels" in parts.warnings[0]
    partly = [*speakers(4, 10)[1:], unknown[0]]
    with pytest.raises(DataError, match="1 of 40 utterances of paper have no speaker"):
        divide(corpus(partly), "speaker-disjoint", SPLIT)
    official = [
        dataclasses.replace(each, split="test" if number > 29 else "train") for number, each in enumerate(unknown)
    ]
    parts = divide(corpus(official), "speaker-disjoint", SPLIT)
    assert len(parts.test) == 10
    assert "cannot keep speakers apart" in parts.warnings[0]


def test_two_speakers_give_train_and_test_and_dev_is_cut_from_train() -> None:
    parts = divide(corpus(speakers(2, 10)), "speaker-disjoint", SPLIT)
    assert values(parts.dev, "speaker") == values(parts.train, "speaker") != values(parts.test, "speaker")
    assert "dev cut from train" in parts.policy


def test_within_speakers_sessions_are_kept_apart_and_every_speaker_is_on_both_sides() -> None:
    parts = divide(corpus(speakers(5, 12, sessions=3)), "within-speaker", SPLIT)
    assert values(parts.train, "speaker") == values(parts.test, "speaker") == values(parts.dev, "speaker")
    assert not values(parts.train, "group") & values(parts.test, "group")
    assert parts.warnings == ()


def test_within_speakers_without_sessions_the_score_also_hears_the_session() -> None:
    parts = divide(corpus(speakers(5, 10)), "within-speaker", SPLIT)
    assert [len(part) for part in (parts.train, parts.dev, parts.test)] == [40, 5, 5]
    assert "also depends on the session" in parts.warnings[0]


@pytest.mark.parametrize(
    ("policy", "disjoint", "used"),
    [("speaker-disjoint", True, True), ("speaker-disjoint", False, False), ("within-speaker", False, True),
     ("within-speaker", True, False)],
)  # fmt: skip
def test_official_splits_are_used_where_they_satisfy_the_task(policy: SplitPolicy, disjoint: bool, used: bool) -> None:
    train = [utterance(f"s{number % 4}", number, split="train") for number in range(20)]
    test = [utterance(f"{'t' if disjoint else 's'}{number % 4}", number + 50, split="test") for number in range(8)]
    parts = divide(corpus(train + test), policy, SPLIT)
    assert ("official" in parts.policy) == used
    assert any("the official splits are not used" in warning for warning in parts.warnings) != used
    if used:
        assert {each.id for each in parts.test} == {each.id for each in test}
        assert len(parts.dev) >= 1


def test_official_splits_with_a_dev_speaker_in_train_do_not_keep_speakers_apart() -> None:
    train = [utterance(f"s{number % 4}", number, split="train") for number in range(20)]
    test = [utterance("t", number, split="test") for number in range(8)]
    dev = [utterance("s0", number + 50, split="dev") for number in range(4)]
    parts = divide(corpus([*train, *dev, *test]), "speaker-disjoint", SPLIT)
    assert parts.policy == "seeded by speaker (seed 0)"
    assert parts.warnings == ("the official splits are not used: some of their test or dev speakers are also in train",)


def test_official_splits_can_be_insisted_on_and_what_they_share_is_said() -> None:
    utterances = [utterance(f"s{number % 4}", number, split="test" if number > 15 else "train") for number in range(20)]
    parts = divide(corpus(utterances), "speaker-disjoint", SplitSettings(official="always"))
    assert {each.id for each in parts.test} == {each.id for each in utterances if each.split == "test"}
    assert "4 of 4 test speakers are also in train or dev" in parts.warnings


@pytest.mark.parametrize("score", ["xvector", "plda"])
@pytest.mark.parametrize("shared", ["dev", "test"])
def test_verification_refuses_speakers_that_it_trains_on_before_anything_is_computed(score: Any, shared: Split) -> None:
    sizes: dict[Split, str] = {"train": "t", "dev": "e", "test": "s"}
    several = [utterance(f"{name}{n % 3}", n, split=split) for split, name in sizes.items() for n in range(6)]
    task, always = Verification(score=score), SplitSettings(official="always")
    label_splits(corpus(several), task, always, excludes=lambda each: None)
    several = [replace(each, speaker="t0") if each.speaker == f"{sizes[shared]}0" else each for each in several]
    if (score, shared) == ("plda", "dev"):  # it has no use for dev
        label_splits(corpus(several), task, always, excludes=lambda each: None)
        return
    with pytest.raises(DataError, match=f"1 speakers of {shared} are also in train, such as t0"):
        label_splits(corpus(several), task, always, excludes=lambda each: None)


def test_the_order_of_the_corpus_does_not_matter_and_the_seed_does() -> None:
    utterances = speakers(20, 5)
    first = divide(corpus(utterances), "speaker-disjoint", SPLIT)
    again = divide(corpus(utterances[::-1]), "speaker-disjoint", SPLIT)
    other = divide(corpus(utterances), "speaker-disjoint", SplitSettings(seed=1))
    assert first == again
    assert first.test != other.test


def test_the_test_split_is_handed_out_once() -> None:
    plan = plan_of(speakers(10, 4), Sentiment())
    assert len(plan.test.open()) == plan.test.num_listed
    assert plan.test.accesses == 1
    with pytest.raises(RuntimeError, match="opened twice"):
        plan.test.open()


def test_the_counting_rule_holds_when_utterances_are_too_short() -> None:
    utterances = speakers(10, 4)
    short = {each.id for each in utterances[::3]}
    plan = label_splits(
        corpus(utterances), Sentiment(), SPLIT, excludes=lambda each: "too short" if each.id in short else None
    )
    excluded = plan.test.excluded
    assert set(excluded.values()) <= {"too short"}
    assert len(plan.test.open()) + len(excluded) == plan.test.num_listed == 4
    assert any("of train cannot be used" in warning for warning in plan.warnings)


def test_fault_23_an_unknown_class_in_test_is_listed() -> None:
    utterances = [utterance(f"s{number % 3}", number, split="train") for number in range(12)]
    stranger = utterance("zoe", 99, split="test")
    with pytest.raises(DataError, match="classes that training cannot know: zoe"):
        label_splits(
            corpus([*utterances, stranger, utterance("s1", 98, split="test")]), _AnySplit(), SPLIT, excludes=_none
        )


class _AnySplit(Speaker):
    """Speaker identification that accepts any official split."""

    info = dataclasses.replace(Speaker.info, split="speaker-disjoint")


def _none(utterance: Utterance) -> str | None:
    return None


def test_fault_25_what_train_and_test_share_is_said() -> None:
    utterances = [
        *(utterance("s0", number, "video1", "train") for number in range(5)),
        *(utterance("s1", number, "video1", "test") for number in range(5)),
        *(utterance("s2", number, "video2", "dev") for number in range(5)),
    ]
    assert "1 of 1 test groups are also in train or dev" in plan_of(utterances, Sentiment()).warnings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda each: dataclasses.replace(each, attributes={"sentiment": "neutral"}),
            "No utterance of paper can train",
        ),
        (lambda each: dataclasses.replace(each, attributes={"sentiment": "positive"}), "only the class positive"),
        (lambda each: dataclasses.replace(each, attributes={}), r"no attribute sentiment"),
    ],
)
def test_fault_26_nothing_to_score_is_refused(change: Callable[[Utterance], Utterance], message: str) -> None:
    with pytest.raises(DataError, match=message):
        plan_of([change(each) for each in speakers(10, 4)], Sentiment())


def test_fault_26_too_small_a_corpus_is_refused() -> None:
    with pytest.raises(DataError, match="too few utterances"):
        plan_of(speakers(1, 1), Sentiment())


def examples(count: int) -> LabelledUtterances:
    return tuple(LabelledUtterance(each, str(each.attributes["sentiment"])) for each in speakers(10, count))


def ids(part: LabelledUtterances) -> set[str]:
    return {example.id for example in part}


def test_smaller_subsets_lie_in_larger_ones_and_depend_on_the_seed() -> None:
    whole = examples(40)
    parts = [
        subset(whole, fraction, problem=UTTERANCES, seed=3, salt="c t") for fraction in (0.01, 0.05, 0.2, 0.5, 1.0)
    ]
    assert [len(part) for part in parts] == [4, 20, 80, 200, 400]
    assert all(ids(smaller) < ids(larger) for smaller, larger in pairwise(parts))
    assert ids(subset(whole, 0.2, problem=UTTERANCES, seed=4, salt="c t")) != ids(parts[2])
    assert ids(subset(whole[::-1], 0.2, problem=UTTERANCES, seed=3, salt="c t")) == ids(parts[2])


def test_subsets_are_stratified_by_class_and_speaker() -> None:
    part = subset(examples(40), 0.1, problem=UTTERANCES, seed=0, salt="")
    counts: dict[tuple[object, object], int] = {}
    for example in part:
        key = (example.labels, example.utterance.speaker)
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 20
    assert set(counts.values()) == {2}


def test_a_fraction_that_loses_a_class_says_so() -> None:
    train = tuple(example for example in examples(4) if example.labels == "positive")
    with pytest.raises(UsageError, match="none of the class negative"):
        missing_classes(Sentiment(), ("negative", "positive"), train, 0.01)
    assert "none of the class xx" in missing_classes(Phone(), ("negative", "positive", "xx"), examples(4), 0.01)[0]
    assert missing_classes(Sentiment(), ("negative", "positive"), examples(4), 0.01) == ()


def test_the_upstream_has_no_say_in_division_classes_and_subsets() -> None:
    utterances = speakers(10, 10)
    short = {each.id for each in utterances[::4]}
    plans = [
        label_splits(corpus(utterances), Sentiment(), SPLIT, excludes=excludes)
        for excludes in (_none, lambda each: "too short" if each.id in short else None)
    ]
    subsets = [ids(subset(plan.train, 0.3, problem=UTTERANCES, seed=0, salt="x")) for plan in plans]
    assert subsets[0] == subsets[1]
    assert plans[0].classes == plans[1].classes
    assert not ids(plans[1].usable(plans[1].train)) & short


def test_what_is_not_asked_is_said() -> None:
    utterances = [
        dataclasses.replace(each, attributes={"sentiment": "neutral"}) if each.id.endswith("003") else each
        for each in speakers(10, 8)
    ]
    assert "1 of 8 test utterances are left out by the rule of `sentiment`" in plan_of(utterances, Sentiment()).warnings


def test_a_test_split_of_one_class_is_said() -> None:
    utterances = [
        dataclasses.replace(each, split="test" if each.speaker == "s09" else "train") for each in speakers(10, 8)
    ]
    utterances = [each for each in utterances if each.split == "train" or int(each.id[-1]) % 2]
    assert any("only the class positive" in warning for warning in plan_of(utterances, Sentiment()).warnings)


@pytest.mark.parametrize("phones", [(), (Interval(0.0, 0.001, "AA"),)])
def test_fault_26_an_utterance_without_a_labelled_instant_is_not_scored(phones: tuple[Interval, ...]) -> None:
    whole = (Interval(0.0, 0.5, "AA"), Interval(0.5, 1.0, "sil"))
    utterances = [
        dataclasses.replace(each, phones=phones if each.id.endswith("001") else whole) for each in speakers(10, 4)
    ]
    labelled = dataclasses.replace(corpus(utterances), label_sets={"phones": ("AA", "sil")})
    plan = label_splits(labelled, Phone(), SPLIT, excludes=_none)
    assert list(plan.test.excluded.values()) == ["no instant of it is labelled"]
    assert plan.test.num_listed == 4
    assert any("no instant of it is labelled" in warning for warning in plan.warnings)
