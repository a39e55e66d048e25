"""Fluent Speech Commands as it unpacks: `data/{train,valid,test}_data.csv` and `wavs/speakers/SPEAKER/NAME.wav`.

Reference: Lugosch et al., "Speech Model Pre-training for End-to-End Spoken Language Understanding" (arXiv:1904.03670).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csv_table import TableRow
from repbench.corpora.layouts.file_search import is_there, refuse_missing_root
from repbench.corpora.layouts.genders import gender_of
from repbench.corpora.layouts.header_table import rows_by_header
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.safe_paths import RootFolder
from repbench.errors import DataError

SLOTS = ("action", "object", "location")
"""The three slots of a command, each an attribute; `none` where a command has none."""

_TABLES: Mapping[str, Split] = {"train_data.csv": "train", "valid_data.csv": "dev", "test_data.csv": "test"}
_COLUMNS = ("path", "speakerId", "transcription", *SLOTS)
_SPEAKERS = "speaker_demographics.csv"


class FluentSpeechCommands:
    """The layout `fluent_speech_commands`: a folder with `data/` and `wavs/`.

    The three tables are the official splits, with different speakers. The attributes are `action`, `object` and
    `location`; with `data/speaker_demographics.csv` also `gender` (F, M) and `age` (a range such as `22-40`).
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the rows of the three tables; errors as `CorpusLayout.prepare`."""
        refuse_options("fluent_speech_commands", options, reads=("alignments",))
        refuse_missing_root(root)
        missing = [name for name in _TABLES if not (root / "data" / name).is_file()]
        if missing:
            what = f"The folder is not laid out like Fluent Speech Commands: data/{missing[0]} is missing"
            raise DataError(what, file=root, do="Give the folder that holds `data/` and `wavs/`")
        collector = FaultCollector(gather=options.gather_faults)
        speakers = _speakers(root / "data" / _SPEAKERS, collector)
        sounds = RootFolder(root, follow_links=options.follow_links)
        utterances = []
        for name, split in _TABLES.items():
            for row in rows_by_header(root / "data" / name, _COLUMNS, collector):
                with collector.each():
                    utterances.append(_utterance(row, split, speakers, sounds))
        draft = Draft(
            name="fluent_speech_commands",
            licence="Fluent Speech Commands Public License",
            root=root,
            utterances=utterances,
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


FLUENT_SPEECH_COMMANDS = FluentSpeechCommands()


def _utterance(
    row: TableRow, split: Split, speakers: Mapping[str, Mapping[str, str]], sounds: RootFolder
) -> DraftUtterance:
    for column in _COLUMNS:
        if not row.cells[column]:
            raise DataError(f"The row has no {column}", file=row.where, key=column, do="Fetch the table again")
    speaker = row.cells["speakerId"]
    identifier = f"{speaker}-{Path(row.cells['path']).stem}"
    audio = sounds.locate(row.cells["path"], file=row.where, utterance=identifier)
    if not is_there(audio):
        what = f"The sound {row.cells['path']} is missing"
        raise DataError(what, file=row.where, utterance=identifier, do="Fetch it, or unpack the archive again")
    return DraftUtterance(
        id=identifier,
        audio=audio,
        speaker=speaker,
        text=row.cells["transcription"],
        attributes={**{name: row.cells[name] for name in SLOTS}, **speakers.get(speaker, {})},
        split=split,
    )


def _speakers(path: Path, collector: FaultCollector) -> dict[str, dict[str, str]]:
    """From the speaker to gender and age, where the table has them; empty where there is no table."""
    if not path.is_file():
        return {}
    speakers = {}
    for row in rows_by_header(path, ("speakerId", "gender", "ageRange"), collector):
        known = {"gender": gender_of(row.cells["gender"]), "age": row.cells["ageRange"]}
        speakers[row.cells["speakerId"]] = {name: value for name, value in known.items() if value}
    return speakers
