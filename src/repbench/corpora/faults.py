"""The faults of a corpus, collected one by one and reported together."""

from __future__ import annotations

import contextlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from repbench.corpora.contract import Corpus, Utterance
from repbench.errors import DataError, IntegrityError, RepbenchError

MOST_NAMED = 10
"""The most faults that are printed on a terminal; JSON has all of them."""

_VARYING = re.compile(r"`[^`]*`|(?<!\S)/\S+|\b\d[\w.]*")


class Fault(NamedTuple):
    """A fault, and the names of the utterances that are lost by it."""

    error: RepbenchError
    names: tuple[str, ...]


class FaultCollector:
    """Collects the faults of single utterances, or raises the first.

    Args:
        gather: Whether faults are collected.

    Attributes:
        faults: The collected faults.
    """

    def __init__(self, *, gather: bool) -> None:
        self._gather = gather
        self.faults: list[RepbenchError] = []

    @contextlib.contextmanager
    def each(self) -> Iterator[None]:
        """A block that reads one utterance; when collecting, a `DataError` ends this block alone."""
        try:
            yield
        except DataError as error:
            if not self._gather:
                raise
            self.faults.append(error)


def refuse_faults(faults: Sequence[Fault], *, name: str, num_utterances: int, root: Path, allowed: int) -> None:
    """Refuse a corpus with more faulty utterances than are allowed, or with faulty ones only.

    Args:
        faults: All faults.
        name: Name of the corpus.
        num_utterances: Utterances of the corpus, the faulty ones included.
        root: Root of the corpus.
        allowed: The most utterances that may be left out.

    Raises:
        DataError: The one fault; or a summary that counts them by kind, names the file and utterance of the first and
            holds each in `faults`.
        IntegrityError: The same, where one of the faults is an IntegrityError.
    """
    num_faulty = sum(len(fault.names) for fault in faults)
    if not faults or (num_faulty <= allowed and num_faulty < num_utterances):
        return
    raise (
        _alone(faults[0], num_utterances)
        if len(faults) == 1
        else _summary(faults, name=name, num_utterances=num_utterances, root=root, allowed=allowed)
    )


def _alone(fault: Fault, num_utterances: int) -> RepbenchError:
    """A single fault; its remedy names `--drop-faulty` where other utterances remain."""
    error = fault.error
    do = _or_without(error.do or "Mend it", len(fault.names), num_utterances)
    return type(error)(error.what, file=error.file, utterance=error.utterance, key=error.key, do=do)


def _or_without(do: str, num_faulty: int, num_utterances: int) -> str:
    """The remedy, with `--drop-faulty` where other utterances remain."""
    if num_faulty == num_utterances:
        return do
    # remedies end without a full stop, questions with their mark
    end = "" if do.endswith((".", "?", "!")) else "."
    return f"{do}{end} Or go on without {'it' if num_faulty == 1 else 'them'}: --drop-faulty {num_faulty}"


def _summary(
    faults: Sequence[Fault], *, name: str, num_utterances: int, root: Path, allowed: int
) -> DataError | IntegrityError:
    num_faulty = sum(len(fault.names) for fault in faults)
    more = f", more than the {allowed} that may be left out" if 0 < allowed < num_faulty else ""
    counted = "; ".join(counts_by_kind([(fault.error.what, len(fault.names)) for fault in faults]))
    names = [named for fault in faults for named in fault.names]
    listed = ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
    errors = [fault.error for fault in faults]
    # a remedy is repeated only if it is that of every fault
    same = errors[0].do if len({error.do for error in errors}) == 1 else None
    do = _or_without(same or "Mend them", num_faulty, num_utterances)
    # The gravest of the faults decides on the exit code.
    kind = IntegrityError if max(error.exit_code for error in errors) == IntegrityError.exit_code else DataError
    what = f"{num_faulty} of {num_utterances} utterances of {name} are faulty{more}: {counted}. They are {listed}"
    return kind(what, file=errors[0].file or root, utterance=errors[0].utterance, do=do, faults=errors)


def counts_by_kind(found: Sequence[tuple[str, int]]) -> list[str]:
    """The most frequent kinds of fault with their counts: `5 × The sound has 2 channels, but one is read`.

    Faults are of one kind if their texts differ only in numbers, quoted names and paths; these become `…`.

    Args:
        found: The text of each fault, and the number of its utterances.
    """
    counts: Counter[str] = Counter()
    texts: dict[str, set[str]] = defaultdict(set)
    for text, count in found:
        kind = _VARYING.sub("…", text)
        counts[kind] += count
        texts[kind].add(text)
    # a kind of one text is shown with its numbers and names
    shown = {kind: min(each) if len(each) == 1 else kind for kind, each in texts.items()}
    # the most frequent first, and equal ones in a fixed order
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    listed = [f"{count} × {shown[kind]}" for kind, count in ranked[:MOST_NAMED]]
    num_others = sum(count for _, count in ranked[MOST_NAMED:])
    return [*listed, f"{num_others} of other kinds"] if num_others else listed


def leaks(utterances: Sequence[Utterance]) -> Iterator[DataError]:
    """A fault for each utterance whose sound is in another official split too.

    The utterance in test is kept, else the one in dev, so that published test and dev splits stay whole.
    """
    for same in _same_sounds(utterances):
        # `min` takes the first of equals, and utterances come in the order of their ids
        stays = min((each for each in same if each.split is not None), key=lambda each: _KEPT[each.split], default=None)
        for other in same:
            if stays is not None and is_leak(stays, other):
                yield same_sound(*sorted((stays, other), key=lambda each: each.id), at=other)


_KEPT = {"test": 0, "dev": 1, "train": 2, None: 3}


def is_leak(first: Utterance, second: Utterance) -> bool:
    """Whether two utterances of one sound are in two official splits, so that a model could train on test data."""
    return None not in (first.split, second.split) and first.split != second.split


def same_sound(first: Utterance, second: Utterance, *, at: Utterance) -> DataError:
    """The fault of two utterances with the same sound; `at` is the one whose file the error names."""
    what = f"The same sound has two ids, {both(first, second)}"
    return DataError(what, file=at.audio, utterance=at.id, do="Remove one of them")


def both(first: Utterance, second: Utterance) -> str:
    """Two utterances with their splits: `a` (train) and `b` (test)."""
    return " and ".join(f"`{each.id}`" + (f" ({each.split})" if each.split else "") for each in (first, second))


def note_on_equal_sounds(utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """A note that counts utterances with the sound of another one; empty where there are none."""
    shared = _same_sounds(utterances)
    if not shared:
        return ()
    num_again = sum(len(same) - 1 for same in shared)
    pair = both(shared[0][0], shared[0][1])
    return (f"{num_again} of {len(utterances)} utterances have the sound of another one, such as {pair}",)


def warnings_of(corpus: Corpus) -> tuple[str, ...]:
    """The warnings of every audit and record: utterances left out as faulty, and sounds under several ids."""
    equal = note_on_equal_sounds(corpus.utterances)
    if not corpus.dropped:
        return equal
    name, reason = next(iter(corpus.dropped.items()))
    num_listed = len(corpus.utterances) + len(corpus.dropped)
    left_out = f"{len(corpus.dropped)} of {num_listed} utterances were left out when the corpus was prepared"
    return (f"{left_out}, such as {name}: {reason}", *equal)


def _same_sounds(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
    """The utterances of each sound that has several."""
    # a number each, sorted, takes a tenth of the memory of a dictionary of a million names
    numbers = np.fromiter((hash(each.samples_sha256) for each in utterances), dtype=np.int64, count=len(utterances))
    _, places, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    by_sound: dict[str, list[Utterance]] = defaultdict(list)
    for row in np.flatnonzero(counts[places] > 1).tolist():
        by_sound[utterances[row].samples_sha256].append(utterances[row])
    return [same for same in by_sound.values() if len(same) > 1]
