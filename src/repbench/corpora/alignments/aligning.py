"""Adding phones to the utterances of a corpus; every layout uses `align`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from repbench.audio.sound import inspect, sample_range
from repbench.corpora.alignments.intervals import (
    LENGTH_TOLERANCE_S,
    ROUNDING_S,
    Alignment,
    ends_early,
    fault_of_rate,
    validate_alignment_but_rate,
)
from repbench.corpora.alignments.lookup import (
    Alignments,
    FilePerUtterance,
    ReadAlignments,
    open_alignments,
    read_unaligned,
)
from repbench.corpora.alignments.states import join_states
from repbench.corpora.alignments.textgrid import PHONE_TIER
from repbench.corpora.contract import Draft, DraftUtterance, Phone, PrepareOptions
from repbench.corpora.phone_sets import fault_of_word_labels, fold, rare_non_arpabet, relabelled
from repbench.corpora.textfiles import nfc
from repbench.errors import DataError, UsageError

SMALLEST_REACH = 0.01
"""If no alignment of a corpus reaches this share of its sound, the times are in another unit."""

REACH = 0.9
"""If no alignment of a corpus with gaps reaches this share of its sound, a note is given."""

_WAYS_OUT = "Give its phone, as in --relabel '{label}=sil' ('{label}=': not labelled), or give --keep-labels"


def align_read(draft: Draft, options: PrepareOptions | None = None) -> Draft:
    """The phones that a layout has read itself, checked and folded like those of files; errors as `align`.

    Args:
        draft: With phones as they are written; returned as it is where no utterance has any.
        options: As of `align`.
    """
    utterances = tuple(draft.utterances)
    found = {nfc(each.id): each.phones for each in utterances if each.phones is not None}
    if not found:
        return replace(draft, utterances=utterances)
    files = {nfc(each.id): Path(each.where or each.audio) for each in utterances}
    bare = [replace(each, phones=None) for each in utterances]
    return align(replace(draft, utterances=bare), ReadAlignments(found, files), options)


def align(draft: Draft, source: Path | Mapping[str, Path] | Alignments, options: PrepareOptions | None = None) -> Draft:
    """Give each utterance the phones that a file or folder states of it.

    Utterances without an alignment keep None and are counted in a note; alignments of other utterances are ignored.
    Labels are folded by `repbench.corpora.phone_sets`. Notes count what was cut, left without a label or folded.

    Args:
        draft: Without phones. The header of each sound is read, to compare lengths.
        source: A file or folder, or from the id of an utterance to its file, or alignments that are read already.
        options: Of the command line: `tier`, `relabel`, `keep_labels`, and whether the fault of one alignment is raised
            or kept with its utterance.

    Raises:
        UsageError: A tier is named but there are no TextGrids, or a label to be renamed occurs nowhere.
        DataError: The source is missing, mixed, ambiguous or of no known format; no utterance has an alignment; one
            has although it is listed in `unaligned.txt`; an alignment contradicts itself or its sound; most of those
            that end early fit another rate; the labels look like words; or a few labels are no ARPABET while all others
            are. Names file and line, and the utterance.
    """
    options = options or PrepareOptions()
    utterances = tuple(draft.utterances)
    ids = [nfc(utterance.id) for utterance in utterances]
    alignments: Alignments
    if isinstance(source, Path):
        alignments = open_alignments(source, set(ids), tier=options.tier)
    elif isinstance(source, Mapping):
        alignments = FilePerUtterance(source, options.tier)
    else:
        alignments = source
    unaligned = read_unaligned(source) if isinstance(source, Path) else {}
    _refuse_listed(ids, alignments, unaligned)
    tally = _AlignmentCounts()
    gather = options.gather_faults
    aligned = tuple(_aligned_or_faulty(each, alignments, tally, gather=gather) for each in utterances)
    without = [identifier for identifier in ids if identifier not in alignments]
    if aligned and len(without) == len(aligned):
        what = f"None of the {len(aligned)} utterances has an alignment, such as `{ids[0]}`"
        do = "Name each alignment after the id of its utterance"
        raise DataError(what, file=source if isinstance(source, Path) else None, utterance=ids[0], do=do)
    # Over all utterances, before any label is folded: another rate or unit makes every later message misleading.
    tally.refuse_other_rate()
    tally.refuse_labels(options)
    phone_map, phone_set, notes_on_labels = fold(tally.counts, relabel=options.relabel, keep_labels=options.keep_labels)
    notes = (
        *draft.notes,
        *_notes_on_missing(without, len(aligned), unaligned),
        *tally.notes(named=options.tier is not None),
        *notes_on_labels,
    )
    return replace(draft, utterances=aligned, phone_map=phone_map, phone_set=phone_set, notes=notes)


class _AlignmentCounts:
    """Counts over the alignments read so far.

    Attributes:
        counts: How often each label occurs.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, tuple[str, str]] = {}
        self._sound_s = 0.0
        self._labelled_s = 0.0
        self._reach = 0.0
        self._num_alignments = 0
        self._num_early = 0
        self._faults_of_rate: list[DataError] = []
        self._edges = _Extremes()
        self._cut = _Extremes()
        self._tiers: Counter[str] = Counter()
        self._num_states = 0
        self._num_of_states = 0

    def add(self, utterance: str, alignment: Alignment, phones: Sequence[Phone], duration_s: float) -> None:
        """Count the phones of an utterance, after they were checked against its sound."""
        self.counts.update(phone.label for phone in phones)
        for phone, line in zip(alignment.phones, alignment.numbers, strict=True):
            if phone.label not in self._first:
                self._first[phone.label] = (f"{alignment.file}:{line}", utterance)
        self._sound_s += duration_s
        self._labelled_s += sum(phone.end_s - phone.start_s for phone in phones)
        # the furthest of all: one utterance that is covered shows that the unit is right
        self._reach = max(self._reach, phones[-1].end_s / duration_s if phones else 0.0)
        self._num_alignments += 1
        self._num_early += ends_early(alignment, duration_s)
        fault = fault_of_rate(alignment, duration_s, utterance=utterance)
        self._faults_of_rate += [] if fault is None else [fault]
        self._tiers.update([] if alignment.tier is None else [alignment.tier])
        self._num_states += alignment.num_states
        self._num_of_states += len(alignment.phones) if alignment.num_states else 0
        self._add_edges(utterance, alignment, phones, duration_s)

    def _add_edges(self, utterance: str, alignment: Alignment, phones: Sequence[Phone], duration_s: float) -> None:
        over_s = max((phone.end_s - duration_s for phone in alignment.phones), default=0.0)
        if over_s > ROUNDING_S:
            self._cut.add(utterance, over_s)
        if phones and alignment.claims:
            start_s, early_s = phones[0].start_s, duration_s - phones[-1].end_s
            if max(start_s, early_s) > LENGTH_TOLERANCE_S:
                self._edges.add(utterance, start_s, early_s)

    def refuse_other_rate(self) -> None:
        """Refuse alignments of another rate or unit.

        They are of another rate if most of those that end early end where labels of that rate would.

        Raises:
            DataError: They are; names the first.
        """
        # 100 ns taken for seconds are refused as too long; seconds taken for 100 ns end here
        if self._first and self._reach < SMALLEST_REACH:
            file, utterance = next(iter(self._first.values()))
            what = f"No alignment reaches beyond {SMALLEST_REACH:.0%} of its sound"
            raise DataError(what, file=file, utterance=utterance, do="Times in seconds? HTS counts in 100 ns")
        # Most, not one: of correct alignments that end early, one in twenty ends where those of another rate would.
        if 2 * len(self._faults_of_rate) > self._num_early:
            raise self._faults_of_rate[0]

    def refuse_labels(self, options: PrepareOptions) -> None:
        """Refuse labels that are no phones, and names in `--relabel` that are no labels.

        With `keep_labels` the labels themselves are not checked.

        Raises:
            UsageError: `--relabel` names a label that does not occur.
            DataError: A few labels are no ARPABET while all others are, or the labels look like words.
        """
        for label in options.relabel:
            if label not in self.counts:
                what = f"`--relabel` names the label `{label}`, but it occurs nowhere"
                raise UsageError(what, key="--relabel", do="Give a label as it is written in the alignments")
        if options.keep_labels:
            return
        counts = relabelled(self.counts, options.relabel)
        others = rare_non_arpabet(counts)
        if others:
            file, utterance = self._place_of(others[0], options)
            listed = ", ".join(f"`{label}`" for label in others)
            what = f"The alignments are ARPABET, but a few labels are no phones of it: {listed}"
            do = f"Correct them. {_WAYS_OUT.format(label=others[0])}"
            raise DataError(what, file=file, utterance=utterance, do=do)
        words = fault_of_word_labels(counts)
        if words is not None:
            file, utterance = next(iter(self._first.values()))
            do = "Give the alignment of phones (TextGrids: --tier NAME), or --keep-labels if these are your classes"
            raise DataError(words, file=file, utterance=utterance, do=do)

    def _place_of(self, label: str, options: PrepareOptions) -> tuple[str, str]:
        """File and utterance where a label first occurs, before or after relabelling."""
        return next(place for each, place in self._first.items() if options.relabel.get(each, each) == label)

    def notes(self, *, named: bool) -> Iterator[str]:
        """Notes on tiers, states, cut ends, edges and gaps.

        Args:
            named: Whether their tier was named on the command line.
        """
        for tier, count in sorted(self._tiers.items()):
            if named or not PHONE_TIER.fullmatch(tier.strip()):
                yield f"the phones of {count} of {self._num_alignments} alignments are those of the tier `{tier}`"
        if self._num_states:
            yield f"{self._num_states} states of HMMs were joined into {self._num_of_states} phones"
        if self._cut.count:
            yield (
                f"{self._cut.count} of {self._num_alignments} alignments end past their sound and are cut there, "
                f"by at most {self._cut.largest[0]:.4f} s (`{self._cut.first}` first)"
            )
        if self._edges.count:
            start_s, early_s = self._edges.largest
            yield (
                f"{self._edges.count} of {self._num_alignments} alignments leave edges of their sound without a label, "
                f"at most {start_s:.4f} s at the start and {early_s:.4f} s at the end (`{self._edges.first}` first)"
            )
        # of the aligned utterances alone; the others are counted in a note above
        gaps_s = self._sound_s - self._labelled_s
        if round(gaps_s, 1) > 0:
            yield f"{gaps_s:.1f} of {self._sound_s:.1f} s of aligned sound lie in gaps and carry no label"
        if self._sound_s and self._reach < REACH:
            yield f"no alignment reaches beyond {self._reach:.0%} of its sound; was it made for another rate?"


class _Extremes:
    """The number of utterances with a property, the first of them, and the largest of each value."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self.largest: tuple[float, ...] = ()

    def add(self, utterance: str, *values: float) -> None:
        """Count an utterance and its values."""
        self.first = self.first or utterance
        self.count += 1
        # each value on its own: the largest of two may be of two utterances
        self.largest = tuple(map(max, self.largest, values)) if self.largest else values


def _aligned_or_faulty(
    utterance: DraftUtterance, alignments: Alignments, tally: _AlignmentCounts, *, gather: bool
) -> DraftUtterance:
    try:
        return _aligned(utterance, alignments, tally)
    except DataError as error:
        if not gather:
            raise
        return replace(utterance, fault=error)


def _aligned(utterance: DraftUtterance, alignments: Alignments, tally: _AlignmentCounts) -> DraftUtterance:
    name = nfc(utterance.id)
    if name not in alignments:
        return utterance
    info = inspect(utterance.audio, utterance=utterance.id, any_channels=True)
    first, last = sample_range(info, utterance.start, utterance.end, path=utterance.audio, utterance=utterance.id)
    # of the utterance in whole samples, not `end - start`, which its table may have rounded
    duration_s = (last - first) / info.sample_rate_hz
    # States before validation: their count and order are checked on the lines as written.
    alignment = join_states(alignments.read(name, info.sample_rate_hz), utterance=utterance.id)
    phones = validate_alignment_but_rate(alignment, duration_s, utterance=utterance.id)
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
