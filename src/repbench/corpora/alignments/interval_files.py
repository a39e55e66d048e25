"""Files of intervals, one a line and one utterance a file: `start end phone`, TIMIT, HTS and xlabel."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from repbench.corpora.alignments.intervals import Alignment
from repbench.corpora.alignments.states import IntervalLine, htk_states, joined
from repbench.corpora.alignments.text import COMMA, DECIMAL_POINTS, text_lines
from repbench.corpora.contract import Phone
from repbench.errors import DataError

HTS_UNITS_PER_SECOND = 10_000_000
"""HTS and HTK count time in units of 100 ns."""

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
WHOLE = re.compile(r"[+-]?\d{1,18}")  # Python itself refuses to read thousands of digits

_QUINPHONE = re.compile(r"[^^]+\^.+?-(.+?)\+.+?=.+")
_TRIPHONE = re.compile(r"[^-]+-([^+]+)\+.+")
_STATE = re.compile(r"\[\d+\]$")


def read_seconds(path: Path, utterance: str, sample_rate_hz: int) -> Alignment:
    """The phones of a file of lines `start end phone`, in seconds; labels of HTS in context give their phones.

    Raises:
        DataError: The file is missing, not UTF-8 or empty, or a line is otherwise; names the line.
    """
    rows = [
        IntervalLine(
            number, _time(cells[0], path, number, utterance), _time(cells[1], path, number, utterance), cells[2]
        )
        for number, cells in _rows(path, utterance, "start end phone", (3,))
    ]
    # labels of HTS in context, with times in seconds
    if any(_QUINPHONE.fullmatch(row.label) for row in rows):
        return _of_models(path, utterance, rows, units_per_second=1)
    return _alignment(path, utterance, rows, units_per_second=1)


def read_phn(path: Path, utterance: str, sample_rate_hz: int) -> Alignment:
    """The phones of a TIMIT `.phn`: `first last phone`, in samples of the sound; errors as `read_seconds`."""
    rows = [
        (number, _whole(cells[0], path, number, utterance), _whole(cells[1], path, number, utterance), cells[2])
        for number, cells in _rows(path, utterance, "first last phone", (3,))
    ]
    return _alignment(path, utterance, rows, units_per_second=sample_rate_hz)


def read_hts(path: Path, utterance: str, sample_rate_hz: int) -> Alignment:
    """The phones of an HTS label file: `start end label …`, in units of 100 ns; errors as `read_seconds`.

    A label in context gives its phone; the states of a phone are put together.
    """
    return read_hts_rows(_rows(path, utterance, "start end label", range(3, 9)), path, utterance)


def read_hts_rows(lines: Sequence[tuple[int, Sequence[str]]], path: Path, utterance: str) -> Alignment:
    """The phones of the lines of an HTS or HTK label file, each its cells after its number; errors as `read_seconds`.

    Args:
        lines: The lines.
        path: The file, for errors.
        utterance: The id, for errors.
    """
    for number, cells in lines:
        if not 3 <= len(cells) < 9:
            raise _other_line("start end label", " ".join(cells), path, number, utterance)
    rows = [
        IntervalLine(
            number, _whole(cells[0], path, number, utterance), _whole(cells[1], path, number, utterance), cells[2]
        )
        for number, cells in htk_states(lines, path, utterance)
    ]
    return _of_models(path, utterance, rows, units_per_second=HTS_UNITS_PER_SECOND)


def read_xlabel(path: Path, utterance: str, sample_rate_hz: int) -> Alignment:
    """The phones of an xlabel file: after a line `#` the lines `end colour label`; errors as `read_seconds`.

    Each label starts where the one in front of it ends, the first at 0. A line may name no label.
    """
    lines = list(text_lines(path, utterance))
    marks = [index for index, (_, line) in enumerate(lines) if line.strip() == "#"]
    if not marks:
        what = "The xlabel file has no line `#` after its header"
        raise DataError(what, file=path, utterance=utterance, do="Mend the file")
    rows, start_s = [], 0.0
    # xlabel gives ends alone: each label starts where the one before it ends
    for number, line in lines[marks[0] + 1 :]:
        cells = line.split(None, 2)
        if len(cells) < 2:
            raise _other_line("end colour label", line, path, number, utterance)
        end_s = _time(cells[0], path, number, utterance)
        # after `;` xlabel may hold further fields
        label = cells[2].partition(";")[0].strip() if len(cells) == 3 else ""
        rows.append((number, start_s, end_s, label))
        start_s = end_s
    return _alignment(path, utterance, rows, units_per_second=1)


def central_phone(label: str) -> str:
    """The phone of a label of HTS or HTK, in context or not, of a whole phone or of one state.

    Example:
        >>> central_phone("sil^ey-m+ih=d@1_3/A:1_0_1"), central_phone("s-ih+l"), central_phone("ih[2]")
        ('m', 'ih', 'ih')
    """
    in_context = _QUINPHONE.fullmatch(label) or _TRIPHONE.fullmatch(label)
    return in_context[1] if in_context else _STATE.sub("", label)


def _of_models(path: Path, utterance: str, rows: Sequence[IntervalLine], *, units_per_second: int) -> Alignment:
    """The phones of models or of their states, in context or not."""
    whole, num_states = joined(rows, path, utterance)
    phones = [row._replace(label=central_phone(row.label)) for row in whole]
    alignment = _alignment(path, utterance, phones, units_per_second=units_per_second)
    return replace(alignment, num_states=num_states)


def _rows(path: Path, utterance: str, form: str, num_cells: Container[int]) -> list[tuple[int, list[str]]]:
    """The cells of every line that is not blank, after its number."""
    rows = []
    for number, line in text_lines(path, utterance):
        cells = line.split()
        if len(cells) not in num_cells:
            raise _other_line(form, line, path, number, utterance)
        rows.append((number, cells))
    return rows


def _alignment(
    path: Path,
    utterance: str,
    rows: Sequence[tuple[int, float, float, str]],
    *,
    units_per_second: int,
) -> Alignment:
    if not rows:
        do = "Remove it, and list the utterance in `unaligned.txt`"
        raise DataError("The file holds no phone", file=path, utterance=utterance, do=do)
    phones = [Phone(start / units_per_second, end / units_per_second, label) for _, start, end, label in rows]
    lines = [number for number, *_ in rows]
    return Alignment(file=path, phones=phones, lines=lines)


def _time(cell: str, path: Path, number: int, utterance: str) -> float:
    if not NUMBER.fullmatch(cell):
        what = f"A time must be a number of seconds, but is `{cell}`"
        do = DECIMAL_POINTS if COMMA.fullmatch(cell) else "Write it like 1.25"
        raise DataError(what, file=f"{path}:{number}", utterance=utterance, do=do)
    return float(cell)


def _whole(cell: str, path: Path, number: int, utterance: str) -> int:
    if not WHOLE.fullmatch(cell):
        what = f"A time must be a whole number of samples or of 100 ns, but is `{cell[:60]}`"
        do = "Are these seconds? Then name the file .txt"
        raise DataError(what, file=f"{path}:{number}", utterance=utterance, do=do)
    return int(cell)


def _other_line(form: str, line: str, path: Path, number: int, utterance: str) -> DataError:
    what = f"A line must be `{form}`, but is `{line[:60]}`"
    return DataError(what, file=f"{path}:{number}", utterance=utterance, do="Mend the line")
