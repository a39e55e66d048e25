"""Finding the alignment of an utterance: in a file named after it, or in a file of many utterances."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from repbench.corpora.alignments.formats import (
    BY_ENDING,
    ELAN,
    ENDINGS,
    EXPORT_FROM_ELAN,
    MULTI_UTTERANCE_FORMATS,
    READERS,
    format_of,
    is_list,
    read_one,
    refuse_tier,
)
from repbench.corpora.alignments.intervals import Alignment
from repbench.corpora.alignments.multi_utterance_files import MultiUtteranceFile
from repbench.corpora.contract import Phone
from repbench.corpora.textfiles import nfc, text_lines
from repbench.errors import DataError

UNALIGNED_FILE = "unaligned.txt"


class Alignments(Protocol):
    """The alignments that a file or folder holds, by the (NFC-normalised) id of the utterance."""

    def __contains__(self, utterance: object) -> bool: ...

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """The alignment of a contained utterance; the rate, in hertz, is that of its sound."""
        ...


class FilePerUtterance:
    """A file for each utterance, of any format; a file of many utterances may be named for each of them.

    Args:
        paths: From the id of each utterance to its file.
        tier: Of TextGrids the tier of phones; None for the one that is known by its name.
    """

    def __init__(self, paths: Mapping[str, Path], tier: str | None = None) -> None:
        self._tier = tier
        self._paths = {nfc(name): path for name, path in paths.items()}
        self._opened: dict[Path, MultiUtteranceFile] = {}

    def __contains__(self, utterance: object) -> bool:
        return utterance in self._paths

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """Read the file of an utterance; errors as `format_of` and its reader."""
        path = self._paths[utterance]
        form = format_of(path)
        if form in READERS:
            return read_one(form, path, utterance, sample_rate_hz, tier=self._tier)
        refuse_tier(self._tier, form, path)
        if path not in self._opened:
            self._opened[path] = MULTI_UTTERANCE_FORMATS[form](path)
        if utterance not in self._opened[path]:
            what = f"The file ({form}) does not hold the utterance it is named for"
            raise DataError(what, file=path, utterance=utterance, do="Name another file, or none")
        return self._opened[path].read(utterance, sample_rate_hz)


class ReadAlignments:
    """Phones that a layout has read itself, from a table or a manifest of others.

    Args:
        phones: From the NFC-normalised id of each utterance to its phones.
        files: From it to the file and row, for errors.
    """

    def __init__(self, phones: Mapping[str, Sequence[Phone]], files: Mapping[str, Path]) -> None:
        self._phones = phones
        self._files = files

    def __contains__(self, utterance: object) -> bool:
        return utterance in self._phones

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """The phones of a contained utterance; the rate plays no part."""
        return Alignment(file=self._files[utterance], phones=self._phones[utterance], lines=None)


class AlignmentFolder:
    """A folder with a file for each utterance, all of one format.

    Args:
        folder: The folder.
        paths: Its files.
        tier: Of TextGrids the tier of phones; None for the one that is known by its name.
    """

    def __init__(self, folder: Path, paths: Iterable[Path], tier: str | None = None) -> None:
        self._tier = tier
        self._folder = folder
        self._paths: dict[str, Path] = {}
        self._twice: dict[str, Path] = {}
        self._seen: tuple[str, Path] | None = None
        for path in paths:
            for name in names_of(path, folder):
                # Refused when the utterance is read: stems may repeat where ids are places in the folder.
                first = self._paths.setdefault(name, path)
                if first != path:
                    self._twice[name] = path

    def __contains__(self, utterance: object) -> bool:
        return utterance in self._paths

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """Read the file of an utterance.

        Raises:
            DataError: Two files are named after it, its format is not that of those read before, or as its reader.
        """
        path = self._paths[utterance]
        if utterance in self._twice:
            what = f"Two alignments are named `{utterance}`: {path} and {self._twice[utterance]}"
            raise DataError(what, file=self._folder, utterance=utterance, do="Remove one of them")
        form = format_of(path)
        # compared as the files are read: opening all of a large folder first would take as long as reading it
        first_form, first_path = self._seen = self._seen or (form, path)
        if form != first_form:
            what = f"The folder of alignments is mixed: {first_path.name} is {first_form}, {path.name} is {form}"
            raise DataError(what, file=path, utterance=utterance, do="Keep one format")
        if form not in READERS:
            what = f"The file is named after an utterance, but holds many ({form})"
            raise DataError(what, file=path, utterance=utterance, do="Give the file itself")
        return read_one(form, path, utterance, sample_rate_hz, tier=self._tier)


class MultiUtteranceFiles:
    """Files of one format that hold many utterances each, no utterance in two of them."""

    def __init__(self, files: Iterable[MultiUtteranceFile]) -> None:
        self._file_of: dict[str, MultiUtteranceFile] = {}
        for file in files:
            for utterance in file:
                first = self._file_of.setdefault(utterance, file)
                if first is not file:
                    what = f"The utterance is in two files: {first.path} and {file.path}"
                    raise DataError(what, file=file.path, utterance=utterance, do="Remove one of them")

    def __contains__(self, utterance: object) -> bool:
        return utterance in self._file_of

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """Read an utterance; errors as `MultiUtteranceFile.read`."""
        return self._file_of[utterance].read(utterance, sample_rate_hz)


def open_alignments(source: Path, utterances: Collection[str], *, tier: str | None = None) -> Alignments:
    """The alignments of a file or folder.

    Args:
        source: A file or folder of alignments.
        utterances: The NFC-normalised ids of the corpus, which distinguish alignments from other `.txt` files.
        tier: Of TextGrids the tier of phones; None for the one that is known by its name.

    Raises:
        DataError: There is nothing, or files that are mixed, ambiguous or of no known format.
        UsageError: A tier is named, but there are no TextGrids.
    """
    if source.is_dir():
        return _open_folder(source, utterances, tier)
    if not source.exists():
        raise DataError("The file or folder of alignments does not exist", file=source, do="Check --alignments")
    form = format_of(source)
    refuse_tier(tier, form, source)
    if form in MULTI_UTTERANCE_FORMATS:
        return MultiUtteranceFiles([MULTI_UTTERANCE_FORMATS[form](source)])
    named = [name for name in names_of(source, source.parent) if name in utterances]
    if not named:
        what = f"The file holds one alignment ({form}) and is named after no utterance of the corpus"
        raise DataError(what, file=source, do="Give the folder of all of them, or name it after its utterance")
    return AlignmentFolder(source.parent, [source], tier)


def names_of(path: Path, folder: Path) -> set[str]:
    """The ids under which a file can be known: its stem, and its place under the folder, its parts joined."""
    parts = path.relative_to(folder).with_suffix("").parts
    # aligners copy the folders of a corpus, and layouts join folders to ids in one of these ways
    return {nfc(name) for name in (path.stem, *(joint.join(parts) for joint in "/-_"))}


def read_unaligned(source: Path) -> dict[str, str]:
    """From the id of each utterance that is listed as unaligned to its file and line: `unaligned.txt:3`.

    Raises:
        DataError: A list is not UTF-8.
    """
    paths = sorted(source.rglob(UNALIGNED_FILE)) if source.is_dir() else [source.parent / UNALIGNED_FILE]
    paths.append(paths[0].parent.parent / UNALIGNED_FILE if source.is_file() else source.parent / UNALIGNED_FILE)
    return {
        nfc(line.split()[0]): f"{path}:{number}"
        for path in paths
        if path.is_file()
        for number, line in text_lines(path)
    }


def _open_folder(folder: Path, utterances: Collection[str], tier: str | None) -> Alignments:
    by_ending: dict[str, list[Path]] = {}
    for path in _files(folder):
        by_ending.setdefault(path.suffix.lower(), []).append(path)
    # Much else is JSON: beside others a file of it counts where it is named after an utterance.
    named_json = [path for path in by_ending.get(".json", []) if not names_of(path, folder).isdisjoint(utterances)]
    if named_json or set(by_ending) - {".json"}:
        by_ending[".json"] = named_json
    # `.txt` counts only alone: transcripts and lists lie next to alignments of every other format; so may `.json`
    found = {ending for ending, paths in by_ending.items() if paths}
    endings = sorted(found - {".txt", ".json"}) or sorted(found - {".txt"}) or sorted(found)
    if not endings:
        looked_for = ", ".join(sorted(ENDINGS))
        what = f"The folder holds no alignment; looked for files that end in {looked_for}"
        is_elan = next(folder.rglob(f"*{ELAN}"), None) is not None
        raise DataError(what, file=folder, do=EXPORT_FROM_ELAN if is_elan else "Check --alignments")
    if len(endings) > 1:
        seen = ", ".join(
            f"{len(by_ending[ending])} {ending} (such as {by_ending[ending][0].name})" for ending in endings
        )
        raise DataError(f"The folder of alignments is mixed: {seen}", file=folder, do="Give a folder of one format")
    paths = by_ending[endings[0]]
    if BY_ENDING.get(endings[0], endings[0]) in READERS or endings[0] == ".lab":
        return AlignmentFolder(folder, paths, tier)
    if endings[0] == ".txt":
        named = [path for path in paths if not names_of(path, folder).isdisjoint(utterances)]
        if named:
            return AlignmentFolder(folder, named, tier)
        paths = [path for path in paths if not is_list(path)]
    files = list(_multi_utterance_files(paths, folder))
    if files:
        refuse_tier(tier, format_of(files[0].path), files[0].path)
    return MultiUtteranceFiles(files)


def _multi_utterance_files(paths: Iterable[Path], folder: Path) -> Iterator[MultiUtteranceFile]:
    """The files that hold many utterances; those of one utterance that are not of this corpus are none."""
    first: tuple[str, Path] | None = None
    for path in paths:
        form = format_of(path)
        first_form, first_path = first = first or (form, path)
        if form != first_form:
            what = f"The folder of alignments is mixed: {first_path.name} is {first_form}, {path.name} is {form}"
            raise DataError(what, file=folder, do="Give one of the files, or a folder of one format")
        if form in MULTI_UTTERANCE_FORMATS:
            yield MULTI_UTTERANCE_FORMATS[form](path)


def _files(folder: Path) -> Iterator[Path]:
    """Every file anywhere under the folder that may be an alignment."""
    # sorted, so that errors name the same file on every file system
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and path.name != UNALIGNED_FILE:
            yield path
