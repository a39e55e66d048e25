"""Audio SNIPS as S3PRL's script lays it out: `all.iob.snips.txt` and `{train,valid,test}/VOICE-snips-PART-N.wav`.

References: Coucke et al., "Snips Voice Platform" (arXiv:1805.10190), for the texts; Yang et al., "SUPERB: Speech
processing Universal PERformance Benchmark" (arXiv:2105.01051) and its `downstream/ctc/snips.yaml`, for the voices of
each split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from repbench.corpora.alignments import align
from repbench.corpora.contract import Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.file_search import is_excluded, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.corpora.layouts.sound_files import sounds_in
from repbench.corpora.textfiles import text_lines
from repbench.errors import DataError

LABELS = "all.iob.snips.txt"

VOICES: Mapping[Split, frozenset[str]] = {
    "train": frozenset({"Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"}),
    "dev": frozenset({"Aditi", "Amy", "Geraint", "Nicole"}),
    "test": frozenset({"Brian", "Emma", "Raveena", "Russell"}),
}
"""The voices of each split: a part of the texts is used in these voices alone."""

_PARTS: Mapping[str, Split] = {"train": "train", "valid": "dev", "test": "test"}
_NAME = "VOICE-snips-PART-NUMBER"


class _Labels(NamedTuple):
    """The labels of a line: its words, its words with the slots marked, and its intent."""

    text: str
    slots: str
    intent: str


class AudioSnips:
    """The layout `snips`: a folder with `all.iob.snips.txt`, `train/`, `valid/` and `test/`.

    Each text is spoken by sixteen synthetic voices; a split is a part of the texts in the voices of `VOICES`. Sounds of
    other pairs of part and voice belong to no experiment and are not read; a note counts them.

    The speaker is the voice. The attributes are `intent` and `slots`, the text with each slot between its tags:
    `play <artist> nina simone </artist> please`.
    """

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the sounds of the three parts; errors as `CorpusLayout.prepare`."""
        refuse_options("snips", options, reads=("alignments",))
        refuse_missing_root(root)
        if not (root / LABELS).is_file():
            what = f"The folder is not laid out like Audio SNIPS: {LABELS} is missing"
            raise DataError(what, file=root, do="Give the folder that holds it and `train/`, `valid/`, `test/`")
        collector = FaultCollector(gather=options.gather_faults)
        labels = _labels(root / LABELS, collector)
        utterances, num_others = [], 0
        for part, split in _PARTS.items():
            for audio in sounds_in(root / part):
                if is_excluded(audio.relative_to(root).as_posix(), options.exclude):
                    continue
                with collector.each():
                    utterance = _utterance(audio, part, split, labels)
                    if utterance is None:
                        num_others += 1
                    else:
                        utterances.append(utterance)
        if not utterances and not collector.faults:
            what = f"No sound was found; looked for train/{_NAME}.wav, valid/… and test/…"
            raise DataError(what, file=root, do="Put the sounds there: S3PRL's script for SNIPS does")
        draft = Draft(
            name="snips",
            licence="unknown",
            root=root,
            utterances=utterances,
            notes=_notes(utterances, labels, num_others),
            faults=tuple(collector.faults),
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)


SNIPS = AudioSnips()


def _utterance(audio: Path, part: str, split: Split, labels: Mapping[str, _Labels]) -> DraftUtterance | None:
    """The utterance of a sound; None where its voice is of another split."""
    voice, snips, of_part, number = [*audio.stem.split("-"), *[""] * 4][:4]
    if snips != "snips" or of_part != part or not number.isdecimal():
        what = f"The sound is not named like those of Audio SNIPS; looked for {_NAME} in the folder of its part"
        raise DataError(what, file=audio, do="Move it to its place or out of the corpus")
    if voice not in VOICES[split]:
        if any(voice in voices for voices in VOICES.values()):
            return None
        known = ", ".join(sorted(frozenset().union(*VOICES.values())))
        raise DataError(f"`{voice}` is no voice of Audio SNIPS (there are {known})", file=audio, do="Rename the sound")
    if audio.stem not in labels:
        what = f"The sound has no line in {LABELS}"
        raise DataError(what, file=audio, utterance=audio.stem, do="Make the list again, or remove the sound")
    own = labels[audio.stem]
    return DraftUtterance(
        id=audio.stem,
        audio=audio,
        speaker=voice,
        text=own.text,
        attributes={"intent": own.intent, "slots": own.slots},
        split=split,
    )


def _labels(path: Path, collector: FaultCollector) -> dict[str, _Labels]:
    """From the id of an utterance to its labels, of lines `ID BOS WORD … EOS<tab>O TAG … INTENT`."""
    labels: dict[str, _Labels] = {}
    for number, line in text_lines(path):
        with collector.each():
            where = f"{path}:{number}"
            left, _, right = line.strip().partition("\t")
            identifier, *words = left.split()
            tags = right.split()
            if words[:1] != ["BOS"] or words[-1:] != ["EOS"] or len(tags) != len(words) or len(words) < 3:
                what = "A line must be `ID BOS WORD … EOS`, a tab, and a tag a word with the intent as the last"
                raise DataError(what, file=where, utterance=identifier, do="Make the list again")
            if identifier in labels:
                raise DataError("The id occurs twice", file=where, utterance=identifier, do="Make the list again")
            # without the tags of BOS and EOS; that of EOS is the intent
            slots = marked_slots(words[1:-1], tags[1:-1], file=where, utterance=identifier)
            labels[identifier] = _Labels(" ".join(words[1:-1]), slots, tags[-1])
    return labels


def marked_slots(words: Sequence[str], tags: Sequence[str], *, file: str, utterance: str) -> str:
    """The words with each slot between its tags, from tags that begin (`B-`), go on (`I-`) or are outside (`O`).

    Args:
        words: Of the utterance.
        tags: One a word.
        file: File and line, for the error.
        utterance: The id, for the error.

    Raises:
        DataError: A tag is of another form or goes on with what did not begin, or a word has an angle bracket.

    Example:
        >>> marked_slots(["play", "nina", "simone"], ["O", "B-artist", "I-artist"], file="f", utterance="u")
        'play <artist> nina simone </artist>'
    """
    return " ".join(_marks(words, tags, file, utterance))


def _marks(words: Sequence[str], tags: Sequence[str], file: str, utterance: str) -> Iterator[str]:
    opened: str | None = None
    for word, tag in zip(words, tags, strict=True):
        kind, _, name = tag.partition("-")
        if kind not in ("B", "I", "O") or (kind == "O") == bool(name) or (kind == "I" and name != opened):
            what = f"The tag `{tag}` of the word `{word}` does not follow the one before it"
            raise DataError(what, file=file, utterance=utterance, do="Write B- for the first word of a slot, then I-")
        if "<" in word or ">" in word:
            what = f"The word `{word}` has an angle bracket, which marks slots"
            raise DataError(what, file=file, utterance=utterance, do="Remove it")
        if kind != "I" and opened is not None:
            yield f"</{opened}>"
            opened = None
        if kind == "B":
            opened = name
            yield f"<{name}>"
        yield word
    if opened is not None:
        yield f"</{opened}>"


def _notes(utterances: Sequence[DraftUtterance], labels: Mapping[str, _Labels], num_others: int) -> tuple[str, ...]:
    notes = []
    if num_others:
        notes.append(f"{num_others} sounds in the voices of another split are not read")
    spoken = {each.id for each in utterances}
    official = [each for each in labels if _is_official(each)]
    num_missing = sum(each not in spoken for each in official)
    if num_missing:
        notes.append(f"{num_missing} of {len(official)} utterances of the official splits have no sound")
    return tuple(notes)


def _is_official(identifier: str) -> bool:
    voice, _, part, _ = [*identifier.split("-"), *[""] * 4][:4]
    return part in _PARTS and voice in VOICES[_PARTS[part]]
