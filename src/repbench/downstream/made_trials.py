"""Trials that are made for a corpus without a list: a seeded draw among the pairs of test utterances.

The draw follows from the utterances of test, their speakers and a seed: it is the same for every upstream, on every
machine and with every version of numpy.

Axes: U utterances of test, N trials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from repbench.corpora.conditions import original
from repbench.downstream.problems.contract import LabelledUtterance
from repbench.downstream.problems.trial_list import Enrolment, Trials
from repbench.errors import DataError

SEX_ATTRIBUTES = ("gender", "sex")
"""Names of the attribute by which both sides of a trial with two speakers are alike."""

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


def make_trials(examples: Sequence[LabelledUtterance], *, most: int, seed: int) -> Trials:
    """Pairs of utterances, half of them of one speaker where there are enough.

    Where any speaker has two sessions (groups), both sides of every trial are of different sessions, as far as these
    are known. Two speakers of a trial have the same sex, as far as the corpus has it.

    Args:
        examples: The utterances of test; their labels are speakers.
        most: Trials at most, from 2 on.
        seed: Of the draw.

    Raises:
        DataError: No two utterances are of one speaker, or none are of two.
    """
    # Sorted, so that the draw does not depend on the order in which a split lists its utterances.
    order = sorted(range(len(examples)), key=lambda number: examples[number].id)
    pairs = _Pairs([examples[number] for number in order])
    num_same, num_different = pairs.count(same=True), pairs.count(same=False)
    if not num_same or not num_different:
        found = "two utterances of one speaker" if not num_same else "utterances of two speakers of the same sex"
        what = f"No trials can be made among {len(examples)} utterances: there are no {found}"
        do = "Choose a larger corpus, or larger shares of test and dev: split.test_share, split.dev_share"
        raise DataError(what, key="task.trials", do=do)
    wanted_different = min(num_different, most - min(num_same, most // 2))
    wanted_same = min(num_same, most - wanted_different)
    salt = f"{seed} {_digest(examples[number] for number in order)}"
    # (N, 2) pairs (i, j), i < j, of numbers in the sorted order
    drawn = np.concatenate(
        [
            pairs.chosen(_drawn(num_same, wanted_same, f"{salt} same"), same=True),
            pairs.chosen(_drawn(num_different, wanted_different, f"{salt} different"), same=False),
        ]
    )
    drawn = drawn[np.lexsort((drawn[:, 1], drawn[:, 0]))]
    # Each utterance is the test side of about as many trials as it is the enrolment of.
    swapped = drawn.sum(axis=1) % 2 == 1
    drawn[swapped] = drawn[swapped, ::-1]
    place = np.array(order, dtype=np.int64)
    enrolled, enrolment_of = np.unique(place[drawn[:, 0]], return_inverse=True)
    test_of = place[drawn[:, 1]]
    labels = [example.labels for example in examples]
    return Trials(
        enrolments=tuple(Enrolment(examples[number].id, (number,)) for number in enrolled.tolist()),
        enrolment_of=enrolment_of.astype(np.int64),
        test_of=test_of,
        targets=np.array(
            [labels[a] == labels[b] for a, b in zip(enrolled[enrolment_of], test_of, strict=True)], dtype=bool
        ),
        sessions="other" if pairs.other_sessions else "any",
    )


class _Pairs:
    """The pairs (i, j), i < j, of U utterances that a trial may have.

    Attributes:
        other_sessions: Whether both sides are of different sessions.
    """

    def __init__(self, examples: Sequence[LabelledUtterance]) -> None:
        self._speakers = _codes([example.labels for example in examples])
        self._sessions = _codes([example.utterance.group for example in examples])
        self._sexes = _codes([_sex_of(example) for example in examples])
        self.other_sessions = False
        self.other_sessions = any(self._meets_other_session(number) for number in range(len(examples)))

    def count(self, *, same: bool) -> int:
        """The number of pairs of one speaker, or of two."""
        return sum(int(self._allowed(number, same=same).sum()) for number in range(len(self._speakers)))

    def chosen(self, ordinals: Integers, *, same: bool) -> Integers:
        """(N, 2) the pairs at these places, which rise, among all of one speaker, or of two."""
        found, before = [np.empty((0, 2), dtype=np.int64)], 0
        for number in range(len(self._speakers)):
            others = np.flatnonzero(self._allowed(number, same=same)) + number + 1
            first, end = np.searchsorted(ordinals, (before, before + len(others)))
            own = others[ordinals[first:end] - before]
            found.append(np.stack([np.full_like(own, number), own], axis=1))  # (n,), (n,) -> (n, 2)
            before += len(others)
        return np.concatenate(found)

    def _meets_other_session(self, number: int) -> bool:
        """Whether a later utterance of the same speaker is of another session, and both sessions are known."""
        others = _known(self._sessions, number) & (self._sessions[number + 1 :] != self._sessions[number])
        return bool((self._allowed(number, same=True) & others).any())

    def _allowed(self, number: int, *, same: bool) -> Booleans:
        """(U - number - 1,) which later utterances make a pair with an utterance."""
        later = slice(number + 1, None)
        alike = self._speakers[later] == self._speakers[number]
        allowed: Booleans = alike if same else ~alike
        if not same:
            allowed = allowed & ~(_known(self._sexes, number) & (self._sexes[later] != self._sexes[number]))
        if self.other_sessions:
            allowed = allowed & ~(_known(self._sessions, number) & (self._sessions[later] == self._sessions[number]))
        return allowed


def _known(codes: Integers, number: int) -> Booleans:
    """(U - number - 1,) whether an utterance and each later one both have a code."""
    known: Booleans = (codes[number + 1 :] >= 0) & bool(codes[number] >= 0)
    return known


def _codes(values: Sequence[str | None]) -> Integers:
    """(U,) a number for each value; -1 where it is unknown."""
    code_of: dict[str | None, int] = {
        value: code for code, value in enumerate(sorted({each for each in values if each is not None}))
    }
    return np.array([code_of.get(value, -1) for value in values], dtype=np.int64)


def _sex_of(example: LabelledUtterance) -> str | None:
    attributes = example.utterance.attributes
    given = next((str(attributes[name]) for name in SEX_ATTRIBUTES if name in attributes), None)
    # `female` and `F` of two tables of one corpus are the same.
    return given.strip().casefold()[:1] or None if given is not None else None


def _digest(examples: Iterable[LabelledUtterance]) -> str:
    """A text that follows from the utterances of test and their sounds, but not from their labels."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.id}\0{original(example.utterance).samples_sha256}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _drawn(total: int, count: int, salt: str) -> Integers:
    """(count,) different numbers below `total`, which rise."""
    # By digests and not by numpy's generators, whose draws may change from version to version.
    left_out = count > total // 2
    wanted, chosen, number = total - count if left_out else count, set[int](), 0
    while len(chosen) < wanted:
        chosen.add(int(hashlib.sha256(f"{salt} {number}".encode()).hexdigest()[:15], 16) % total)
        number += 1
    kept = sorted(set(range(total)) - chosen) if left_out else sorted(chosen)
    return np.array(kept, dtype=np.int64)
