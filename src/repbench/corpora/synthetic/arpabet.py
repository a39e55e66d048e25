"""From espeak-ng's phones to ARPABET, and from its marks to phones that cover the speech.

espeak-ng's American English distinguishes more phones than ARPABET's 39 (reduced vowels, flaps, linking sounds). Each
of its phones becomes one ARPABET phone, so that every boundary is one that espeak-ng itself set and none is guessed:

* reduced vowels become the full vowel of their quality (`@ a#` AH, `I2 I#` IH), stressed and unstressed `3` ER;
* vowels that espeak-ng colours by a following r in one piece keep the vowel alone (`A@` AA, `O@` AO, `e@` EH); where it
  has a separate r (`r r-`), that is R;
* syllabic consonants become the consonant (`@L` L, `n-` N), flap and glottal stop T, the glide that links vowels Y.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.contract import SILENCE
from repbench.errors import EnvironmentFault

_ESPEAK_PHONES = {
    "AA": "A: A@ 0",
    "AE": "a aa",
    "AH": "V @ @2 a#",
    "AO": "O: O2 O@ o@",
    "AW": "aU",
    "AY": "aI aI3",
    "B": "b",
    "CH": "tS",
    "D": "d",
    "DH": "D",
    "EH": "E e@",
    "ER": "3 3:",
    "EY": "eI",
    "F": "f",
    "G": "g",
    "HH": "h",
    "IH": "I I2 I# i@3",
    "IY": "i i: i@",
    "JH": "dZ",
    "K": "k",
    "L": "l @L",
    "M": "m",
    "N": "n n-",
    "NG": "N",
    "OW": "oU",
    "OY": "OI",
    "P": "p",
    "R": "r r-",
    "S": "s",
    "SH": "S",
    "T": "t t# t2 ?",
    "TH": "T",
    "UH": "U U@",
    "UW": "u:",
    "V": "v",
    "W": "w",
    "Y": "j ;",
    "Z": "z",
    "ZH": "Z",
    SILENCE: "_ _:",
}

PHONE_SET = tuple(sorted(_ESPEAK_PHONES))
"""The 39 phones of ARPABET without stress, and silence."""

ARPABET = {mnemonic: phone for phone, mnemonics in _ESPEAK_PHONES.items() for mnemonic in mnemonics.split()}
"""From espeak-ng's mnemonic (without stress marks) to the phone."""

_STRESS_MARKS = "',%="
_WITH_CLOSURE = frozenset({"B", "CH", "D", "G", "JH", "K", "P", "T"})
_LONGEST_CLOSURE_SECONDS = 0.06


class PhoneMark(NamedTuple):
    """The start of a phone in the output of espeak-ng: its sample and its mnemonic."""

    sample: int
    mnemonic: str


class PhoneSegment(NamedTuple):
    """`label` from sample `start` up to but not including sample `end`."""

    start: int
    end: int
    label: str


def segments(marks: list[PhoneMark], samples: NDArray[np.int16], sample_rate_hz: int) -> list[PhoneSegment]:
    """The phones of one utterance: in order, without gap or overlap, from the first sample to the last.

    espeak-ng sets the mark of a stop at its burst and writes the closure before it as exact zeros; they are given to
    the stop, up to 60 ms of them (the rest of a longer run is a pause). Neighbouring silences become one.

    Args:
        marks: In the order of their samples.
        samples: The speech, (T,).
        sample_rate_hz: Rate of `samples`.

    Raises:
        EnvironmentFault: espeak-ng produced a phone that `ARPABET` does not know.
    """
    longest_closure = round(_LONGEST_CLOSURE_SECONDS * sample_rate_hz)
    spoken = [(mark.sample, _phone(mark.mnemonic)) for mark in marks]
    starts, labels = [0], [SILENCE]
    # Each mark with the start of the next; the last one ends with the samples.
    for (start, label), (after, _) in itertools.pairwise([*spoken, (len(samples), SILENCE)]):
        # a phone without samples
        if start == after:
            continue
        if label in _WITH_CLOSURE:
            # The start moves back into the exact zeros before the burst, never before the phone in front began.
            start = _closure_start(samples, max(starts[-1], start - longest_closure), start)
        starts.append(start)
        labels.append(label)
    # Ends follow from starts only now, because a closure has shortened the phone in front of it.
    ends = [*starts[1:], len(samples)]
    return joined([PhoneSegment(*parts) for parts in zip(starts, ends, labels, strict=True) if parts[0] < parts[1]])


def _phone(mnemonic: str) -> str:
    try:
        return ARPABET[mnemonic.lstrip(_STRESS_MARKS)]
    except KeyError:
        raise EnvironmentFault(
            f"espeak-ng produced the phone `{mnemonic}`, which has no place in ARPABET here",
            do="Install the release that this corpus was made for: pip install 'espeakng-loader==0.2.4'",
        ) from None


def _closure_start(samples: NDArray[np.int16], earliest: int, burst: int) -> int:
    # (burst - earliest,) -> indices of the samples that are not 0; the closure begins after the last of them
    sounding = np.flatnonzero(samples[earliest:burst])
    return earliest if sounding.size == 0 else earliest + int(sounding[-1]) + 1


def joined(parts: list[PhoneSegment]) -> list[PhoneSegment]:
    """`parts` with neighbouring silences made one."""
    whole: list[PhoneSegment] = []
    for part in parts:
        if whole and whole[-1].label == part.label == SILENCE:
            whole[-1] = whole[-1]._replace(end=part.end)
        else:
            whole.append(part)
    return whole
