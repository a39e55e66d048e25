"""A data folder of Kaldi: wav.scp, utt2spk and, if present, segments, reco2file_and_channel, text, spk2…, utt2….

Reference: Povey et al., "The Kaldi Speech Recognition Toolkit" (ASRU 2011), and its documentation, "Data preparation".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from repbench.audio.sound import Channel, inspect
from repbench.corpora.alignments import align
from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csv_table import column_type
from repbench.corpora.layouts.file_search import refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.rounded_ends import cut_at_sounds
from repbench.corpora.safe_paths import RootFolder, common_folder
from repbench.corpora.textfiles import text_lines
from repbench.errors import DataError, quoted

_NO_ATTRIBUTES = frozenset({"utt2spk", "utt2dur", "utt2num_frames", "spk2utt", "spk2gender"})
"""Files utt2… and spk2… that are a separate field or read elsewhere, or follow from the sound."""

_T = TypeVar("_T")

_SIDES = {"A": 1, "B": 2}
"""The channels of a telephone call, by the letters that Kaldi's recipes give them."""

_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,2})?")
_ARCHIVE = re.compile(r".*:[0-9]+(\[[^\]]*\])?")


class TableLine(NamedTuple):
    """A line `KEY VALUE` of a table, and its file and line: `wav.scp:12`."""

    value: str
    where: str


@dataclass(frozen=True, slots=True)
class _RecordingSegment:
    """A stretch of a recording; times in seconds, None for its edge."""

    recording: str
    start: float | None
    end: float | None


class KaldiData:
    """The layout `kaldi`: a data folder (the root, or `--table`) and sounds under the root.

    `wav.scp` and `utt2spk` are needed. The paths of wav.scp are relative to the root, or absolute and under it; pipes
    are refused and never run. With `segments` its lines are the utterances and the group is the recording; without,
    each recording is an utterance. `text` gives the text, `spk2gender` the attribute `gender` (F, M), and every other
    `spk2NAME` or `utt2NAME` the attribute NAME: whole numbers if all its values are, decimals if all are numbers, else
    strings. Where a file of utterances and one of speakers have one NAME, a value of the utterance goes first.
    `reco2file_and_channel` gives the channel of a recording (A or 1, B or 2, …) whose sound has several; a sound of one
    channel is read as it is, because the sides of a call are often separate files. `utt2dur`, `utt2num_frames`,
    `reco2dur`, `spk2utt` and other files are ignored. A segment that ends at most `OVERSHOOT_S` past its recording is
    cut there, as Kaldi does, and counted in a note.

    Lines may be in any order. An id that occurs twice, or that is no utterance, is refused.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the data folder; errors as `CorpusLayout.prepare`."""
        refuse_options("kaldi", options, reads=("alignments", "table"))
        refuse_missing_root(root)
        data = root if options.table is None else options.table
        collector = FaultCollector(gather=options.gather_faults)
        sounds = _sounds(data, RootFolder(root, follow_links=options.follow_links), gather=options.gather_faults)
        channels = _channels(data / "reco2file_and_channel", sounds)
        segments = _segments(data / "segments", sounds, gather=options.gather_faults)
        # its keys must be exactly the utterances: none too many here, none too few in the next line
        speakers = _table_of(data / "utt2spk", segments)
        _refuse_unlisted(data / "utt2spk", speakers, segments)
        texts = _table_of(data / "text", segments, may_be_empty=True) if (data / "text").is_file() else {}
        genders = _genders(data / "spk2gender", speakers)
        attributes = _attributes(data, segments)
        of_speakers = _speaker_attributes(data, speakers)
        utterances = []
        for name, segment in segments.items():
            with collector.each():
                stretch = _value_or_raise(segment, name)
                utterances.append(
                    DraftUtterance(
                        id=name,
                        audio=_value_or_raise(sounds[stretch.recording], name),
                        start=stretch.start,
                        end=stretch.end,
                        speaker=speakers[name].value,
                        text=texts[name].value if name in texts else None,
                        attributes={
                            **of_speakers.get(speakers[name].value, {}),
                            **attributes[name],
                            **genders.get(speakers[name].value, {}),
                        },
                        channel=channels.get(stretch.recording),
                        group=stretch.recording if (data / "segments").is_file() else None,
                    )
                )
        utterances, notes_on_ends = cut_at_sounds(utterances)
        draft = Draft(
            name=data.resolve().name or "kaldi",
            licence="unknown",
            root=root,
            utterances=utterances,
            notes=(*_notes(sounds, segments, texts), *notes_on_ends),
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


KALDI = KaldiData()


def _entries(path: Path, *, may_be_empty: bool = False) -> dict[str, TableLine]:
    """The lines `KEY VALUE` of a table, in their order.

    Raises:
        DataError: The file is missing, not UTF-8 or empty, a line has no value, or a key occurs twice.
    """
    entries: dict[str, TableLine] = {}
    for number, line in text_lines(path):
        where = f"{path}:{number}"
        # the value may hold blanks: a text, or a command
        key, *rest = line.split(None, 1)
        if key in entries:
            what = f"`{key}` occurs twice, first in {entries[key].where}"
            raise DataError(what, file=where, key=key, do="Remove one of the lines")
        value = rest[0].strip() if rest else ""
        if not value and not may_be_empty:
            raise DataError(f"`{key}` has no value", file=where, key=key, do="A line must be a key and its value")
        entries[key] = TableLine(value, where)
    if not entries:
        raise DataError("The file has no line", file=path, do="Fill or remove it")
    return entries


def _value_or_raise(found: _T | DataError, utterance: str) -> _T:
    """The value found for an utterance.

    Raises:
        DataError: It is a fault, of the utterance or of its recording.
    """
    if isinstance(found, DataError):
        raise DataError(found.what, file=found.file, utterance=utterance, key=found.key, do=found.do)
    return found


def _found_or_fault(find: Callable[[], _T], *, gather: bool) -> _T | DataError:
    try:
        return find()
    except DataError as fault:
        if not gather:
            raise
        return fault


def _sounds(data: Path, root: RootFolder, *, gather: bool) -> dict[str, Path | DataError]:
    """From each recording to its sound, or, where faults are collected, to the fault of its line."""
    path = data / "wav.scp"
    if not path.is_file():
        what = "The folder is not a data folder of Kaldi; looked for wav.scp and utt2spk"
        raise DataError(what, file=data, do="Give it as --root, or as --table with another --root")
    entries = _entries(path)
    return {
        key: _found_or_fault(partial(_sound, key, entry, root, data, entries.values()), gather=gather)
        for key, entry in entries.items()
    }


def _refuse_commands(key: str, entry: TableLine) -> None:
    """Refuse values that are no path: a command whose output is the sound, standard input, or a place in an archive."""
    # refused by the text alone: nothing of a data folder is ever run
    is_command = entry.value.endswith("|") or entry.value.startswith("|")
    if is_command or entry.value == "-":
        what = f"The sound is the output of a command, which is never run: `{entry.value[:80]}`"
        do = "Write the sounds first, with wav-copy or the command itself, and name the files"
        raise DataError(what, file=entry.where, utterance=key, do=do)
    if _ARCHIVE.fullmatch(entry.value):
        what = f"The sound is in an archive, which is not read: `{entry.value[:80]}`"
        raise DataError(what, file=entry.where, utterance=key, do="Write it to a file with wav-copy, and name that")


def _sound(key: str, entry: TableLine, root: RootFolder, data: Path, all_entries: Iterable[TableLine]) -> Path:
    _refuse_commands(key, entry)
    try:
        return root.locate(entry.value, file=entry.where, utterance=key)
    except DataError as error:
        if not entry.value.startswith("/") or root.holds(entry.value):
            raise
        common = common_folder(each.value for each in all_entries)
        what = f"The sound `{entry.value}` is not under the root {root.folder}"
        do = f"Give the folder of all sounds and the data folder: --root {quoted(common)} --table {quoted(data)}"
        raise DataError(what, file=entry.where, utterance=key, do=do) from error


def _channels(path: Path, sounds: Mapping[str, Path | DataError]) -> dict[str, Channel]:
    """From each recording that is one channel of several to that channel; empty where there is no file.

    Raises:
        DataError: A line is not `RECORDING FILE CHANNEL`, or names a recording that wav.scp does not.
    """
    if not path.is_file():
        return {}
    channels: dict[str, Channel] = {}
    for recording, entry in _entries(path).items():
        cells = entry.value.split()
        number = _SIDES.get(cells[-1].upper()) or (int(cells[-1]) if re.fullmatch("[1-9][0-9]?", cells[-1]) else None)
        if len(cells) != 2 or number is None:
            line = f"{recording} {entry.value}"[:80]
            what = f"A line must be `RECORDING FILE CHANNEL`, its channel A, B or a number from 1, but is `{line}`"
            raise DataError(what, file=entry.where, key=recording, do="Mend the line")
        if recording not in sounds:
            what = f"The recording `{recording}` is not in wav.scp"
            raise DataError(what, file=entry.where, key=recording, do="Run Kaldi's utils/fix_data_dir.sh")
        # A sound of one channel is already the side of its call.
        if _has_several_channels(sounds[recording]):
            channels[recording] = number
    return channels


def _has_several_channels(sound: Path | DataError) -> bool:
    try:
        return isinstance(sound, Path) and inspect(sound, any_channels=True).num_channels > 1
    except DataError:  # raised again, with every other fault of the corpus, where the sound itself is read
        return False


def _segments(path: Path, sounds: Mapping[str, object], *, gather: bool) -> dict[str, _RecordingSegment | DataError]:
    """From each utterance to its stretch of a recording, or a fault; without a file, each recording as a whole."""
    if not path.is_file():
        return {key: _RecordingSegment(key, None, None) for key in sounds}
    return {
        key: _found_or_fault(partial(_segment, key, entry, sounds), gather=gather)
        for key, entry in _entries(path).items()
    }


def _segment(key: str, entry: TableLine, sounds: Mapping[str, object]) -> _RecordingSegment:
    cells = entry.value.split()
    if len(cells) != 3:
        what = "A line must be `UTTERANCE RECORDING START END`"
        raise DataError(what, file=entry.where, utterance=key, do="Mend the line")
    if cells[0] not in sounds:
        what = f"The recording `{cells[0]}` is not in wav.scp"
        raise DataError(what, file=entry.where, utterance=key, do="Add it, or remove the segment")
    # Kaldi writes -1 for the end of the recording
    end = None if cells[2] in ("-1", "-1.0") else _seconds(cells[2], entry, key)
    return _RecordingSegment(cells[0], _seconds(cells[1], entry, key), end)


def _seconds(cell: str, entry: TableLine, utterance: str) -> float:
    if not _SECONDS.fullmatch(cell):
        what = f"A time must be a number of seconds from 0, but is `{cell[:40]}`"
        raise DataError(what, file=entry.where, utterance=utterance, do="Write it like 1.25; an end may be -1")
    return float(cell)


def _table_of(path: Path, utterances: Mapping[str, object], *, may_be_empty: bool = False) -> dict[str, TableLine]:
    """The entries of a table whose keys must be utterances."""
    entries = _entries(path, may_be_empty=may_be_empty)
    for key, entry in entries.items():
        if key not in utterances:
            what = f"`{key}` is no utterance of wav.scp or segments"
            raise DataError(what, file=entry.where, utterance=key, do="Run Kaldi's utils/fix_data_dir.sh")
    return entries


def _refuse_unlisted(path: Path, entries: Mapping[str, TableLine], utterances: Mapping[str, object]) -> None:
    missing = [key for key in utterances if key not in entries]
    if missing:
        what = f"{len(missing)} of {len(utterances)} utterances have no line, the first is `{missing[0]}`"
        raise DataError(what, file=path, utterance=missing[0], do="Run Kaldi's utils/fix_data_dir.sh")


def _genders(path: Path, speakers: Mapping[str, TableLine]) -> dict[str, dict[str, AttributeValue]]:
    """From the speaker to the attribute `gender`; empty where there is no file."""
    if not path.is_file():
        return {}
    known = {entry.value for entry in speakers.values()}
    genders: dict[str, dict[str, AttributeValue]] = {}
    for speaker, entry in _entries(path).items():
        if speaker not in known or entry.value not in ("f", "m"):
            what = f"A line must be a speaker of utt2spk and `f` or `m`, but is `{speaker} {entry.value[:40]}`"
            raise DataError(what, file=entry.where, key=speaker, do="Mend or remove the line")
        genders[speaker] = {"gender": entry.value.upper()}
    return genders


def _speaker_attributes(data: Path, speakers: Mapping[str, TableLine]) -> dict[str, dict[str, AttributeValue]]:
    """The attributes of each speaker that is in a file spk2NAME, those of one file all of one type."""
    known = {entry.value for entry in speakers.values()}
    attributes: dict[str, dict[str, AttributeValue]] = {}
    for path in sorted(data.glob("spk2?*")):
        if path.name in _NO_ATTRIBUTES or not path.is_file():
            continue
        entries = _entries(path)
        read = column_type([entry.value for entry in entries.values()])
        for speaker, entry in entries.items():
            if speaker not in known:
                what = f"`{speaker}` is no speaker of utt2spk"
                raise DataError(what, file=entry.where, key=speaker, do="Run Kaldi's utils/fix_data_dir.sh")
            attributes.setdefault(speaker, {})[path.name.removeprefix("spk2")] = read(entry.value)
    return attributes


def _attributes(data: Path, utterances: Iterable[str]) -> dict[str, dict[str, AttributeValue]]:
    """The attributes of each utterance, those of one file all of one type."""
    names = list(utterances)
    attributes: dict[str, dict[str, AttributeValue]] = {name: {} for name in names}
    # sorted, because the order of attributes would otherwise depend on the file system
    for path in sorted(data.glob("utt2*")):
        if path.name in _NO_ATTRIBUTES or path.name == "utt2" or not path.is_file():
            continue
        entries = _table_of(path, attributes)
        read = column_type([entry.value for entry in entries.values()])
        for name, entry in entries.items():
            attributes[name][path.name.removeprefix("utt2")] = read(entry.value)
    return attributes


def _notes(
    sounds: Mapping[str, object], segments: Mapping[str, _RecordingSegment | DataError], texts: Mapping[str, TableLine]
) -> Iterator[str]:
    used = {segment.recording for segment in segments.values() if isinstance(segment, _RecordingSegment)}
    num_unused = len(sounds.keys() - used)
    if num_unused:
        yield f"{num_unused} of {len(sounds)} recordings have no segment"
    if texts and len(texts) < len(segments):
        yield f"{len(segments) - len(texts)} of {len(segments)} utterances have no text"
