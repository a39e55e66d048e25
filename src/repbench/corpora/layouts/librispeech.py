"""LibriSpeech: `SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac`, or the same in another sound format.

Reference: Panayotov et al., "Librispeech: an ASR corpus based on public domain audio books", ICASSP 2015.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import files_under
from repbench.corpora.layouts.sound_files import is_sound
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.textfiles import text_lines
from repbench.errors import DataError

_SUBSET = re.compile(r"(train|dev|test)-[a-z0-9-]+")
_UTTERANCE = re.compile(r"(\d+)-(\d+)-\d+")
_LOOKED_FOR = "train-*, dev-* or test-* with SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac"


class LibriSpeech:
    """The layout `librispeech`: a folder of subsets, or one subset.

    The split is that of the subset's name; the group is the chapter. The text comes from the `.trans.txt` of the
    chapter and the gender from SPEAKERS.TXT, if present. `alignments` is a file or folder of any
    format of `repbench.corpora.alignments`.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the subsets under `root`; errors as `CorpusLayout.prepare`."""
        subsets = _subsets(root)
        genders = _genders(root)
        transcripts = {subset: _transcripts(subset) for subset in subsets}
        collector = FaultCollector(gather=options.gather_faults)
        utterances = [
            _utterance(audio, subset, transcripts[subset], genders)
            for subset in subsets
            for audio in _sounds(subset, root, options, collector)
        ]
        if not utterances and not collector.faults:
            raise DataError(f"No sound was found; looked for {_LOOKED_FOR}", file=root, do="Check --root")
        notes = text_notes(utterances, sum(len(texts) for texts in transcripts.values()))
        draft = Draft(
            name="librispeech",
            licence="CC BY 4.0",
            root=root,
            utterances=utterances,
            notes=notes,
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


LIBRISPEECH = LibriSpeech()


def _subsets(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError("The root folder does not exist", file=root, do="Check --root")
    if _SUBSET.fullmatch(root.resolve().name):
        return [root]
    subsets = sorted(path for path in root.iterdir() if path.is_dir() and _SUBSET.fullmatch(path.name))
    if not subsets:
        what = f"The folder is not laid out like LibriSpeech; looked for {_LOOKED_FOR}"
        raise DataError(what, file=root, do="Give the folder that holds the subsets, or one subset")
    return subsets


def _sounds(subset: Path, root: Path, options: PrepareOptions, collector: FaultCollector) -> list[Path]:
    sounds = []
    for path in files_under(subset, options, root=root):
        with collector.each():
            if not is_sound(path):
                continue
            named = _UTTERANCE.fullmatch(path.stem)
            if named is None or path.relative_to(subset).parts[:-1] != named.groups():
                what = f"The sound is not where LibriSpeech puts it; looked for {_LOOKED_FOR}"
                raise DataError(what, file=path, do="Move it to its place or out of the corpus")
            sounds.append(path)
    return sounds


def _utterance(audio: Path, subset: Path, texts: dict[str, str], genders: dict[str, str]) -> DraftUtterance:
    speaker, chapter, _ = audio.stem.split("-")
    # resolved, because a subset may be given as `.` or through a link
    name = subset.resolve().name
    attributes: dict[str, str | int | float] = {"subset": name}
    if speaker in genders:
        attributes["gender"] = genders[speaker]
    return DraftUtterance(
        id=audio.stem,
        audio=audio,
        speaker=speaker,
        text=texts.get(audio.stem),
        attributes=attributes,
        group=f"{speaker}-{chapter}",
        split=cast(Split, name.partition("-")[0]),
    )


def _transcripts(subset: Path) -> dict[str, str]:
    """From the id of an utterance to its text, of every `.trans.txt` in the subset."""
    texts: dict[str, str] = {}
    for path in sorted(subset.glob("*/*/*.trans.txt")):
        if path.name.startswith("."):
            continue
        for number, line in text_lines(path):
            identifier, _, text = line.partition(" ")
            if not _UTTERANCE.fullmatch(identifier) or identifier in texts:
                what = "A line must be the id of an utterance, which occurs once, and its text"
                raise DataError(what, file=f"{path}:{number}", utterance=identifier, do="Mend the line")
            texts[identifier] = text.strip()
    return texts


def _genders(root: Path) -> dict[str, str]:
    """From the speaker to "F" or "M", of SPEAKERS.TXT in the root or in its parent; empty where there is none."""
    # in the parent where the root is one subset
    for folder in (root, root.resolve().parent):
        path = folder / "SPEAKERS.TXT"
        if path.is_file():
            return dict(_gender(path, number, line) for number, line in text_lines(path) if not line.startswith(";"))
    return {}


def _gender(path: Path, number: int, line: str) -> tuple[str, str]:
    cells = [cell.strip() for cell in line.split("|")]
    if len(cells) < 2 or not cells[0].isdigit() or cells[1] not in ("F", "M"):
        what = "A line must be `SPEAKER | F or M | …`"
        raise DataError(what, file=f"{path}:{number}", do="Mend the line or remove the file")
    return cells[0], cells[1]
