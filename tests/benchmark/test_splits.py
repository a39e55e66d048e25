"""A division divides: nothing is lost, nothing stands in two parts, and it is the same for ever."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from repbench.benchmark.data.splits import Division, divide
from repbench.benchmark.protocol import SplitSettings
from repbench.corpora.contract import Corpus, Utterance
from repbench.downstream.contract import SplitPolicy
from repbench.errors import DataError

DISJOINT: SplitPolicy = "speaker-disjoint"
WITHIN: SplitPolicy = "within-speaker"


def corpus(spec: str) -> Corpus:
    """Of words such as `4*a1=train`: four utterances of speaker a and group 1, official split train; - is nobody."""
    utterances: list[Utterance] = []
    for word in spec.split():
        times, _, rest = word.rpartition("*")
        name, _, split = rest.partition("=")
        for _ in range(int(times or 1)):
            utterances.append(
                Utterance(
                    id=f"u{len(utterances):02d}",
                    audio=Path("/nowhere.wav"),
                    sample_rate_hz=16000,
                    num_samples=16000,
                    speaker=None if name[0] == "-" else name[0],
                    group=name[1:] or None,
                    split=split or None,  # type: ignore[arg-type]
                    samples_sha256=str(len(utterances)),
                )
            )
    return Corpus(
        name="paper", licence="CC0", utterances=tuple(utterances), label_sets={}, resample="allowed", fingerprint="f"
    )


def divided(spec: str, policy: SplitPolicy = DISJOINT, **settings: object) -> Division:
    return divide(corpus(spec), policy, SplitSettings.model_validate(settings))


def ids(part: list[Utterance]) -> str:
    return " ".join(each.id.removeprefix("u") for each in part)


def of(part: list[Utterance], unit: str) -> Counter[str | None]:
    """How many utterances each speaker or group has in a part."""
    return Counter(getattr(each, unit) for each in part)


FOR_EVER = {
    "by speaker": (DISJOINT, "2*a 2*b 2*c 2*d", "seeded by speaker (seed 0)", "02 03", "00 01"),
    "by group": (DISJOINT, "3*a1 3*a2 3*a3", "seeded by group (seed 0)", "03 04 05", "00 01 02"),
    "by utterance": (DISJOINT, "12*a", "seeded by utterance (seed 0)", "10", "11"),
    "by utterance of nobody": (DISJOINT, "12*-", "seeded by utterance (seed 0)", "10", "11"),
    "by session": (
        WITHIN,
        "2*a1 2*a2 2*a3 2*b4 2*b5 2*b6",
        "seeded by session within each speaker (seed 0)",
        "02 03 10 11",
        "04 05 06 07",
    ),
    "two sessions": (
        WITHIN,
        "4*a1 4*a2 4*b3 4*b4",
        "seeded by session within each speaker (seed 0)",
        "00 14",
        "04 05 06 07 08 09 10 11",
    ),
    "within": (WITHIN, "6*a 6*b 6*-", "seeded by utterance within each speaker (seed 0)", "16 04 11", "14 05 08"),
    "two speakers": (
        DISJOINT,
        "6*a 6*b",
        "seeded by speaker (seed 0), dev cut from train by utterance",
        "06",
        "00 01 02 03 04 05",
    ),
    "official": (
        DISJOINT,
        "6*a=train 6*b=train c=test",
        "official splits, dev cut from train by utterance",
        "00 06",
        "12",
    ),
    "official of nobody": (
        DISJOINT,
        "9*-=train 3*-=test",
        "official splits, dev cut from train by utterance",
        "05",
        "09 10 11",
    ),
}
"""Corpus, policy in words, and the ids of dev and test: a score of today is one of the same utterances in ten years."""


@pytest.mark.parametrize("name", FOR_EVER)
def test_the_same_corpus_is_divided_alike_for_ever(name: str) -> None:
    policy, spec, words, dev, test = FOR_EVER[name]
    division = divided(spec, policy)
    assert (division.policy, ids(division.dev), ids(division.test)) == (words, dev, test)


@pytest.mark.parametrize("name", FOR_EVER)
def test_each_utterance_stands_in_one_part_in_the_order_of_its_id(name: str) -> None:
    policy, spec, *_ = FOR_EVER[name]
    parts = divided(spec, policy)
    everything = [each for part in (parts.train, parts.dev, parts.test) for each in part]
    assert sorted(each.id for each in everything) == [each.id for each in corpus(spec).utterances]
    for part in (parts.train, parts.dev, parts.test):
        by_speaker = [ids([each for each in part if each.speaker == name]) for name in of(part, "speaker")]
        if "session" not in parts.policy:
            assert by_speaker == [" ".join(sorted(each.split())) for each in by_speaker]


def test_three_sessions_of_a_speaker_are_one_for_dev_and_one_for_test() -> None:
    parts = divided("2*a1 3*a2 4*a3 2*b4 3*b5 4*b6", WITHIN)
    groups = [of(part, "group") for part in (parts.train, parts.dev, parts.test)]
    assert [len(each) for each in groups] == [2, 2, 2]
    assert len({group for each in groups for group in each}) == 6
    assert parts.warnings == ()


def test_two_sessions_of_a_speaker_are_one_for_test_and_dev_is_cut_from_the_other() -> None:
    parts = divided("4*a1 4*a2 4*b3 4*b4", WITHIN)
    assert of(parts.test, "speaker") == {"a": 4, "b": 4}
    assert of(parts.dev, "speaker") == {"a": 1, "b": 1}
    assert of(parts.train, "speaker") == {"a": 3, "b": 3}
    assert not of(parts.test, "group").keys() & of([*parts.train, *parts.dev], "group").keys()


@pytest.mark.parametrize("spec", ["6*a1 6*a2 6*b3", "6*a1 6*a2 3*b3 6*b", "6*a 6*b"])
def test_one_speaker_without_two_known_sessions_makes_all_be_divided_by_utterance(spec: str) -> None:
    parts = divided(spec, WITHIN)
    assert parts.policy == "seeded by utterance within each speaker (seed 0)"
    assert parts.warnings[0].startswith("divided by utterance, because not every speaker has two sessions")


def test_a_speaker_with_few_utterances_trains_first_and_is_tested_next() -> None:
    parts = divided("a 2*b 3*c 4*d", WITHIN)
    assert of(parts.train, "speaker") == {"a": 1, "b": 1, "c": 1, "d": 2}
    assert of(parts.dev, "speaker") == {"c": 1, "d": 1}
    assert of(parts.test, "speaker") == {"b": 1, "c": 1, "d": 1}


@pytest.mark.parametrize(
    ("spec", "policy"),
    [
        ("4*a1 4*a2", "seeded by group (seed 0), dev cut from train by utterance"),
        ("4*a1 4*a2 4*a3", "seeded by group (seed 0)"),
        ("4*a1 4*a2 4*a", "seeded by utterance (seed 0)"),
        ("8*a1", "seeded by utterance (seed 0)"),
        ("4*-1 4*-2", "seeded by group (seed 0), dev cut from train by utterance"),
    ],
)
def test_one_speaker_is_divided_by_group_only_where_every_utterance_has_one_of_several(spec: str, policy: str) -> None:
    assert divided(spec).policy == policy


def test_a_missing_dev_is_cut_evenly_over_the_speakers() -> None:
    parts = divided("10*a=train 20*b=train 2*c=train d=train 4*e=test")
    assert of(parts.dev, "speaker") == {"a": 1, "b": 2, "c": 1}
    assert of(parts.train, "speaker") == {"a": 9, "b": 18, "c": 1, "d": 1}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [("9*a=dev 3*b=test", "they have no train part"), ("9*a=train 3*b=dev", "they have no test part")],
)
def test_official_splits_without_train_or_test_are_not_used(spec: str, reason: str) -> None:
    parts = divided(spec + " 3*c")
    assert parts.policy == "seeded by speaker (seed 0)"
    assert parts.warnings[0] == f"the official splits are not used: {reason}"


@pytest.mark.parametrize(("who", "said"), [("a", "one speaker"), ("-", "no speaker labels")])
def test_official_splits_of_one_speaker_are_used_with_a_warning(who: str, said: str) -> None:
    parts = divided(f"9*{who}=train 3*{who}=test")
    assert f"the corpus has {said}, so the official splits cannot keep speakers apart" in parts.warnings


def test_what_no_official_split_holds_is_not_used_and_counted() -> None:
    parts = divided("6*a=train 3*b=test 4*c")
    assert parts.warnings == ("4 utterances belong to no official split and are not used",)
    assert not of([*parts.train, *parts.dev, *parts.test], "speaker")["c"]


def test_one_group_for_all_is_nothing_that_test_and_train_share() -> None:
    assert divided("4*a1=train 4*b1=test 4*c1=dev").warnings == ()
    assert divided("4*a1=train 4*b1=test 4*c2=dev").warnings == ("1 of 1 test groups are also in train or dev",)
    assert len(divided("4*-=train 4*-=test").warnings) == 1


@pytest.mark.parametrize(
    ("spec", "settings", "name"),
    [("a", {}, "dev"), ("2*a", {}, "dev"), ("a b c d", {"dev_share": 0.49, "test_share": 0.49}, "train")],
)
def test_a_corpus_too_small_says_which_split_stays_empty(spec: str, settings: dict[str, float], name: str) -> None:
    with pytest.raises(DataError, match=rf"paper has too few utterances \(\d+\) for a {name} split"):
        divided(spec, DISJOINT, **settings)
