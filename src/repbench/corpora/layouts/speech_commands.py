"""Speech Commands as it unpacks: `WORD/SPEAKER_nohash_TAKE.wav`, two lists, and recordings of noise.

Reference: Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition" (arXiv:1804.03209).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from repbench.audio.sound import inspect
from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import files_under, is_excluded, is_there, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.sound_files import is_sound
from repbench.corpora.textfiles import text_lines
from repbench.errors import DataError

SILENCE_WORD = "_silence_"
"""The attribute `word` of a cut of noise."""

UNKNOWN_WORD = "_unknown_"
"""The attribute `word` of the test archive's words that are no command."""

NOISE_FOLDER = "_background_noise_"

SILENCE_SEED = 20180409
"""Of the rule that gives each cut of noise its split; fixed, so that the corpus is the same everywhere."""

CUT_SECONDS = 1.0
_HELD_OUT_SHARE = 0.1

_LISTS: Mapping[str, Split] = {"validation_list.txt": "dev", "testing_list.txt": "test"}
_RECORDING = re.compile(r"([0-9a-f]{4,40})_nohash_[0-9]+")
_ARCHIVE = re.compile(r"speech_commands_(test_set_)?v[0-9.]+")
_LOOKED_FOR = "WORD/SPEAKER_nohash_TAKE.wav, validation_list.txt and testing_list.txt"


class _Archives(NamedTuple):
    """The folder of the words and lists, and that of the official test archive, where it is there."""

    words: Path
    test: Path | None


class SpeechCommands:
    """The layout `speech_commands`, version 0.01 or 0.02.

    The root is the folder of the words; or a folder that holds it and, beside it, the official test archive, under the
    names of the archives (`speech_commands_v0.01`, `speech_commands_test_set_v0.01`) or as `train` and `test`.

    The attribute `word` and the text are the folder's name, the speaker is the hash before `_nohash_`. The two lists
    give dev and test, the other recordings are train. With the test archive, the archive is the test split; the
    recordings of testing_list.txt, which it draws on, then belong to no split.

    Each recording of `_background_noise_` is cut into pieces of one second, one after another from its start; what is
    left at its end is not used. A piece is an utterance of the word `_silence_` without speaker and text, its group is
    the recording. Its split is seeded: the pieces of a recording are ordered by the SHA-256 of `SEED/recording/number`;
    the first tenth is dev, the next tenth test (with the test archive, which has its own silence: none), the others
    train. No two pieces share a sample.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the recordings under `root`; errors as `CorpusLayout.prepare`."""
        refuse_options("speech_commands", options, reads=("alignments",))
        refuse_missing_root(root)
        archives = _archives(root)
        collector = FaultCollector(gather=options.gather_faults)
        splits = _listed(archives.words)
        utterances = list(_words(archives, splits, root, options, collector))
        utterances += _silence(archives, root, options, collector)
        if archives.test is not None:
            utterances += _of_test_archive(archives.test, root, options, collector)
        draft = Draft(
            name="speech_commands",
            licence="CC BY 4.0",
            root=root,
            utterances=utterances,
            notes=_notes(utterances),
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


SPEECH_COMMANDS = SpeechCommands()


def _archives(root: Path) -> _Archives:
    """The folders of the archives under the root.

    Raises:
        DataError: There is no folder with the two lists, or several.
    """
    inside = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    named = [path for path in inside if path.name in ("train", "test") or _ARCHIVE.fullmatch(path.name)]
    with_lists = [folder for folder in (root, *named) if all((folder / name).is_file() for name in _LISTS)]
    if len(with_lists) != 1:
        found = ", ".join(path.name for path in with_lists) or "none"
        what = f"The folder must hold one Speech Commands with {_LOOKED_FOR}, but holds: {found}"
        do = "Give the folder of the words, which holds the two lists, or the one that holds it and the test archive"
        raise DataError(what, file=root, do=do)
    tests = [path for path in named if path != with_lists[0] and (path / UNKNOWN_WORD).is_dir()]
    if len(tests) > 1:
        what = f"The folder holds several test archives: {', '.join(path.name for path in tests)}"
        raise DataError(what, file=root, do="Give a folder that holds one version")
    return _Archives(with_lists[0], tests[0] if tests else None)


def _listed(words: Path) -> dict[str, Split]:
    """From the place of a recording, without its ending, to the split of its list.

    Raises:
        DataError: A line is no place of a recording, occurs twice, or its recording is missing; names file and line.
    """
    splits: dict[str, Split] = {}
    for name, split in _LISTS.items():
        path = words / name
        for number, line in text_lines(path):
            place = line.strip().rpartition(".")[0]
            if place.count("/") != 1 or place in splits:
                what = f"A line must be `WORD/SPEAKER_nohash_TAKE.wav`, once in both lists, but is `{line[:80]}`"
                raise DataError(what, file=f"{path}:{number}", do="Fetch the list again")
            if not any(is_there(words / f"{place}{ending}") for ending in (".wav", ".flac")):
                what = f"The recording {place} of the list is missing"
                do = "Fetch it: without it the scores are not those of the official splits"
                raise DataError(what, file=f"{path}:{number}", do=do)
            splits[place] = split
    return splits


def _words(
    archives: _Archives, splits: Mapping[str, Split], root: Path, options: PrepareOptions, collector: FaultCollector
) -> Iterator[DraftUtterance]:
    for audio in _sounds(archives.words, root, options, collector, besides=archives.test):
        with collector.each():
            place = audio.relative_to(archives.words).with_suffix("")
            named = _RECORDING.fullmatch(place.name)
            if len(place.parts) != 2 or named is None:
                what = "The sound is not named like a recording of Speech Commands; looked for SPEAKER_nohash_TAKE.wav"
                raise DataError(what, file=audio, do="Move it out of the corpus, or leave it out with --exclude")
            split = splits.get(place.as_posix(), "train")
            yield DraftUtterance(
                id="-".join(place.parts),
                audio=audio,
                speaker=named[1],
                text=place.parts[0],
                attributes={"word": place.parts[0]},
                split=None if split == "test" and archives.test is not None else split,
            )


def _silence(
    archives: _Archives, root: Path, options: PrepareOptions, collector: FaultCollector
) -> Iterator[DraftUtterance]:
    """The pieces of every recording of noise, with their splits."""
    folder = archives.words / NOISE_FOLDER
    for audio in _sounds(folder, root, options, collector) if folder.is_dir() else ():
        with collector.each():
            num_cuts = int(inspect(audio).seconds // CUT_SECONDS)
            splits = silence_splits(audio.stem, num_cuts, with_test=archives.test is None)
            for number, split in enumerate(splits):
                yield DraftUtterance(
                    id=f"{SILENCE_WORD}-{audio.stem}-{number:03d}",
                    audio=audio,
                    start=number * CUT_SECONDS,
                    end=(number + 1) * CUT_SECONDS,
                    attributes={"word": SILENCE_WORD},
                    group=f"{NOISE_FOLDER}/{audio.stem}",
                    split=split,
                )


def silence_splits(recording: str, num_cuts: int, *, with_test: bool) -> list[Split]:
    """The split of each cut of a recording of noise, in the order of time; the rule of `SpeechCommands`.

    Args:
        recording: Name of the file without its ending.
        num_cuts: Number of its cuts.
        with_test: Whether a tenth is test.

    Example:
        >>> splits = silence_splits("white_noise", 60, with_test=True)
        >>> [splits.count(name) for name in ("train", "dev", "test")]
        [48, 6, 6]
    """
    order = sorted(range(num_cuts), key=lambda number: _digest(f"{SILENCE_SEED}/{recording}/{number}"))
    num_held_out = round(_HELD_OUT_SHARE * num_cuts)
    splits: list[Split] = ["train"] * num_cuts
    for number in order[:num_held_out]:
        splits[number] = "dev"
    for number in order[num_held_out : 2 * num_held_out] if with_test else ():
        splits[number] = "test"
    return splits


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _of_test_archive(
    folder: Path, root: Path, options: PrepareOptions, collector: FaultCollector
) -> Iterator[DraftUtterance]:
    """The utterances of the test archive: `WORD/…`, `_unknown_/…` and `_silence_/…`."""
    for audio in _sounds(folder, root, options, collector):
        with collector.each():
            place = audio.relative_to(folder).with_suffix("")
            if len(place.parts) != 2:
                what = "The sound is not in the folder of a word; looked for WORD/NAME.wav"
                raise DataError(what, file=audio, do="Move it to its place or out of the corpus")
            word, named = place.parts[0], _RECORDING.search(place.name)
            is_word = word not in (SILENCE_WORD, UNKNOWN_WORD)
            yield DraftUtterance(
                # `test-`: the archive holds copies of recordings that the other archive has too
                id=f"test-{'-'.join(place.parts)}",
                audio=audio,
                speaker=None if named is None else named[1],
                text=word if is_word else None,
                attributes={"word": word},
                split="test",
            )


def _sounds(
    folder: Path, root: Path, options: PrepareOptions, collector: FaultCollector, *, besides: Path | None = None
) -> list[Path]:
    """The sounds under a folder, without those of noise if it is the folder of the words, and those `besides`."""
    sounds = []
    for path in files_under(folder, options, root=root):
        in_noise = folder.name != NOISE_FOLDER and is_excluded(path.relative_to(folder).as_posix(), [NOISE_FOLDER])
        if in_noise or (besides is not None and path.is_relative_to(besides)):
            continue
        with collector.each():
            if is_sound(path):
                sounds.append(path)
    return sounds


def _notes(utterances: Sequence[DraftUtterance]) -> tuple[str, ...]:
    cuts = [each for each in utterances if each.start is not None]
    notes = []
    if cuts:
        counts = ", ".join(f"{_num(cuts, split)} {split}" for split in ("train", "dev", "test"))
        notes.append(f"{len(cuts)} cuts of 1 s of the background noise are the word {SILENCE_WORD} ({counts})")
    unused = sum(each.split is None for each in utterances)
    if unused:
        notes.append(f"{unused} recordings of testing_list.txt belong to no split, because the test archive is there")
    return tuple(notes)


def _num(utterances: Iterable[DraftUtterance], split: str) -> int:
    return sum(each.split == split for each in utterances)
