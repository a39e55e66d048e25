"""IEMOCAP as it unpacks: `Session1` to `Session5`, each with `sentences/wav/` and `dialog/EmoEvaluation/`.

Reference: Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language Resources and
Evaluation 42, 2008.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from repbench.corpora.alignments import align
from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import is_excluded, is_there, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.textfiles import text_lines
from repbench.errors import DataError

EMOTIONS: Mapping[str, str | None] = {
    "ang": "anger",
    "hap": "happiness",
    "exc": "excitement",
    "sad": "sadness",
    "neu": "neutral",
    "fru": "frustration",
    "fea": "fear",
    "sur": "surprise",
    "dis": "disgust",
    "oth": "other",
    "xxx": None,
}
"""From the codes of EmoEvaluation to the attribute `emotion`; None where the annotators did not agree on one."""

DIMENSIONS = ("valence", "activation", "dominance")
"""The three scales from 1 to 5, in the order of EmoEvaluation."""

_MIDDLE = 3.0
_SESSION = re.compile(r"Session[1-9]")
_TURN = re.compile(r"(Ses0[1-9])[FM]_(impro|script)\w*_([FM])\w+")
_NUMBER = r"\s*([0-9]+(?:\.[0-9]+)?)\s*"
_LABEL = re.compile(rf"\[.*\]\t(\S+)\t(\w+)\t\[{_NUMBER},{_NUMBER},{_NUMBER}\]\s*")
_SPOKEN = re.compile(r"(Ses\S+)\s+\[[^\]]*\]:\s*(.*)")
_STYLES = {"impro": "improvised", "script": "scripted"}


class Iemocap:
    """The layout `iemocap`: a folder with `Session1` to `Session5`.

    A turn of `dialog/EmoEvaluation/DIALOG.txt` is an utterance, its sound `sentences/wav/DIALOG/TURN.wav`, its text
    that of `dialog/transcriptions/`, if present. The speaker is the session and the letter before the number of the
    turn: `Ses01F_impro01_M003` is spoken by `Ses01M` (the letter behind the session is of the actor with the markers).
    The group is the dialogue.

    The attributes are `emotion` (see `EMOTIONS`; without it where the annotators did not agree), `valence`,
    `activation` and `dominance` (means, scales from 1 to 5), `gender` (F, M), `style` (improvised, scripted) and
    `fold`, the session: the official folds, each with two speakers of its own. There are no official splits.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the turns of every session; errors as `CorpusLayout.prepare`."""
        refuse_options("iemocap", options, reads=("alignments",))
        refuse_missing_root(root)
        sessions = [path for path in sorted(root.iterdir()) if _SESSION.fullmatch(path.name)]
        if not sessions:
            what = "The folder is not laid out like IEMOCAP; looked for Session1/dialog/EmoEvaluation/*.txt"
            raise DataError(what, file=root, do="Give the folder that holds `Session1` to `Session5`")
        collector = FaultCollector(gather=options.gather_faults)
        utterances = [each for session in sessions for each in _turns(session, root, options, collector)]
        if not utterances and not collector.faults:
            what = "No turn was found; looked for Session1/dialog/EmoEvaluation/*.txt"
            raise DataError(what, file=root, do="Unpack the labels")
        draft = Draft(
            name="iemocap",
            licence="IEMOCAP release agreement",
            root=root,
            utterances=utterances,
            notes=(*_notes(utterances), *text_notes(utterances)),
            faults=tuple(collector.faults),
            scales=dict.fromkeys(DIMENSIONS, _MIDDLE),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


IEMOCAP = Iemocap()


def _turns(session: Path, root: Path, options: PrepareOptions, collector: FaultCollector) -> Iterator[DraftUtterance]:
    """The turns of every dialogue of a session, in the order of their names."""
    for labels in sorted((session / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
        texts = _texts(session / "dialog" / "transcriptions" / labels.name)
        seen: set[str] = set()
        for number, line in text_lines(labels):
            # the lines of the single annotators, and the header `% [START_TIME - END_TIME] …`
            if not line.startswith("["):
                continue
            with collector.each():
                where = f"{labels}:{number}"
                turn, attributes = _labels(line, where)
                if turn in seen:
                    raise DataError("The turn is labelled twice", file=where, utterance=turn, do="Remove a line")
                seen.add(turn)
                audio = session / "sentences" / "wav" / labels.stem / f"{turn}.wav"
                if is_excluded(audio.relative_to(root).as_posix(), options.exclude):
                    continue
                yield _utterance(turn, attributes, audio, labels, texts.get(turn), where)


def _labels(line: str, where: str) -> tuple[str, dict[str, AttributeValue]]:
    """The turn of a line `[START - END]\tTURN\tEMOTION\t[V, A, D]` and its labels."""
    matched = _LABEL.fullmatch(line)
    if matched is None:
        what = f"A line must be `[START - END] TURN EMOTION [V, A, D]`, separated by tabs, but is `{line[:80]}`"
        raise DataError(what, file=where, do="Unpack the labels again")
    if matched[2] not in EMOTIONS:
        what = f"`{matched[2]}` is no emotion of IEMOCAP (there are {', '.join(EMOTIONS)})"
        raise DataError(what, file=where, utterance=matched[1], key="emotion", do="Unpack the labels again")
    emotion = EMOTIONS[matched[2]]
    scales = dict(zip(DIMENSIONS, map(float, matched.group(3, 4, 5)), strict=True))
    return matched[1], {**({} if emotion is None else {"emotion": emotion}), **scales}


def _utterance(
    turn: str, attributes: Mapping[str, AttributeValue], audio: Path, labels: Path, text: str | None, where: str
) -> DraftUtterance:
    named = _TURN.fullmatch(turn)
    if named is None or not turn.startswith(f"{labels.stem}_"):
        what = f"The turn `{turn}` is not of the dialogue {labels.stem}"
        raise DataError(what, file=where, utterance=turn, do="Unpack the labels again")
    if not is_there(audio):
        what = f"The sound of the turn is missing: {audio}"
        raise DataError(what, file=where, utterance=turn, do="Unpack the sounds, or leave it out with --drop-faulty")
    return DraftUtterance(
        id=turn,
        audio=audio,
        speaker=named[1] + named[3],
        text=text,
        attributes={
            **attributes,
            "gender": named[3],
            "style": _STYLES[named[2]],
            # labels are in SESSION/dialog/EmoEvaluation
            "fold": labels.parents[2].name,
        },
        group=labels.stem,
    )


def _texts(path: Path) -> dict[str, str]:
    """From the turn to its text; empty where there is no file. Lines of other forms are remarks."""
    if not path.is_file():
        return {}
    found = (_SPOKEN.fullmatch(line) for _, line in text_lines(path))
    return {matched[1]: matched[2].strip() for matched in found if matched is not None}


def _notes(utterances: Sequence[DraftUtterance]) -> tuple[str, ...]:
    num_open = sum("emotion" not in each.attributes for each in utterances)
    if not num_open:
        return ()
    return (f"{num_open} of {len(utterances)} utterances have no emotion, because the annotators did not agree",)
