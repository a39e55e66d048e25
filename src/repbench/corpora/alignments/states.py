"""States of hidden Markov models, and the phones that they make up.

HTS and HTK align states: a phone of five states takes five lines, `ah[2]` to `ah[6]`, or `s2 … ah`, `s3`, … in the
output of HTK. In a sequence of phones each phone must occur once.

References: Zen, "An example of context-dependent label format for HMM-based speech synthesis" (HTS, 2006); Young et
al., "The HTK Book", "HVite", option `-f`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from repbench.corpora.alignments.intervals import Alignment
from repbench.corpora.contract import Phone
from repbench.errors import DataError

_STATE = re.compile(r"(.+)\[(\d+)\]")
_HTK_STATE = re.compile(r"s(\d+)")
_SCORE = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TOUCHING = 1e-4


class IntervalLine(NamedTuple):
    """A line of intervals: its number, its times in the unit of its file, and its label."""

    line: int
    start: float
    end: float
    label: str


def joined(rows: Sequence[IntervalLine], path: Path, utterance: str | None) -> tuple[list[IntervalLine], int]:
    """The rows, each run of states of one phone put together under the label without its state.

    A phone goes on while the number of the state rises under the same label; where it falls back to the first state,
    the same phone begins again.

    Returns:
        The rows, and how many of those given were states.

    Raises:
        DataError: The states of a phone are out of order, or there is time between them; names the line.
    """
    states = [_STATE.fullmatch(row.label) for row in rows]
    numbers = [int(state[2]) for state in states if state is not None]
    whole: list[IntervalLine] = []
    previous: tuple[str, int] | None = None
    for row, state in zip(rows, states, strict=True):
        if state is None:
            whole.append(row)
            previous = None
            continue
        name, number = state[1], int(state[2])
        # HTS counts states from 2, others from elsewhere: the smallest number of the file is the first state
        goes_on = previous is not None and previous[0] == name and number != min(numbers)
        if goes_on and previous is not None and number <= previous[1]:
            raise _fault(f"The state [{number}] of `{name[:40]}` comes after [{previous[1]}]", row, path, utterance)
        # relative, because the rows may be in samples or in 100 ns
        if goes_on and abs(row.start - whole[-1].end) > _TOUCHING * max(1.0, abs(row.end)):
            raise _fault(f"There is time before the state [{number}] of `{name[:40]}`", row, path, utterance)
        if goes_on:
            whole[-1] = whole[-1]._replace(end=row.end)
        else:
            whole.append(row._replace(label=name))
        previous = (name, number)
    return whole, len(numbers)


def join_states(alignment: Alignment, *, utterance: str | None = None) -> Alignment:
    """An alignment of any format whose labels are mostly states, as one of phones; errors as `joined`."""
    num_states = sum(_STATE.fullmatch(phone.label) is not None for phone in alignment.phones)
    # a few labels in brackets among phones are no states
    if not num_states or 2 * num_states < len(alignment.phones):
        return alignment
    rows = [IntervalLine(line, *phone) for line, phone in zip(alignment.numbers, alignment.phones, strict=True)]
    whole, num_states = joined(rows, alignment.file, utterance)
    return replace(
        alignment,
        phones=[Phone(row.start, row.end, row.label) for row in whole],
        lines=[row.line for row in whole],
        num_states=num_states,
    )


def htk_states(
    rows: Sequence[tuple[int, Sequence[str]]], path: Path, utterance: str | None
) -> list[tuple[int, Sequence[str]]]:
    """Lines of HTK's states, `start end s2 [score] phone …` and then `start end s3 [score]`, as `start end phone[2]`.

    Args:
        rows: The cells of each line after its number. Lines of other labels stay as they are.
        path: The file, for errors.
        utterance: The id, for errors.

    Raises:
        DataError: The first line names no phone.
    """
    states = [_HTK_STATE.fullmatch(cells[2]) for _, cells in rows]
    if not all(states):
        return list(rows)
    named: list[tuple[int, Sequence[str]]] = []
    phone = None
    for (line, cells), state in zip(rows, states, strict=True):
        names = [cell for cell in cells[3:] if not _SCORE.fullmatch(cell)]
        # HTK names the phone with its first state only
        phone = names[0] if names else phone
        if phone is None:
            what = f"The labels are states of HTK, but no phone is named: `{' '.join(cells)[:60]}`"
            do = "Write the models with their states (HVite -f -m), or the alignment of phones (without -f)"
            raise DataError(what, file=f"{path}:{line}", utterance=utterance, do=do)
        assert state is not None
        named.append((line, [*cells[:2], f"{phone}[{state[1]}]"]))
    return named


def _fault(what: str, row: IntervalLine, path: Path, utterance: str | None) -> DataError:
    do = "The states of a phone must follow each other; write the alignment of phones, without states"
    return DataError(what, file=f"{path}:{row.line}", utterance=utterance, do=do)
