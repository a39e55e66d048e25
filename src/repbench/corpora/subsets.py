"""Parts of a corpus that protocols ask for: splits by lists of utterances, and speakers with enough of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from repbench.corpora.contract import Draft, Split
from repbench.corpora.textfiles import nfc, text_lines
from repbench.errors import DataError, UsageError

_SPLIT_OF_PREFIX: dict[str, Split] = {"train": "train", "dev": "dev", "valid": "dev", "test": "test"}
_LOOKED_FOR = "train*.txt, dev*.txt, valid*.txt or test*.txt"


@dataclass(frozen=True, slots=True)
class Lists:
    """Which utterances make up which split.

    Attributes:
        split_of: From the id of each listed utterance to its split, in the order of the lists.
        names: The files they come from.
    """

    split_of: Mapping[str, Split]
    names: tuple[str, ...]


def read_lists(places: Sequence[Path]) -> Lists:
    """Read lists of utterances, one id a line.

    Args:
        places: Files, or folders of them. The name of a file says of which split it is: `train*.txt`, `dev*.txt` or
            `valid*.txt`, `test*.txt`; other files in a folder are read over.

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
    return Lists(split_of, tuple(path.name for path in paths))


def dev_from_train(lists: Lists, share: float, seed: int) -> Lists:
    """Make the last `share` of the shuffled list of train the list of dev.

    The list is shuffled as Python's `random.seed(seed); random.shuffle(lines)` would, in the order in which it stands,
    utterances that the corpus lacks included: `0.1` and `1337` give S3PRL's division of the lists of CPC.

    Raises:
        UsageError: There is a list of dev already.
    """
    if "dev" in lists.split_of.values():
        raise UsageError("The lists name a dev split already", key="--dev-from-train", do="Leave one of them out")
    train = [identifier for identifier, split in lists.split_of.items() if split == "train"]
    random.Random(seed).shuffle(train)
    dev: dict[str, Split] = dict.fromkeys(train[int(len(train) * (1 - share)) :], "dev")
    return replace(lists, split_of={**lists.split_of, **dev})


def divided(draft: Draft, lists: Lists) -> Draft:
    """The draft with the splits of the lists; utterances in none of them belong to no split. Notes count both faults.

    Raises:
        DataError: No utterance of the corpus is listed.
    """
    utterances = tuple(
        replace(utterance, split=lists.split_of.get(nfc(utterance.id))) for utterance in draft.utterances
    )
    num_listed = sum(utterance.split is not None for utterance in utterances)
    if not num_listed:
        what = f"None of the {len(utterances)} utterances of the corpus is in {', '.join(lists.names)}"
        listed = next(iter(lists.split_of))
        raise DataError(what, utterance=listed, do="Check that the lists name utterances as the corpus does")
    counts = Counter(utterance.split for utterance in utterances)
    sizes = ", ".join(f"{counts[split]} {split}" for split in ("train", "dev", "test") if counts[split])
    notes = [*draft.notes, f"splits by {', '.join(lists.names)}: {sizes}"]
    if num_listed < len(lists.split_of):
        notes.append(f"{len(lists.split_of) - num_listed} of {len(lists.split_of)} listed utterances are not there")
    if num_listed < len(utterances):
        notes.append(f"{len(utterances) - num_listed} of {len(utterances)} utterances are in no list, so in no split")
    return replace(draft, utterances=utterances, notes=tuple(notes))


def with_frequent_speakers(draft: Draft, minimum: int) -> Draft:
    """The draft with only the utterances of speakers who have at least `minimum` of them; a note says what is left.

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
            what = f"The name of a list must say its split; looked for {_LOOKED_FOR}"
            raise UsageError(what, file=place, key="--splits", do="Rename it")
        return [place]
    found = sorted(path for path in place.iterdir() if path.is_file() and _prefix(path))
    if not found:
        what = f"The folder holds no list of a split; looked for {_LOOKED_FOR}"
        raise DataError(what, file=place, key="--splits", do="Give a folder of lists, or a list")
    return found


def _prefix(path: Path) -> str:
    """What the name of a list begins with; empty for other files."""
    if path.suffix.lower() != ".txt":
        return ""
    return next((prefix for prefix in _SPLIT_OF_PREFIX if path.name.lower().startswith(prefix)), "")


def _ids(path: Path) -> Iterator[tuple[str, str]]:
    """Each id of a list, after the place where it stands: `train.txt:3`."""
    for number, line in text_lines(path):
        identifier = nfc(line.strip())
        if len(identifier.split()) > 1:
            what = f"A line must be one utterance id, but is `{identifier[:60]}`"
            raise DataError(what, file=f"{path}:{number}", do="Write one id a line")
        yield f"{path}:{number}", identifier
