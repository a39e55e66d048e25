"""The worst utterances of tasks whose predictions are words, aligned with their references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repbench.benchmark.report.data.compare import Verdicts
from repbench.benchmark.report.data.confusion import best_cell
from repbench.benchmark.report.data.evidence import predictions_of
from repbench.benchmark.report.data.gather import Cell, Gathered

MOST_UTTERANCES = 20
"""Utterances that are shown."""

WordPair = tuple[str | None, str | None]
"""A word of the reference and the one in its place; None: it is inserted, or missing."""


@dataclass(frozen=True, slots=True)
class AlignedUtterance:
    """An utterance with the words of both texts side by side.

    Attributes:
        id: Of the utterance.
        words: Pairs in order.
    """

    id: str
    words: tuple[WordPair, ...]

    @property
    def num_edits(self) -> int:
        """Pairs that differ."""
        return sum(reference != estimated for reference, estimated in self.words)

    @property
    def num_words(self) -> int:
        """Words of the reference."""
        return sum(reference is not None for reference, _ in self.words)


@dataclass(frozen=True, slots=True)
class WorstUtterances:
    """The utterances with the most edits of one record.

    Attributes:
        cell: The cell that the record is of.
        seed: Of the record.
        utterances: The most edits first; of equals the shorter, then by id. None without edits.
        num_wrong: All utterances with edits.
        num_scored: All utterances.
    """

    cell: Cell
    seed: int
    utterances: tuple[AlignedUtterance, ...]
    num_wrong: int
    num_scored: int


def worst_utterances(gathered: Gathered, verdicts: Verdicts) -> list[WorstUtterances]:
    """Those of the first seed of the best system of each column whose predictions are words."""
    cells = (best_cell(gathered, verdicts, column) for column in gathered.columns)
    found = (_worst(cell) for cell in cells if cell is not None)
    return [each for each in found if each is not None]


def _worst(cell: Cell) -> WorstUtterances | None:
    run = cell.runs[0]
    predictions = predictions_of(run) if run.unchecked is None else run.unchecked
    if isinstance(predictions, str):  # the reason that they cannot be read, which the report has as a note
        return None
    pairs = [(each.id, each.aligned()) for each in predictions]
    aligned = [AlignedUtterance(id_, tuple(words)) for id_, words in pairs if words is not None]
    if not aligned:
        return None
    wrong = sorted((each for each in aligned if each.num_edits), key=_rank)
    return WorstUtterances(cell, run.record.seed, tuple(wrong[:MOST_UTTERANCES]), len(wrong), len(aligned))


def _rank(each: AlignedUtterance) -> tuple[int, int, str]:
    return -each.num_edits, each.num_words, each.id


def alignment_in_words(words: Sequence[WordPair]) -> str:
    """An alignment on one line: `HE [HATES → ATE] [→ THE] [SHOOTING →]`."""
    return " ".join(
        str(reference) if reference == estimated else f"[{' → '.join((reference or '', estimated or '')).strip()}]"
        for reference, estimated in words
    )
