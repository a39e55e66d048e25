"""Lists of trials: what is compared with what, and whether both are of one speaker.

Axes: N trials, M enrolments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from repbench.downstream.problems.contract import LabelledUtterance

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Sessions = Literal["other", "any"]


class Enrolment(NamedTuple):
    """The utterances of one speaker that a test utterance is compared with.

    Attributes:
        name: The id of its only utterance, or the name that a file of enrolments gives it.
        utterances: Their numbers among the utterances of test.
    """

    name: str
    utterances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trials:
    """Trials among the utterances of test.

    Attributes:
        enrolments: M enrolments.
        enrolment_of: (N,) the number of each trial's enrolment.
        test_of: (N,) the number of each trial's test utterance.
        targets: (N,) whether the labels of both sides are equal.
        sessions: Whether the two sides are of other sessions, where trials are made; None for a list.
    """

    enrolments: tuple[Enrolment, ...]
    enrolment_of: Integers
    test_of: Integers
    targets: Booleans
    sessions: Sessions | None = None

    def as_list(self, examples: Sequence[LabelledUtterance]) -> bytes:
        """The list, in VoxCeleb's form, as it can be read again."""
        names = [enrolment.name for enrolment in self.enrolments]
        sides = zip(self.targets.tolist(), self.enrolment_of.tolist(), self.test_of.tolist(), strict=True)
        return _as_lines([(str(int(target)), names[one], examples[other].id) for target, one, other in sides])

    def enrolments_as_list(self, examples: Sequence[LabelledUtterance]) -> bytes | None:
        """The file of enrolments, as it can be read again; None where each is one utterance by its id."""
        rows = [(each.name, *(examples[number].id for number in each.utterances)) for each in self.enrolments]
        return None if all(row[1:] == row[:1] for row in rows) else _as_lines(rows)


def _as_lines(rows: Sequence[tuple[str, ...]]) -> bytes:
    """Lines of words with a blank between them, or a tab where a name has blanks."""
    separator = "\t" if any(len(word.split()) != 1 for row in rows for word in row) else " "
    return "".join(f"{separator.join(row)}\n" for row in rows).encode("utf-8", "surrogatepass")
