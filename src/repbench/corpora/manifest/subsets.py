"""Splits by lists of utterances, and the speakers with enough utterances, as published protocols use them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from repbench.corpora.contract import Draft, DraftUtterance, Split
from repbench.corpora.layouts.sound_files import without_ending
from repbench.corpora.textfiles import nfc, text_lines
from repbench.errors import DataError, UsageError

_SPLIT_OF_PREFIX: dict[str, Split] = {"train": "train", "dev": "dev", "valid": "dev", "test": "test"}
_LOOKED_FOR = "train*.txt, dev*.txt, valid*.txt or test*.txt"


@dataclass(frozen=True, slots=True)
class SplitLists:
    """Splits given by lists of utterances.

    Attributes:
        split_of: From the id of each listed utterance to its split, in the order of the lists.
        names: Names of the list files.
    """

    split_of: Mapping[str, Split]
    names: tuple[str, ...]


def read_lists(places: Sequence[Path]) -> SplitLists:
    """Read lists of utterances, one id a line.

    Args:
        places: Files, or folders of them. The split of a file follows from its name: `train*.txt`, `dev*.txt` or
            `valid*.txt`, `test*.txt`; other files in a folder are ignored.

    Raises:
        DataError: A place is missing, holds no list or is empty; a line is not one id; an id is listed twice.
        UsageError: A file is named after no split.
    """
    paths = [path for place in places for path in _lists_at(place)]
    where: dict[str, str] = {}
    split_of: dict[str, Split] = {}
    for path in paths:
        for place, identifier in _ids(path):
            if identifier in where:
                what = f"The utterance is listed twice, here and in {where[identifier]}"
                raise DataError(what, file=place, utterance=identifier, do="List it once")
            where[identifier] = place
            split_of[identifier] = _SPLIT_OF_PREFIX[_prefix(path)]
    if not split_of:
        raise DataError("The lists of splits are empty", file=places[0], do="Write one utterance id a line")
    return SplitLists(split_of, tuple(path.name for path in paths))


def dev_from_train(lists: SplitLists, share: float, seed: int) -> SplitLists:
    """Make the last `share` of the shuffled list of train the list of dev.

    The list is shuffled as Python's `random.seed(seed); random.shuffle(lines)` would, in the order of its lines,
    utterances that the corpus lacks included: `0.1` and `1337` give S3PRL's division of the lists of CPC.

    Raises:
        UsageError: There is a list of dev already, or none of train.
    """
    if "dev" in lists.split_of.values():
        raise UsageError("The lists name a dev split already", key="--dev-from-train", do="Leave one of them out")
    if "train" not in lists.split_of.values():
        raise UsageError("The lists name no train split", key="--dev-from-train", do="Give a list of train")
    # the order of the lines matters: the shuffle permutes positions
    train = [identifier for identifier, split in lists.split_of.items() if split == "train"]
    random.Random(seed).shuffle(train)
    # the cut in floating point is part of the published division, too
    dev: dict[str, Split] = dict.fromkeys(train[int(len(train) * (1 - share)) :], "dev")
    return replace(lists, split_of={**lists.split_of, **dev})


def with_splits(draft: Draft, lists: SplitLists) -> Draft:
    """The draft with the splits of the lists; utterances in no list belong to no split, or to train.

    A list names an utterance by its id, or by the place of its sound under the root, or by the end of that place where
    no other sound has the same; with or without its ending. A place that several utterances are cut from names all of
    them. Where the lists name dev or test and no train, as those of Speech Commands do, all others are train. Notes
    count listed utterances that are missing and utterances that are not listed.

    Raises:
        DataError: No utterance of the corpus is listed, one is listed twice, or a name could be of two sounds.
    """
    utterances = tuple(draft.utterances)
    names = _UtteranceNames(utterances, draft.root, lists.split_of)
    listed_as: dict[int, str] = {}
    num_missing = 0
    for listed in lists.split_of:
        found = names.of(listed)
        num_missing += not found
        for index in found:
            first = listed_as.setdefault(index, listed)
            if first != listed:
                what = f"The utterance is listed twice, as `{first}` and as `{listed}`"
                raise DataError(what, utterance=utterances[index].id, do="List it once")
    if not listed_as:
        raise _other_corpus(utterances[0], len(utterances), lists, names)
    rest: Split | None = None if "train" in lists.split_of.values() else "train"
    splits = [lists.split_of[listed_as[index]] if index in listed_as else rest for index in range(len(utterances))]
    counts = Counter(splits)
    sizes = ", ".join(f"{counts[split]} {split}" for split in ("train", "dev", "test") if counts[split])
    notes = [*draft.notes, f"splits by {', '.join(lists.names)}: {sizes}"]
    if num_missing:
        notes.append(f"{num_missing} of {len(lists.split_of)} listed utterances are not there")
    num_others = len(utterances) - len(listed_as)
    if num_others and rest is None:
        notes.append(f"{num_others} of {len(utterances)} utterances are in no list, so in no split")
    elif num_others:
        notes.append(f"no list is of train: the {num_others} of {len(utterances)} utterances in no list are train")
    divided = tuple(replace(each, split=split) for each, split in zip(utterances, splits, strict=True))
    return replace(draft, utterances=divided, notes=tuple(notes))


def _other_corpus(first: DraftUtterance, num_utterances: int, lists: SplitLists, names: _UtteranceNames) -> DataError:
    """The fault of lists that name no utterance of the corpus; gives one name of each."""
    listed = next(iter(lists.split_of))
    what = (
        f"None of the {num_utterances} utterances of the corpus is in {', '.join(lists.names)}: the lists name "
        f"`{listed}`, the corpus `{first.id}` ({names.place(first)})"
    )
    do = "List utterances by their ids, or by their places under the root"
    return DataError(what, utterance=listed, do=do)


class _UtteranceNames:
    """Finds the utterances of a corpus by their names in lists.

    Args:
        utterances: The utterances of the corpus.
        root: Root of the corpus.
        listed: All names in the lists. The folders that all of them begin with may be parents of the root.
    """

    def __init__(self, utterances: Sequence[DraftUtterance], root: Path, listed: Iterable[str]) -> None:
        self._root = root
        self._above = _common_folders(map(_as_place, listed))
        self._utterances = utterances
        self._by_id: dict[str, list[int]] = defaultdict(list)
        self._by_place: dict[str, list[int]] = defaultdict(list)
        for index, utterance in enumerate(utterances):
            self._by_id[nfc(utterance.id)].append(index)
            for place in self._places(utterance):
                self._by_place[place].append(index)

    def place(self, utterance: DraftUtterance) -> str:
        """Path of its sound under the root."""
        path = utterance.audio
        return nfc((path.relative_to(self._root) if path.is_relative_to(self._root) else path).as_posix())

    def of(self, listed: str) -> Sequence[int]:
        """The indices of the utterances that a name in a list means; empty for a name of another corpus.

        Raises:
            DataError: It is the end of the place of two sounds.
        """
        place = _as_place(listed)
        stem = without_ending(place)
        # Ids go first: where an id is also the end of a path, the id is meant.
        for name in (listed, place, stem):
            if name in self._by_id:
                return self._by_id[name]
        if place in self._by_place:
            return self._by_place[place]
        for num_above in range(1, len(self._above) + 1):
            below = "/".join(place.split("/")[num_above:])
            # lists written one or more folders above the root name those folders first
            is_known_above = self._root.absolute().parts[-num_above:] == self._above[:num_above]
            # A bare file name may be of any folder: it counts only if the folders cut off are those above the root.
            if below in self._by_place and ("/" in below or is_known_above):
                return self._by_place[below]
        found = self._by_end.get(place, [])
        sounds = sorted({self.place(self._utterances[index]) for index in found})
        if len(sounds) > 1:
            what = f"`{listed}` could be {len(sounds)} sounds of the corpus, such as {sounds[0]} and {sounds[1]}"
            raise DataError(what, utterance=listed, do="List them by their ids, or by their places under the root")
        return found

    def _places(self, utterance: DraftUtterance) -> tuple[str, str]:
        place = self.place(utterance)
        return place, place[: len(place) - len(utterance.audio.suffix)]

    @cached_property
    def _by_end(self) -> dict[str, list[int]]:
        by_end: dict[str, list[int]] = defaultdict(list)
        for index, utterance in enumerate(self._utterances):
            for place in self._places(utterance):
                parts = place.split("/")
                for start in range(1, len(parts)):
                    # every end of a path at a folder boundary: `b/c.wav` and `c.wav` of `a/b/c.wav`
                    by_end["/".join(parts[start:])].append(index)
        return by_end


def _as_place(listed: str) -> str:
    """A name in a list as a path under a root."""
    # lists made on Windows, by `find .`, or with a leading slash
    return listed.replace("\\", "/").removeprefix("./").lstrip("/")


def _common_folders(places: Iterable[str]) -> tuple[str, ...]:
    """The folders that every place begins with."""
    common = []
    for folders in zip(*(place.split("/")[:-1] for place in places), strict=False):
        if len(set(folders)) > 1:
            break
        common.append(folders[0])
    return tuple(common)


def with_frequent_speakers(draft: Draft, minimum: int) -> Draft:
    """The draft with only the utterances of speakers who have at least `minimum` of them; a note counts them.

    Raises:
        DataError: No speaker has as many, or no speaker is known.
    """
    utterances = tuple(draft.utterances)
    counts = Counter(utterance.speaker for utterance in utterances if utterance.speaker is not None)
    if not counts:
        raise DataError("The corpus names no speaker", key="--min-utterances", do="Leave the option out")
    kept = tuple(each for each in utterances if each.speaker is not None and counts[each.speaker] >= minimum)
    if not kept:
        what = f"None of {len(counts)} speakers has {minimum} utterances; the most is {max(counts.values())}"
        raise DataError(what, key="--min-utterances", do="Ask for fewer")
    num_speakers = sum(count >= minimum for count in counts.values())
    note = (
        f"{num_speakers} of {len(counts)} speakers have at least {minimum} utterances; "
        f"{len(kept)} of {len(utterances)} utterances are left"
    )
    return replace(draft, utterances=kept, notes=(*draft.notes, note))


def _lists_at(place: Path) -> list[Path]:
    """The lists in a folder, or the one list."""
    if not place.is_dir():
        if not _prefix(place):
            what = f"The name of a list must begin with its split; looked for {_LOOKED_FOR}"
            raise UsageError(what, file=place, key="--splits", do="Rename it")
        return [place]
    found = sorted(path for path in place.iterdir() if path.is_file() and _prefix(path))
    if not found:
        what = f"The folder holds no list of a split; looked for {_LOOKED_FOR}"
        raise DataError(what, file=place, key="--splits", do="Give a folder of lists, or a list")
    return found


def _prefix(path: Path) -> str:
    """The prefix of the name of a list; empty for other files."""
    if path.suffix.lower() != ".txt":
        return ""
    return next((prefix for prefix in _SPLIT_OF_PREFIX if path.name.lower().startswith(prefix)), "")


def _ids(path: Path) -> Iterator[tuple[str, str]]:
    """Each id of a list, after its file and line: `train.txt:3`."""
    for number, line in text_lines(path):
        identifier = nfc(line.strip())
        if len(identifier.split()) > 1:
            what = f"A line must be one utterance id, but is `{identifier[:60]}`"
            raise DataError(what, file=f"{path}:{number}", do="Write one id a line")
        yield f"{path}:{number}", identifier
