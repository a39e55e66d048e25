"""Finding the format of a file of alignments, by the rule in the docstring of the package."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from repbench.corpora.alignments.interval_files import NUMBER, WHOLE, read_hts, read_phn, read_seconds, read_xlabel
from repbench.corpora.alignments.intervals import Alignment
from repbench.corpora.alignments.item import Item
from repbench.corpora.alignments.mfa_json import read_mfa_json
from repbench.corpora.alignments.mlf import Mlf
from repbench.corpora.alignments.multi_utterance_files import Ctm, LabelLines, MultiUtteranceFile
from repbench.corpora.alignments.text import COMMA, DECIMAL_POINTS, encoding_of, read_text
from repbench.corpora.alignments.textgrid import read_alignment
from repbench.corpora.textfiles import refuse_other_file
from repbench.errors import DataError, UsageError

TEXTGRID, PHN, HTS, XLABEL = "TextGrid", "TIMIT .phn", "HTS labels", "xlabel"
SECONDS, CTM, LABEL_LINES = "`start end phone`", "CTM", "label lines"
MFA_JSON, MLF, ITEM = "MFA's JSON", "HTK's master label file", "ABX items"

READERS: dict[str, Callable[[Path, str, int], Alignment]] = {
    TEXTGRID: read_alignment,
    PHN: read_phn,
    HTS: read_hts,
    XLABEL: read_xlabel,
    SECONDS: read_seconds,
    MFA_JSON: read_mfa_json,
}
"""Formats of one utterance a file: called with the file, the utterance's id and the rate of its sound in Hz."""

MULTI_UTTERANCE_FORMATS: dict[str, type[MultiUtteranceFile]] = {
    CTM: Ctm,
    LABEL_LINES: LabelLines,
    MLF: Mlf,
    ITEM: Item,
}
"""Formats of many utterances a file."""

BY_ENDING = {".textgrid": TEXTGRID, ".phn": PHN, ".ctm": CTM, ".json": MFA_JSON, ".mlf": MLF, ".item": ITEM}
"""Endings that decide alone."""

ENDINGS = frozenset({*BY_ENDING, ".lab", ".txt"})
"""Endings, in small letters, of files that may be alignments."""

ELAN = ".eaf"
EXPORT_FROM_ELAN = "Export the tiers in ELAN, with File > Export As > Praat TextGrid"

_NUM_LINES_READ = 50


def read_one(form: str, path: Path, utterance: str, sample_rate_hz: int, *, tier: str | None = None) -> Alignment:
    """Read a file of one utterance; errors as its reader.

    Args:
        form: Its format, a key of `READERS`.
        path: The file.
        utterance: The id of its utterance.
        sample_rate_hz: Rate of its sound.
        tier: Of a TextGrid or of MFA's JSON the tier of phones; None for the one that is known by its name.

    Raises:
        UsageError: A tier is named, but the format has none.
    """
    if form == TEXTGRID:
        return read_alignment(path, utterance, sample_rate_hz, tier=tier)
    if form == MFA_JSON:
        return read_mfa_json(path, utterance, sample_rate_hz, tier=tier)
    refuse_tier(tier, form, path)
    return READERS[form](path, utterance, sample_rate_hz)


def refuse_tier(tier: str | None, form: str, path: Path) -> None:
    """Refuse the name of a tier where the alignments have none.

    Raises:
        UsageError: A tier is named, but the format has none.
    """
    if tier is not None and form not in (TEXTGRID, MFA_JSON):
        what = f"`--tier` names a tier of TextGrids, but the alignments are {form}"
        raise UsageError(what, file=path, key="--tier", do="Leave it out")


def format_of(path: Path) -> str:
    """The format of a file: one of the keys of `READERS` or `MULTI_UTTERANCE_FORMATS`.

    Raises:
        DataError: The file is missing or not UTF-8, or is of no format or of more than one; shows its first line.
    """
    ending = path.suffix.lower()
    if ending in BY_ENDING:
        return BY_ENDING[ending]
    if ending == ELAN:
        raise DataError("The file is of ELAN, whose tiers are not read", file=path, do=EXPORT_FROM_ELAN)
    if ending not in ENDINGS:
        endings = ".TextGrid, .phn, .ctm, .mlf, .json, .item, .lab, .txt"
        raise DataError(f"A file of alignments must end in {endings}", file=path, do="Rename it to what it is")
    lines = first_lines(path)
    return _format_of_lab(path, lines) if ending == ".lab" else _format_of_txt(path, lines)


def is_list(path: Path) -> bool:
    """Whether a text file has one word a line, or none: a list of utterances, not an alignment."""
    return all(len(line.split()) == 1 for line in first_lines(path))


def first_lines(path: Path) -> list[str]:
    """The first lines that are not blank; errors as `format_of`."""
    try:
        with path.open("rb") as stream:
            head = stream.read(256)
            refuse_other_file(head, path, expected="an alignment")
            if encoding_of(head) != "utf-8-sig":
                lines = (line for line in read_text(path).splitlines() if line.strip())
                return list(itertools.islice(lines, _NUM_LINES_READ))
            stream.seek(0)
            # the first lines alone: the alignments of a large corpus are one file of millions
            found = list(itertools.islice((line for line in stream if line.strip()), _NUM_LINES_READ))
        return [line.removeprefix(codecs.BOM_UTF8).decode("utf-8").rstrip("\r\n") for line in found]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError("The file of alignments is missing", file=path, do="Check its place") from error
    except UnicodeDecodeError as error:
        raise DataError("The file of alignments is not valid UTF-8", file=path, do="Save it as UTF-8") from error


def _format_of_lab(path: Path, lines: Sequence[str]) -> str:
    # before the others, because the header of an xlabel is free text
    if any(line.strip() == "#" for line in lines):
        return XLABEL
    cells = [line.split() for line in lines]
    _refuse_decimal_commas(path, cells)
    # HTS before seconds, since whole numbers are numbers too
    if cells and all(len(row) >= 3 and _are(WHOLE.fullmatch, row[:2]) for row in cells):
        return HTS
    if cells and all(_is_seconds(row) for row in cells):
        return SECONDS
    raise _unknown(path, lines, "xlabel (a line `#`, then `end colour label`), HTS or `start end phone`")


def _format_of_txt(path: Path, lines: Sequence[str]) -> str:
    cells = [line.split() for line in lines if not line.startswith(";;")]
    _refuse_decimal_commas(path, cells)
    tests = {SECONDS: _is_seconds, CTM: _is_ctm, LABEL_LINES: _is_label_line}
    fitting = [name for name, fits in tests.items() if cells and all(fits(row) for row in cells)]
    # `a 1 0 2 3` is a CTM and a line of labels
    if len(fitting) > 1:
        what = f"The file could be {' or '.join(fitting)}: `{lines[0][:60]}`"
        do = "Name a CTM .ctm; write times with a decimal point; give label lines more than one label"
        raise DataError(what, file=path, do=do)
    if not fitting:
        raise _unknown(path, lines, "`start end phone`, CTM or `utterance label label …`")
    return fitting[0]


def _refuse_decimal_commas(path: Path, cells: Sequence[Sequence[str]]) -> None:
    """Refuse times with decimal commas, which would else be taken for labels."""
    for row in cells:
        for times in (row[:2], row[2:4]):
            if len(times) == 2 and _are(_is_number_with_comma, times) and any("," in time for time in times):
                what = f"The times have decimal commas: `{' '.join(row)[:60]}`"
                raise DataError(what, file=path, do=DECIMAL_POINTS)


def _is_number_with_comma(cell: str) -> bool:
    return bool(COMMA.fullmatch(cell) or NUMBER.fullmatch(cell))


def _unknown(path: Path, lines: Sequence[str], looked_for: str) -> DataError:
    seen = f"begins with `{lines[0][:60]}`" if lines else "is empty"
    return DataError(f"The file is no alignment; looked for {looked_for}, but it {seen}", file=path, do="Mend the file")


def _is_seconds(row: Sequence[str]) -> bool:
    return len(row) == 3 and _are(NUMBER.fullmatch, row[:2])


def _is_ctm(row: Sequence[str]) -> bool:
    return len(row) in (5, 6) and _are(NUMBER.fullmatch, row[2:4])


def _is_label_line(row: Sequence[str]) -> bool:
    """An id, and labels that all are whole numbers or none of which is a number."""
    # a set: a line has hundreds of labels and few different ones
    labels = set(row[1:])
    return bool(labels) and (_are(str.isdecimal, labels) or not any(NUMBER.fullmatch(label) for label in labels))


def _are(test: Callable[[str], object], cells: Sequence[str] | set[str]) -> bool:
    return all(test(cell) for cell in cells)
