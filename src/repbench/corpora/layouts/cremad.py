"""CREMA-D as it is published: `AudioWAV/1001_DFA_ANG_XX.wav`, and the table of its actors.

Reference: Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE Transactions on Affective
Computing 5(4), 2014.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.genders import gender_of
from repbench.corpora.layouts.header_table import rows_by_header
from repbench.corpora.layouts.pattern import CodedField, PatternLayout
from repbench.errors import DataError

SPEAKER_TABLE = "VideoDemographics.csv"

EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}

# one clip is named with a single X
_LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}

_SENTENCES = {
    "DFA": "Don't forget a jacket.",
    "IEO": "It's eleven o'clock.",
    "IOM": "I'm on my way to the meeting.",
    "ITH": "I think I have a doctor's appointment.",
    "ITS": "I think I've seen this before.",
    "IWL": "I would like a new alarm clock.",
    "IWW": "I wonder what this is about.",
    "MTI": "Maybe tomorrow it will be cold.",
    "TAI": "The airplane is almost full.",
    "TIE": "That is exactly what happened.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}

_FILES = PatternLayout(
    name="cremad",
    licence="ODbL 1.0",
    pattern="{speaker:4}_{sentence:3}_{emotion:3}_{level}.wav",
    codes=(
        CodedField("emotion", "emotion", EMOTIONS),
        CodedField("level", "level", _LEVELS),
        CodedField("sentence", "text", _SENTENCES),
    ),
)


class CremaD:
    """The layout `cremad`: a folder with `AudioWAV/`, or that folder.

    The attributes are `emotion` (six, the intended one), `level` (low, medium, high, unspecified) and `sentence`; with
    `VideoDemographics.csv` in the root also `gender` (F, M) and `age`, in years. There are no official splits and no
    folds: those of HEAR and X-ARES are drawn by utterance and share actors.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the clips; errors as `CorpusLayout.prepare`."""
        draft = _FILES.prepare(root, options)
        collector = FaultCollector(gather=options.gather_faults)
        speakers = _speakers(root / SPEAKER_TABLE, collector)
        if not speakers and not collector.faults:
            return draft
        utterances = []
        for each in draft.utterances:
            with collector.each():
                utterances.append(_with_speaker(each, speakers, root))
        return replace(draft, utterances=utterances, faults=(*draft.faults, *collector.faults))


CREMAD = CremaD()


def _with_speaker(
    utterance: DraftUtterance, speakers: Mapping[str, Mapping[str, AttributeValue]], root: Path
) -> DraftUtterance:
    speaker = utterance.speaker or ""
    if speaker not in speakers:
        what = f"The actor {speaker} has no row"
        raise DataError(what, file=root / SPEAKER_TABLE, utterance=utterance.id, do="Fetch the table again")
    return replace(utterance, attributes={**utterance.attributes, **speakers[speaker]})


def _speakers(path: Path, collector: FaultCollector) -> dict[str, dict[str, AttributeValue]]:
    """From the actor to gender and age; empty where there is no table."""
    if not path.is_file():
        return {}
    speakers: dict[str, dict[str, AttributeValue]] = {}
    for row in rows_by_header(path, ("ActorID", "Age", "Sex"), collector):
        with collector.each():
            if not row.cells["Age"].isdecimal():
                what = f"`Age` must be a number of years, but is `{row.cells['Age']}`"
                raise DataError(what, file=row.where, key="Age", do="Fetch the table again")
            speakers[row.cells["ActorID"]] = {"gender": gender_of(row.cells["Sex"]), "age": int(row.cells["Age"])}
    return speakers
