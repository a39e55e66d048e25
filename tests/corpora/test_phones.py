"""Folding of phone labels."""

from __future__ import annotations

import random

import pytest

from repbench.corpora.phone_sets import CMU_PHONES, NOISE_MARKS, SILENCE_MARKS, fold_map, rare_non_arpabet


def test_there_are_39_phones() -> None:
    assert len(set(CMU_PHONES)) == len(CMU_PHONES) == 39


def test_arpabet_loses_its_stress_and_silences_become_one() -> None:
    phone_map, phone_set = fold_map(["AH0", "AH1", "ER", "NG", "sil", "SIL", "sp", "", "<eps>", "spn", "SPN"])
    assert phone_map == {
        **{"": "sil", "<eps>": "sil", "SIL": "sil", "sil": "sil", "sp": "sil"},
        **{"AH0": "AH", "AH1": "AH", "ER": "ER", "NG": "NG", "SPN": None, "spn": None},
    }
    assert phone_set == (*CMU_PHONES, "sil")


def test_the_set_of_a_folded_corpus_does_not_depend_on_what_was_met() -> None:
    assert fold_map(["AH0"])[1] == fold_map(["T", "sp"])[1] == fold_map([])[1]


@pytest.mark.parametrize("stranger", ["AX", "AXR", "IX", "AH3", "T1", "aa", "ʃ", "AH0 "])
def test_strangers_that_are_half_of_the_phones_leave_every_label_as_it_is(stranger: str) -> None:
    phone_map, phone_set = fold_map(["AH0", "sp", "spn", stranger])
    assert phone_map == {"AH0": "AH0", "sp": "sil", "spn": None, stranger: stranger}
    assert phone_set == tuple(sorted(["AH0", "sil", stranger]))


def test_fault_23_the_map_does_not_depend_on_the_order_of_the_labels() -> None:
    labels = ["AH0", "T", "sp", "", "spn", "ZH", "IY2"]
    shuffled = random.Random(0).sample(labels * 2, k=14)
    assert list(fold_map(shuffled)[0].items()) == list(fold_map(labels)[0].items())


def test_no_mark_is_both_silence_and_noise() -> None:
    assert not SILENCE_MARKS & NOISE_MARKS


def test_fault_23_a_few_strangers_among_arpabet_are_a_mistake() -> None:
    counts = {"AH0": 60, "T": 30, "sil": 900, "spn": 9, "AHH": 3, "x": 1}
    assert rare_non_arpabet(counts) == ("AHH", "x")
    assert rare_non_arpabet(counts | {"AHH": 10}) == ()


@pytest.mark.parametrize(
    "counts", [{}, {"sil": 3, "spn": 1}, {"AH0": 9, "T": 1}, {"aa": 9, "t": 1}, {"0": 50, "AA": 1}]
)
def test_a_phone_set_of_one_kind_has_no_strangers(counts: dict[str, int]) -> None:
    assert rare_non_arpabet(counts) == ()
