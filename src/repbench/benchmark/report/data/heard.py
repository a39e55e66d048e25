"""Whether the system of a number was trained on its test utterances before, as its records state it.

Nothing here is read by the order of rows, by marks or by comparisons: a declaration costs no rank.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from repbench.benchmark.records.parts import HeardPart
from repbench.benchmark.records.record import Record

_OF_WARNING = re.compile(r".* learned from (\d+) of (\d+) test utterances in its pre-training", re.DOTALL)
"""A warning of records made before `Record.heard` was kept, and of those since."""

_FROM_WORST = ("heard", "unknown", "not heard")


def heard_of(record: Record) -> HeardPart:
    """What a record states; of one made before it was kept what its warning states, else unknown."""
    if record.heard is not None:
        return record.heard
    for warning in record.corpus.warnings:
        if (found := _OF_WARNING.fullmatch(warning)) is not None:
            known, listed = (int(each) for each in found.groups())
            return HeardPart(verdict="heard", basis=(warning,), declared=None, n_overlapping=known, n_test=listed)
    why = "the record was made before this was kept"
    return HeardPart(verdict="unknown", basis=(why,), declared=None, n_overlapping=None, n_test=record.n_scored)


def together(parts: Iterable[HeardPart]) -> HeardPart:
    """One statement for several numbers: heard if any is, unknown if any is, else not heard.

    Basis and declared data are those of all with this verdict; the overlap is the largest of them.
    """
    several = list(parts)
    verdict = next(each for each in _FROM_WORST if any(part.verdict == each for part in several))
    alike = [part for part in several if part.verdict == verdict]
    first = max(alike, key=lambda part: part.n_overlapping or 0)
    declared = [name for part in alike for name in part.declared or ()]
    return first.model_copy(
        update={
            "basis": tuple(dict.fromkeys(sentence for part in alike for sentence in part.basis)),
            "declared": None if all(part.declared is None for part in alike) else tuple(dict.fromkeys(declared)),
        }
    )


def in_words(part: HeardPart) -> str:
    """What the verdict rests on, on one line."""
    return "; ".join(part.basis)


def declared_in_words(declared: Sequence[str] | None) -> str:
    """The declared training data, on one line."""
    return "not declared" if declared is None else ", ".join(declared) or "nothing"


def overlap_in_words(part: HeardPart) -> str:
    """How many test utterances are in the training data; empty where its utterances are not known."""
    return "" if part.n_overlapping is None else f"{part.n_overlapping} of {part.n_test}"
