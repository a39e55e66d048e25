"""Item files of ABX: `#file onset offset #phone prev-phone next-phone speaker`, a phone in its context a line.

Phones without a neighbour on both sides are not in such a file, so that an alignment of it has gaps.

Reference: Schatz et al., "Evaluating speech features with the minimal-pair ABX task", 2013; the ZeroSpeech challenges.
"""

from __future__ import annotations

from repbench.corpora.alignments.interval_files import NUMBER
from repbench.corpora.alignments.intervals import Alignment
from repbench.corpora.alignments.multi_utterance_files import CTM_ROUNDING_S, Block, MultiUtteranceFile
from repbench.corpora.contract import Phone
from repbench.errors import DataError

_NUM_CELLS = 7


class Item(MultiUtteranceFile):
    """An item file of phones; times are seconds."""

    def read(self, utterance: str, sample_rate_hz: int) -> Alignment:
        """The phones of one utterance, in order of time; errors as `MultiUtteranceFile.read`."""
        found = []
        for number, cells in self.lines(utterance):
            if len(cells) != _NUM_CELLS or not all(NUMBER.fullmatch(cell) for cell in cells[1:3]):
                what = (
                    f"A line must be `file onset offset phone previous next speaker`, but is `{' '.join(cells)[:60]}`"
                )
                raise DataError(what, file=f"{self.path}:{number}", utterance=utterance, do="Mend the line")
            found.append((Phone(float(cells[1]), float(cells[2]), cells[3]), number))
        # lines of one utterance are in any order
        found.sort()
        phones, lines = zip(*found, strict=True)
        return Alignment(file=self.path, phones=phones, lines=lines, rounding_s=CTM_ROUNDING_S)

    def _index(self) -> dict[str, list[Block]]:
        """The blocks of each utterance, without the header."""
        blocks = super()._index()
        del blocks[self._header(blocks)]
        return blocks

    def _header(self, blocks: dict[str, list[Block]]) -> str:
        header = next(iter(blocks))
        if not header.startswith("#"):
            what = f"An item file begins with `#file onset offset #phone …`, but this begins with `{header[:40]}`"
            raise DataError(what, file=self.path, do="Name it to what it is")
        return header
