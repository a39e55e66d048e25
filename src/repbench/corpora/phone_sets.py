"""Phone sets, and the folding of labels and marks of aligners into them.

The Montreal Forced Aligner and the CMU dictionary write ARPABET in capitals with a stress digit on vowels (`AH0`);
stress is folded away, which leaves the 39 phones of the CMU dictionary and silence. Each of these steps is counted in a
note:

1. Marks of silence become `sil`, marks of noise and unknown words are not labelled, in any phone set.
2. Where most phones end in a word position of Kaldi (`AH0_B`, `_I`, `_E`, `_S`), the positions come off.
3. Where all phones are ARPABET in capitals, stress comes off and the set is the 39 phones and `sil`.
4. Where most phones are ARPABET and some are not, stress comes off too; labels in brackets or without a letter are not
   labelled, because they can be no phones there, and the others are added to the phones that occur. (A few of them
   are refused as mistakes: `rare_non_arpabet`.)
5. All other phone sets (TIMIT's 61, IPA, SAMPA, numbers, …) stay as they are.

References: Young et al., "The HTK Book" (`sil`, `sp`); Kaldi's recipes (`SIL`, `SPN`, `NSN`, `LAU`, `_B _I _E _S`);
Garofolo et al., TIMIT (`h#`, `pau`, `epi`); Kisler et al., WebMAUS (`<p:>`, `<usb>`, `<nib>`); Bigi, SPPAS (`#`, `+`);
Goldman, EasyAlign, and Schröder, MaryTTS (`_`); Kawahara, Julius segmentation kit (`silB`, `silE`); Black, Festival
(`pau`, `ssil`, `H#`, `brth`); Zhu, Charsiu (`[SIL]`, `[UNK]`); Yuan and Liberman, P2FA (`ns`, `br`, `cg`, `lg`, `ls`);
Pitt et al., Buckeye (`SIL`, `VOCNOISE`, `IVER`); Ochshorn, Gentle (`oov`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from repbench.corpora.contract import SILENCE

CMU_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CMU_CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N"),
    *("NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
CMU_PHONES = tuple(sorted(CMU_VOWELS + CMU_CONSONANTS))
"""The 39 phones of the CMU dictionary."""

SILENCE_MARKS = frozenset(
    (
        *("", "sil", "silence", "sp", "pau", "pause", "ssil", "silb", "sile", "epi"),
        *("h#", "#", "_", "+", "eps", "!sil", "<p:>", "<s>", "</s>", "{sl}"),
    )
)
"""Labels of aligners for silence, in small letters.

Case does not matter (`SIL`, `Sil`, `H#`): no phone set has a phone that differs from these by case alone. They count in
brackets too (`[SIL]`, `<eps>`), with a word position of Kaldi (`SIL_S`) and, of `sil`, `sp` and `pau`, with a digit
(`sp1`). Those that are written here in brackets count only with them: `p:` is a long p in SAMPA.
"""

NOISE_MARKS = frozenset(
    (
        *("spn", "nsn", "lau", "unk", "oov", "noise", "laugh", "laughter", "breath", "brth", "cough", "vocnoise"),
        *("iver", "unknown", "garbage", "gbg", "<usb>", "<nib>"),
    )
)
"""Labels of aligners for unknown phones: noise, laughter, a word that is not in the dictionary.

They are matched as those of `SILENCE_MARKS` are.
"""

RARE_SHARE = 0.05
"""Labels that are no ARPABET are taken for mistakes if they are at most this share of all labels."""

MOST_CLASSES = 200
"""More labels than the phone sets in use have (CMU with stress 69, Mandarin with tones some 190), numbers left out."""

WORD_SHARE = 0.4
"""The share of labels that look like words from which on they are: three quarters do in running text, of phones few."""

_P2FA_NOISES = frozenset({"ns", "br", "cg", "lg", "ls"})
"""Noise, breath, cough, laughter and lip smack of P2FA, in small letters among capitals; marks among ARPABET alone."""

_LONG_PHONES = frozenset({"axr", "eng", "bcl", "dcl", "gcl", "pcl", "tcl", "kcl"})
"""Phones of TIMIT and others of three letters, which are no words."""

_NUM_NAMED = 8
_ARPABET = re.compile(f"({'|'.join(CMU_VOWELS)})[0-2]?|{'|'.join(CMU_CONSONANTS)}")
_OTHER_DIGIT = re.compile(f"({'|'.join(CMU_VOWELS)})[3-9]|({'|'.join(CMU_CONSONANTS)})[0-9]")
_POSITION = re.compile(r"(?<=.)_[BIES]\Z")
_BRACKETED = re.compile(r"\[(.*)\]|<(.*)>|\{(.*)\}|\((.*)\)|\+{1,2}(.+?)\+{1,2}")
_NUMBERED = re.compile(r"(sil|sp|pau)[0-9]")

MarkKind = Literal["silence", "noise"]


class Folding(NamedTuple):
    """The folding of the labels of a corpus.

    Attributes:
        phone_map: From each label to its phone, sorted; None: not labelled.
        phone_set: The sorted phones that it may lead to.
        notes: Counts of labels that were folded, dropped or kept, with the first of them.
    """

    phone_map: dict[str, str | None]
    phone_set: tuple[str, ...]
    notes: tuple[str, ...]


def fold_map(labels: Iterable[str]) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """The map and the set of `fold`, of labels in any order, as often as they occur.

    Example:
        >>> fold_map(["AH0", "sp", "spn"])[0]
        {'AH0': 'AH', 'sp': 'sil', 'spn': None}
    """
    return fold(Counter(labels))[:2]


def fold(
    counts: Mapping[str, int], *, relabel: Mapping[str, str | None] | None = None, keep_labels: bool = False
) -> Folding:
    """Fold the labels of the alignments of a corpus, by the steps in the docstring of this module.

    Args:
        counts: How often each label occurs. The order plays no part.
        relabel: From a label to its replacement, before anything else is done; None: not labelled.
        keep_labels: Whether labels stay as they are; an empty one is still silence.
    """
    relabel = relabel or {}
    rules = _FoldingRules(relabelled(counts, relabel), keep_labels=keep_labels)
    # sorted, so that the map in `corpus.json` is the same whatever order the files were read in
    meant = {label: relabel.get(label, label) for label in sorted(counts)}
    phone_map = {label: None if each is None else rules.phone(each) for label, each in meant.items()}
    met = {phone for phone in phone_map.values() if phone is not None}
    phone_set = {*CMU_PHONES, SILENCE} if rules.is_cmu else met
    changed = {f"{label}={each or ''}": counts[label] for label, each in meant.items() if each != label}
    notes = _note("{num} of {total} intervals are relabelled as asked: {labels}", changed, sum(counts.values()))
    return Folding(phone_map, tuple(sorted(phone_set)), (*notes, *rules.notes()))


def relabelled(counts: Mapping[str, int], relabel: Mapping[str, str | None]) -> Counter[str]:
    """The count of each label after relabelling, without those that become no label."""
    tally: Counter[str] = Counter()
    for label, count in counts.items():
        meant = relabel.get(label, label)
        if meant is not None:
            tally[meant] += count
    return tally


def rare_non_arpabet(counts: Mapping[str, int]) -> tuple[str, ...]:
    """The labels, sorted, that are no ARPABET although at least 95 % of all phones are; empty where all or few are.

    Otherwise one mistyped label among millions would silently give another phone set than the 39 phones.

    Args:
        counts: How often each label occurs.
    """
    rules = _FoldingRules(counts)
    num_others = sum(rules.non_arpabet.values())
    num_phones = num_others + rules.num_arpabet
    return tuple(sorted(rules.non_arpabet_labels)) if num_others <= RARE_SHARE * num_phones else ()


def fault_of_word_labels(counts: Mapping[str, int]) -> str | None:
    """The reason why the labels look like words, as a sentence; None where they look like phones.

    Words are recognised by their length: of running text some three quarters have three letters or more, of the phone
    sets in use a tenth or fewer. Shorter words are recognised by their number: more of them than a phone set has, of
    which half occur once or twice.

    Args:
        counts: How often each label occurs.
    """
    rules = _FoldingRules(counts)
    if rules.num_arpabet > sum(rules.non_arpabet.values()):
        return None
    phones = {label: count for label, count in rules.non_arpabet.items() if not label.isdecimal()}
    num_phones = sum(phones.values())
    words = {label: count for label, count in phones.items() if _looks_like_word(label)}
    if sum(words.values()) >= WORD_SHARE * num_phones > 0:
        num_words = f"{sum(words.values())} of {num_phones} intervals have three letters or more"
        return f"The labels look like words and not like phones: {num_words} ({_named(words)})"
    frequent = sorted(phones.values(), reverse=True)
    # the median count: words are many and most of them rare (Zipf), phones are few and frequent
    if len(phones) > MOST_CLASSES and frequent[len(frequent) // 2] <= 2:
        return (
            f"There are {len(phones)} labels, more than a phone set has, and half of them are rare ({_named(phones)})"
        )
    return None


def mark_of(label: str) -> MarkKind | None:
    """Whether a label is a mark of silence, of noise, or of neither."""
    name = _POSITION.sub("", label).casefold()
    brackets = _BRACKETED.fullmatch(name)
    inside = next((each for each in brackets.groups() if each is not None), "") if brackets else name
    # as written and without brackets, each without its word position
    names = {name, _POSITION.sub("", inside).strip() or name}
    # `sp1` is `sp`
    names |= {each[:-1] for each in names if _NUMBERED.fullmatch(each)}
    if names & SILENCE_MARKS:
        return "silence"
    return "noise" if names & NOISE_MARKS else None


class _FoldingRules:
    """The rules of folding for the labels of one corpus.

    Args:
        counts: How often each label occurs.
        keep_labels: Whether they stay as they are.

    Attributes:
        num_arpabet: Intervals of ARPABET in capitals.
        non_arpabet: The labels that are neither marks nor ARPABET, without word positions, and how often they occur.
        non_arpabet_labels: The same labels as they are written.
        is_cmu: Whether every phone is ARPABET, so that the set is that of the CMU dictionary.
    """

    def __init__(self, counts: Mapping[str, int], *, keep_labels: bool = False) -> None:
        self._counts = counts
        self._keep = keep_labels
        self._marks = {} if keep_labels else {label: mark for label in counts if (mark := mark_of(label)) is not None}
        phones = {label: count for label, count in counts.items() if label not in self._marks}
        # Most of them, because a single label of another set may end in `_S` by chance.
        in_positions = sum(count for label, count in phones.items() if _POSITION.search(label))
        self._has_positions = not keep_labels and 2 * in_positions > sum(phones.values())
        self.non_arpabet: Counter[str] = Counter()
        self.num_arpabet = 0
        for label, count in phones.items():
            if _ARPABET.fullmatch(self._bare(label)):
                self.num_arpabet += count
            else:
                self.non_arpabet[self._bare(label)] += count
        # Only now are marks known that are marks among ARPABET alone, hence the second pass.
        self._takes_stress_off = self._is_mostly_arpabet() and not keep_labels
        if self._takes_stress_off:
            for label in phones:
                if _is_no_phone(self._bare(label)):
                    self._marks[label] = "noise"
                    self.non_arpabet.pop(self._bare(label), None)
        self.non_arpabet_labels = [label for label in phones if self._bare(label) in self.non_arpabet]
        self.is_cmu = not keep_labels and not self.non_arpabet

    def phone(self, label: str) -> str | None:
        """The phone of a label; None: not labelled."""
        if self._keep:
            return label or SILENCE
        if label in self._marks:
            return SILENCE if self._marks[label] == "silence" else None
        bare = self._bare(label)
        # no phone of ARPABET ends in a digit but that of stress
        return bare.rstrip("012") if self._takes_stress_off and _ARPABET.fullmatch(bare) else bare

    def notes(self) -> tuple[str, ...]:
        """Notes on the effect of the rules on this corpus."""
        if self._keep:
            return self._note("{num} of {total} intervals keep their label, nothing is folded: {labels}", self._counts)
        silences = self._chosen("silence", lambda label: label != SILENCE)
        noises = self._chosen("noise", lambda _: True)
        taken = "{num} of {total} intervals keep labels that are no ARPABET in capitals, {classes} of them: {labels}"
        return (
            *self._note("{num} of {total} intervals are silence and become `sil`: {labels}", silences),
            *self._note("{num} of {total} intervals are noise or unknown and carry no label: {labels}", noises),
            *self._note("{num} of {total} labels lose their word position: {labels}", self._in_position()),
            *self._note("{num} of {total} labels lose their stress: {labels}", self._stressed()),
            *self._note(taken, self.non_arpabet),
        )

    def _is_mostly_arpabet(self) -> bool:
        """Whether most phones are ARPABET; not where its digits are tones: `AA3`, `T1`."""
        # stress is 0 to 2 and on vowels only: any other digit is a tone, which must not be taken off
        has_tones = any(_OTHER_DIGIT.fullmatch(label) for label in self.non_arpabet)
        return self.num_arpabet > sum(self.non_arpabet.values()) and not has_tones

    def _bare(self, label: str) -> str:
        return _POSITION.sub("", label) if self._has_positions else label

    def _in_position(self) -> dict[str, int]:
        return self._chosen(None, lambda label: self._bare(label) != label)

    def _stressed(self) -> dict[str, int]:
        return self._chosen(None, lambda label: self.phone(label) != self._bare(label))

    def _chosen(self, mark: MarkKind | None, test: Callable[[str], bool]) -> dict[str, int]:
        return {label: count for label, count in self._counts.items() if self._marks.get(label) == mark and test(label)}

    def _note(self, text: str, counts: Mapping[str, int]) -> tuple[str, ...]:
        return _note(text, counts, sum(self._counts.values()))


def _is_no_phone(label: str) -> bool:
    """Whether a label among ARPABET can only be a mark: in brackets, without a letter or digit, or a noise of P2FA."""
    has_letter = any(character.isalnum() for character in label)
    return bool(_BRACKETED.fullmatch(label)) or not has_letter or label in _P2FA_NOISES


def _looks_like_word(label: str) -> bool:
    """Whether a label has a blank, a character of Chinese or Korean, or three letters in a row.

    The part before `_` does not count (`eng_ae`), and a digit is that of a tone (`ing1`).
    """
    name = label.rpartition("_")[2] or label
    if name.casefold() in _LONG_PHONES or any(each.isdigit() for each in name):
        return False
    # "l" for a letter and "-" for anything else, so that "lll" is three letters in a row
    kinds = "".join("l" if unicodedata.category(each) in ("Ll", "Lu", "Lo") else "-" for each in name)
    is_ideographic = any(unicodedata.name(each, "").startswith(("CJK UNIFIED", "HANGUL SYLLABLE")) for each in name)
    return "lll" in kinds or " " in name or is_ideographic


def _note(text: str, counts: Mapping[str, int], total: int) -> tuple[str, ...]:
    """A note on some of `total` intervals; none where there are none."""
    if not counts:
        return ()
    return (text.format(num=sum(counts.values()), total=total, classes=len(counts), labels=_named(counts)),)


def _named(labels: Iterable[str]) -> str:
    """The first labels, sorted."""
    names = sorted(labels)
    shown = ", ".join(f"`{name}`" if name else "the empty label" for name in names[:_NUM_NAMED])
    return shown + (f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else "")
