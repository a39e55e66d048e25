"""What is refused when a manifest is opened, of all its lines together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repbench.corpora.contract import Utterance
from repbench.corpora.faults import leaks
from repbench.corpora.manifest.header import HEADER_FILE, MANIFEST_FILE
from repbench.errors import DataError

_AGAIN = "Prepare the corpus again"


def refuse_no_lines(num_lines: int, file: Path) -> None:
    """Refuse a manifest without utterances."""
    if not num_lines:
        raise DataError("The manifest lists no utterance", file=file, do=_AGAIN)


def refuse_same_ids(ids: Sequence[str], numbers: Sequence[int], file: Path) -> None:
    """Refuse ids that occur twice.

    Args:
        ids: In the order of the lines.
        numbers: Of the lines.
        file: The file of the lines.
    """
    if len(set(ids)) == len(ids):
        return
    counts = Counter(ids)
    for identifier, number in zip(ids, numbers, strict=True):
        if counts[identifier] > 1:
            at = (f"{file}:{number}" for other, number in zip(ids, numbers, strict=True) if other == identifier)
            what = f"The id `{identifier}` occurs {counts[identifier]} times: {', '.join(at)}"
            do = "Give every utterance a unique id; ids that differ only in Unicode form are one"
            raise DataError(what, file=f"{file}:{number}", utterance=identifier, do=do)


def refuse_leaks(utterances: Sequence[Utterance], file: Path) -> None:
    """Refuse a sound in two official splits."""
    for leak in leaks(utterances):
        raise DataError(leak.what, file=file, utterance=leak.utterance, do=_AGAIN)


def refuse_other_sounds(samples_sha256: str, header: Mapping[str, Any], file: Path) -> None:
    """Refuse lines that are not those of which the header was written."""
    if samples_sha256 != header["samples_sha256"]:
        what = f"`{MANIFEST_FILE}` does not list the sounds of `{HEADER_FILE}`"
        raise DataError(what, file=file, key="samples_sha256", do=_AGAIN)


def refuse_unlisted_labels(
    utterances: Iterable[Utterance], label_sets: Mapping[str, tuple[str, ...]], file: Path
) -> None:
    """Refuse phones and speakers that the header does not list."""
    phones, speakers = set(label_sets.get("phones", ())), set(label_sets.get("speakers", ()))
    for utterance in utterances:
        unknown = sorted({phone.label for phone in utterance.phones or ()} - phones)
        if utterance.speaker is not None and utterance.speaker not in speakers:
            unknown.append(utterance.speaker)
        if unknown:
            what = f"Labels that `label_sets` of `{HEADER_FILE}` does not list: {', '.join(unknown)}"
            raise DataError(what, file=file, utterance=utterance.id, do=_AGAIN)


def refuse_undeclared_features(utterances: Iterable[Utterance], header: Mapping[str, Any], file: Path) -> None:
    """Refuse features that the header does not declare."""
    if "features" in header:
        return
    having = next((utterance for utterance in utterances if utterance.features is not None), None)
    if having is not None:
        what = f"The utterance has features, but `{HEADER_FILE}` does not declare them"
        raise DataError(what, file=file, utterance=having.id, key="features", do=_AGAIN)
