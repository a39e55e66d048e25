"""Item files of the ZeroSpeech challenges: one token a line, with its file, times, phone, neighbours and speaker.

The first line is `#file onset offset #phone prev-phone next-phone speaker`; fields are separated by spaces or tabs,
times are in seconds. A token has the frames whose centres are from its onset to its offset, both included.

Reference:
    Schatz et al., ABXpy; Nguyen et al., The Zero Resource Speech Benchmark 2021, arXiv 2011.11588.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from repbench.downstream.discrimination.tokens import Token
from repbench.errors import DataError, UsageError

COLUMNS = ("#file", "onset", "offset", "#phone", "prev-phone", "next-phone", "speaker")
"""The columns of an item file, in this order."""


@dataclass(frozen=True, slots=True)
class ItemFile:
    """The tokens of an item file.

    Attributes:
        path: The file.
        sha256: Of its bytes.
        tokens: From each file that it names to its tokens, in order.
        lines: From each file that it names to the first line that does, counted from 1.
    """

    path: Path
    sha256: str
    tokens: Mapping[str, tuple[Token, ...]]
    lines: Mapping[str, int]

    def of(self, utterance: str) -> tuple[Token, ...]:
        """The tokens of an utterance: those of the file of this name; none where the item file does not name it."""
        return self.tokens.get(utterance, ())

    def check(self, utterances: Sequence[str]) -> None:
        """Refuse an item file that names a file which is no utterance.

        Raises:
            DataError: It does; names the line.
        """
        if unknown := [name for name in self.lines if name not in set(utterances)]:
            first = min(unknown, key=self.lines.__getitem__)
            what = f"Line {self.lines[first]} names `{first}`, which is no test utterance ({len(unknown)} such files)"
            do = "Take the item file of this corpus; names are those of utterances, without a folder or an extension"
            raise DataError(what, file=self.path, do=do)


def read_item_file(path: Path) -> ItemFile:
    """Read an item file.

    Raises:
        UsageError: There is no such file.
        DataError: A line has other fields, or times that are no stretch of time; names the line.
    """
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8").splitlines()
    except FileNotFoundError as error:
        raise UsageError("There is no such item file", file=path, key="task.item") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The item file cannot be read: {error}", file=path, key="task.item") from error
    if not lines or tuple(lines[0].split()) != COLUMNS:
        what = f"The first line of an item file must be `{' '.join(COLUMNS)}`"
        raise DataError(what, file=path, do="Check that it is a ZeroSpeech item file")
    tokens: dict[str, list[Token]] = {}
    first_lines: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            name, token = _token(line, number, path)
            tokens.setdefault(name, []).append(token)
            first_lines.setdefault(name, number)
    by_name = {name: tuple(several) for name, several in tokens.items()}
    return ItemFile(path, hashlib.sha256(content).hexdigest(), by_name, first_lines)


def _token(line: str, number: int, path: Path) -> tuple[str, Token]:
    fields = line.split()
    if len(fields) != len(COLUMNS):
        what = f"Line {number} has {len(fields)} fields where there are {len(COLUMNS)}"
        raise DataError(what, file=path, do=f"Give {' '.join(COLUMNS)}")
    name, onset, offset, phone, previous, following, speaker = fields
    try:
        start_s, end_s = float(onset), float(offset)
    except ValueError as error:
        raise DataError(f"Line {number} has a time that is no number", file=path, do="Give seconds") from error
    if not (math.isfinite(end_s) and 0 <= start_s < end_s):
        raise DataError(f"Line {number} is from {onset} to {offset}", file=path, do="Give seconds, onset first")
    # Some item files name sounds with their folder.
    name = PurePosixPath(name).name
    return name, Token(start_s, end_s, phone, f"{previous}-{following}", speaker, is_closed=True)
