"""VoxCeleb as it unpacks, wav/SPEAKER/VIDEO/NNNNN.wav, and any other folder of speakers' folders.

Reference: Nagrani, Chung and Zisserman, "VoxCeleb: a large-scale speaker identification dataset" (arXiv:1706.08612).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csv_table import csv_rows
from repbench.corpora.layouts.file_search import files_under, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.sound_files import is_sound
from repbench.corpora.textfiles import read_utf8, text_lines
from repbench.errors import DataError, UsageError

SPLIT_LIST = "iden_split.txt"
TRIAL_LIST = "veri_test.txt"
VARIANTS = ("identification", "verification")
"""Which list divides the corpus."""

SPEAKER_TABLE = "vox1_meta.csv"

_SPLIT_OF: Mapping[str, Split] = {"1": "train", "2": "dev", "3": "test"}
_VOXCELEB_SPEAKER = re.compile(r"id[0-9]{5}")
_COLUMNS: Mapping[str, frozenset[str]] = {
    "speaker": frozenset({"voxceleb1id", "voxceleb2id", "id", "speaker", "speakerid"}),
    "gender": frozenset({"gender", "sex"}),
    "nationality": frozenset({"nationality"}),
}
"""Names of the columns of the table of speakers, in small letters, without blanks and underscores."""

_GENDERS = {"f": "F", "female": "F", "m": "M", "male": "M"}
_LOOKED_FOR = "SPEAKER/VIDEO/NAME.wav or SPEAKER/NAME.wav in wav/, in dev/wav/ and test/wav/, or in the root"


class SpeakerFolders:
    """The layout `voxceleb`: a folder of speakers' folders, each with videos' folders or with sounds.

    The folders of speakers are in `wav/`, in `dev/wav/` and `test/wav/`, or else in the root itself. With videos (or
    chapters, or sessions) the group is `SPEAKER/VIDEO`; without, there is none. The id is the place under the speakers'
    folders with `-` between its parts.

    The variant `identification` takes its splits from `iden_split.txt` in the root. `verification` takes them from a
    list of trials, `veri_test.txt` in the root or the file of `--table`: test are its sounds, train all other speakers.
    Without a variant the list is the one that is there, `iden_split.txt` before `veri_test.txt`; `--table` alone means
    `verification`. `vox1_meta.csv` gives the attributes `gender` and `nationality`, if present.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the speakers under `root`; errors as `CorpusLayout.prepare`."""
        refuse_options("voxceleb", options, reads=("alignments", "variant", "table"))
        refuse_missing_root(root)
        trials = _trial_list(root, options)
        collector = FaultCollector(gather=options.gather_faults)
        sounds = {
            path: place for base in _bases(root) for path, place in _places(base, root, options, collector).items()
        }
        if not sounds:
            if collector.faults:
                raise collector.faults[0]
            what = f"The folder is not laid out like VoxCeleb; looked for {_LOOKED_FOR}"
            raise DataError(what, file=root, do="Check --root")
        _refuse_mixed_depths(sounds)
        splits = _splits(root / SPLIT_LIST, sounds) if trials is None else _splits_of_trials(trials, sounds)
        attributes = _attributes(root / SPEAKER_TABLE, {place[0] for place in sounds.values()})
        utterances = [_utterance(path, place, splits, attributes) for path, place in sounds.items()]
        is_voxceleb = all(_VOXCELEB_SPEAKER.fullmatch(place[0]) for place in sounds.values())
        draft = Draft(
            name="voxceleb" if is_voxceleb else "speaker-folders",
            licence="CC BY 4.0" if is_voxceleb else "unknown",
            root=root,
            utterances=utterances,
            notes=_notes(utterances, (trials or root / SPLIT_LIST).name if splits else None),
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


VOXCELEB = SpeakerFolders()


def _bases(root: Path) -> list[Path]:
    """The folders that hold the speakers' folders."""
    if (root / "wav").is_dir():
        return [root / "wav"]
    parts = [root / part / "wav" for part in ("dev", "test")]
    return [part for part in parts if part.is_dir()] or [root]


def _places(base: Path, root: Path, options: PrepareOptions, collector: FaultCollector) -> dict[Path, tuple[str, ...]]:
    """Each sound and the parts of its place, (SPEAKER, NAME) or (SPEAKER, VIDEO, NAME), without its ending."""
    places = {}
    for path in files_under(base, options, root=root):
        with collector.each():
            place = _place(path, base)
            if place is not None:
                places[path] = place
    return places


def _place(path: Path, base: Path) -> tuple[str, ...] | None:
    """The parts of the path of a sound; None for other files."""
    if not is_sound(path):
        return None
    place = path.relative_to(base).with_suffix("").parts
    if len(place) not in (2, 3):
        what = f"The sound is not in the folder of a speaker or video; looked for {_LOOKED_FOR}"
        raise DataError(what, file=path, do="Move it to its place or out of the corpus")
    return place


def _refuse_mixed_depths(sounds: Mapping[Path, Sequence[str]]) -> None:
    # one sound of each depth, for the message
    depths = {len(place): path for path, place in sounds.items()}
    if len(depths) > 1:
        what = f"Some sounds are in folders of videos and others do not, such as {depths[2]}"
        raise DataError(what, file=depths[3], do="Give all speakers folders of videos, or none")


def _utterance(
    path: Path, place: tuple[str, ...], splits: Mapping[str, Split], attributes: Mapping[str, Mapping[str, str]]
) -> DraftUtterance:
    return DraftUtterance(
        id="-".join(place),
        audio=path,
        speaker=place[0],
        group="/".join(place[:2]) if len(place) == 3 else None,
        attributes=attributes.get(place[0], {}),
        split=splits.get("/".join(place)),
    )


def _splits(path: Path, sounds: Mapping[Path, Sequence[str]]) -> dict[str, Split]:
    """From the place of a sound, without its ending, to its official split; empty where there is no list."""
    if not path.is_file():
        return {}
    splits: dict[str, Split] = {}
    line_of: dict[str, int] = {}
    for number, line in text_lines(path):
        code, _, name = line.strip().partition(" ")
        # without its ending, because copies may be in another format
        place = name.strip().rpartition(".")[0]
        if code not in _SPLIT_OF or not place or place in splits:
            what = f"A line must be `1, 2 or 3 SPEAKER/VIDEO/NAME.wav`, its sound once, but is `{line[:80]}`"
            raise DataError(what, file=f"{path}:{number}", do="Mend the line")
        splits[place], line_of[place] = _SPLIT_OF[code], number
    # in the order of the list, so that the first one missing is the first line to look at
    missing = sorted(splits.keys() - {"/".join(place) for place in sounds.values()}, key=line_of.__getitem__)
    if missing:
        what = f"{len(missing)} of the {len(splits)} sounds listed are missing, the first is {missing[0]}"
        do = "Fetch them; without them the scores are not those of the official splits. Or remove the list"
        raise DataError(what, file=f"{path}:{line_of[missing[0]]}", do=do)
    return splits


def _trial_list(root: Path, options: PrepareOptions) -> Path | None:
    """The list of trials that divides the corpus; None where another list, or none, does."""
    if options.variant not in (None, *VARIANTS):
        what = f"The layout `voxceleb` has no variant `{options.variant}`"
        raise UsageError(what, key="--variant", do=f"Choose from {', '.join(VARIANTS)}")
    if options.table is not None:
        if options.variant == "identification":
            what = "`--table` is a list of trials, which the variant `identification` does not read"
            raise UsageError(what, key="--table", do="Leave one of the two out")
        return options.table
    path = root / TRIAL_LIST
    if options.variant == "verification":
        return path
    has_trials_alone = path.is_file() and not (root / SPLIT_LIST).is_file()
    return path if options.variant is None and has_trials_alone else None


def _splits_of_trials(path: Path, sounds: Mapping[Path, Sequence[str]]) -> dict[str, Split]:
    """From the place of a sound, without its ending, to its split; none for one of a test speaker without trials."""
    listed: dict[str, int] = {}
    for number, line in text_lines(path):
        code, *names = line.split()
        if code not in ("0", "1") or len(names) != 2:
            what = f"A line must be `0 or 1 SPEAKER/VIDEO/NAME.wav SPEAKER/VIDEO/NAME.wav`, but is `{line[:80]}`"
            raise DataError(what, file=f"{path}:{number}", do="Mend the line")
        for name in names:
            # without its ending, because copies may be in another format
            listed.setdefault(name.rpartition(".")[0] or name, number)
    places = {"/".join(place): place[0] for place in sounds.values()}
    missing = next((name for name in listed if name not in places), None)
    if missing is not None:
        num_missing = sum(name not in places for name in listed)
        what = f"{num_missing} of the {len(listed)} sounds of the trials are missing, the first is {missing}"
        raise DataError(what, file=f"{path}:{listed[missing]}", do="Fetch them, or give the list of other trials")
    tested = {places[name] for name in listed}
    return {
        name: "test" if name in listed else "train"
        for name, speaker in places.items()
        if name in listed or speaker not in tested
    }


def _attributes(path: Path, speakers: set[str]) -> dict[str, dict[str, str]]:
    """From the speaker to gender (F, M) and nationality; empty where there is no table."""
    if not path.is_file():
        return {}
    rows = [(number, [cell.strip() for cell in cells]) for number, cells in csv_rows(_unquoted(read_utf8(path)), path)]
    header = rows[0][1] if rows else []
    index_of = _columns(header, path)
    attributes: dict[str, dict[str, str]] = {}
    for number, cells in rows[1:]:
        known = {name: cells[index] for name, index in index_of.items()} if len(cells) == len(header) else {}
        speaker, gender = known.pop("speaker", ""), known.get("gender", "").casefold()
        if not speaker or speaker in attributes or gender not in _GENDERS:
            what = f"A row must have {len(header)} cells, its speaker once and `f` or `m` for the gender"
            raise DataError(what, file=f"{path}:{number}", do="Mend the line, or remove the table")
        attributes[speaker] = {**known, "gender": _GENDERS[gender]}
    unknown = sorted(speakers - attributes.keys())
    if unknown:
        what = f"{len(unknown)} of {len(speakers)} speakers have no row, the first is {unknown[0]}"
        raise DataError(what, file=path, do="Fetch the table again, or remove it")
    return {speaker: {name: each for name, each in known.items() if each} for speaker, known in attributes.items()}


def _unquoted(text: str) -> str:
    """The text without the quotes around whole lines, as a spreadsheet writes a file of tabs that it took for CSV."""
    lines = [line for line in text.splitlines() if line.strip()]
    if all(line.startswith('"') and line.endswith('"') and line.count('"') == 2 and "\t" in line for line in lines):
        return "\n".join(line[1:-1] for line in lines)
    return text


def _columns(header: Sequence[str], path: Path) -> dict[str, int]:
    """The indices of speaker, gender and nationality in a row."""
    plain = [re.sub(r"[\s_-]", "", name).casefold() for name in header]
    index_of = {
        name: next(index for index, column in enumerate(plain) if column in known)
        for name, known in _COLUMNS.items()
        if not known.isdisjoint(plain)
    }
    for name, column in (("speaker", "VoxCeleb1 ID"), ("gender", "Gender"), ("nationality", "Nationality")):
        if name not in index_of:
            what = f"The table has no column `{column}` (it has {', '.join(header) or 'none'})"
            raise DataError(what, file=f"{path}:1", key=column, do="Name the column so, or remove the table")
    return index_of


def _notes(utterances: Sequence[DraftUtterance], name_of_list: str | None) -> tuple[str, ...]:
    num_unlisted = sum(utterance.split is None for utterance in utterances)
    if name_of_list is None or not num_unlisted:
        return ()
    return (f"{num_unlisted} of {len(utterances)} utterances are not in {name_of_list} and belong to no split",)
