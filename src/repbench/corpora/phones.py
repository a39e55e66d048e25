"""Which phone labels there are, and how the marks of aligners fold into them.

The Montreal Forced Aligner and the CMU dictionary write ARPABET in capitals with a stress digit on vowels (`AH0`);
stress is folded away, which leaves the 39 phones of the CMU dictionary and silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from repbench.corpora.contract import SILENCE

CMU_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CMU_CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N"),
    *("NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
CMU_PHONES = tuple(sorted(CMU_VOWELS + CMU_CONSONANTS))
"""The 39 phones of the CMU dictionary."""

SILENCE_MARKS = frozenset({"", "sil", "SIL", "sp", "SP", "<eps>", "<sil>", "<SIL>", "silence", "SILENCE"})
"""What aligners write where nobody speaks."""

NOISE_MARKS = frozenset({"spn", "SPN", "nsn", "NSN", "lau", "LAU", "<unk>", "<UNK>", "noise", "NOISE"})
"""What aligners write where a phone is not known (out-of-dictionary word, noise, laughter): not labelled."""

STRANGER_SHARE = 0.05
"""Where at most this share of the labels is no ARPABET and the others are, it is a mistake and no other phone set."""

_ARPABET = re.compile(f"({'|'.join(CMU_VOWELS)})[0-2]?|{'|'.join(CMU_CONSONANTS)}")


def fold_map(labels: Iterable[str]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Where each label leads, and all labels there can be.

    Silence marks lead to "sil" and noise marks to None (not labelled). If every other label is ARPABET in capitals,
    with or without a stress digit on its vowels, it loses its stress, and the set is the 39 phones and "sil" whatever
    was met, so that corpora compare. Otherwise (another language or phone set: TIMIT's 61, IPA, …) every other label
    stays as it is, and the set is what was met.

    Args:
        labels: The labels of the alignments, in any order, as often as they occur.

    Returns:
        The map from label to label, sorted, and the sorted set of labels it may lead to.

    Example:
        >>> fold_map(["AH0", "sp", "spn"])[0]
        {'AH0': 'AH', 'sp': 'sil', 'spn': None}
    """
    met = sorted(set(labels))
    is_arpabet = all(_ARPABET.fullmatch(label) for label in met if label not in SILENCE_MARKS | NOISE_MARKS)
    phone_map = {label: _folded(label, is_arpabet) for label in met}
    if is_arpabet:
        return phone_map, tuple(sorted((*CMU_PHONES, SILENCE)))
    return phone_map, tuple(sorted({phone for phone in phone_map.values() if phone is not None}))


def rare_strangers(counts: Mapping[str, int]) -> tuple[str, ...]:
    """The labels, sorted, that are no ARPABET although at least 95 % of all phones are; empty where all or few are.

    One mistyped label among millions would else turn the 39 phones into another phone set without a word.

    Args:
        counts: How often each label occurs.
    """
    phones = {label: count for label, count in counts.items() if label not in SILENCE_MARKS | NOISE_MARKS}
    strangers = sorted(label for label in phones if not _ARPABET.fullmatch(label))
    num_strange = sum(phones[label] for label in strangers)
    return tuple(strangers) if num_strange <= STRANGER_SHARE * sum(phones.values()) else ()


def _folded(label: str, is_arpabet: bool) -> str | None:
    if label in SILENCE_MARKS:
        return SILENCE
    if label in NOISE_MARKS:
        return None
    return label.rstrip("012") if is_arpabet else label
