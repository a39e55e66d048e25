"""Trials: lists in both forms, enrolments by several utterances, faults with their lines, and made trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repbench.corpora.contract import Utterance
from repbench.downstream.made_trials import make_trials
from repbench.downstream.problems.contract import LabelledUtterance
from repbench.downstream.problems.trial_list import Trials
from repbench.downstream.trials import read_trials
from repbench.errors import DataError


def example(
    id: str, speaker: str, *, audio: str | None = None, group: str | None = None, gender: str | None = None
) -> LabelledUtterance:
    utterance = Utterance(
        id=id,
        audio=Path(audio or f"/corpus/wav/{id}.wav"),
        sample_rate_hz=16000,
        num_samples=16000,
        speaker=speaker,
        group=group,
        attributes={} if gender is None else {"gender": gender},
        samples_sha256=f"sha of {id}",
    )
    return LabelledUtterance(utterance, speaker)


FOUR = [
    example("a-v-1", "a", audio="/c/wav/a/v/00001.wav"),
    example("a-w-1", "a", audio="/c/wav/a/w/00001.wav"),
    example("b-x-1", "b", audio="/c/wav/b/x/00001.wav"),
    example("b-x-2", "b", audio="/c/wav/b/x/00002.wav"),
]


def rows(trials: Trials) -> list[tuple[str, int, bool]]:
    return [
        (trials.enrolments[enrolment].name, test, target)
        for enrolment, test, target in zip(
            trials.enrolment_of.tolist(), trials.test_of.tolist(), trials.targets.tolist(), strict=True
        )
    ]


def list_of(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_both_forms_of_list_give_the_same_trials(tmp_path: Path) -> None:
    voxceleb = list_of(tmp_path / "veri_test.txt", "1 a/v/00001.wav a/w/00001.wav", "", "0 a/v/00001.wav b/x/00002.wav")
    kaldi = list_of(tmp_path / "trials", "a-v-1 a-w-1 target", "a-v-1 b-x-2 nontarget")
    expected = [("a-v-1", 1, True), ("a-v-1", 3, False)]
    assert rows(read_trials(voxceleb, FOUR)) == rows(read_trials(kaldi, FOUR)) == expected


def test_a_written_list_is_read_as_it_was_also_with_blanks_in_ids(tmp_path: Path) -> None:
    for name in ("a-v-1", "a v 1"):
        examples = [example(name, "a"), *FOUR[1:]]
        trials = make_trials(examples, most=100, seed=0)
        written = tmp_path / "trials.txt"
        written.write_bytes(trials.as_list(examples))
        assert rows(read_trials(written, examples)) == rows(trials)


def test_the_end_of_a_path_with_or_without_its_ending_is_a_name(tmp_path: Path) -> None:
    trials = list_of(tmp_path / "t", "1 v/00001 wav/a/w/00001.m4a", "0 a-w-1 00002.wav")
    assert rows(read_trials(trials, FOUR)) == [("a-v-1", 1, True), ("a-w-1", 3, False)]


def test_an_enrolment_by_several_utterances(tmp_path: Path) -> None:
    models = list_of(tmp_path / "enrolments", "spk-a a-v-1 a/w/00001.wav", "spk-b b-x-1")
    found = read_trials(list_of(tmp_path / "t", "spk-a b-x-2 nontarget", "spk-b b-x-2 target"), FOUR, models)
    assert [each.utterances for each in found.enrolments] == [(0, 1), (2,)]
    assert rows(found) == [("spk-a", 3, False), ("spk-b", 3, True)]


@pytest.mark.parametrize(
    ("lines", "line", "match"),
    [
        (["1 a-v-1 a-w-1", "0 a-v-1 nobody"], 2, "`nobody` is no utterance of the test split"),
        (["1 00001.wav a-w-1"], 1, "`00001.wav` is the end of the paths of several utterances, such as a-v-1 and"),
        (["1 a-v-1 b-x-1"], 1, "one speaker for a-v-1 and b-x-1, but the corpus has a and b"),
        (["a-v-1 a-w-1 nontarget"], 1, "different speakers for a-v-1 and a-w-1"),
        (["1 a-v-1 a-v-1"], 1, "compares a-v-1 with itself"),
        (["1 a-v-1 a-w-1", "a-v-1 b-x-1 nontarget"], 2, "the same on all lines"),
        (["2 a-v-1 a-w-1"], 1, "A line must be"),
        (["a-v-1 a-w-1"], 1, "A line must be"),
        ([], None, "The list of trials is empty"),
    ],
)
def test_a_fault_of_a_list_names_its_line(tmp_path: Path, lines: list[str], line: int | None, match: str) -> None:
    path = list_of(tmp_path / "t", *lines)
    with pytest.raises(DataError, match=match) as raised:
        read_trials(path, FOUR)
    assert str(raised.value.file) == (str(path) if line is None else f"{path}:{line}")


@pytest.mark.parametrize(
    ("lines", "trial", "match"),
    [
        (["m a-v-1"], "1 spk a-w-1", "`spk` is no enrolment of"),
        (["m a-v-1", "m a-w-1"], "1 m a-w-1", "each name once"),
        (["m"], "1 m a-w-1", "NAME UTTERANCE"),
        (["m a-v-1 b-x-1"], "1 m a-w-1", "several speakers: a, b"),
        (["m a-v-1 a-w-1"], "1 m a-w-1", "compares a-w-1 with itself"),
        (["m nobody"], "1 m a-w-1", "`nobody` is no utterance"),
    ],
)
def test_faults_of_enrolments(tmp_path: Path, lines: list[str], trial: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        read_trials(list_of(tmp_path / "t", trial), FOUR, list_of(tmp_path / "e", *lines))


def many(num_speakers: int = 6, count: int = 8) -> list[LabelledUtterance]:
    """Speakers with two sessions each, of two sexes."""
    return [
        example(f"s{s}-{u}", f"s{s}", group=f"s{s}/{u % 2}", gender=("F", "female", "m")[s % 3])
        for s in range(num_speakers)
        for u in range(count)
    ]


def test_made_trials_are_of_other_sessions_and_of_one_sex() -> None:
    examples = many()
    trials = make_trials(examples, most=100, seed=0)
    assert trials.sessions == "other"
    assert (len(trials.targets), int(trials.targets.sum())) == (100, 50)
    seen = set()
    for name, test, target in rows(trials):
        enrolled, tested = next(e for e in examples if e.id == name).utterance, examples[test].utterance
        assert enrolled.group != tested.group
        assert (enrolled.speaker == tested.speaker) is target
        sexes = {str(each.attributes["gender"]).casefold()[0] for each in (enrolled, tested)}
        assert len(sexes) == 1
        seen.add(frozenset((enrolled.id, tested.id)))
    assert len(seen) == 100


def test_where_no_speaker_has_two_sessions_sessions_are_not_compared() -> None:
    examples = [example(f"s{s}-{u}", f"s{s}", group=f"g{s}") for s in range(3) for u in range(3)]
    trials = make_trials(examples, most=1000, seed=0)
    assert trials.sessions == "any"
    assert (int(trials.targets.sum()), int((~trials.targets).sum())) == (9, 27)


def test_all_pairs_are_taken_where_there_are_fewer_than_allowed_and_none_twice() -> None:
    examples = many(3, 4)
    trials = make_trials(examples, most=1000, seed=0)
    # Same: 3 speakers × 2 × 2 of other sessions. Different: s0 and s1 are of one sex, 4 × 4 pairs.
    assert (int(trials.targets.sum()), int((~trials.targets).sum())) == (12, 16)
    assert len({frozenset((name, examples[test].id)) for name, test, _ in rows(trials)}) == 28


def test_the_draw_depends_on_utterances_and_seed_and_not_on_their_order() -> None:
    examples = many()
    first = make_trials(examples, most=60, seed=0).as_list(examples)
    assert make_trials(examples[::-1], most=60, seed=0).as_list(examples[::-1]) == first
    assert make_trials(examples, most=60, seed=1).as_list(examples) != first
    others = [example(each.id, each.labels, group=each.utterance.group) for each in examples[:-1]]
    assert make_trials(others, most=60, seed=0).as_list(others) != first
    # Of the draw itself, so that another version of numpy, or another machine, has the same.
    assert first.decode().splitlines()[:3] == FIRST_TRIALS


FIRST_TRIALS = ["0 s1-3 s0-0", "0 s3-3 s0-0", "0 s0-0 s3-4"]


def test_both_roles_are_taken_about_as_often_by_each_utterance() -> None:
    examples = many()
    trials = make_trials(examples, most=400, seed=0)
    tests = np.bincount(trials.test_of, minlength=len(examples))
    assert tests.min() > 0
    assert tests.sum() == 400


def test_a_half_that_is_too_small_leaves_its_place_to_the_other() -> None:
    few_same = [*many(6, 1)[:-1], *many(1, 2)]
    trials = make_trials([example(f"{n}-{e.id}", e.labels) for n, e in enumerate(few_same)], most=12, seed=0)
    assert len(trials.targets) == 12
    assert 0 < int(trials.targets.sum()) < 6


def test_no_trial_can_be_made_of_single_utterances_or_of_one_speaker() -> None:
    with pytest.raises(DataError, match="among 2 utterances: there are no two utterances of one"):
        make_trials([example("a-1", "a"), example("b-1", "b")], most=10, seed=0)
    with pytest.raises(DataError, match="no utterances of two speakers"):
        make_trials([example("a-1", "a"), example("a-2", "a")], most=10, seed=0)
    with pytest.raises(DataError, match="of the same sex"):
        make_trials(
            [example("a-1", "a", gender="f"), example("a-2", "a", gender="f"), example("b-1", "b", gender="m")],
            most=10,
            seed=0,
        )


def test_shuffled_labels_decide_the_targets_of_a_list(tmp_path: Path) -> None:
    trials = list_of(tmp_path / "t", "1 a-v-1 a-w-1", "0 a-v-1 b-x-2")
    shuffled = [
        LabelledUtterance(each.utterance, label) for each, label in zip(FOUR, ("b", "a", "a", "b"), strict=True)
    ]
    assert [target for _, _, target in rows(read_trials(trials, shuffled))] == [False, True]
