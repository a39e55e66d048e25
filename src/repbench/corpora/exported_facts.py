"""`repbench-corpus.json`: what an exported corpus knows as a whole and no format of others has a place for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repbench.corpora.contract import Corpus, Draft
from repbench.errors import DataError
from repbench.files import canonical_json

FACTS_FILE = "repbench-corpus.json"
_SCHEMA = "repbench.exported/1"
_AGAIN = "Export the corpus again, or remove the file: its phones are then folded as those of any alignment"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFacts:
    """The facts of one export.

    Attributes:
        name: Name of the corpus.
        licence: Of its sound.
        notes: Of the corpus.
        phones: Its phone set, sorted; None where it has none. Labels of the export are these, and are not folded again.
        scales: From each attribute that is a scale to its middle.
        dropped: From each utterance that was left out before to the reason.
        resample: Whether its sound may be resampled.
        fingerprint: Of the corpus that was exported.
    """

    name: str
    licence: str
    notes: tuple[str, ...]
    phones: tuple[str, ...] | None
    scales: dict[str, float]
    dropped: dict[str, str]
    resample: str
    fingerprint: str

    def of(self, draft: Draft) -> Draft:
        """The draft of an exported folder, with the facts."""
        refused = self.resample == "refused"
        notes = ("the corpus was prepared with --no-resample before its export",) if refused else ()
        return replace(
            draft,
            name=self.name,
            licence=self.licence,
            notes=(*self.notes, *notes, *draft.notes),
            phone_set=self.phones,
            scales=self.scales,
            left_out=self.dropped,
        )


def facts_of(corpus: Corpus) -> bytes:
    """The content of the file for a corpus."""
    scales: dict[str, float] = {}
    for utterance in corpus.utterances:
        scales |= utterance.scales
    phones = corpus.label_sets.get("phones")
    return (
        canonical_json(
            {
                "schema": _SCHEMA,
                "name": corpus.name,
                "licence": corpus.licence,
                "notes": list(corpus.notes),
                "phones": None if phones is None else list(phones),
                "scales": scales,
                "dropped": dict(corpus.dropped),
                "resample": corpus.resample,
                "fingerprint": corpus.fingerprint,
            }
        )
        + b"\n"
    )


def read_facts(folder: Path) -> ExportedFacts | None:
    """The facts of an exported folder; None where it has no such file.

    Raises:
        DataError: The file is not as `facts_of` writes it; names file and key.
    """
    path = folder / FACTS_FILE
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_bytes())
        # a lone surrogate, which JSON can escape and UTF-8 cannot hold
        json.dumps(fields, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise DataError(f"This is not valid JSON: {error}", file=path, do=_AGAIN) from error
    if not isinstance(fields, dict) or fields.get("schema") != _SCHEMA:
        raise DataError(f"`schema` must be `{_SCHEMA}`", file=path, key="schema", do=_AGAIN)
    for key, fits in _FITS.items():
        if key not in fields or not fits(fields[key]):
            raise DataError(f"`{key}` is missing or of another form", file=path, key=key, do=_AGAIN)
    phones = fields["phones"]
    return ExportedFacts(
        name=fields["name"],
        licence=fields["licence"],
        notes=tuple(fields["notes"]),
        phones=None if phones is None else tuple(phones),
        scales={name: float(middle) for name, middle in fields["scales"].items()},
        dropped=fields["dropped"],
        resample=fields["resample"],
        fingerprint=fields["fingerprint"],
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(type(each) in (int, float) for each in value.values())


_FITS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str) and value != "",
    "licence": lambda value: isinstance(value, str),
    "notes": _is_texts,
    "phones": lambda value: value is None or _is_texts(value),
    "scales": _is_numbers,
    "dropped": lambda value: isinstance(value, dict) and _is_texts(list(value.values())),
    "resample": lambda value: value in ("allowed", "refused"),
    "fingerprint": lambda value: isinstance(value, str),
}
