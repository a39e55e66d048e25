"""FLEURS as it unpacks: `LANGUAGE/{train,dev,test}.tsv` and `LANGUAGE/audio/{train,dev,test}/NAME.wav`.

Reference: Conneau et al., "FLEURS: Few-shot Learning Evaluation of Universal Representations of Speech"
(arXiv:2205.12446).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csv_table import csv_rows
from repbench.corpora.layouts.file_search import is_there, refuse_missing_root
from repbench.corpora.layouts.genders import gender_of
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.safe_paths import RootFolder
from repbench.corpora.textfiles import read_utf8
from repbench.errors import DataError

# number of the sentence, file, text as written, text normalised, its characters, samples, gender
_NUM_CELLS = 7
_SENTENCE, _FILE, _TEXT, _GENDER = 0, 1, 3, 6


class Fleurs:
    """The layout `fleurs`: a folder of languages (`en_us`, `de_de`, …), or the folder of one.

    The tables, which have no header, are the official splits. The text is the normalised transcription. The attributes
    are `language`, the name of the folder, and `gender` (F, M). Speakers are not named; the group is the sentence in
    its language (`en_us/1675`), which several people read, all of them in one split. The id is the language and the
    name of the file.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the rows of every language; errors as `CorpusLayout.prepare`."""
        refuse_options("fleurs", options, reads=("alignments",))
        refuse_missing_root(root)
        collector = FaultCollector(gather=options.gather_faults)
        sounds = RootFolder(root, follow_links=options.follow_links)
        utterances = [
            each
            for folder in _languages(root)
            for split in get_args(Split)
            for each in _rows(folder, split, sounds, root, collector)
        ]
        draft = Draft(
            name="fleurs", licence="CC BY 4.0", root=root, utterances=utterances, faults=tuple(collector.faults)
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


FLEURS = Fleurs()


def _languages(root: Path) -> list[Path]:
    """The folders of the languages.

    Raises:
        DataError: There is none, or one lacks a table.
    """
    inside = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))
    folders = [folder for folder in (root, *inside) if (folder / "train.tsv").is_file()]
    if not folders:
        what = "The folder is not laid out like FLEURS; looked for LANGUAGE/train.tsv and LANGUAGE/audio/train/*.wav"
        raise DataError(what, file=root, do="Give the folder that holds the folders of the languages, or one of these")
    return folders


def _rows(
    folder: Path, split: Split, sounds: RootFolder, root: Path, collector: FaultCollector
) -> Iterator[DraftUtterance]:
    path = folder / f"{split}.tsv"
    # resolved, because a language may be given as `.`
    language = folder.resolve().name
    for number, cells in csv_rows(read_utf8(path), path):
        with collector.each():
            yield _utterance(cells, f"{path}:{number}", language, split, folder, sounds, root)


def _utterance(
    cells: Sequence[str], where: str, language: str, split: Split, folder: Path, sounds: RootFolder, root: Path
) -> DraftUtterance:
    if len(cells) != _NUM_CELLS or not cells[_FILE]:
        what = f"A row must have {_NUM_CELLS} cells, the second the file, but has {len(cells)}"
        raise DataError(what, file=where, do="Fetch the table again")
    identifier = f"{language}-{Path(cells[_FILE]).stem}"
    place = (folder.relative_to(root) / "audio" / split / cells[_FILE]).as_posix()
    audio = sounds.join(place, file=where, utterance=identifier)
    if not is_there(audio):
        what = f"The sound {place} is missing"
        raise DataError(what, file=where, utterance=identifier, do=f"Unpack audio/{split}.tar.gz of the language")
    return DraftUtterance(
        id=identifier,
        audio=audio,
        text=cells[_TEXT].strip() or None,
        attributes={"language": language, "gender": gender_of(cells[_GENDER])},
        group=f"{language}/{cells[_SENTENCE].strip()}",
        split=split,
    )
