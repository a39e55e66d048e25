"""RTTM, the format in which turns are exchanged: reading it into a corpus, and writing what a model found.

A line is `SPEAKER FILE CHANNEL START DURATION <NA> <NA> NAME <NA> <NA>`, times in seconds; the last column may be
missing. Lines of other types (`SPKR-INFO`, `LEXEME`, …), blank lines and those that begin with `;` are ignored.

Reference:
    NIST, The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan, appendix A.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from repbench.corpora.contract import Draft, DraftUtterance, Turn
from repbench.corpora.textfiles import nfc, text_lines
from repbench.errors import DataError

ENDING = ".rttm"

_TYPE = "SPEAKER"
_FEWEST_COLUMNS = 8
_SPACE = "_"


def read_rttm(path: Path) -> dict[str, list[Turn]]:
    """The turns of each recording in a file, or in every `.rttm` of a folder at any depth, as they are written.

    Raises:
        DataError: There is no such file, or a line is of another form; names file and line.
    """
    files = sorted(path.rglob(f"*{ENDING}")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"The folder holds no `*{ENDING}`", file=path, key="--rttm", do="Give the file or folder")
    turns: dict[str, list[Turn]] = {}
    for file in files:
        for number, line in text_lines(file):
            columns = line.split()
            if columns[0].startswith(";") or columns[0] != _TYPE:
                continue
            recording, turn = _turn(columns, f"{file}:{number}")
            turns.setdefault(recording, []).append(turn)
    if not turns:
        what = f"No line begins with `{_TYPE}`"
        raise DataError(what, file=path, key="--rttm", do="Give RTTM files: SPEAKER FILE 1 START DURATION …")
    return turns


def _turn(columns: list[str], where: str) -> tuple[str, Turn]:
    if len(columns) < _FEWEST_COLUMNS:
        what = f"A line must have {_FEWEST_COLUMNS} columns or more, but has {len(columns)}"
        raise DataError(what, file=where, do="Write SPEAKER FILE 1 START DURATION <NA> <NA> NAME <NA> <NA>")
    try:
        start_s, duration_s = float(columns[3]), float(columns[4])
    except ValueError:
        start_s = duration_s = math.nan
    if not (math.isfinite(start_s) and math.isfinite(duration_s) and start_s >= 0 and duration_s > 0):
        what = f"Start and duration must be seconds, at least 0 and above 0, but are `{columns[3]}` and `{columns[4]}`"
        raise DataError(what, file=where, do="Correct the line; the second time is a duration, not an end")
    return nfc(columns[1]), Turn(start_s, start_s + duration_s, nfc(columns[7]))


def format_rttm(recordings: Iterable[tuple[str, Iterable[Turn]]]) -> str:
    """The lines of recordings, each its name and its turns, with times to the microsecond.

    Names are one column: white space in them becomes `_`.
    """
    return "".join(
        f"{_TYPE} {_column(name)} 1 {turn.start_s:.6f} {turn.end_s - turn.start_s:.6f} "
        f"<NA> <NA> {_column(turn.speaker)} <NA> <NA>\n"
        for name, turns in recordings
        for turn in turns
    )


def _column(name: str) -> str:
    return _SPACE.join(name.split())


def with_turns(draft: Draft, path: Path) -> Draft:
    """The draft with the turns of RTTM files, by the id of each utterance or the stem of its file.

    Turns of an utterance that is a part of a file are cut to the part. A recording that has no line is a fault of its
    utterances: nobody is known to be silent in it.

    Raises:
        DataError: As `read_rttm`, or no recording of the files is in the corpus.
    """
    known = read_rttm(path)
    used: set[str] = set()
    utterances = [_with_own(each, known, used, path) for each in draft.utterances]
    if not used:
        names = ", ".join(sorted(known)[:3])
        what = f"No recording of the files is an utterance or a file of the corpus; they name {names}"
        raise DataError(
            what, file=path, key="--rttm", do="Name them by the ids of the utterances or the stems of files"
        )
    left = len(known) - len(used)
    notes = (f"{left} of {len(known)} recordings of --rttm are not in the corpus",) if left else ()
    return replace(draft, utterances=utterances, notes=(*draft.notes, *notes))


def _with_own(utterance: DraftUtterance, known: Mapping[str, list[Turn]], used: set[str], path: Path) -> DraftUtterance:
    name = next((each for each in (nfc(utterance.id), nfc(utterance.audio.stem)) if each in known), None)
    if name is None:
        fault = DataError(
            "No line of --rttm names the recording",
            file=path,
            utterance=utterance.id,
            do="Add its turns, or leave its sound out with --exclude",
        )
        return replace(utterance, fault=utterance.fault or fault)
    used.add(name)
    return replace(utterance, turns=tuple(_within(known[name], utterance.start or 0.0, utterance.end)))


def _within(turns: Iterable[Turn], start_s: float, end_s: float | None) -> Iterator[Turn]:
    """The parts of turns of a file that are in an utterance of it, from its start on."""
    for turn in turns:
        last = turn.end_s if end_s is None else min(turn.end_s, end_s)
        if last > max(turn.start_s, start_s):
            yield Turn(max(turn.start_s, start_s) - start_s, last - start_s, turn.speaker)
