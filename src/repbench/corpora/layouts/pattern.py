"""Corpora whose labels are in the names of the files: any by a pattern, and two that use codes.

A pattern is text with fields: `{speaker}_{emotion}_{take}.wav`.

* `{speaker}`, `{group}`, `{id}`, `{text}` and `{split}` (train, dev or test) fill the utterance's own fields; `{_}` is
  ignored; every other name is an attribute, of numbers if all its values are numbers.
* `{name:2}` is two characters long. A field without a length holds one character or more, but never `/`.
* All other characters match themselves. The pattern must end in the ending of the files, in capital or small letters.
* `/` separates folders: the pattern matches the last parts of a path, so one without `/` matches names in any folder
  under the root.

Every file under the root with that ending must match, and in one way only: `{a}_{b}.wav` is refused for `x_y_z.wav`.
Without `{id}`, the id is what matched, without its ending and with `-` for `/`.

References: Livingstone and Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS)" (PLoS ONE
13(5), 2018); Burkhardt et al., "A Database of German Emotional Speech" (Interspeech 2005).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast, get_args

from repbench.corpora.alignments import align
from repbench.corpora.contract import AttributeValue, Draft, DraftUtterance, PrepareOptions, Split
from repbench.corpora.faults import FaultCollector
from repbench.corpora.layouts.csv_table import column_type
from repbench.corpora.layouts.file_search import files_under, refuse_missing_root
from repbench.corpora.layouts.options import refuse_options
from repbench.errors import DataError, UsageError

FIELDS = ("speaker", "group", "id", "text", "split")
"""The names in a pattern that are fields of an utterance; the others are attributes."""

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([1-9][0-9]?))?\}")
_ENDING = re.compile(r"\.[A-Za-z0-9]+\Z")
_MEND = "Write it like '{speaker}_{emotion}_{take}.wav'"


class Field(NamedTuple):
    """A field of a pattern, and its length in characters; None: one or more."""

    name: str
    length: int | None

    def ends(self, text: str, start: int) -> range:
        """The positions at which its value may end, if it begins at `start`."""
        slash = text.find("/", start)
        last = len(text) if slash < 0 else slash
        if self.length is None:
            return range(start + 1, last + 1)
        return range(start + self.length, min(start + self.length, last) + 1)


@dataclass(frozen=True, slots=True)
class FilePattern:
    """A parsed pattern.

    Attributes:
        text: As it was written.
        pieces: Its fields, and the texts between them, in their order; without the ending.
        ending: The ending of the files, in small letters: `.wav`.
        num_parts: Number of parts of a path that it matches.
        shortest: Matches with each field as short as it can be, from the left; a group a field.
        longest: Matches with each field as long as it can be: another match, if there is one.
    """

    text: str
    pieces: tuple[str | Field, ...]
    ending: str
    num_parts: int
    shortest: re.Pattern[str]
    longest: re.Pattern[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Its fields in their order, without `_`."""
        return tuple(piece.name for piece in self.pieces if isinstance(piece, Field) and piece.name != "_")

    def read(self, path: Path, root: Path) -> dict[str, str] | None:
        """The values of the fields in the path of a file; None where it does not match.

        Raises:
            DataError: It matches in more than one way.
        """
        subject = self.subject(path, root)
        # Lazy fields find the match with the shortest fields from the left, greedy ones that with the longest: where
        # both agree, there is no other.
        match, other = self.shortest.fullmatch(subject), self.longest.fullmatch(subject)
        if match is None or other is None:
            return None
        # Several matches may still agree in all but fields `_`, which say nothing: then every value is looked at.
        if match.groups() != other.groups() and _is_ambiguous(self.pieces, subject[: -len(self.ending)]):
            what = f"The name can be read by the pattern `{self.text}` in more than one way"
            raise DataError(what, file=path, do="Give fields a length, like {speaker:2}, or rename the file")
        fields = [piece for piece in self.pieces if isinstance(piece, Field)]
        found = zip(fields, match.groups(), strict=True)
        return {field.name: value for field, value in found if field.name != "_"}

    def subject(self, path: Path, root: Path) -> str:
        """The last parts of a path, which the pattern matches."""
        return "/".join(path.relative_to(root).parts[-self.num_parts :])


def read_pattern(text: str) -> FilePattern:
    """Parse a pattern, by the rules in the docstring of this module.

    Raises:
        UsageError: It has no field or no ending, a field occurs twice, or a brace is not of a field.

    Example:
        >>> read_pattern("{speaker:2}/{take}.wav").names
        ('speaker', 'take')
    """
    # after the last field: `{name}.{format}` has no ending
    ending = _ENDING.search(text, text.rfind("}") + 1)
    fields = [Field(match[1], int(match[2]) if match[2] else None) for match in _FIELD.finditer(text)]
    names = [field.name for field in fields if field.name != "_"]
    twice = sorted({name for name in names if names.count(name) > 1})
    literals = _FIELD.sub("", text)
    fault = None
    if "{" in literals or "}" in literals:
        fault = "has a brace that is not of a field `{name}` or `{name:2}`"
    elif not names:
        fault = "has no field"
    elif twice:
        fault = f"has the field `{twice[0]}` twice"
    elif ending is None:
        fault = "does not end in the ending of the files"
    elif text.startswith("/") or "//" in text or ".." in literals.split("/"):
        fault = "does not name places under the root"
    if fault is not None or ending is None:
        raise UsageError(f"The pattern `{text}` {fault}", key="--pattern", do=_MEND)
    # the texts between the fields, without the two groups that each match adds; the last ends before the ending
    between = _FIELD.split(text[: ending.start()])[::3]
    pieces = (*itertools.chain.from_iterable(zip(between, fields, strict=False)), between[-1])
    return FilePattern(
        text=text,
        pieces=pieces,
        ending=ending[0].lower(),
        num_parts=text.count("/") + 1,
        shortest=_compiled(pieces, ending[0], "[^/]+?"),
        longest=_compiled(pieces, ending[0], "[^/]+"),
    )


def _compiled(pieces: Sequence[str | Field], ending: str, any_length: str) -> re.Pattern[str]:
    parts = [
        re.escape(piece)
        if isinstance(piece, str)
        else f"({any_length if piece.length is None else f'[^/]{{{piece.length}}}'})"
        for piece in pieces
    ]
    # only the ending ignores case
    return re.compile(f"{''.join(parts)}(?i:{re.escape(ending)})")


def _is_ambiguous(pieces: Sequence[str | Field], text: str) -> bool:
    """Whether a field other than `_` can have two values in a text that the pieces match."""
    # the positions that the pieces before each one can reach, then those of them from which the others reach the end
    reached = [{0}]
    for piece in pieces:
        reached.append({end for start in reached[-1] for end in _ends(piece, text, start)})
    onward = {len(text)}
    for piece, starts in zip(reversed(pieces), reversed(reached[:-1]), strict=True):
        pairs = [(start, end) for start in starts for end in _ends(piece, text, start) if end in onward]
        values = {text[start:end] for start, end in pairs}
        if isinstance(piece, Field) and piece.name != "_" and len(values) > 1:
            return True
        onward = {start for start, _ in pairs}
    return False


def _ends(piece: str | Field, text: str, start: int) -> Iterable[int]:
    if isinstance(piece, Field):
        return piece.ends(text, start)
    return (start + len(piece),) if text.startswith(piece, start) else ()


@dataclass(frozen=True, slots=True)
class CodedField:
    """A field of a pattern that is a code.

    Attributes:
        field: The field.
        into: The name of its meaning: the field itself, another attribute or one of `FIELDS`.
        meanings: From each code to its meaning.
    """

    field: str
    into: str
    meanings: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternLayout:
    """A layout of files with labels in their names.

    Attributes:
        name: Name of the corpus.
        licence: As its source states it, or "unknown".
        pattern: The pattern of its files; None: the one of `--pattern`.
        codes: Fields that are codes. An unknown code is refused.
    """

    name: str
    licence: str = "unknown"
    pattern: str | None = None
    codes: tuple[CodedField, ...] = ()

    def prepare(self, root: Path, options: PrepareOptions) -> Draft:
        """Describe the files under `root`; errors as `CorpusLayout.prepare`.

        Raises:
            UsageError: The pattern is missing, or cannot be understood.
        """
        refuse_options(self.name, options, reads=("alignments", "pattern") if self.pattern is None else ("alignments",))
        written = options.pattern if self.pattern is None else self.pattern
        if written is None:
            raise UsageError(f"The layout `{self.name}` needs a pattern", key="--pattern", do=_MEND)
        pattern = read_pattern(written)
        refuse_missing_root(root)
        collector = FaultCollector(gather=options.gather_faults)
        known: dict[Path, dict[str, str]] = {}
        for path, values in _matches(pattern, root, options, collector).items():
            with collector.each():
                known[path] = self._decoded(path, values)
        first = next(iter(known.values()), {})
        # over all files, as in a table: `07` and `a7` in one place must not become two types
        types = {name: column_type([values[name] for values in known.values()]) for name in first if name not in FIELDS}
        utterances = []
        for path, values in known.items():
            attributes = {name: read(values[name]) for name, read in types.items()}
            with collector.each():
                utterances.append(_utterance(path, values, attributes, pattern, root))
        draft = Draft(
            name=self.name, licence=self.licence, root=root, utterances=utterances, faults=tuple(collector.faults)
        )
        return draft if options.alignments is None else align(draft, options.alignments, options)

    def _decoded(self, path: Path, values: Mapping[str, str]) -> dict[str, str]:
        decoded = dict(values)
        for code in self.codes:
            value = values[code.field]
            if value not in code.meanings:
                there = ", ".join(sorted(code.meanings))
                what = f"`{code.field}` is `{value}`, which is no code of {self.name} (there are {there})"
                raise DataError(what, file=path, key=code.field, do="Rename the file or move it out of the corpus")
            decoded[code.into] = code.meanings[value]
        return decoded


def _matches(
    pattern: FilePattern, root: Path, options: PrepareOptions, collector: FaultCollector
) -> dict[Path, dict[str, str]]:
    """The values of the fields for every file.

    Raises:
        DataError: There is no file, none matches or, where faults are not gathered, some do not.
    """
    paths = [path for path in files_under(root, options) if path.suffix.lower() == pattern.ending]
    if not paths:
        what = f"The folder holds no {pattern.ending} file; looked for `{pattern.text}`"
        raise DataError(what, file=root, do="Check --root")
    found: dict[Path, dict[str, str]] = {}
    unmatched = []
    for path in paths:
        with collector.each():
            values = pattern.read(path, root)
            if values is None:
                unmatched.append(path)
            else:
                found[path] = values
    do = f"{_OTHER_NAMES} or mend the pattern"
    if unmatched and not (options.gather_faults and found):
        what = f"{len(unmatched)} of {len(paths)} files do not match the pattern `{pattern.text}`, the first is this"
        raise DataError(what, file=unmatched[0], do=do)
    for path in unmatched:
        with collector.each():
            raise DataError(f"The name does not match the pattern `{pattern.text}`", file=path, do=do)
    return found


_OTHER_NAMES = "Rename the files, leave them out with --exclude"


def _utterance(
    path: Path, values: Mapping[str, str], attributes: Mapping[str, AttributeValue], pattern: FilePattern, root: Path
) -> DraftUtterance:
    split = values.get("split")
    if split is not None and split not in get_args(Split):
        what, do = f"`split` must be train, dev or test, but is `{split}`", "Rename the file, or call the field {part}"
        raise DataError(what, file=path, key="split", do=do)
    return DraftUtterance(
        id=values.get("id") or pattern.subject(path, root)[: -len(pattern.ending)].replace("/", "-"),
        audio=path,
        speaker=values.get("speaker"),
        text=values.get("text"),
        attributes=attributes,
        group=values.get("group"),
        split=cast(Split | None, split),
    )


def _numbered(words: Sequence[str]) -> dict[str, str]:
    """Codes 01, 02, … for the words."""
    return {f"{number:02d}": word for number, word in enumerate(words, start=1)}


PATTERN = PatternLayout(name="pattern")

RAVDESS_EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")

RAVDESS = PatternLayout(
    name="ravdess",
    licence="CC BY-NC-SA 4.0",
    pattern="{modality:2}-{channel:2}-{emotion:2}-{intensity:2}-{statement:2}-{repetition:2}-{speaker:2}.wav",
    codes=(
        CodedField("modality", "modality", _numbered(("audio-video", "video", "audio"))),
        CodedField("channel", "channel", _numbered(("speech", "song"))),
        CodedField("emotion", "emotion", _numbered(RAVDESS_EMOTIONS)),
        CodedField("intensity", "intensity", _numbered(("normal", "strong"))),
        CodedField("statement", "text", _numbered(("Kids are talking by the door", "Dogs are sitting by the door"))),
        CodedField("speaker", "gender", _numbered(("M", "F") * 12)),
    ),
)

_EMODB_EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
_EMODB_SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
_EMODB_GENDERS = {
    **dict.fromkeys(("03", "10", "11", "12", "15"), "M"),
    **dict.fromkeys(("08", "09", "13", "14", "16"), "F"),
}

EMODB = PatternLayout(
    name="emodb",
    pattern="{speaker:2}{sentence:3}{emotion:1}{version}.wav",
    codes=(
        CodedField("emotion", "emotion", _EMODB_EMOTIONS),
        CodedField("sentence", "text", _EMODB_SENTENCES),
        CodedField("speaker", "gender", _EMODB_GENDERS),
    ),
)
