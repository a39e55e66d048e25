"""Checking the draft of a corpus: every sound is read, compared with its labels, and every fault is collected."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from repbench.audio.sound import Measure, measure
from repbench.corpora.alignments import validate_phones
from repbench.corpora.contract import (
    AttributeValue,
    Draft,
    DraftUtterance,
    FeatureDeclaration,
    Phone,
    Progress,
    Utterance,
)
from repbench.corpora.faults import Fault, counts_by_kind, leaks, note_on_equal_sounds
from repbench.corpora.manifest.feature_column import with_features
from repbench.corpora.manifest.lines import is_attribute
from repbench.corpora.manifest.reading_ahead import read_each
from repbench.corpora.manifest.sound_notes import notes_on_sounds
from repbench.corpora.safe_paths import RootFolder, is_encodable
from repbench.corpora.textfiles import nfc
from repbench.corpora.turns import checked_turns
from repbench.errors import DataError, IntegrityError, RepbenchError, printable


class DraftChecker:
    """Makes utterances of a draft and collects their faults.

    Args:
        draft: The corpus as a layout describes it.
        root: Root of the draft.

    Attributes:
        faults: The faults, sorted by the names of their utterances once all utterances have been checked.
        num_listed: Utterances of the draft, with those that the layout could not describe.

    Raises:
        DataError: The draft is empty.
    """

    def __init__(self, draft: Draft, root: RootFolder) -> None:
        self.faults: list[Fault] = []
        self._draft = draft
        self._root = root
        self._measures: dict[str, Measure] = {}
        listed = tuple(draft.utterances)
        self.num_listed = len(listed) + len(draft.faults)
        if not self.num_listed:
            raise DataError("The corpus has no utterance", do="Check the root")
        # A fault of a row may name an utterance that another row describes; then its file tells them apart.
        ids = {nfc(each.id) for each in listed}
        for error in draft.faults:
            file = self._relative(error.file or "")
            name = error.utterance or file
            self._keep(error, f"{name} ({file})" if name in ids else name)
        # Names first, then ids, then files: each step needs what the one before has let through.
        named = [item for each in listed if (item := self._named(each)) is not None]
        self._drafts = [each for each in self._with_own_ids(named) if self._is_fit(each)]

    def utterances(self, progress: Progress | None) -> tuple[tuple[Utterance, ...], FeatureDeclaration | None]:
        """The utterances without a fault, sorted by id, and the declaration of their features. Reads every sound.

        A sound that is in two official splits is kept in one of them: test before dev before train.
        """
        drafts, measured = self._measured(progress)
        lost_all = bool(self.faults) and all(draft.features is None for draft in drafts)
        declared = None if lost_all else self._draft.features
        placed, features, unfit = with_features(measured, drafts, declared, self._root)
        lost = dict(unfit)
        for leak in leaks([each for each in placed if each.id not in unfit]):
            lost[leak.utterance or ""] = leak
        for name, error in lost.items():
            self._keep(error, name)
        self.faults.sort(key=lambda fault: fault.names)
        return tuple(each for each in placed if each.id not in lost), features

    def notes(self, utterances: Sequence[Utterance]) -> Iterator[str]:
        """Notes on faulty utterances, on sounds under several ids, and on the decoding."""
        if self.faults:
            counted = "; ".join(counts_by_kind([(each.error.what, len(each.names)) for each in self.faults]))
            num_faulty = sum(len(each.names) for each in self.faults)
            yield f"{num_faulty} of {self.num_listed} utterances are left out as faulty: {counted}"
        yield from note_on_equal_sounds(utterances)
        yield from notes_on_sounds(utterances, [self._measures[each.id] for each in utterances])

    def dropped(self) -> dict[str, str]:
        """From each utterance that is left out to the reason."""
        reasons = {printable(name): printable(reason) for name, reason in self._draft.left_out.items()}
        for error, names in self.faults:
            for name in names:
                # printable forms may collide, and no utterance must be lost from the list
                free = itertools.chain([name], (f"{name} ({number})" for number in itertools.count(2)))
                reasons[next(each for each in map(printable, free) if each not in reasons)] = printable(error.what)
        return reasons

    def _keep(self, error: RepbenchError, *names: str) -> None:
        self.faults.append(Fault(error, names))

    def _relative(self, path: str | Path) -> str:
        """The path of a file under the root, for notes."""
        text = os.fspath(path)
        return text.removeprefix(os.fspath(self._root.folder).rstrip("/") + "/")

    def _named(self, item: DraftUtterance) -> DraftUtterance | None:
        """The utterance with normalised names; None where a name cannot be written as UTF-8."""
        try:
            return _normalised(item)
        except DataError as error:
            self._keep(error, item.id or self._relative(item.audio))
            return None

    def _is_fit(self, item: DraftUtterance) -> bool:
        """Whether the layout found no fault, and the sound is a file under the root."""
        try:
            if item.fault is not None:
                raise item.fault
            _refuse_dangling(item)
            self._root.relative(item.audio, utterance=item.id)
        except (DataError, IntegrityError) as error:
            self._keep(error, item.id)
            return False
        return True

    def _with_own_ids(self, drafts: Iterable[DraftUtterance]) -> list[DraftUtterance]:
        """The utterances in the order of their ids; all that share an id are faulty."""
        by_id: dict[str, list[DraftUtterance]] = defaultdict(list)
        for each in drafts:
            by_id[each.id].append(each)
        unique = []
        for identifier, same in sorted(by_id.items()):
            if len(same) == 1:
                unique += same
                continue
            times = "twice" if len(same) == 2 else f"{len(same)} times"
            places = " and ".join(f"for {each.where or each.audio}" for each in same)
            what = f"The id `{identifier}` occurs {times}: {places}"
            do = "Give every utterance a unique id; ids that differ only in Unicode form are one"
            files = {each.audio for each in same}
            if len(files) == len(same) and len({file.with_suffix("") for file in files}) == 1:
                do = "Keep one of the files, or leave a format out with --exclude"
            names = [f"{identifier} ({self._relative(each.audio)})" for each in same]
            self._keep(DataError(what, utterance=identifier, do=do), *names)
        return unique

    def _measured(self, progress: Progress | None) -> tuple[list[DraftUtterance], list[Utterance]]:
        """The drafts whose sound is whole and fits their labels, and the utterances made of them."""
        drafts, utterances = [], []
        # closed, so that an error here ends the pool of threads and not only the loop
        with contextlib.closing(measure_all(self._drafts, progress)) as results:
            for item, result in zip(self._drafts, results, strict=True):
                try:
                    if isinstance(result, DataError):
                        raise result
                    utterances.append(_utterance(item, result, self._draft, self._root))
                    drafts.append(item)
                    self._measures[item.id] = result
                except DataError as error:
                    self._keep(error, item.id)
        return drafts, utterances


def _refuse_dangling(draft: DraftUtterance) -> None:
    """Refuse a symbolic link to a sound that is not there, as git-annex and interrupted downloads leave them."""
    # `Path.exists` raises at names that no file system takes; such a sound is missing, and `measure` refuses it.
    if os.path.islink(draft.audio) and not os.path.exists(draft.audio):  # noqa: PTH110, PTH114
        what = f"The sound is a link to `{draft.audio.readlink()}`, which is not there"
        do = "Fetch what it leads to (`git annex get`, or the download again), or remove the link"
        raise DataError(what, file=draft.audio, utterance=draft.id, do=do)


def measure_all(
    utterances: Sequence[Utterance | DraftUtterance], progress: Progress | None = None
) -> Generator[Measure | DataError, None, None]:
    """Decode the sound of each utterance in order, a few at a time; a broken one yields its error."""

    def measured(utterance: Utterance | DraftUtterance) -> Measure | DataError:
        try:
            return measure(
                utterance.audio,
                start=utterance.start,
                end=utterance.end,
                utterance=utterance.id,
                channel=utterance.channel,
            )
        except DataError as error:
            return error

    yield from read_each(measured, utterances, progress)


def _normalised(draft: DraftUtterance) -> DraftUtterance:
    """The draft with NFC-normalised id and speaker; names that cannot be written are refused."""
    for name in ("id", "speaker", "group", "text"):
        value = getattr(draft, name)
        if value is not None and not is_encodable(value):
            do = "Rename it"
            raise DataError(f"`{name}` is not valid UTF-8", file=draft.audio, utterance=draft.id, key=name, do=do)
        if value == "" and name != "text":
            do = "Leave out what is not known; an id is required"
            raise DataError(f"`{name}` is empty", file=draft.audio, utterance=draft.id, key=name, do=do)
    identifier, speaker = nfc(draft.id), None if draft.speaker is None else nfc(draft.speaker)
    is_normal = (identifier, speaker) == (draft.id, draft.speaker)
    return draft if is_normal else replace(draft, id=identifier, speaker=speaker)


def _utterance(item: DraftUtterance, measured: Measure, draft: Draft, root: RootFolder) -> Utterance:
    duration_s = measured.num_samples / measured.sample_rate_hz
    audio = root.absolute(item.audio, utterance=item.id)
    return Utterance(
        id=item.id,
        audio=item.audio if item.audio == audio else audio,  # one object of two that are equal
        start=None if item.start is None else float(item.start),
        end=None if item.end is None else float(item.end),
        sample_rate_hz=measured.sample_rate_hz,
        num_samples=measured.num_samples,
        speaker=item.speaker,
        text=item.text,
        phones=None if item.phones is None else _folded(item.phones, duration_s, item, draft.phone_map),
        attributes=_attributes(item),
        group=item.group,
        split=item.split,
        samples_sha256=measured.samples_sha256,
        channel=item.channel if measured.num_channels > 1 else None,
        turns=None if item.turns is None else checked_turns(item.turns, duration_s, utterance=item.id, file=item.where),
    )


def _attributes(item: DraftUtterance) -> dict[str, AttributeValue]:
    for name, value in item.attributes.items():
        if not is_attribute(name, value):
            what = f"The attribute `{name}` must be a string or a finite number, but is {value!r}"
            raise DataError(what, utterance=item.id, key="attributes", do="Leave out what is not known")
    return dict(sorted(item.attributes.items()))


def _folded(
    phones: tuple[Phone, ...], duration_s: float, item: DraftUtterance, phone_map: Mapping[str, str | None] | None
) -> tuple[Phone, ...]:
    """The phones, checked against their sound and with the labels of the corpus; unlabelled ones become gaps."""
    checked = validate_phones(phones, duration_s, utterance=item.id, file=item.where)
    met = {phone.label for phone in checked}
    known = {label: label for label in met - {""}} if phone_map is None else phone_map
    unknown = sorted(met - set(known))
    if unknown:
        listed = ", ".join(f"`{label}`" for label in unknown)
        what = f"The alignment has phones that the phone map does not know: {listed}"
        raise DataError(what, file=item.where, utterance=item.id, key="phone_map", do="Add them to the map")
    labelled = ((phone, known[phone.label]) for phone in checked)
    return tuple(
        phone if label == phone.label else Phone(phone.start_s, phone.end_s, label)
        for phone, label in labelled
        if label is not None
    )
