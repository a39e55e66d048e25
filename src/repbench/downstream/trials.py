"""Trials of speaker verification that are read from a list.

A trial compares an enrolment, of one utterance or several, with a test utterance. A list names both on each line, in
one of two forms:

    1 ENROLMENT TEST             (0 where the speakers differ: VoxCeleb's `veri_test.txt`)
    ENROLMENT TEST target        (`nontarget` where they differ: Kaldi's `trials`)

Its words are separated by blanks, or by tabs where a name has blanks. A name is the id of an utterance, or the end of
the path of its sound, with or without its ending: `id10270/x6uYqmx31kE/00001.wav`. An enrolment by several utterances
is a line `NAME UTTERANCE …` of a second file, as Kaldi's `spk2utt`.

Axes: N trials.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from repbench.corpora.textfiles import nfc, text_lines
from repbench.downstream.problems.contract import LabelledUtterance
from repbench.downstream.problems.trial_list import Enrolment, Trials
from repbench.errors import DataError

_TARGET_OF_CODE = {"1": True, "0": False}
_TARGET_OF_WORD = {"target": True, "nontarget": False}
_FORMS = "`1 ENROLMENT TEST` (0 where the speakers differ) or `ENROLMENT TEST target` (or nontarget)"


def read_trials(path: Path, examples: Sequence[LabelledUtterance], enrolments: Path | None = None) -> Trials:
    """The trials of a list.

    Args:
        path: The list.
        examples: The utterances of test.
        enrolments: A file of enrolments by several utterances; then every enrolment of the list is one of it.

    Raises:
        DataError: A line has another form, names an utterance or enrolment that there is not, compares an utterance
            with itself, or contradicts the speakers of the corpus; an enrolment has two speakers. Names the line.
    """
    utterances = _Utterances(examples)
    known = _read_enrolments(enrolments, utterances) if enrolments is not None else {}
    found: dict[str, Enrolment] = {}
    numbers: dict[str, int] = {}
    rows: list[tuple[int, int, bool]] = []
    for number, is_target, side, test_name in _lines_of(path):
        where = f"{path}:{number}"
        test = utterances.number(test_name, where)
        if enrolments is None:
            enrolled = utterances.number(side, where)
            enrolment = Enrolment(examples[enrolled].id, (enrolled,))
        elif (given := known.get(side)) is not None:
            enrolment = given
        else:
            what = f"`{side}` is no enrolment of {enrolments}"
            raise DataError(what, file=where, key="task.enrolments", do=f"Add a line `{side} UTTERANCE …` to it")
        _check(enrolment, test, is_target, examples, where)
        found.setdefault(enrolment.name, enrolment)
        rows.append((numbers.setdefault(enrolment.name, len(numbers)), test, is_target))
    if not rows:
        raise DataError("The list of trials is empty", file=path, do=f"Give lines {_FORMS}")
    several = tuple(found.values())
    # Labels, which a control may have shuffled, decide: the target of the list was checked against the speakers.
    targets = [examples[several[row[0]].utterances[0]].labels == examples[row[1]].labels for row in rows]
    return Trials(
        enrolments=several,
        enrolment_of=np.array([row[0] for row in rows], dtype=np.int64),
        test_of=np.array([row[1] for row in rows], dtype=np.int64),
        targets=np.array(targets, dtype=bool),
    )


def _lines_of(path: Path) -> Iterator[tuple[int, bool, str, str]]:
    """Number, target, enrolment and test of each line; every line has the form of the first."""
    form: Literal["code first", "word last"] | None = None
    for number, line in text_lines(path):
        words = [nfc(word) for word in (line.strip().split("\t") if "\t" in line else line.split())]
        if form is None and len(words) == 3:
            form = "word last" if words[2] in _TARGET_OF_WORD else "code first"
        if form == "word last":
            target = _TARGET_OF_WORD.get(words[-1])
            sides = words[:-1]
        else:
            target = _TARGET_OF_CODE.get(words[0])
            sides = words[1:]
        if target is None or len(sides) != 2:
            what = f"A line must be {_FORMS}, the same on all lines, but is `{line[:80]}`"
            raise DataError(what, file=f"{path}:{number}", key="task.trials", do="Correct the line")
        yield number, target, sides[0], sides[1]


def _read_enrolments(path: Path, utterances: _Utterances) -> dict[str, Enrolment]:
    found: dict[str, Enrolment] = {}
    for number, line in text_lines(path):
        name, *members = (nfc(word) for word in (line.strip().split("\t") if "\t" in line else line.split()))
        where = f"{path}:{number}"
        if not members or name in found:
            what = f"A line must be `NAME UTTERANCE …`, each name once, but is `{line[:80]}`"
            raise DataError(what, file=where, key="task.enrolments", do="Correct the line")
        numbers = tuple(utterances.number(member, where) for member in members)
        speakers = sorted({str(utterances.examples[each].utterance.speaker) for each in numbers})
        if len(speakers) > 1:
            what = f"The enrolment `{name}` has utterances of several speakers: {', '.join(speakers[:5])}"
            raise DataError(what, file=where, key="task.enrolments", do="Enrol one speaker a line")
        found[name] = Enrolment(name, numbers)
    return found


def _check(enrolment: Enrolment, test: int, is_target: bool, examples: Sequence[LabelledUtterance], where: str) -> None:
    tested = examples[test]
    if test in enrolment.utterances:
        what = f"The trial compares {tested.id} with itself"
        raise DataError(what, file=where, key="task.trials", utterance=tested.id, do="Remove the line")
    enrolled = examples[enrolment.utterances[0]]
    speakers = enrolled.utterance.speaker, tested.utterance.speaker
    if (speakers[0] == speakers[1]) != is_target:
        list_has = "one speaker" if is_target else "different speakers"
        what = (
            f"The list has {list_has} for {enrolment.name} and {tested.id}, but the corpus has {speakers[0]} and "
            f"{speakers[1]}"
        )
        do = "Correct the list, or the speakers of the corpus"
        raise DataError(what, file=where, key="task.trials", utterance=tested.id, do=do)


class _Utterances:
    """The utterances of test by the names that a list may have for them.

    Attributes:
        examples: The utterances.
    """

    def __init__(self, examples: Sequence[LabelledUtterance]) -> None:
        self.examples = examples
        self._by_id = {example.id: number for number, example in enumerate(examples)}
        self._by_path: dict[int, dict[tuple[str, ...], list[int]]] = {}

    def number(self, name: str, where: str) -> int:
        """The number of the utterance with this id or path.

        Raises:
            DataError: There is none, or several sounds have paths that end so.
        """
        known = self._by_id.get(name)
        if known is not None:
            return known
        parts = _parts(name)
        ends = self._ends(len(parts)).get(parts, [])
        if len(ends) == 1:
            return ends[0]
        if ends:
            first, second = (self.examples[each].id for each in ends[:2])
            what = f"`{name}` is the end of the paths of several utterances, such as {first} and {second}"
            raise DataError(what, file=where, utterance=name, do="Give the id of the utterance")
        what = f"`{name}` is no utterance of the test split, by its id or by the path of its sound"
        do = "Correct the line, or give the corpus a test split that has the utterance (`repbench corpus prepare`)"
        raise DataError(what, file=where, utterance=name, do=do)

    def _ends(self, length: int) -> dict[tuple[str, ...], list[int]]:
        """From the last `length` parts of paths to the utterances whose sounds are there."""
        if length not in self._by_path:
            ends: dict[tuple[str, ...], list[int]] = {}
            for number, example in enumerate(self.examples):
                ends.setdefault(_parts(example.utterance.audio.as_posix())[-length:], []).append(number)
            self._by_path[length] = ends
        return self._by_path[length]


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path, the last one without its ending."""
    return tuple(nfc(part) for part in PurePosixPath(path).with_suffix("").parts) if PurePosixPath(path).name else ()
