"""Files that hold many utterances: CTM, and lines of one label every 10 ms.

Such a file may be large (the alignments of LibriSpeech's 360 hours are 13 million lines of CTM), so that it is
indexed once, and an utterance is read from its place on demand.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repbench.corpora.alignments.interval_files import NUMBER
from repbench.corpora.alignments.intervals import WINDOW_S, Alignment, Extent
from repbench.corpora.alignments.text import COMMA, DECIMAL_POINTS, encoding_of
from repbench.corpora.contract import Phone
from repbench.corpora.textfiles import nfc, refuse_other_file
from repbench.errors import DataError

LABEL_S = 0.010
"""Duration of one label of a label line, in seconds."""

CTM_ROUNDING_S = 0.0015
"""Overlap in a CTM that comes from rounding start and duration to milliseconds one by one, in seconds."""


class Block(NamedTuple):
    """A run of lines of one utterance, in bytes; `line` is the number of the first line."""

    offset: int
    num_bytes: int
    line: int


class MultiUtteranceFile(abc.ABC):
    """A file whose lines begin with the id of their utterance.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, or an id is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._blocks = self._index()

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __contains__(self, utterance: object) -> bool:
        return utterance in self._blocks

    @abc.abstractmethod
    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """The alignment of an utterance; the rate plays no part.

        Raises:
            DataError: A line is broken; names it.
        """

    def lines(self, utterance: str) -> Iterator[tuple[int, list[str]]]:
        """The cells of each line of an utterance, after the number of the line."""
        with self.path.open("rb") as stream:
            for block in self._blocks[utterance]:
                stream.seek(block.offset)
                text = _decoded(stream.read(block.num_bytes), self.path, block.line)
                # at "\n" alone, as the index counts lines; `splitlines` also splits at form feeds and more
                for number, line in enumerate(text.split("\n"), start=block.line):
                    cells = line.split()
                    if cells and not line.startswith(";;"):
                        yield number, cells

    def _index(self) -> dict[str, list[Block]]:
        """The blocks of each utterance; consecutive lines of one id are one block."""
        blocks: dict[str, list[Block]] = {}
        previous, begin, first_line, offset, number = b"", 0, 1, 0, 0
        for number, line in enumerate(self._raw_lines(), start=1):
            head = line.split(None, 1)
            # blank lines and comments stay in the block of the lines in front of them
            if head and head[0] != previous and not head[0].startswith(b";;"):
                self._add(blocks, previous, Block(begin, offset - begin, first_line))
                previous, begin, first_line = head[0], offset, number
            offset += len(line)
        # the last block ends with the file
        self._add(blocks, previous, Block(begin, offset - begin, first_line))
        if not blocks:
            raise DataError("The file holds no utterance", file=self.path, do="Give a file of alignments")
        return blocks

    def _raw_lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as stream:
                self._refuse_encoding(stream.read(256))
                stream.seek(0)
                yield from stream
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise DataError("The file of alignments is missing", file=self.path, do="Check its place") from error

    def _refuse_encoding(self, head: bytes) -> None:
        """Refuse other files than text in UTF-8: utterances are found by bytes, because such a file may be large."""
        refuse_other_file(head, self.path, expected="an alignment")
        if encoding_of(head) != "utf-8-sig":
            do = "Save it as UTF-8: `iconv -f utf-16 -t utf-8 OLD > NEW`"
            raise DataError("The file is UTF-16, but files of many utterances are read as UTF-8", file=self.path, do=do)

    def _add(self, blocks: dict[str, list[Block]], identifier: bytes, block: Block) -> None:
        if identifier:
            # the first id of a file may follow a BOM
            name = nfc(_decoded(identifier, self.path, block.line).removeprefix("\ufeff"))
            blocks.setdefault(name, []).append(block)


class Ctm(MultiUtteranceFile):
    """NIST's CTM with times from the start of the utterance: `utterance channel start duration phone [score]`."""

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """The phones of one utterance; errors as `MultiUtteranceFile.read`."""
        phones, lines, channels = [], [], set()
        for number, cells in self.lines(utterance):
            if len(cells) not in (5, 6) or not NUMBER.fullmatch(cells[2]) or not NUMBER.fullmatch(cells[3]):
                what = f"A line must be `utterance channel start duration phone`, but is `{' '.join(cells)[:60]}`"
                do = DECIMAL_POINTS if any(COMMA.fullmatch(cell) for cell in cells[2:4]) else "Mend the line"
                raise DataError(what, file=f"{self.path}:{number}", utterance=utterance, do=do)
            # The end is a sum of two rounded numbers, hence `CTM_ROUNDING_S`.
            start_s = float(cells[2])
            phones.append(Phone(start_s, start_s + float(cells[3]), cells[4]))
            lines.append(number)
            channels.add(cells[1])
        if len(channels) > 1:
            what = f"The utterance is on {len(channels)} channels: {', '.join(sorted(channels))}"
            raise DataError(what, file=self.path, utterance=utterance, do="Keep the one of its sound")
        return Alignment(file=self.path, phones=phones, lines=lines, rounding_s=CTM_ROUNDING_S)


class LabelLines(MultiUtteranceFile):
    """One utterance a line: its id, and one label every 10 ms. Label k holds from k·10 ms to (k + 1)·10 ms.

    Reference: `converted_aligned_phones.txt` of van den Oord et al., "Representation Learning with Contrastive
    Predictive Coding", 2018: frames of Kaldi, which end 15 to 25 ms before the sound.
    """

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """The phones of one utterance, a run of one label being one; errors as `MultiUtteranceFile.read`."""
        rows = list(self.lines(utterance))
        number, cells = rows[0]
        if len(rows) > 1:
            what = f"The utterance occurs twice, in lines {number} and {rows[1][0]}"
            raise DataError(what, file=self.path, utterance=utterance, do="Remove one of them")
        num_labels = len(cells) - 1
        if not num_labels:
            raise DataError("The line holds no label", file=f"{self.path}:{number}", utterance=utterance, do="Mend it")
        phones, first = [], 0
        for label, run in itertools.groupby(cells[1:]):
            last = first + len(list(run))
            # divided, not multiplied by 0.01: each time is the double nearest to its decimal (35 * 0.01 is not 0.35)
            phones.append(Phone(first / 100, last / 100, label))
            first = last
        what = f"row of {num_labels} labels of 10 ms (line {number})"
        extent = Extent(what, 0.0, num_labels / 100, WINDOW_S)
        return Alignment(file=self.path, phones=phones, lines=[number] * len(phones), extents=(extent,))


def _decoded(content: bytes, path: Path, line: int) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("The line is not valid UTF-8", file=f"{path}:{line}", do="Save the file as UTF-8") from error
