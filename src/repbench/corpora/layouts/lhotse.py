"""Manifests of lhotse: cuts, or recordings with supervisions, `.jsonl` or `.jsonl.gz`.

The lines are read here and not by lhotse: they are a documented format of plain JSON, and lhotse's readers name neither
file nor line of a fault.

Reference: Żelasko et al., "Lhotse: a speech data representation library for the modern deep learning ecosystem", 2021,
and its documentation, "Representing a corpus" and "Cuts".
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from repbench.corpora.alignments import align, align_read
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions
from repbench.corpora.exported_facts import ExportedFacts, read_facts
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import files_under, refuse_missing_root
from repbench.corpora.layouts.json_lines import JsonLine, json_lines
from repbench.corpora.layouts.lhotse_labels import LabelReader
from repbench.corpora.layouts.lhotse_sounds import Recordings
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.rounded_ends import cut_at_sounds
from repbench.corpora.layouts.split_names import with_named_splits
from repbench.corpora.layouts.text_notes import text_notes
from repbench.corpora.safe_paths import RootFolder
from repbench.errors import DataError

_FILE = re.compile(
    r"(?:(?P<before>.*?)[_.-])?(?P<kind>cuts|recordings|supervisions)(?:[_.-](?P<part>.*))?\.jsonl(\.gz)?"
)


class LhotseData:
    """The layout `lhotse`: manifests in the root, or in `--table`, a file of cuts or a folder; sounds under the root.

    Where there are files of cuts (`cuts*.jsonl.gz`), each cut is an utterance, with its start, duration and channel.
    Else each supervision is one, and files of recordings and of supervisions that differ in nothing but this word in
    their names belong together (`X_recordings_dev-clean.jsonl.gz`, `X_supervisions_dev-clean.jsonl.gz`); the group of a
    supervision is its recording, where a recording has several.

    Text, speaker, language and gender come from the supervision, the texts and numbers of `custom` become attributes.
    An alignment `phone` or `phones`, or the one that `--tier` names, becomes the phones. A cut of several supervisions
    has their turns; its text and speaker are known where all of them agree. Splits are the parts in the names of files
    where there are several, or `split` in `custom`.

    Paths are relative to the root, or absolute and under it. Of sounds, files alone are read; cuts that are mixed,
    padded or transformed are refused.
    """

    has_alignments = True

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the manifests; errors as `CorpusLayout.prepare`.

        Raises:
            DataError: There is no manifest, or a line of it is wrong; names file and line.
            UsageError: `--tier` names an alignment that no supervision has.
        """
        refuse_options("lhotse", options, reads=("alignments", "table"))
        refuse_missing_root(root)
        source = root if options.table is None else options.table
        reading = _Reading(root, source, options)
        for part, files in _manifests(source, options).items():
            reading.part = part
            if "cuts" in files:
                reading.cuts(files["cuts"])
            else:
                reading.supervisions(files)
        return reading.draft()


LHOTSE = LhotseData()


@dataclass(frozen=True, slots=True)
class _Span:
    """The stretch of a recording that an utterance is: seconds, and the channel from 0 on or None."""

    start_s: float
    duration_s: float | None
    channel: int | None


@dataclass(slots=True)
class _Reading:
    """The utterances read so far."""

    root: Path
    source: Path
    options: PrepareOptions
    part: str | None = None
    utterances: list[DraftUtterance] = field(default_factory=list)
    parts: list[str | None] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    collector: FaultCollector = field(init=False)
    recordings: Recordings = field(init=False)
    labels: LabelReader = field(init=False)
    facts: ExportedFacts | None = field(init=False)

    def __post_init__(self) -> None:
        self.collector = FaultCollector(gather=self.options.gather_faults)
        folder = RootFolder(self.root, follow_links=self.options.follow_links)
        self.recordings = Recordings(folder, self.source)
        self.facts = read_facts(self.source if self.source.is_dir() else self.source.parent)
        # with --alignments a tier is one of those files
        tier = None if self.options.alignments is not None else self.options.tier
        self.labels = LabelReader(tier, is_exported=self.facts is not None)

    def cuts(self, path: Path) -> None:
        """Each cut of a file as an utterance."""
        for line in json_lines(path):
            with self.collector.each():
                name = _name(line, "id")
                kind = line.fields.get("type", "MonoCut")
                recording = line.fields.get("recording")
                if kind not in ("MonoCut", "MultiCut") or not isinstance(recording, dict):
                    what = f"A cut must be a MonoCut or MultiCut of a recording, but is a {kind}"
                    what += "" if isinstance(recording, dict) else " without one"
                    do = "Write it to a sound first: lhotse's `CutSet.save_audios(DIR)`"
                    raise DataError(what, file=line.where, utterance=name, key="type", do=do)
                span = _Span(_seconds(line, "start", name), _seconds(line, "duration", name), _channel(line, name))
                labelled = self.labels.of_cut(line, name, span.duration_s or 0.0)
                self._add(line, JsonLine(recording, line.where), span, labelled)

    def supervisions(self, files: Mapping[str, Path]) -> None:
        """Each supervision of a file as an utterance of its recording; without a file of them, each recording."""
        recordings: dict[str, JsonLine] = {}
        for line in json_lines(files["recordings"]):
            identifier = _name(line, "id")
            if identifier in recordings:
                what = f"The recording `{identifier}` occurs twice, first in {recordings[identifier].where}"
                raise DataError(what, file=line.where, key="id", do="Remove one of the lines")
            recordings[identifier] = line
        lines = list(json_lines(files["supervisions"])) if "supervisions" in files else []
        if "supervisions" not in files:
            self.notes["recordings without supervisions: no label is known"] += 1
            for recording in recordings.values():
                with self.collector.each():
                    bare = DraftUtterance(id=recording.fields["id"], audio=Path())
                    self._add(recording, recording, _Span(0.0, None, None), bare)
            return
        counts = Counter(line.fields.get("recording_id") for line in lines)
        for line in lines:
            with self.collector.each():
                name = _name(line, "id")
                whole = line.fields.get("recording_id")
                if not isinstance(whole, str) or whole not in recordings:
                    what = f"The recording `{whole}` of the supervision is not in {files['recordings'].name}"
                    do = "Add it, or take the supervision out: lhotse's `fix_manifests`"
                    raise DataError(what, file=line.where, utterance=name, key="recording_id", do=do)
                span = _Span(_seconds(line, "start", name), _seconds(line, "duration", name), _channel(line, name))
                labelled = self.labels.of_supervision(line, name, group=whole if counts[whole] > 1 else None)
                self._add(line, recordings[whole], span, labelled)

    def _add(self, line: JsonLine, recording: JsonLine, span: _Span, labelled: DraftUtterance) -> None:
        """Keep an utterance with its labels, once its sound is found."""
        name = labelled.id
        audio, channel, info = self.recordings.sound(recording, span.channel, name)
        end_s = None if span.duration_s is None else span.start_s + span.duration_s
        # to the nearest sample: durations are often written with few decimals
        is_whole = span.start_s == 0 and (end_s is None or round(end_s * info.sample_rate_hz) == info.num_samples)
        self.utterances.append(
            replace(
                labelled,
                audio=audio,
                start=None if is_whole else span.start_s,
                end=None if is_whole else end_s,
                channel=channel,
                where=line.where,
            )
        )
        self.parts.append(self.part)

    def draft(self) -> Draft:
        """All utterances, with splits, phones and notes."""
        self.labels.refuse_unused_tier()
        utterances, notes_on_splits = with_named_splits(self.utterances, self.parts)
        utterances, notes_on_ends = cut_at_sounds(utterances)
        draft = Draft(
            name=self.source.resolve().name.split(".")[0] or "lhotse",
            licence="unknown",
            root=self.root,
            utterances=utterances,
            notes=(*self.notes, *self.labels.notes(), *notes_on_splits, *notes_on_ends, *text_notes(utterances)),
            faults=tuple(self.collector.faults),
        )
        if self.facts is not None:
            draft = self.facts.of(draft)
        if self.options.alignments is not None:
            return align(draft, self.options.alignments, self.options)
        return draft if self.facts is not None else align_read(draft, self.options)


def _manifests(source: Path, options: PrepareOptions) -> dict[str | None, dict[str, Path]]:
    """From each part of the corpus to its files by their kind, cuts alone where there are any.

    Raises:
        DataError: There is none, two files are one part, or a part has no recordings.
    """
    paths = [source] if source.is_file() else list(files_under(source, options)) if source.is_dir() else []
    found: dict[str | None, dict[str, Path]] = {}
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match is None and not source.is_file():
            continue
        kind = "cuts" if match is None else match["kind"]
        around = () if match is None else (match["before"], match["part"])
        part = "_".join(name for name in around if name) or None
        first = found.setdefault(part, {}).setdefault(kind, path)
        if first != path:
            what = f"Two files are the {kind} of one part: {first} and {path}"
            raise DataError(what, file=source, do="Give one of their folders")
    with_cuts = {part: files for part, files in found.items() if "cuts" in files}
    chosen = with_cuts or {part: files for part, files in found.items() if "recordings" in files}
    if not chosen or len(chosen) < sum("supervisions" in files for files in found.values() if not with_cuts):
        names = ", ".join(path.name for files in found.values() for path in files.values()) or "none"
        what = f"There must be cuts*.jsonl, or recordings*.jsonl for every supervisions*.jsonl, but there are: {names}"
        do = "Give the folder that holds them with --table (.jsonl.gz is read too)"
        raise DataError(what, file=source, do=do)
    return chosen


def _name(line: JsonLine, key: str) -> str:
    value = line.fields.get(key)
    if not isinstance(value, str) or not value:
        what = f"`{key}` must be a text that is not empty, but is {value!r}"
        raise DataError(what, file=line.where, key=key, do="Mend the line")
    return value


def _seconds(line: JsonLine, key: str, utterance: str) -> float:
    value = line.fields.get(key)
    if type(value) not in (int, float) or not 0 <= cast(float, value) < math.inf:
        what = f"`{key}` must be seconds from 0, but is {value!r}"
        raise DataError(what, file=line.where, utterance=utterance, key=key, do="Mend the line")
    return float(cast(float, value))


def _channel(line: JsonLine, utterance: str) -> int | None:
    """The one channel of a cut or supervision, from 0 on; None where it has several."""
    value = line.fields.get("channel", 0)
    channels = value if isinstance(value, list) else [value]
    if not channels or not all(type(each) is int and each >= 0 for each in channels):
        what = f"`channel` must be a number from 0 or a list of them, but is {value!r}"
        raise DataError(what, file=line.where, utterance=utterance, key="channel", do="Mend the line")
    return channels[0] if len(channels) == 1 else None
