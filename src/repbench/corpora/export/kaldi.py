"""A corpus as a data folder of Kaldi, and in words what Kaldi has no place for.

Reference: Kaldi's documentation, "Data preparation"; lists are in the order of bytes, as `LC_ALL=C sort` gives it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from repbench.audio.sound import inspect
from repbench.corpora.contract import Corpus, Progress, Turn, Utterance
from repbench.corpora.export.folder import ExportFolder, needs_writing, recording_ids
from repbench.corpora.rttm import format_rttm
from repbench.errors import DataError

_ATTRIBUTE = re.compile(r"[A-Za-z0-9_-]+")
_TAKEN = frozenset({"spk", "dur", "num_frames", "gender", "lang"})
"""Files utt2… that mean something else to Kaldi or are not attributes to the layout `kaldi`."""

_GENDERS = {"F": "f", "M": "m"}


def write(corpus: Corpus, folder: ExportFolder, progress: Progress | None) -> tuple[str, ...]:
    """Write the data folder; errors as `repbench.corpora.export.export`.

    Raises:
        DataError: An id, a speaker or the path of a sound cannot stand in a table of Kaldi; names the utterance.
    """
    for utterance in corpus.utterances:
        _refuse_blanks(utterance)
    tables = _Tables()
    ids = recording_ids(corpus.utterances)
    is_cut = any(each.start is not None or each.end is not None for each in corpus.utterances)
    genders = _genders(corpus.utterances)
    for number, utterance in enumerate(corpus.utterances):
        tables.add_sound(utterance, folder, number, ids, is_cut=is_cut)
        tables.add_labels(utterance, genders)
        if progress is not None:
            progress(number + 1, len(corpus.utterances))
    of_speakers: dict[str, list[str]] = defaultdict(list)
    for utterance in corpus.utterances:
        of_speakers[utterance.speaker or utterance.id].append(utterance.id)
    tables.lines["spk2utt"] = [f"{speaker} {' '.join(names)}" for speaker, names in of_speakers.items()]
    for name, lines in tables.lines.items():
        # one line a key: a recording of several utterances is added once for each
        unique = sorted(dict.fromkeys(lines), key=lambda line: line.encode("utf-8"))
        folder.write_text(name, "".join(f"{line}\n" for line in unique))
    if tables.turns:
        folder.write_text("rttm", format_rttm(tables.turns))
    return tuple(_notes(corpus, tables, genders))


@dataclass(slots=True)
class _Tables:
    """The lines of each file.

    Attributes:
        lines: From the name of a file to its lines, in any order.
        turns: From utterances to their turns.
        left_out: How often something was left out, in words.
    """

    lines: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    turns: list[tuple[str, tuple[Turn, ...]]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    num_written: int = 0
    num_other_formats: int = 0

    def add_sound(
        self, utterance: Utterance, folder: ExportFolder, number: int, ids: Mapping[Path, str], *, is_cut: bool
    ) -> None:
        """wav.scp, reco2dur, reco2file_and_channel, segments and utt2dur."""
        start_s, seconds, channel = utterance.start or 0.0, utterance.seconds, None
        if needs_writing(utterance):
            recording, audio, start_s = utterance.id, folder.sound(utterance, number), 0.0
            self.num_written += 1
        else:
            recording, audio = ids[utterance.audio], utterance.audio
            info = inspect(audio, utterance=utterance.id, any_channels=True)
            seconds, channel = info.seconds, utterance.channel
        if not is_cut:
            # without segments a recording is an utterance
            recording = utterance.id
        elif channel is not None:
            # a recording of Kaldi has one channel
            recording = f"{recording}-{channel}"
        if channel is not None:
            self.lines["reco2file_and_channel"].append(f"{recording} {ids[utterance.audio]} {channel}")
        self.lines["wav.scp"].append(f"{recording} {audio}")
        self.lines["reco2dur"].append(f"{recording} {seconds:.6f}")
        self.num_other_formats += audio.suffix.lower() != ".wav"
        self.lines["utt2dur"].append(f"{utterance.id} {utterance.seconds:.6f}")
        if is_cut:
            end_s = start_s + utterance.seconds
            self.lines["segments"].append(f"{utterance.id} {recording} {start_s!r} {end_s!r}")

    def add_labels(self, utterance: Utterance, genders: Mapping[str, str]) -> None:
        """Every other file."""
        name = utterance.id
        speaker = utterance.speaker or name
        self.lines["utt2spk"].append(f"{name} {speaker}")
        if utterance.speaker is None:
            self.left_out["speakers that are not known: the utterance is its own speaker"] += 1
        elif speaker in genders:
            self.lines["spk2gender"].append(f"{speaker} {genders[speaker]}")
        if utterance.text is not None:
            words = " ".join(utterance.text.split())
            self.lines["text"].append(f"{name} {words}".rstrip())
            self.left_out["texts whose line breaks and runs of blanks became single blanks"] += words != utterance.text
        for attribute, value in utterance.attributes.items():
            self._add_attribute(utterance, attribute, str(value), genders)
        if utterance.split is not None:
            self.lines[f"splits/{utterance.split}.txt"].append(name)
        for phone in utterance.phones or ():
            if len(phone.label.split()) == 1:
                times = f"{phone.start_s:.6f} {phone.end_s - phone.start_s:.6f}"
                self.lines["phones.ctm"].append(f"{name} 1 {times} {phone.label}")
            else:
                self.left_out["phones whose label holds a blank"] += 1
        if utterance.turns:
            self.turns.append((name, utterance.turns))
        if utterance.group is not None:
            self.left_out["groups (sessions, chapters)"] += 1

    def _add_attribute(self, utterance: Utterance, attribute: str, value: str, genders: Mapping[str, str]) -> None:
        if attribute == "gender" and utterance.speaker in genders:
            return
        if not _ATTRIBUTE.fullmatch(attribute) or (attribute in _TAKEN and attribute != "gender"):
            self.left_out[f"values of the attribute `{attribute}`, whose name cannot follow utt2"] += 1
        elif not value.strip() or "\n" in value or "\r" in value:
            self.left_out[f"values of the attribute `{attribute}`, which are empty or of several lines"] += 1
        else:
            self.lines[f"utt2{attribute}"].append(f"{utterance.id} {value}")


def _refuse_blanks(utterance: Utterance) -> None:
    for what, value in (("id", utterance.id), ("speaker", utterance.speaker)):
        if value is not None and len(value.split()) != 1:
            fault = f"Kaldi's tables are divided at blanks, but the {what} `{value}` holds one"
            raise DataError(fault, utterance=utterance.id, key=what, do="Prepare the corpus with names without blanks")
    if "\n" in str(utterance.audio) or str(utterance.audio) != str(utterance.audio).strip():
        fault = "The path of the sound holds a line break, or ends in a blank"
        raise DataError(fault, file=utterance.audio, utterance=utterance.id, do="Rename the file")


def _genders(utterances: Iterable[Utterance]) -> dict[str, str]:
    """The gender of each speaker for whom every utterance states the same F or M."""
    found: dict[str, set[object]] = defaultdict(set)
    for utterance in utterances:
        if utterance.speaker is not None:
            found[utterance.speaker].add(utterance.attributes.get("gender"))
    return {
        speaker: _GENDERS[gender]
        for speaker, values in found.items()
        if len(values) == 1 and isinstance(gender := next(iter(values)), str) and gender in _GENDERS
    }


def _notes(corpus: Corpus, tables: _Tables, genders: Mapping[str, str]) -> Iterator[str]:
    if tables.num_written:
        yield f"the sounds of {tables.num_written} utterances are written into audio/: they are no file, or a mean"
    if tables.num_other_formats:
        yield (
            f"{tables.num_other_formats} sounds are no WAV: Kaldi's own programs read them through a command alone, "
            "like `sox FILE -t wav - |` in wav.scp"
        )
    if "phones.ctm" in tables.lines:
        yield "phones are in phones.ctm, which `--alignments` of `repbench corpus prepare kaldi` reads"
    if any(name.startswith("splits/") for name in tables.lines):
        yield "splits are lists in splits/, for `--splits` of `corpus prepare` or Kaldi's utils/subset_data_dir.sh"
    if tables.turns:
        yield "turns are in the file rttm, which `--rttm` reads"
    for what, count in sorted(tables.left_out.items()):
        if count:
            yield f"left out: {count} {what}"
    if corpus.features is not None:
        yield f"left out: the precomputed features `{corpus.features.name}`"
    yield "left out: name, licence and notes of the corpus"
