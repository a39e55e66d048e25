"""Giving the utterances of a corpus their phones: the one door for every layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from repbench.audio.sound import inspect, sample_range
from repbench.corpora.alignments.intervals import Alignment, hold
from repbench.corpora.alignments.places import Alignments, NamedFiles, open_alignments, read_unaligned
from repbench.corpora.contract import Draft, DraftUtterance, Phone
from repbench.corpora.phones import fold_map, rare_strangers
from repbench.corpora.textfiles import nfc
from repbench.errors import DataError

REACH = 0.9
"""Where no alignment of a corpus with gaps reaches this share of its sound, a note says so."""


def align(draft: Draft, source: Path | Mapping[str, Path]) -> Draft:
    """Give each utterance the phones that a file or folder states of it.

    Utterances without an alignment keep None and are counted in a note; alignments of other utterances are read over.
    Labels fold as `repbench.corpora.phones` says.

    Args:
        draft: Without phones. The header of each sound is read, to compare lengths.
        source: A file or folder, or from the id of an utterance to its file.

    Raises:
        DataError: The source is missing, mixed, ambiguous or of no known format; no utterance has an alignment; one
            has although it is listed in `unaligned.txt`; an alignment contradicts itself or its sound; or a few labels
            are strangers among ARPABET. Names file and line, and the utterance.
    """
    utterances = tuple(draft.utterances)
    ids = [nfc(utterance.id) for utterance in utterances]
    alignments = open_alignments(source, set(ids)) if isinstance(source, Path) else NamedFiles(source)
    unaligned = read_unaligned(source) if isinstance(source, Path) else {}
    _refuse_listed(ids, alignments, unaligned)
    tally = _Tally()
    aligned = tuple(_aligned(each, alignments, tally) for each in utterances)
    without = [identifier for identifier in ids if identifier not in alignments]
    if aligned and len(without) == len(aligned):
        what = f"None of the {len(aligned)} utterances has an alignment, such as `{ids[0]}`"
        do = "Name each alignment after the id of its utterance"
        raise DataError(what, file=source if isinstance(source, Path) else None, utterance=ids[0], do=do)
    tally.refuse_strangers()
    phone_map, phone_set = fold_map(tally.counts)
    notes = (*draft.notes, *_notes_on_missing(without, len(aligned), unaligned), *tally.notes())
    return replace(draft, utterances=aligned, phone_map=phone_map, phone_set=phone_set, notes=notes)


class _Tally:
    """What was met in the alignments so far.

    Attributes:
        counts: How often each label occurs.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, tuple[str, str]] = {}
        self._sound_s = 0.0
        self._labelled_s = 0.0
        self._reach = 0.0

    def add(self, utterance: str, alignment: Alignment, phones: Sequence[Phone], duration_s: float) -> None:
        """Count the phones of an utterance, as they were held against its sound."""
        self.counts.update(phone.label for phone in phones)
        for phone, line in zip(alignment.phones, alignment.lines, strict=True):
            if phone.label not in self._first:
                self._first[phone.label] = (f"{alignment.file}:{line}", utterance)
        self._sound_s += duration_s
        self._labelled_s += sum(phone.end_s - phone.start_s for phone in phones)
        self._reach = max(self._reach, phones[-1].end_s / duration_s if phones else 0.0)

    def refuse_strangers(self) -> None:
        """Refuse a few labels that are no ARPABET where the others are; names the place of the first of them."""
        strangers = rare_strangers(self.counts)
        if strangers:
            file, utterance = self._first[strangers[0]]
            listed = ", ".join(f"`{label}`" for label in strangers)
            what = f"The alignments are ARPABET, but a few labels are no phones of it: {listed}"
            do = "Correct them; noise is written `spn` or `nsn`, silence `sil` or `sp`"
            raise DataError(what, file=file, utterance=utterance, do=do)

    def notes(self) -> tuple[str, ...]:
        """How much sound carries no label, and whether the labels end early everywhere."""
        notes = []
        gaps_s = self._sound_s - self._labelled_s
        if round(gaps_s, 1) > 0:
            notes.append(f"{gaps_s:.1f} of {self._sound_s:.1f} s of aligned sound lie in gaps and carry no label")
        if self._sound_s and self._reach < REACH:
            notes.append(f"no alignment reaches beyond {self._reach:.0%} of its sound; was it made for another rate?")
        return tuple(notes)


def _aligned(utterance: DraftUtterance, alignments: Alignments, tally: _Tally) -> DraftUtterance:
    name = nfc(utterance.id)
    if name not in alignments:
        return utterance
    info = inspect(utterance.audio, utterance=utterance.id, any_channels=True)
    first, last = sample_range(info, utterance.start, utterance.end, path=utterance.audio, utterance=utterance.id)
    duration_s = (last - first) / info.sample_rate_hz
    alignment = alignments.read(name, info.sample_rate_hz)
    phones = hold(alignment, duration_s, utterance=utterance.id)
    tally.add(utterance.id, alignment, phones, duration_s)
    return replace(utterance, phones=phones)


def _refuse_listed(ids: Sequence[str], alignments: Alignments, unaligned: Mapping[str, str]) -> None:
    for identifier in ids:
        if identifier in unaligned and identifier in alignments:
            what = "The utterance is listed as unaligned, but has an alignment"
            do = "Take it off the list, or remove the alignment"
            raise DataError(what, file=unaligned[identifier], utterance=identifier, do=do)


def _notes_on_missing(without: Sequence[str], num_utterances: int, unaligned: Mapping[str, str]) -> tuple[str, ...]:
    if not without:
        return ()
    note = f"{len(without)} of {num_utterances} utterances have no alignment"
    if not unaligned:
        return (note,)
    return (f"{note}; {sum(identifier in unaligned for identifier in without)} of them are listed as unaligned",)
