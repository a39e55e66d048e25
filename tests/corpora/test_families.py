"""Names of corpora: which mean one, what they share, and how their splits compare."""

from __future__ import annotations

import pytest

from repbench.corpora.families import (
    FAMILIES,
    family_of,
    is_variant,
    normalised,
    speaker_space,
    split_name,
    split_relation,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("librispeech", "LibriSpeech"),
        ("openslr/librispeech_asr", "LibriSpeech"),
        ("Libri-Light", "Libri-Light"),
        ("libri_light", "Libri-Light"),
        ("mozilla-foundation/common_voice_11_0", "Common Voice"),
        ("commonvoice", "Common Voice"),
        ("librimix-mix_both", "LibriMix"),
        ("mosi-mockingjay", "CMU-MOSI"),
        ("VoxCeleb2", "VoxCeleb"),
        ("synthetic:noisy:tiny", "synthetic"),
        ("mosinee", None),
        ("my recordings", None),
    ],
)
def test_a_corpus_is_known_under_all_its_names(name: str, expected: str | None) -> None:
    family = family_of(name)
    assert (None if family is None else family.name) == expected


def test_no_name_means_two_corpora() -> None:
    names = [name for family in FAMILIES for name in {normalised(family.name), *family.aliases}]
    assert len(names) == len(set(names))
    assert all(name == normalised(name) for family in FAMILIES for name in family.aliases)


def test_corpora_that_are_referred_to_are_in_the_table() -> None:
    known = {family.name for family in FAMILIES}
    for family in FAMILIES:
        assert {family.made_of} - {None} | family.leaves_out.keys() <= known


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train.clean.100", "train-clean-100"),
        ("train_clean_100", "train-clean-100"),
        ("validation", "dev"),
        ("Eval", "test"),
        ("test-other", "test-other"),
    ],
)
def test_splits_have_one_spelling(name: str, expected: str) -> None:
    assert split_name(name) == expected


@pytest.mark.parametrize(
    ("declared", "split", "expected"),
    [
        (("train-clean-100",), "test-clean", "other"),
        (("train",), "train-clean-360", "same"),
        (("train-clean-100", "test-clean"), "test-clean", "same"),
        (("test-clean",), "test", "unknown"),
        (("960h",), "train-other-500", "same"),
        (("960h",), "dev-clean", "other"),
        (("all",), None, "same"),
        (("train",), None, "unknown"),
        (("default",), "test-clean", "unknown"),
        (("testing",), "test", "unknown"),
    ],
)
def test_an_utterance_is_in_the_declared_splits_or_not_or_it_is_not_known(
    declared: tuple[str, ...], split: str | None, expected: str
) -> None:
    assert split_relation(declared, split, family_of("LibriSpeech")) == expected


def test_ids_of_speakers_are_shared_by_corpora_of_one_source() -> None:
    assert speaker_space("librispeech") == speaker_space("MLS") == speaker_space("libri-light")
    assert speaker_space("librispeech") != speaker_space("voxceleb")
    assert speaker_space("my recordings") == "my recordings"
    assert speaker_space("synthetic:noisy:tiny") == speaker_space("synthetic:hard:tiny")
    assert speaker_space("synthetic:noisy:tiny") != speaker_space("synthetic:noisy:small")


def test_variants_of_a_corpus_have_unequal_names() -> None:
    assert is_variant("synthetic:noisy:tiny", "synthetic:hard:tiny")
    assert not is_variant("synthetic:noisy:tiny", "synthetic:noisy:tiny")
    assert not is_variant("librispeech", "librispeech_asr")
