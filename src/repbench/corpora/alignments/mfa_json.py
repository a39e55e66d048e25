"""The JSON that the Montreal Forced Aligner writes with `--output_format json`: tiers of `[start, end, label]`.

Reference: McAuliffe et al., "Montreal Forced Aligner", 2017, and its documentation, "Output format".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from repbench.corpora.alignments.intervals import Alignment, Extent
from repbench.corpora.alignments.text import read_text
from repbench.corpora.alignments.textgrid import OTHER_PHONE_TIER, PHONE_TIER
from repbench.corpora.contract import Phone
from repbench.corpora.textfiles import nfc
from repbench.errors import DataError

_AGAIN = "Write it again with `mfa align --output_format json`"


def read_mfa_json(path: Path, utterance: str, sample_rate_hz: int, *, tier: str | None = None) -> Alignment:
    """The phones of a file; the rate plays no part.

    Args:
        path: The file.
        utterance: The id, for errors.
        sample_rate_hz: Not used: times are seconds.
        tier: The tier of phones, in capital or small letters; None for the one that is known by its name.

    Raises:
        DataError: The file is missing or not JSON, has not one tier of phones, or an entry is of another form; names
            the entry.
    """
    try:
        content = json.loads(read_text(path, utterance))
    except (ValueError, RecursionError) as error:
        raise _fault(f"This is not valid JSON: {error}", path, utterance) from error
    tiers = content.get("tiers") if isinstance(content, dict) else None
    if not isinstance(tiers, dict) or not isinstance(end_s := content.get("end"), (int, float)):
        raise _fault("The file is no alignment of MFA: it needs `end` and `tiers`", path, utterance)
    name = _phone_tier(tiers, tier, path, utterance)
    entries = tiers[name].get("entries") if isinstance(tiers[name], dict) else None
    if not isinstance(entries, list):
        raise _fault(f"The tier `{name}` has no list `entries`", path, utterance)
    phones = [_phone(entry, number, path, utterance) for number, entry in enumerate(entries, start=1)]
    extent = Extent("alignment of MFA", float(content.get("start") or 0.0), float(end_s))
    return Alignment(file=path, phones=phones, lines=None, extents=(extent,), tier=name)


def _phone_tier(tiers: dict[str, Any], wanted: str | None, path: Path, utterance: str) -> str:
    if wanted is not None:
        found = [name for name in tiers if nfc(name).strip().casefold() == nfc(wanted).strip().casefold()]
    else:
        found = [name for name in tiers if PHONE_TIER.fullmatch(name.strip())]
        found = found or [name for name in tiers if OTHER_PHONE_TIER.fullmatch(name.strip())]
    if len(found) == 1:
        return found[0]
    what = f"{len(found) or 'no'} tiers of phones" if wanted is None else f"{len(found) or 'no'} tiers `{wanted}`"
    listed = ", ".join(tiers) or "none"
    do = "Name the tier with --tier NAME"
    raise DataError(f"The file has {what} (its tiers are: {listed})", file=path, utterance=utterance, do=do)


def _phone(entry: Any, number: int, path: Path, utterance: str) -> Phone:
    start, end, label = entry if isinstance(entry, list) and len(entry) == 3 else (None, None, None)
    if type(start) not in (int, float) or type(end) not in (int, float) or not isinstance(label, str):
        what = f"Entry {number} must be start, end and label, but is {str(entry)[:60]}"
        raise _fault(what, path, utterance)
    return Phone(float(cast(float, start)), float(cast(float, end)), label)


def _fault(what: str, path: Path, utterance: str) -> DataError:
    return DataError(what, file=path, utterance=utterance, do=_AGAIN)
