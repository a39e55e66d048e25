"""HTK's master label file: the label files of many utterances in one, each after its name and before a line `.`.

Reference: Young et al., "The HTK Book", "Master label files". The names are patterns of files: `"*/s1.lab"`.
"""

from __future__ import annotations

import re
from pathlib import Path

from repbench.corpora.alignments.interval_files import read_hts_rows
from repbench.corpora.alignments.intervals import Alignment
from repbench.corpora.alignments.multi_utterance_files import Block, MultiUtteranceFile
from repbench.errors import DataError

HEADER = "#!MLF!#"
_NAME = re.compile(r'"([^"]+)"')


class Mlf(MultiUtteranceFile):
    """A master label file of intervals in units of 100 ns, of phones or of states."""

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """The phones of one utterance; errors as `MultiUtteranceFile.read`."""
        rows = list(self.lines(utterance))
        return read_hts_rows(rows, self.path, utterance)

    def _index(self) -> dict[str, list[Block]]:
        """The lines between each name and its line `.`."""
        blocks: dict[str, list[Block]] = {}
        name, begin, first_line, offset, number = b"", 0, 1, 0, 0
        for number, line in enumerate(self._raw_lines(), start=1):
            text = line.strip().removeprefix(b"\xef\xbb\xbf")
            if number == 1 and text != HEADER.encode():
                what = f"A master label file begins with `{HEADER}`, but this begins with {text[:40]!r}"
                raise DataError(what, file=self.path, do="Name it to what it is")
            if text.startswith(b'"'):
                self._refuse_open(name, number)
                name, begin, first_line = self._id(text, number, blocks), offset + len(line), number + 1
            elif text == b"." and name:
                self._add(blocks, name, Block(begin, offset - begin, first_line))
                name = b""
            offset += len(line)
        self._refuse_open(name, number)
        if not blocks:
            raise DataError("The file holds no utterance", file=self.path, do="Give a file of alignments")
        return blocks

    def _refuse_open(self, name: bytes, number: int) -> None:
        if name:
            what = f"The labels of `{name.decode('utf-8', 'replace')}` have no end: a line `.`"
            raise DataError(what, file=f"{self.path}:{number}", do="Write the file again: it is cut short")

    def _id(self, text: bytes, number: int, blocks: dict[str, list[Block]]) -> bytes:
        """The id that a name means: the stem of its file."""
        match = _NAME.match(text.decode("utf-8", "replace"))
        stem = Path(match[1]).stem if match else ""
        if not stem or "*" in stem or stem in blocks:
            what = f"A name must be of one file, each once, but is {text[:60]!r}"
            raise DataError(what, file=f"{self.path}:{number}", do='Write names such as "*/utterance.lab"')
        return stem.encode()
