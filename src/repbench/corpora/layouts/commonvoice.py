"""Common Voice as it unpacks: `train.tsv`, `dev.tsv`, `test.tsv`, `validated.tsv` and `clips/`.

Reference: Ardila et al., "Common Voice: A Massively-Multilingual Speech Corpus" (arXiv:1912.06670).
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
from repbench.errors import DataError, UsageError

VARIANTS = ("splits", "validated")
"""The clips of the three splits alone, the default, or all clips of `validated.tsv` too, which are in no split."""

_SPLIT_OF: Mapping[str, Split | None] = {
    "train.tsv": "train",
    "dev.tsv": "dev",
    "test.tsv": "test",
    "validated.tsv": None,
}
_COLUMNS = ("client_id", "path", "sentence")
_ATTRIBUTES = {
    "language": ("locale",),
    "accent": ("accents", "accent"),
    "gender": ("gender",),
    "age": ("age",),
}
"""From the attribute to the column, which older releases name otherwise."""


class CommonVoice:
    """The layout `commonvoice`: the folder of a language, or a folder of such folders.

    The three tables are the official splits. The speaker is `client_id` (a browser, not always one person), the text is
    `sentence`, the id is the name of the clip without its ending. The attributes are `language` (`locale`), `accent`
    (`accents`), `gender` (F, M; others as written) and `age` (a decade such as `twenties`), where a cell is filled.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the clips of the tables; errors as `CorpusLayout.prepare`.

        Raises:
            UsageError: The variant is unknown.
        """
        refuse_options("commonvoice", options, reads=("alignments", "variant"))
        tables = _tables(options.variant or VARIANTS[0])
        refuse_missing_root(root)
        collector = FaultCollector(gather=options.gather_faults)
        sounds = RootFolder(root, follow_links=options.follow_links)
        utterances: dict[str, DraftUtterance] = {}
        for folder in _folders(root):
            for name in tables:
                for row in rows_by_header(folder / name, _COLUMNS, collector):
                    with collector.each():
                        utterance = _utterance(row, _SPLIT_OF[name], folder, sounds, root)
                        _add(utterance, utterances, row)
        draft = Draft(
            name="commonvoice",
            licence="CC0 1.0",
            root=root,
            utterances=tuple(utterances.values()),
            notes=_notes(utterances),
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


COMMON_VOICE = CommonVoice()


def _tables(variant: str) -> list[str]:
    if variant not in VARIANTS:
        what = f"The layout `commonvoice` has no variant `{variant}`"
        raise UsageError(what, key="--variant", do=f"Choose from {', '.join(VARIANTS)}")
    # `validated.tsv` comes last: its rows repeat those of the splits
    return [name for name, split in _SPLIT_OF.items() if split is not None or variant == "validated"]


def _folders(root: Path) -> list[Path]:
    """The folders of the languages.

    Raises:
        DataError: There is none.
    """
    inside = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))
    folders = [folder for folder in (root, *inside) if (folder / "train.tsv").is_file()]
    if not folders:
        what = "The folder is not laid out like Common Voice; looked for train.tsv, dev.tsv, test.tsv and clips/"
        raise DataError(what, file=root, do="Give the folder of a language, or the one that holds it")
    return folders


def _utterance(row: TableRow, split: Split | None, folder: Path, sounds: RootFolder, root: Path) -> DraftUtterance:
    clip = row.cells["path"]
    if not clip or not row.cells["client_id"]:
        raise DataError("The row has no `path` or no `client_id`", file=row.where, do="Fetch the table again")
    identifier = Path(clip).stem
    place = (folder.relative_to(root) / "clips" / clip).as_posix()
    audio = sounds.join(place, file=row.where, utterance=identifier)
    if not is_there(audio):
        what = f"The clip {place} is missing"
        raise DataError(what, file=row.where, utterance=identifier, do="Unpack it, or leave it out with --drop-faulty")
    return DraftUtterance(
        id=identifier,
        audio=audio,
        speaker=row.cells["client_id"],
        text=row.cells["sentence"] or None,
        attributes=_attributes(row),
        split=split,
    )


def _attributes(row: TableRow) -> dict[str, str]:
    attributes = {}
    for name, columns in _ATTRIBUTES.items():
        value = next((row.cells[column] for column in columns if row.cells.get(column)), "")
        if value:
            attributes[name] = gender_of(value) if name == "gender" else value
    return attributes


def _add(utterance: DraftUtterance, utterances: dict[str, DraftUtterance], row: TableRow) -> None:
    """Add an utterance that is not there; a row of `validated.tsv` repeats one of a split, two splits share none."""
    known = utterances.get(utterance.id)
    if known is None:
        utterances[utterance.id] = utterance
    elif utterance.split is not None:
        what = f"The clip is listed twice, before this in {known.split}"
        raise DataError(what, file=row.where, utterance=utterance.id, do="Fetch the tables again, of one release")


def _notes(utterances: Mapping[str, DraftUtterance]) -> tuple[str, ...]:
    num_others = sum(each.split is None for each in utterances.values())
    if not num_others:
        return ()
    return (f"{num_others} of {len(utterances)} validated clips belong to no split",)
