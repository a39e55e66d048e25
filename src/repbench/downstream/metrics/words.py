"""Error rates of texts, and slots in them.

Conventions: a text is words with a space between them. Edits and lengths are summed over utterances and divided once,
so that words recognised in an utterance without words count as errors, and long utterances weigh more.

Metrics:
    word error rate: (substitutions + deletions + insertions) / words of the references. From 0, may exceed 1; lower is
        better.
    character error rate: the same of characters, the spaces between words among them.
    slot-type F1: of an utterance, the harmonic mean of precision and recall of the set of its slots' names; 1 where
        neither text has a slot, 0 where one has none. The mean over utterances. From 0 to 1; higher is better.
    slot-value character error rate: each slot of the references is compared with that slot of the hypothesis that has
        the same name and the fewest edits a character, or with nothing; characters without markers.

Reference:
    Lai et al., Semi-Supervised Spoken Language Understanding via Self-Supervised Speech and Language Model Pretraining,
    2020; Yang et al., SUPERB, 2021, for the two metrics of slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from repbench.downstream.metrics.edits import count_edits

Slot = tuple[str, str]
"""Name and value of a slot."""


def slot_type_f1(reference: Iterable[Slot], estimated: Iterable[Slot]) -> Fraction:
    """The F1 of the names of an utterance's slots, without rounding, so that a sum does not depend on its order."""
    right, found = ({name for name, _ in slots} for slots in (reference, estimated))
    # 2 P R / (P + R) with P = |both| / |found| and R = |both| / |right|
    return Fraction(2 * len(right & found), len(right) + len(found)) if right or found else Fraction(1)


def slot_value_edits(reference: Sequence[Slot], estimated: Sequence[Slot]) -> tuple[int, int]:
    """Edits and length, in characters, of the values of an utterance's reference slots."""
    edits = length = 0
    for name, value in reference:
        # Every value is compared with the same rivals: a slot of the hypothesis may answer for two of the reference.
        rivals = [other for kind, other in estimated if kind == name]
        edits += min((count_edits(value, rival) for rival in rivals), default=len(value))
        length += len(value)
    return edits, length
